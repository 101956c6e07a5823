"""One place where score is lost."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["component", "tunnel", "cavity", "merge", "split"]
Side = Literal["prediction", "label"]


@dataclass(frozen=True, slots=True)
class Event:
    """An unmatched feature, or a place where pieces are merged or split.

    Attributes:
        kind: "component", "tunnel", "cavity" (TopoScore), "merge", "split" (VOI).
        side: whose feature it is; merges are pieces of the prediction, splits of the label.
        block: number of the TopoScore's block, 0 to 7, that holds the centre.
        centre_zyx: a voxel of it near its middle, in the whole volume.
        low_zyx: first voxel of its box.
        high_zyx: last voxel of its box.
        voxels: of the piece or cavity; of a tunnel those deepest in the hole; of a merge or split
            those of the contact.
        bits: of VOI that the whole piece costs, 0 for features.
        detail: what it is, in words.
    """

    kind: Kind
    side: Side
    block: int
    centre_zyx: tuple[int, int, int]
    low_zyx: tuple[int, int, int]
    high_zyx: tuple[int, int, int]
    voxels: int
    bits: float
    detail: str


def make_event(
    kind: Kind,
    side: Side,
    block: int,
    voxels: npt.NDArray[np.integer],
    detail: str,
    *,
    bits: float = 0.0,
) -> Event:
    """Return the event of (n, 3) voxels; its centre is the voxel nearest their mean."""
    middle = voxels.mean(0)
    centre = voxels[((voxels - middle) ** 2).sum(1).argmin()]
    return Event(
        kind, side, block, _triple(centre), _triple(voxels.min(0)), _triple(voxels.max(0)),
        len(voxels), bits, detail,
    )  # fmt: skip


def _triple(voxel: npt.NDArray[np.integer]) -> tuple[int, int, int]:
    z, y, x = (int(value) for value in voxel)
    return z, y, x


def grouped(labels: npt.NDArray[np.integer]) -> dict[int, npt.NDArray[np.int64]]:
    """Return {number: (n, 3) voxels} of every positive number of a (z, y, x) volume."""
    flat = np.flatnonzero(labels)
    names = labels.ravel()[flat]
    order = np.argsort(names, kind="stable")
    cuts = np.flatnonzero(np.diff(names[order])) + 1
    parts = [part for part in np.split(flat[order], cuts) if len(part)]
    return {
        int(labels.ravel()[part[0]]): np.stack(np.unravel_index(part, labels.shape), 1)
        for part in parts
    }
