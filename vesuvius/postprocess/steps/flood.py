"""Flooding of a list of voxels from seeds, the likeliest first: a watershed without volumes."""

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.types import FloatVolume

Ints = npt.NDArray[np.int64]
_LEVELS = 256


@compiled
def _flood(
    index: npt.NDArray[np.int32], voxels: Ints, level: Ints, label: Ints, levels: int
) -> None:
    """Give every voxel the label of the seed whose flood reaches it first, 26 neighbours.

    `index` maps a place to its row in `voxels` (-1: none); `level` is the height of each row in
    0 .. levels - 1; `label` holds seeds and 0, and is filled.
    """
    depth, height, width = index.shape
    head, tail = np.full(levels, -1, np.int64), np.full(levels, -1, np.int64)
    after = np.full(len(voxels), -1, np.int64)
    waiting = 0
    for row in range(len(voxels)):
        if label[row] > 0:
            at = level[row]
            if head[at] < 0:
                head[at] = row
            else:
                after[tail[at]] = row
            tail[at] = row
            waiting += 1
    here = 0
    while waiting > 0:
        while head[here] < 0:
            here += 1
        row = head[here]
        head[here] = after[row]
        waiting -= 1
        for code in range(27):
            z = voxels[row, 0] + code // 9 - 1
            y, x = voxels[row, 1] + code // 3 % 3 - 1, voxels[row, 2] + code % 3 - 1
            if z < 0 or y < 0 or x < 0 or z >= depth or y >= height or x >= width:
                continue
            near = index[z, y, x]
            if near < 0 or label[near] > 0:
                continue
            label[near] = label[row]
            at = max(level[near], here)
            if head[at] < 0:
                head[at] = near
            else:
                after[tail[at]] = near
            tail[at] = near
            after[near] = -1
            waiting += 1


def flood(voxels: Ints, probability: FloatVolume, seeds: Ints) -> Ints:
    """Return the seed number of each voxel, 0 where no seed is joined to it.

    Args:
        voxels: (n, 3) places, none twice.
        probability: (n,) in [0, 1]; floods rise from high to low, in 256 steps.
        seeds: (n,) positive numbers of seed voxels, 0 elsewhere.

    Source: Meyer, 1991, watershed by a hierarchical queue.
    """
    low = voxels.min(0)
    places = np.ascontiguousarray(voxels - low)
    index = np.full(places.max(0) + 1, -1, np.int32)
    index[tuple(places.T)] = np.arange(len(places), dtype=np.int32)
    level = ((1 - probability) * (_LEVELS - 1)).astype(np.int64)
    label = seeds.astype(np.int64)
    _flood(index, places, level, label, _LEVELS)
    return label
