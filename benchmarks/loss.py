"""Composite loss against a direct implementation of the original's formulation.

The original computes normals densely (central differences of every voxel, normalised), masks the
dense three-channel tensors and takes cosines of the masked values; here gradients are gathered at
surface voxels. Forward + backward, float32, one 64^3 crop with about 5 % surface by default.

    python benchmarks/loss.py [--size 64] [--repeats 15]
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.normals import NormalLoss
from vesuvius.losses.overlap import BCELoss, DiceLoss


def original_normals(mask: Tensor) -> Tensor:
    padded = F.pad(mask, (1, 1, 1, 1, 1, 1), mode="replicate")
    d = (padded[:, :, 2:, 1:-1, 1:-1] - padded[:, :, :-2, 1:-1, 1:-1]) / 2
    h = (padded[:, :, 1:-1, 2:, 1:-1] - padded[:, :, 1:-1, :-2, 1:-1]) / 2
    w = (padded[:, :, 1:-1, 1:-1, 2:] - padded[:, :, 1:-1, 1:-1, :-2]) / 2
    g = torch.cat([d, h, w], 1)
    return g / (g.norm(dim=1, keepdim=True) + 1e-8)


def original_loss(outputs: dict[str, Tensor], mask: Tensor) -> Tensor:
    """Dense formulation; the normal term is the correct one (all three components of a voxel)."""
    logit, normals = outputs["surface_logit"], outputs["normals"]
    p, t = torch.sigmoid(logit).flatten(1), mask.flatten(1)
    dice = (1 - (2 * (p * t).sum(1) + 1e-6) / (p.sum(1) + t.sum(1) + 1e-6)).mean()
    bce = F.binary_cross_entropy_with_logits(logit, mask, pos_weight=torch.tensor(10.0))
    target = original_normals(mask)
    norm_p = normals / (normals.norm(dim=1, keepdim=True) + 1e-8)
    cosine = (norm_p * target).sum(1, keepdim=True)
    where = ((mask > 0.5) & (target.norm(dim=1, keepdim=True) > 0.5)).expand_as(normals)
    masked = cosine.expand_as(normals)[where].view(-1, 3)[:, 0]
    return dice + bce + (1 - masked.mean())


def sheets(size: int) -> Tensor:
    """Tilted sheets, 2-3 voxels thick, 5 % of the crop."""
    z, y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * 3, indexing="ij")
    distance = (0.2 * z + 0.9 * y + 0.4 * x + 3 * torch.sin(x / 9)) % 48
    return (distance < 2.5).float()[None, None]


def timed(step, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.manual_seed(0)
    mask = sheets(args.size)
    outputs = {
        "surface_logit": torch.randn_like(mask).requires_grad_(),
        "normals": torch.tanh(torch.randn(1, 3, *mask.shape[2:])).requires_grad_(),
    }
    batch = {"label": mask.to(torch.uint8)}

    def composite(target: str) -> CompositeLoss:
        return CompositeLoss(
            term={
                "dice": {"weight": 1.0, "fn": DiceLoss()},
                "bce": {"weight": 1.0, "fn": BCELoss(pos_weight=10.0)},
                "normal": {"weight": 1.0, "fn": NormalLoss(target=target)},  # type: ignore[arg-type]
            }
        )

    gradient, tensor = composite("mask_gradient"), composite("structure_tensor")
    steps = {
        "original formulation (dense)": lambda: original_loss(outputs, mask).backward(),
        "ours, normal target mask_gradient": lambda: gradient(outputs, batch)["total"].backward(),
        "ours, normal target structure_tensor": lambda: tensor(outputs, batch)["total"].backward(),
    }
    runs: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        timed(step, 2)
    for _ in range(args.repeats):  # interleaved: drift of the machine hits all alike
        for name, step in steps.items():
            runs[name] += timed(step, 1)
    reference = statistics.median(next(iter(runs.values())))
    print(
        f"surface share {float(mask.mean()):.3f}, size {args.size}^3, "
        f"{torch.get_num_threads()} threads"
    )
    for name, times in runs.items():
        median = statistics.median(times)
        print(f"{name:40s} {median:8.1f} ms   {reference / median:5.2f}x")


if __name__ == "__main__":
    main()
