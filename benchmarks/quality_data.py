"""Phantoms and scores of `quality.py`: the same volumes and the same judge for every contestant."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr
from scipy import ndimage

from vesuvius.data.phantom_files import write_kaggle_phantom
from vesuvius.data.prepare import PrepareOptions, prepare_all
from vesuvius.data.sources import find_items
from vesuvius.metrics import competition_score, dice
from vesuvius.metrics.normals import normal_angles
from vesuvius.postprocess.winding_postprocess import WindingPostprocess

SIDES = {"train": (24, 0), "val": (8, 1000)}
"""Number of volumes and seed of each side: validation comes from scrolls never trained on."""
SHAPE_ZYX = (128, 128, 128)
THRESHOLD = 0.5


@dataclass(frozen=True)
class Truth:
    """One validation volume: image and label (z, y, x) uint8, true normals (3, z, y, x) int8."""

    name: str
    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    normals: npt.NDArray[np.int8]


def make_volumes(folder: Path) -> None:
    """Write `<folder>/train/*.zarr` and `<folder>/val/*.zarr`; finished ones stay."""
    for side, (count, seed) in SIDES.items():
        kaggle = folder / "kaggle" / side
        write_kaggle_phantom(kaggle, num_train=count, num_test=0, shape_zyx=SHAPE_ZYX, seed=seed)
        done = list(prepare_all(find_items(kaggle), folder / "stores" / side, PrepareOptions()))
        failed = [outcome.error for outcome in done if outcome.status == "failed"]
        if failed:
            raise SystemExit(f"preparing {side} failed: {failed[0]}")


def store_folder(folder: Path, side: str) -> Path:
    """Return where the prepared volumes of one side lie."""
    return folder / "stores" / side / "train"


def read_side(folder: Path, side: str) -> Iterator[Truth]:
    """Yield the volumes of one side by name."""
    for path in sorted(store_folder(folder, side).glob("*.zarr")):
        group = zarr.open_group(path, mode="r")
        image, label, normals = (np.asarray(group[n]) for n in ("image", "label", "normals"))
        yield Truth(path.stem, image, label, normals)


def tensor_normals(
    probability: npt.NDArray[np.float32], where: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return (3, n) normals of a probability at n voxels: major axis of its structure tensor.

    What a network without a normals head offers; sigma 1 for gradients, 2 for the average.
    """
    gradient = np.gradient(ndimage.gaussian_filter(probability, 1.0))
    tensor = np.empty((int(where.sum()), 3, 3), np.float32)
    for i in range(3):
        for j in range(i, 3):
            product = ndimage.gaussian_filter(gradient[i] * gradient[j], 2.0)
            tensor[:, i, j] = tensor[:, j, i] = product[where]
    return np.linalg.eigh(tensor)[1][..., -1].T


def score_volume(
    truth: Truth,
    probability: npt.NDArray[np.float32],
    normals: npt.NDArray[np.float32] | None,
) -> dict[str, float]:
    """Return the scores of one prediction as threshold mask and as winding mask.

    Args:
        truth: the validation volume.
        probability: (z, y, x) in [0, 1].
        normals: (3, z, y, x), or None for a network without them.
    """
    mask = (probability > THRESHOLD).astype(np.uint8)
    plain = competition_score(mask, truth.label, threads=1)
    winding = WindingPostprocess(threshold=THRESHOLD, threads=1)(probability, normals)
    solved = competition_score(winding.mask, truth.label, threads=1)
    surface = truth.label == 1
    true_normals = truth.normals[:, surface]
    by_tensor = normal_angles(tensor_normals(probability, surface), true_normals)
    angles = by_tensor if normals is None else normal_angles(normals[:, surface], true_normals)
    return {
        "dice": float(dice(mask, truth.label)),
        "surface_dice": plain.surface_dice,
        "voi": plain.voi_score,
        "topo": plain.topo,
        "score": plain.score,
        "winding": solved.score,
        "angle": float(np.nanmean(angles)),
        "angle_by_tensor": float(np.nanmean(by_tensor)),
    }


def mean_scores(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each score over volumes."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
