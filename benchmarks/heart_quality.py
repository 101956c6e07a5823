"""Held-out hearts: a trained network beside a mean atlas and nearest surface labels.

Everything is scored on the same grid of the cube against the true label map: 3-D IoU of the whole
heart, mean Dice of the classes. The baselines may look at the run's training hearts:

* mean atlas: per cell the most frequent label of the training hearts (all lie centred and scaled in
  one cube);
* nearest label: the surface points the network gets; cells nearer than a radius to one close the
  heart's hull, what is enclosed is inside and takes the class of the nearest point. The radius is
  the best one on training hearts.

    python -m benchmarks.heart_quality RUN_DIR [RUN_DIR ...] [--resolution 64] [--remove 4 7]

`--remove` hides classes from the network's input: how well are they completed?
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from vesuvius.data.heart.dataset import HeartDataset, HeartDraws
from vesuvius.data.heart.dense import true_labels
from vesuvius.data.heart.format import load_case
from vesuvius.inference.heart import cube_points, predict_points
from vesuvius.metrics.heart.metrics import HeartDenseMetric
from vesuvius.runtime.run_folder import RunFolder
from vesuvius.types import HEART_CLASSES

Labels = npt.NDArray[np.uint8]
RADII = (0.04, 0.06, 0.08, 0.1, 0.13, 0.16)


class Hearts:
    """The cases of a run: truth on the grid and input points, as in its validation."""

    def __init__(self, run: RunFolder, resolution: int, keep: Sequence[int] | None = None) -> None:
        data = run.config.data
        root = Path(data.folder) / "cases" if "folder" in data else Path(data.root)
        self.points = cube_points(resolution)
        self.draws = HeartDraws(
            sdf_size=data.sdf_size,
            point_cloud_size=data.point_cloud_size,
            input_classes=None if keep is None else tuple(keep),
        )
        self.paths = {s: [root / f"{n}.npz" for n in run.volume_ids(s)] for s in ("train", "val")}

    def truth(self, path: Path) -> Labels:
        geometry = load_case(path).geometry
        assert geometry is not None
        return true_labels(geometry, self.points)

    def surface(self, side: str) -> list[npt.NDArray[np.float32]]:
        """Return the (P, 3 + K) input of every heart."""
        dataset = HeartDataset(self.paths[side], self.draws, fixed=True)
        return [dataset[i]["surface"] for i in range(len(dataset))]


def scores(found: Sequence[Labels], truths: Sequence[Labels]) -> dict[str, float]:
    """Return the means over hearts."""
    metric = HeartDenseMetric(num_classes=len(HEART_CLASSES))
    for labels, truth in zip(found, truths, strict=True):
        metric.update(torch.from_numpy(labels), torch.from_numpy(truth))
    return {name: float(value) for name, value in metric.compute().items()}


def by_network(run: RunFolder, hearts: Hearts) -> list[Labels]:
    """Return the labels of the validation hearts by the run's best network."""
    network = run.network(run.checkpoint("best")).eval()
    found = []
    for surface in hearts.surface("val"):
        with torch.inference_mode():
            latents, _ = network.encode(torch.from_numpy(surface)[None])
        prediction = predict_points(
            lambda points, latents=latents: network.predict(latents, points),
            hearts.points,
            num_classes=network.num_classes,
            device=torch.device("cpu"),
            block=20_000,
        )
        found.append(prediction.labels)
    return found


def by_atlas(hearts: Hearts) -> Labels:
    """Return the most frequent label of every cell over the training hearts."""
    votes = np.zeros((len(HEART_CLASSES) + 1, *hearts.points.shape[:-1]), np.uint16)
    for path in hearts.paths["train"]:
        truth = hearts.truth(path)
        np.put_along_axis(votes, truth[None], np.take_along_axis(votes, truth[None], 0) + 1, 0)
    return votes.argmax(0).astype(np.uint8)


def by_nearest(
    surface: npt.NDArray[np.float32], points: npt.NDArray[np.float32], radius: float
) -> Labels:
    """Return the nearest surface point's class wherever the closed hull encloses a cell."""
    shape = points.shape[:-1]
    distance, nearest = cKDTree(surface[:, :3]).query(points.reshape(-1, 3))
    distance = distance.reshape(shape)
    filled = ndimage.binary_fill_holes(distance < radius)
    cell = 2 / shape[0]
    inside = ndimage.distance_transform_edt(filled) * cell > radius
    label = surface[nearest, 3:].argmax(1).reshape(shape) + 1
    return np.where(inside, label, 0).astype(np.uint8)


def best_radius(hearts: Hearts, *, count: int = 4) -> float:
    """Return the radius with the best class Dice on some training hearts."""
    truths = [hearts.truth(path) for path in hearts.paths["train"][:count]]
    surfaces = hearts.surface("train")[:count]
    quality = {}
    for radius in RADII:
        found = [by_nearest(surface, hearts.points, radius) for surface in surfaces]
        quality[radius] = scores(found, truths)["class_dice"]
    return max(quality, key=lambda radius: quality[radius])


def row(name: str, found: dict[str, float]) -> str:
    """Return a table row."""
    classes = " | ".join(f"{found[f'dice_class_{c}']:.3f}" for c in range(1, 11))
    return f"| {name} | {found['union_iou']:.3f} | {found['class_dice']:.3f} | {classes} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, nargs="+")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--remove", type=int, nargs="*", default=[])
    parser.add_argument("--gap", type=float, help="instead of the run's model.gap")
    args = parser.parse_args()
    keep = [c for c in range(1, 11) if c not in args.remove] if args.remove else None
    first = Hearts(RunFolder(args.run_dir[0]), args.resolution, keep)
    truths = [first.truth(path) for path in first.paths["val"]]
    print(
        f"{len(truths)} held-out hearts, {args.resolution}^3 cells, removed: {args.remove or '-'}"
    )
    print("| | 3-D IoU | Dice | " + " | ".join(HEART_CLASSES) + " |")
    print("|---" * 13 + "|")
    atlas = by_atlas(first)
    print(row("mean atlas", scores([atlas] * len(truths), truths)))
    radius = best_radius(first)
    nearest = [by_nearest(surface, first.points, radius) for surface in first.surface("val")]
    print(row(f"nearest label (radius {radius})", scores(nearest, truths)))
    for path in args.run_dir:
        run = RunFolder(path)
        if args.gap is not None:
            run.config.model.gap = args.gap
        hearts = Hearts(run, args.resolution, keep)
        own = [hearts.truth(p) for p in hearts.paths["val"]]
        print(row(path.name, scores(by_network(run, hearts), own)))


if __name__ == "__main__":
    main()
