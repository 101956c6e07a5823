"""What adding or removing one voxel does to the topology: a look at its 26 neighbours.

The TopoScore's foreground is a cubical complex with voxels as vertices (6-connected). What voxel v
hangs on is its link: its foreground 6-neighbours e, the squares f and the cubes c around v whose
other voxels are all foreground. Adding v changes the Euler characteristic by 1 - e + f - c, and
changes nothing at all if the link is one piece without a ring (v is simple).

Source: Kong and Rosenfeld, "Digital topology", 1989; Bertrand and Malandain, 1994, for simple.
"""

from itertools import product

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.types import ByteVolume

Ints = npt.NDArray[np.int64]


def _code(*step: int) -> int:
    """Return the number of a neighbour at (dz, dy, dx), 0 to 26."""
    return (step[0] + 1) * 9 + (step[1] + 1) * 3 + step[2] + 1


STEPS = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)])
"""(6, 3) the six face neighbours."""
_VERTICES = np.array([_code(*step) for step in STEPS.tolist()])
_SQUARES = np.array([
    (one, other, _code(*(STEPS[one] + STEPS[other]).tolist()))
    for one, other in product(range(6), repeat=2)
    if one // 2 < other // 2
])  # fmt: skip
_CUBES = np.array([
    [_code(z * a, y * b, x * c) for a, b, c in product((0, 1), repeat=3) if a or b or c]
    for z, y, x in product((-1, 1), repeat=3)
])  # fmt: skip


@compiled
def is_set(mask: ByteVolume, z: int, y: int, x: int) -> bool:
    """Return mask[z, y, x] != 0, and False beyond the volume."""
    if z < 0 or y < 0 or x < 0:
        return False
    if z >= mask.shape[0] or y >= mask.shape[1] or x >= mask.shape[2]:
        return False
    return bool(mask[z, y, x] != 0)


@compiled
def _neighbours(mask: ByteVolume, z: int, y: int, x: int) -> int:
    """Return the 27 voxels around a place as bits of one number."""
    bits = 0
    for code in range(27):
        if is_set(mask, z + code // 9 - 1, y + code // 3 % 3 - 1, x + code % 3 - 1):
            bits |= 1 << code
    return bits


@compiled
def _num_cubes(bits: int) -> int:
    """Return how many of the eight cubes around the voxel are foreground but for it."""
    count = 0
    for cube in range(8):
        whole = 1
        for corner in range(7):
            whole &= bits >> _CUBES[cube, corner]
        count += whole & 1
    return count


@compiled
def link_counts(mask: ByteVolume, z: int, y: int, x: int) -> tuple[int, int]:
    """Return (pieces, Euler change of adding the voxel) of the link of a voxel.

    `pieces` counts the foreground 6-neighbours that no squares around the voxel join.
    """
    bits = _neighbours(mask, z, y, x)
    vertices = 0
    for k in range(6):
        vertices += bits >> _VERTICES[k] & 1
    if vertices == 0:
        return 0, 1
    root = [0, 1, 2, 3, 4, 5]
    pieces, squares = vertices, 0
    for k in range(12):
        one, other = _SQUARES[k, 0], _SQUARES[k, 1]
        if bits >> _VERTICES[one] & bits >> _VERTICES[other] & bits >> _SQUARES[k, 2] & 1:
            squares += 1
            old, new = root[other], root[one]
            pieces -= old != new
            for j in range(6):
                if root[j] == old:
                    root[j] = new
    return pieces, 1 - vertices + squares - _num_cubes(bits)


@compiled
def peel(mask: ByteVolume, candidates: Ints) -> None:
    """Remove simple candidates (flat indices, in that order) from the mask until none is left.

    The mask keeps its topology. Source: Pudney, 1998, distance-ordered homotopic thinning.
    """
    _, height, width = mask.shape
    waiting = candidates.copy()
    size = len(waiting)
    while True:
        kept = 0
        for place in range(size):
            at = waiting[place]
            z, y, x = at // (height * width), at // width % height, at % width
            pieces, change = link_counts(mask, z, y, x)
            if pieces == 1 and change == 0:
                mask[z, y, x] = 0
            else:
                waiting[kept] = at
                kept += 1
        if kept == size:
            return
        size = kept
