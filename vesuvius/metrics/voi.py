"""Variation of information between the 26-connected pieces of prediction and label."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vesuvius.metrics.compiled import compiled
from vesuvius.metrics.masks import Mask, foreground_pair
from vesuvius.metrics.runs import CORNERS, Ints, Runs, component_roots, find_runs
from vesuvius.metrics.workers import map_threads

VOI_ALPHA = 0.3
_DENSE_TABLE = 1 << 22


class VoiResult(NamedTuple):
    """Variation of information in bits, and its score.

    Attributes:
        score: 1 / (1 + alpha (split + merge)), in (0, 1].
        split: H(prediction | label): one label piece predicted as several.
        merge: H(label | prediction): several label pieces predicted as one.
    """

    score: float
    split: float
    merge: float


@compiled
def _shared_lengths(
    first_a: Ints, stop_a: Ints, line_a: Ints, first_b: Ints, stop_b: Ints, line_b: Ints
) -> tuple[Ints, Ints, Ints]:
    """Return (run of a, run of b, shared voxels) of all overlapping runs."""
    size = len(first_a) + len(first_b)
    one, other, shared = (
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
    )
    found = 0
    for line in range(len(line_a) - 1):
        a, b = line_a[line], line_b[line]
        while a < line_a[line + 1] and b < line_b[line + 1]:
            length = min(stop_a[a], stop_b[b]) - max(first_a[a], first_b[b])
            if length > 0:
                one[found], other[found], shared[found] = a, b, length
                found += 1
            if stop_a[a] < stop_b[b]:
                a += 1
            else:
                b += 1
    return one[:found], other[:found], shared[:found]


def _pieces(mask: Mask) -> tuple[Runs, Ints, Ints]:
    """Return the runs, the piece number (from 0) of each and the voxels of each piece."""
    runs = find_runs(mask.view(np.uint8))
    root = component_roots(runs, height=mask.shape[1], reach=CORNERS)
    own = root == np.arange(len(root))
    piece = (np.cumsum(own) - 1)[root]
    sizes = np.bincount(piece, runs.stop - runs.first, minlength=int(own.sum())).astype(np.int64)
    return runs, piece, sizes


def _joint(a: Ints, b: Ints, shared: Ints, shape: tuple[int, int]) -> tuple[Ints, Ints, Ints]:
    """Return (piece of a, piece of b, voxels) of all pairs that share voxels."""
    key = a * shape[1] + b
    if shape[0] * shape[1] <= _DENSE_TABLE:
        table = np.bincount(key, shared, minlength=1)
        pairs = np.flatnonzero(table)
        counts = table[pairs]
    else:
        pairs, inverse = np.unique(key, return_inverse=True)
        counts = np.bincount(inverse, shared)
    return pairs // max(shape[1], 1), pairs % max(shape[1], 1), counts.astype(np.int64)


def _conditional_bits(joint: npt.NDArray[np.float64], given: npt.NDArray[np.float64]) -> float:
    return max(float((joint * np.log2(given / joint)).sum()), 0.0)


def masks_voi(prediction: Mask, label: Mask, *, alpha: float, threads: int | None) -> VoiResult:
    """Return the variation of information of two (z, y, x) boolean masks."""
    (runs_p, piece_p, size_p), (runs_g, piece_g, size_g) = map_threads(
        _pieces, [prediction, label], threads=threads
    )
    run_p, run_g, shared = _shared_lengths(*runs_p, *runs_g)
    i, j, both = _joint(piece_p[run_p], piece_g[run_g], shared, (len(size_p), len(size_g)))
    # Background is one more label of each; the joint table covers the union of foregrounds only.
    only_p = size_p - np.bincount(i, both, minlength=len(size_p)).astype(np.int64)
    only_g = size_g - np.bincount(j, both, minlength=len(size_g)).astype(np.int64)
    total = int(both.sum() + only_p.sum() + only_g.sum())
    if total == 0:
        return VoiResult(1.0, 0.0, 0.0)
    lonely_p, lonely_g = np.flatnonzero(only_p), np.flatnonzero(only_g)
    joint = np.concatenate([both, only_p[lonely_p], only_g[lonely_g]]) / total
    none_p, none_g = np.full(len(lonely_g), only_g.sum()), np.full(len(lonely_p), only_p.sum())
    given_p = np.concatenate([size_p[i], size_p[lonely_p], none_p]) / total
    given_g = np.concatenate([size_g[j], none_g, size_g[lonely_g]]) / total
    split, merge = _conditional_bits(joint, given_g), _conditional_bits(joint, given_p)
    return VoiResult(1.0 / (1.0 + alpha * (split + merge)), split, merge)


def voi_score(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ignore_label: int | None = 2,
    ignore_mask: npt.ArrayLike | None = None,
    alpha: float = VOI_ALPHA,
    threads: int | None = None,
) -> VoiResult:
    """Return split, merge (bits) and score of the pieces of two masks.

    Entropies are taken over the union of foregrounds, background counting as one label: a whole
    sheet that is missing costs nothing here. An empty union scores 1.

    Args:
        prediction: (z, y, x); non-zero is surface, NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value that becomes background in both; None for none.
        ignore_mask: (z, y, x) further voxels to ignore, or None.
        alpha: weight of one bit in the score.
        threads: masks at a time; None takes the CPUs this process may use.

    Raises:
        ShapeMismatchError: if shapes differ.
        VolumeFormatError: if an array is not 3-D or is empty.

    Source: Meila, "Comparing clusterings", 2003; the score is the competition's.
    """
    pair = foreground_pair(prediction, label, ignore_label=ignore_label, ignore_mask=ignore_mask)
    return masks_voi(*pair, alpha=alpha, threads=threads)
