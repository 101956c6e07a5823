"""How well sheets are told apart, where the true wrap numbers are known (phantoms)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ShapeMismatchError


@dataclass(frozen=True, slots=True)
class WrapAccuracy:
    """Sheet numbers against true wrap numbers, over the voxels with a true wrap.

    Attributes:
        right: share with the true wrap number after the best sign and whole offset; voxels without
            a sheet number count as wrong.
        sign: best sign, 1 or -1.
        offset: best offset: true = sign * predicted + offset.
        covered: share of true voxels that have a sheet number.
        voi_split: H(predicted | true) in bits over covered voxels.
        voi_merge: H(true | predicted) in bits over covered voxels.
        merged: sheets that hold at least two wraps.
        split: wraps that are held by at least two sheets.
        sheets: sheets seen.
        wraps: wraps seen.
        voxels: voxels with a true wrap.
    """

    right: float
    sign: int
    offset: int
    covered: float
    voi_split: float
    voi_merge: float
    merged: int
    split: int
    sheets: int
    wraps: int
    voxels: int


def _best_fit(own: npt.NDArray[np.int64], true: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Return (voxels right, sign, offset) of the best whole offset; +1 wins ties."""
    best = (0, 1, 0)
    for sign in (1, -1):
        offsets, counts = np.unique(true - sign * own, return_counts=True)
        if len(counts) and counts.max() > best[0]:
            best = (int(counts.max()), sign, int(offsets[counts.argmax()]))
    return best


def wrap_accuracy(
    sheets: npt.ArrayLike,
    wraps: npt.ArrayLike,
    *,
    background: int = 0,
    min_share: float = 0.05,
    min_voxels: int = 20,
) -> WrapAccuracy:
    """Return how well predicted sheet numbers agree with true wrap numbers.

    Args:
        sheets: (z, y, x) whole numbers; `background` means no sheet.
        wraps: (z, y, x) true wrap numbers; `background` means unknown or no surface.
        background: the value that is no number.
        min_share: a wrap counts as held by a sheet (and the other way round) only if their shared
            voxels are at least this share of both the smaller one and
        min_voxels: this many voxels.

    Raises:
        ShapeMismatchError: if shapes differ.
    """
    own, true = np.asarray(sheets), np.asarray(wraps)
    if own.shape != true.shape:
        raise ShapeMismatchError(
            f"wrap_accuracy: sheets have shape {own.shape}, wraps {true.shape}; expected the same"
        )
    known = true != background
    voxels = int(np.count_nonzero(known))
    covered = known & (own != background)
    a, b = own[covered].astype(np.int64), true[covered].astype(np.int64)
    right, sign, offset = _best_fit(a, b)
    names_a, at_a = np.unique(a, return_inverse=True)
    names_b, at_b = np.unique(b, return_inverse=True)
    table = np.bincount(at_a * len(names_b) + at_b, minlength=len(names_a) * len(names_b))
    table = table.reshape(len(names_a), len(names_b))
    size_a, size_b = table.sum(1, keepdims=True), table.sum(0, keepdims=True)
    least = np.maximum(min_share * np.minimum(size_a, size_b), min_voxels)
    held = table >= np.maximum(least, 1)
    rows, columns = np.nonzero(table)
    joint = table[rows, columns] / max(len(a), 1)
    split = joint @ np.log2(size_b[0, columns] / table[rows, columns])
    merge = joint @ np.log2(size_a[rows, 0] / table[rows, columns])
    return WrapAccuracy(
        right=right / voxels if voxels else float("nan"),
        sign=sign,
        offset=offset,
        covered=len(a) / voxels if voxels else float("nan"),
        voi_split=float(split),
        voi_merge=float(merge),
        merged=int((held.sum(1) > 1).sum()),
        split=int((held.sum(0) > 1).sum()),
        sheets=len(names_a),
        wraps=len(names_b),
        voxels=voxels,
    )
