"""Looks at labelled volumes before a training run wastes a night on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.data.prepare import MAX_SURFACE_SHARE, label_values
from vesuvius.data.sources import find_items
from vesuvius.data.store import PreparedVolume
from vesuvius.data.volume import Volume, check_float_range, open_volume
from vesuvius.errors import (
    ConfigError,
    PairingError,
    ShapeMismatchError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from vesuvius.types import BACKGROUND, IGNORE, SURFACE

Array = npt.NDArray[Any]

WARN_SURFACE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its label, wherever they lie."""

    volume_id: str
    image: Volume
    label: Volume


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """What was found in one volume; shares are of all its voxels.

    Attributes:
        volume_id: its name.
        shape_zyx: voxels.
        dtype: of the image.
        grey_range: smallest and largest grey value.
        values: label values that occur.
        counts: number of voxels labelled background, surface, ignore.
    """

    volume_id: str
    shape_zyx: tuple[int, int, int]
    dtype: str
    grey_range: tuple[float, float]
    values: tuple[int, ...]
    counts: tuple[int, int, int]

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of background, surface and ignore among all voxels."""
        return shares(self.counts)


def find_pairs(path: Path) -> list[Pair]:
    """Return the labelled volumes of a prepared folder or of a source, sorted by name.

    Raises:
        VolumeNotFoundError: nothing there.
        PairingError: no labels, or images and labels that do not pair up.
    """
    if not path.exists():
        raise VolumeNotFoundError(f"{path}: no such file or folder")
    stores = _stores(path)
    if stores:
        pairs = [
            Pair(
                store.volume_id,
                Volume(store.path, array="image"),
                Volume(store.path, array="label"),
            )
            for store in stores
            if store.has("label")
        ]
    else:
        pairs = [
            Pair(item.volume_id, Volume(item.image), Volume(item.label))
            for item in find_items(path)
            if item.label is not None
        ]
    if not pairs:
        raise PairingError(
            f"{path}: holds volumes but no labels; expected a prepared folder or a Kaggle-layout "
            "root with train_images and train_labels"
        )
    return pairs


def sample_pairs(pairs: Sequence[Pair], num: int, seed: int) -> list[Pair]:
    """Return `num` of the pairs drawn without replacement (all if there are fewer), by name."""
    if num < 1:
        raise ConfigError(f"num is {num}; expected 1 or more (--num)")
    if num >= len(pairs):
        return list(pairs)
    chosen = np.random.default_rng(seed).choice(len(pairs), num, replace=False)
    return [pairs[i] for i in sorted(chosen)]


def inspect_pair(pair: Pair) -> LabelFacts:
    """Return the facts of one volume.

    Raises:
        ShapeMismatchError: image and label differ in shape.
        LabelValueError: label values beyond 0, 1, 2.
        VolumeFormatError: unreadable, NaN, floats out of range.
    """
    image, label = open_volume(pair.image.path, array=pair.image.array), pair.label
    if image.shape_zyx != label.shape_zyx:
        raise ShapeMismatchError(
            f"{label.path}: shape {label.shape_zyx}; its image has {image.shape_zyx}"
        )
    counts = np.zeros(3, np.int64)
    low, high = np.inf, -np.inf
    depth = max(1, 2**26 // (image.shape_zyx[1] * image.shape_zyx[2]))
    for z in range(0, image.shape_zyx[0], depth):
        stop = (min(z + depth, image.shape_zyx[0]), *image.shape_zyx[1:])
        grey = image.read((z, 0, 0), stop)
        if image.dtype not in (np.uint8, np.uint16):
            check_float_range(grey, str(image.path))
        low, high = min(low, float(grey.min())), max(high, float(grey.max()))
        values = label_values(label.read((z, 0, 0), stop), str(label.path))
        counts += np.bincount(values.ravel(), minlength=3)
    if low == high:
        raise VolumeFormatError(f"{image.path}: every voxel has the grey value {low:g}")
    return LabelFacts(
        pair.volume_id,
        image.shape_zyx,
        str(image.dtype),
        (low, high),
        tuple(int(v) for v in np.flatnonzero(counts)),
        (int(counts[BACKGROUND]), int(counts[SURFACE]), int(counts[IGNORE])),
    )


def shares(counts: Sequence[int]) -> tuple[float, float, float]:
    """Return background, surface and ignore counts as shares of their sum."""
    total = max(1, sum(counts))
    return (counts[0] / total, counts[1] / total, counts[2] / total)


def verdict(counts: Sequence[int], where: str) -> tuple[str, str]:
    """Return ("ok" | "warn" | "refuse", one line that says why) for label counts.

    The share is that of surface among all voxels: 5 % is usual, over 30 % is suspicious, over 90 %
    is the solid papyrus mask.
    """
    share = shares(counts)[SURFACE]
    if counts[SURFACE] == 0:
        return "warn", f"{where}: no surface voxel at all; nothing can be learnt from it"
    if share > MAX_SURFACE_SHARE:
        return "refuse", (
            f"{where}: {share:.1%} of the voxels are surface; a surface label has about "
            "5 %. This is a solid mask of the papyrus: export the surface, not its volume"
        )
    if share > WARN_SURFACE_SHARE:
        return "warn", (
            f"{where}: {share:.1%} of the voxels are surface; a surface label has about "
            "5 %. Look at the picture: are these lines 2 to 3 voxels thick?"
        )
    return "ok", f"{where}: {share:.1%} of the voxels are surface"


def _stores(path: Path) -> list[PreparedVolume]:
    """Return prepared volumes at `path`: itself, inside it, or inside its train folder."""
    candidates = [path, *sorted(path.glob("*.zarr")), *sorted(path.glob("train/*.zarr"))]
    found = []
    for candidate in candidates:
        try:
            found.append(PreparedVolume(candidate))
        except (VolumeNotFoundError, VolumeFormatError):
            continue  # some other Zarr: read as a source
    return found
