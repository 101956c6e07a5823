"""Cost of every loss term: forward and backward on one crop, one thread, milliseconds of CPU.

    python -m benchmarks.loss_terms [--size 64] [--repeats 7]

Sheets of 2 to 3 voxels, 5 % of the crop, a tenth of it ignored; the terms as conf/loss/term sets
them. Rounds are interleaved; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.loss import sheets
from vesuvius.losses.boundary import BoundaryLoss
from vesuvius.losses.cldice import CenterlineDiceLoss
from vesuvius.losses.composite import LossTerm, label_targets
from vesuvius.losses.focal_tversky import FocalTverskyLoss
from vesuvius.losses.labels import LabelProcessing
from vesuvius.losses.normals import NormalLoss
from vesuvius.losses.overlap import BCELoss, DiceLoss
from vesuvius.losses.recall import MedialRecallLoss
from vesuvius.losses.sdf import SDFLoss
from vesuvius.losses.separation import SheetSeparationLoss
from vesuvius.losses.skeleton_recall import SkeletonRecallLoss
from vesuvius.losses.surface_dice import SurfaceDiceLoss

TERMS: dict[str, Callable[[], LossTerm]] = {
    "dice": DiceLoss,
    "bce": BCELoss,
    "normal": NormalLoss,
    "focal_tversky": FocalTverskyLoss,
    "boundary": BoundaryLoss,
    "sdf": lambda: SDFLoss(distance=4),
    "medial_recall": MedialRecallLoss,
    "skeleton_recall": SkeletonRecallLoss,
    "surface_dice": SurfaceDiceLoss,
    "separation": SheetSeparationLoss,
    "cldice": CenterlineDiceLoss,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    mask = sheets(args.size)
    label = mask.to(torch.uint8)
    label[..., : args.size // 10] = 2
    noisy = (6 * mask - 3 + torch.randn_like(mask)).requires_grad_()
    outputs = {
        "surface_logit": noisy,
        "normals": torch.tanh(torch.randn(1, 3, *mask.shape[2:])).requires_grad_(),
        "sdf": torch.randn_like(mask).requires_grad_(),
    }
    terms = {name: build() for name, build in TERMS.items()}
    process = LabelProcessing(min_voxels=50)

    def step(name: str) -> Tensor:
        fresh = label.clone()  # a new batch: nothing of the label is known yet
        if name == "labels (processing)":
            return process(fresh)
        loss = terms[name](outputs, label_targets({"label": fresh}))
        loss.backward()
        return loss

    names = [*terms, "labels (processing)"]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(args.repeats + 1):
        for name in names:
            start = time.process_time()
            step(name)
            if turn:
                times[name].append(1e3 * (time.process_time() - start))
    print(f"{args.size}^3, one thread\n\n| term | ms | share of clDice |\n|---|---|---|")
    slowest = statistics.median(times["cldice"])
    for name in names:
        median = statistics.median(times[name])
        print(f"| `{name}` | {median:.1f} | {100 * median / slowest:.1f} % |")


if __name__ == "__main__":
    main()
