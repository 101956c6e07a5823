"""TopoScore: components, tunnels and cavities matched between prediction and label."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError
from vesuvius.metrics.cell_counts import count_cells
from vesuvius.metrics.masks import foreground_pair
from vesuvius.metrics.topology_components import match_cavities, match_components
from vesuvius.metrics.topology_tunnels import match_tunnels
from vesuvius.metrics.workers import map_threads

Counts = dict[int, tuple[int, int, int]]
"""k -> (matched, prediction, label)."""
TOPO_WEIGHTS = (0.34, 0.33, 0.33)


class BlockCounts(NamedTuple):
    """Feature counts of one block of the volume.

    Attributes:
        origin_zyx: first voxel of the block.
        shape_zyx: its size in voxels.
        counts: {k: (matched, prediction, label)}.
    """

    origin_zyx: tuple[int, int, int]
    shape_zyx: tuple[int, int, int]
    counts: Counts


def block_slices(shape: Sequence[int]) -> list[tuple[slice, ...]]:
    """Return the slices of the (at most 8) blocks: each axis in two, the first part larger."""
    halves = []
    for size in shape:
        bounds = sorted({0, (size + 1) // 2, size})
        halves.append([slice(a, b) for a, b in pairwise(bounds)])
    return list(product(*halves))


def match_block(prediction: npt.NDArray[np.bool_], label: npt.NDArray[np.bool_]) -> Counts:
    """Return {k: (matched, prediction, label)} of two (z, y, x) boolean masks taken as one block.

    Features are finite bars: the piece that never dies is not counted, so one piece alone gives 0.
    """
    code = np.array(prediction, np.uint8, order="C")
    code += label * np.uint8(2)
    code += (code != 0) * np.uint8(4)
    cells = count_cells(code)
    matched, prediction_0, label_0, pieces = match_components(code)
    counts = {0: (matched, prediction_0, label_0), 2: match_cavities(code)}
    # First Betti number from the Euler characteristic of the runs' complex.
    euler = cells[0] - cells[1] + cells[2]
    prediction_1 = pieces[1] + counts[2][1] - int(euler[0])
    label_1 = pieces[2] + counts[2][2] - int(euler[1])
    matched_1 = match_tunnels(code, cells)[0] if prediction_1 and label_1 else 0
    return {0: counts[0], 1: (matched_1, prediction_1, label_1), 2: counts[2]}


def match_blocks(
    prediction: npt.NDArray[np.bool_],
    label: npt.NDArray[np.bool_],
    *,
    threads: int | None = None,
) -> list[BlockCounts]:
    """Return the counts of each block; where features are lost shows here.

    Args:
        prediction: (z, y, x) bool.
        label: (z, y, x) bool.
        threads: blocks at a time; None takes the CPUs this process may use.
    """
    blocks = block_slices(prediction.shape)

    def count(block: tuple[slice, ...]) -> BlockCounts:
        found = match_block(
            np.ascontiguousarray(prediction[block]), np.ascontiguousarray(label[block])
        )
        z, y, x = ((part.start, part.stop - part.start) for part in block)
        return BlockCounts((z[0], y[0], x[0]), (z[1], y[1], x[1]), found)

    return map_threads(count, blocks, threads=threads)


def sum_counts(blocks: Sequence[BlockCounts]) -> Counts:
    """Return {k: (matched, prediction, label)} summed over blocks."""
    total = np.array([[block.counts[k] for k in range(3)] for block in blocks]).sum(0)
    return {k: (int(m), int(p), int(g)) for k, (m, p, g) in enumerate(total)}


def score_counts(
    counts: Mapping[int, tuple[int, int, int]], weights: Sequence[float] = TOPO_WEIGHTS
) -> float:
    """Return the TopoScore in [0, 1] of summed counts.

    F_k = 2 matched / (prediction + label); with no label feature 0.5 / (prediction + 0.5); a k that
    neither has is left out and the weights renormalised; 1 if all are left out.

    Raises:
        ConfigError: if `weights` are not three non-negative numbers.
    """
    if len(weights) != 3 or min(weights) < 0:
        raise ConfigError(f"topo weights must be three numbers >= 0 for k = 0, 1, 2, got {weights}")
    total = weight_sum = 0.0
    for k, (matched, prediction, label) in counts.items():
        if prediction + label == 0:
            continue
        own = 2 * matched / (prediction + label) if label else 0.5 / (prediction + 0.5)
        total += weights[k] * own
        weight_sum += weights[k]
    return total / weight_sum if weight_sum > 0 else 1.0


def topo_score(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ignore_label: int | None = 2,
    ignore_mask: npt.ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[float, Counts]:
    """Return the TopoScore in [0, 1] and its counts {k: (matched, prediction, label)}.

    Args:
        prediction: (z, y, x); non-zero is surface, NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value that becomes background in both; None for none.
        ignore_mask: (z, y, x) further voxels to ignore, or None.
        threads: blocks at a time; None takes the CPUs this process may use.

    Raises:
        ShapeMismatchError: if shapes differ.
        VolumeFormatError: if an array is not 3-D or is empty.
    """
    pair = foreground_pair(prediction, label, ignore_label=ignore_label, ignore_mask=ignore_mask)
    counts = sum_counts(match_blocks(*pair, threads=threads))
    return score_counts(counts), counts
