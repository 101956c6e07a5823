"""How far the normal loss's targets are from the true normals, on the phantom's labels.

Targets come from the label alone (that is all that real data offers); the phantom knows the truth.

    python benchmarks/normals.py [--size 96] [--seeds 4]
"""

import argparse

import numpy as np
import torch

from vesuvius.data.phantom import make_phantom
from vesuvius.losses.normals import NormalLoss, NormalTarget


def angles(seed: int, size: int, target: NormalTarget, blocks: int) -> tuple[float, float, float]:
    """Return mean and 95th percentile of the angle in degrees, and the share without a target."""
    phantom = make_phantom((size, size, size), seed=seed)
    label = torch.from_numpy(phantom.label)[None, None]
    loss = NormalLoss(target=target, window_blocks=blocks)
    where, found = loss.target_normals((label == 1).float(), (label != 2).float())
    _, z, y, x = where.unbind(1)
    truth = torch.from_numpy(phantom.normals)[:, z, y, x].T
    known = found.norm(dim=1) > 0.5
    cosine = (found[known] * truth[known]).sum(1).abs().clamp(max=1)
    degrees = torch.rad2deg(torch.arccos(cosine)).numpy()
    return float(degrees.mean()), float(np.percentile(degrees, 95)), 1 - float(known.float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    rows: list[tuple[NormalTarget, int]] = [
        ("mask_gradient", 3),
        ("structure_tensor", 1),
        ("structure_tensor", 3),
        ("structure_tensor", 5),
    ]
    print("target            blocks   mean angle   95 %   without a target")
    for target, blocks in rows:
        mean, high, without = np.mean(
            [angles(seed, args.size, target, blocks) for seed in range(args.seeds)], axis=0
        )
        print(f"{target:17s} {blocks:6d} {mean:11.1f} {high:6.1f} {without:18.3f}")


if __name__ == "__main__":
    main()
