"""Index of the blocks of a label volume that hold surface: a positive crop in O(1), exactly.

One surface voxel is kept for each 8 x 8 x 8 block that has any. A crop placed so that it contains
that voxel contains surface, whatever its size; drawing a block, not a voxel, spreads the crops
evenly over the surface. 320^3 with 4.5 % surface in sheets: 13 570 entries of 12 bytes.

Source: own; replaces the original's rejection sampling (up to 10 draws, hit rate 0.39 to 0.68).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.types import SURFACE

BLOCK = 8
"""Edge of an index block in voxels."""


def positive_voxels(
    label: npt.NDArray[Any],
    *,
    offset_zyx: tuple[int, int, int] = (0, 0, 0),
    seed: int = 0,
    block: int = BLOCK,
) -> npt.NDArray[np.int32]:
    """Return one surface voxel per block that has any.

    Args:
        label: (z, y, x), values 0, 1, 2; only 1 counts.
        offset_zyx: where `label` lies in its volume, whose blocks begin at its own 0.
        seed: which voxel of a block is kept is drawn from it.
        block: edge of a block in voxels.

    Returns:
        (n, 3) int32 coordinates z, y, x in the volume, ordered by block.
    """
    flat = np.flatnonzero(label == SURFACE)
    if len(flat) == 0:
        return np.empty((0, 3), np.int32)
    # The first voxel of each block after a shuffle is a random one of that block.
    flat = np.random.default_rng(seed).permutation(flat)
    voxels = np.stack(np.unravel_index(flat, label.shape), 1) + np.asarray(offset_zyx)
    return one_per_block(voxels.astype(np.int32), block)


def one_per_block(voxels: npt.NDArray[np.int32], block: int = BLOCK) -> npt.NDArray[np.int32]:
    """Return the first of the (n, 3) voxels in each block, ordered by block."""
    if len(voxels) == 0:
        return voxels
    blocks = voxels // block
    low = blocks.min(0)
    grid = blocks.max(0) - low + 1
    numbers = np.ravel_multi_index(tuple((blocks - low).T), tuple(grid))
    _, first = np.unique(numbers, return_index=True)
    found: npt.NDArray[np.int32] = voxels[first]
    return found
