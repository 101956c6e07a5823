"""Hole plugging by a 2x2x2 look-up table.

In the TopoScore the foreground is 6-connected and the background 26-connected: a sheet leaks
wherever four, six or eight voxels around a point let two background voxels see each other through
it. Both kinds of leak show in a cube of 2x2x2 voxels: its foreground falls into several 6-connected
pieces (a diagonal contact), or it is the ring of six voxels around a space diagonal. The table
holds, for each of the 256 cubes, the smallest sets of voxels whose addition leaves the cube's
foreground in one piece without a ring. Once no cube changes, components are the same for 6 and for
26 neighbours: 26-neighbours share a cube, and in it they are joined.

Source: own; the competition's 1st place plugs holes by a 2x2x2 table of its own making.
"""

from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.steps.state import (
    ChainState,
    Mask,
    check_at_least,
    check_between,
    mask_of,
)
from vesuvius.postprocess.winding.jit import compiled
from vesuvius.types import ByteVolume, FloatVolume

Codes = npt.NDArray[np.int64]
_EDGES = [(a, b) for a, b in combinations(range(8), 2) if (a ^ b).bit_count() == 1]
_FACES = [
    tuple(corner for corner in range(8) if corner >> axis & 1 == side)
    for axis in range(3)
    for side in (0, 1)
]


def is_tight(code: int) -> bool:
    """Return whether a cube's foreground is empty, or one 6-connected piece without a ring.

    Bit i of `code` is the voxel at (z, y, x) = (i >> 2 & 1, i >> 1 & 1, i & 1).
    """
    corners = [corner for corner in range(8) if code >> corner & 1]
    if not corners:
        return True
    edges = [(a, b) for a, b in _EDGES if code >> a & code >> b & 1]
    faces = sum(all(code >> corner & 1 for corner in face) for face in _FACES)
    reached, grown = {corners[0]}, True
    while grown:
        grown = False
        for a, b in edges:
            if (a in reached) != (b in reached):
                reached |= {a, b}
                grown = True
    euler = len(corners) - len(edges) + faces - (code == 255)
    return len(reached) == len(corners) and euler == 1


def smallest_plugs(code: int) -> list[int]:
    """Return the smallest sets of voxels (as codes) that make a cube tight; [] if it is."""
    if is_tight(code):
        return []
    empty = [corner for corner in range(8) if not code >> corner & 1]
    for size in range(1, len(empty) + 1):
        plugs = [sum(1 << c for c in chosen) for chosen in combinations(empty, size)]
        found = [plug for plug in plugs if is_tight(code | plug)]
        if found:
            return found
    raise AssertionError("the full cube is tight")


@cache
def plug_table() -> tuple[Codes, Codes]:
    """Return (257,) starts and the flat list of `smallest_plugs` of all 256 codes."""
    plugs = [smallest_plugs(code) for code in range(256)]
    starts = np.concatenate([[0], np.cumsum([len(found) for found in plugs])])
    return starts.astype(np.int64), np.array([p for found in plugs for p in found], np.int64)


@compiled
def _best_plug(
    p: FloatVolume, at: tuple[int, int, int], first: int, last: int, plugs: Codes
) -> tuple[int, float]:
    """Return the plug of plugs[first:last] with the highest mean probability, and that mean."""
    best, best_mean = 0, -1.0
    for index in range(first, last):
        total, count = 0.0, 0
        for corner in range(8):
            if plugs[index] >> corner & 1:
                z, y, x = at[0] + (corner >> 2 & 1), at[1] + (corner >> 1 & 1), at[2] + (corner & 1)
                total += p[z, y, x]
                count += 1
        if total / count > best_mean:
            best, best_mean = plugs[index], total / count
    return best, best_mean


@compiled
def _plug_pass(
    mask: ByteVolume, p: FloatVolume, starts: Codes, plugs: Codes, min_probability: float
) -> int:
    """Plug every cube once, in scan order, in place; return the voxels added."""
    added = 0
    depth, height, width = mask.shape
    for z in range(depth - 1):
        for y in range(height - 1):
            code = 0
            for line in range(4):
                code |= mask[z + (line >> 1), y + (line & 1), 0] << (2 * line + 1)
            for x in range(width - 1):
                code = code >> 1 & 0x55
                for line in range(4):
                    code |= mask[z + (line >> 1), y + (line & 1), x + 1] << (2 * line + 1)
                if starts[code] == starts[code + 1]:
                    continue
                plug, mean = _best_plug(p, (z, y, x), starts[code], starts[code + 1], plugs)
                if mean < min_probability:
                    continue
                code |= plug
                for corner in range(8):
                    if plug >> corner & 1:
                        mask[z + (corner >> 2 & 1), y + (corner >> 1 & 1), x + (corner & 1)] = 1
                        added += 1
    return added


def plug_holes(
    mask: Mask, probability: FloatVolume, *, min_probability: float = 0.0, rounds: int = 50
) -> tuple[Mask, int]:
    """Return the mask with leaking 2x2x2 cubes plugged, and how many voxels were added.

    Of the smallest plugs of a cube the likeliest is taken. Passes go on until nothing changes, or
    `rounds` times; only adds voxels.
    """
    out = np.ascontiguousarray(mask).astype(np.uint8)
    starts, plugs = plug_table()
    total = 0
    for _ in range(rounds):
        added = _plug_pass(out, probability, starts, plugs, min_probability)
        total += added
        if added == 0:
            break
    return out.astype(np.bool_), total


class PlugHoles:
    """2x2x2 look-up-table plugging until nothing changes.

    Args:
        min_probability: a cube is left open if even its likeliest plug has a lower mean.
        rounds: passes over the volume at most.

    Raises:
        ConfigError: probability outside [0, 1] or no round.
    """

    reads_mask = True
    makes_mask = True

    def __init__(self, *, min_probability: float = 0.0, rounds: int = 50) -> None:
        check_between("min_probability", min_probability, 0, 1)
        check_at_least("rounds", rounds, 1)
        self.min_probability, self.rounds = min_probability, rounds

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with tight cubes."""
        mask, added = plug_holes(
            mask_of(state),
            np.ascontiguousarray(state.probability),
            min_probability=self.min_probability,
            rounds=self.rounds,
        )
        return state.with_mask(mask, voxels_added=added)
