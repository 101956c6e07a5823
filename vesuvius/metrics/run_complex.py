"""The union of two masks as a complex of z-runs, built in one sweep of a block.

Voxels are vertices, so foreground is the union of its unit edges, squares and cubes. Collapsing
every z-run (maximal stretch along z) to a point gives a small complex of the same homotopy type:

* run: one z-run of the union;
* overlap: a maximal z-interval shared by the runs of two neighbouring columns of voxels;
* quad: a maximal z-interval shared by four columns around a corner.

Of the background, only squares right below an overlap and the squares of slice 0 are columns of the
boundary matrix; every other background cell has an apparent partner one step along z, y or x. Of
the background edges, rows are left for: z-edges right below a run, x-edges of slice 0 and, on slice
0, y-edges (on its first line x-edges) that lead from background up to foreground.

Masks are numbered 0 = prediction, 1 = label; a code has bit 1 for the prediction, 2 for the label
and 4 for their union.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vesuvius.metrics.compiled import compiled, inlined
from vesuvius.metrics.runs import Bytes, Ints

ABSENT = -2
"""Entry of `Sweep.pair` for an overlap that holds no overlap of the mask."""


class Sweep(NamedTuple):
    """What one sweep of a block finds, and its state while it runs.

    Attributes:
        key: (columns,) scan position of each column's square, times 3, plus its normal axis.
        start: (columns + 1,) bounds of `rows`.
        rows: background edges on the boundary of the columns.
        tail_start: (columns + 1,) bounds of `tails`.
        tails: overlaps on the boundary of the columns.
        quad_key: (quads,) scan position of the bottom of each quad.
        quad: (quads, 4) overlaps around it.
        pair: (2, overlaps, 2) by mask the own runs at the overlap's first own overlap: -1 for the
            first own run inside its union run, else a number below `extra`; ABSENT if none.
        again: (n, 4) further own overlaps: mask, own run, own run, overlap.
        extra: (2,) own runs beyond the first inside a union run.
        num: (5,) runs, overlaps, quads, columns, `again` rows so far.
        run: (y, x) latest union run of each column.
        begun: (runs,) its first z.
        earlier: (runs,) the run below in the same column, or -1.
        holds: (2, runs) whether the run holds a run of the mask.
        own_run: (2, y, x) latest own run, numbered as in `pair`.
        last: (2, y, x) latest overlap towards x + 1 and y + 1.
        top: (2, y, x) its highest z so far, or -1.
    """

    key: Ints
    start: Ints
    rows: Ints
    tail_start: Ints
    tails: Ints
    quad_key: Ints
    quad: Ints
    pair: Ints
    again: Ints
    extra: Ints
    num: Ints
    run: Ints
    begun: Ints
    earlier: Ints
    holds: npt.NDArray[np.bool_]
    own_run: Ints
    last: Ints
    top: Ints


RUNS, OVERLAPS, QUADS, COLUMNS, AGAIN = range(5)


def _empty_sweep(shape: tuple[int, int, int], counts: Ints) -> Sweep:
    """Return room for everything a sweep can find; pages that stay unused cost no memory."""
    _, height, width = shape
    runs, overlaps, quads = (int(n) for n in counts[:, 2])
    columns = overlaps + height * width
    plane = (2, height, width)
    return Sweep(
        key=np.empty(columns, np.int64),
        start=np.zeros(columns + 1, np.int64),
        rows=np.empty(4 * runs + overlaps + 4 * height * width, np.int64),
        tail_start=np.zeros(columns + 1, np.int64),
        tails=np.empty(2 * overlaps + 4 * height * width, np.int64),
        quad_key=np.empty(quads, np.int64),
        quad=np.empty((quads, 4), np.int64),
        pair=np.full((2, overlaps, 2), ABSENT, np.int64),
        again=np.empty((int(counts[1, :2].sum()), 4), np.int64),
        extra=np.zeros(2, np.int64),
        num=np.zeros(5, np.int64),
        run=np.full((height, width), -1, np.int64),
        begun=np.empty(runs, np.int64),
        earlier=np.empty(runs, np.int64),
        holds=np.zeros((2, runs), np.bool_),
        own_run=np.full(plane, -1, np.int64),
        last=np.full(plane, -1, np.int64),
        top=np.full(plane, -1, np.int64),
    )


@compiled
def _begin_runs(here: Bytes, under: Bytes, z: int, s: Sweep) -> None:
    """Note the runs of union, prediction and label that begin in slice z."""
    height, width = here.shape
    for y in range(height):
        for x in range(width):
            new = here[y, x] & ~under[y, x]
            if new == 0:
                continue
            if new & 4:
                run = s.num[RUNS]
                s.begun[run] = z
                s.earlier[run] = s.run[y, x]
                s.run[y, x] = run
                s.num[RUNS] += 1
            for mask in range(2):
                if new >> mask & 1 == 0:
                    continue
                if s.holds[mask, s.run[y, x]]:
                    s.own_run[mask, y, x] = s.extra[mask]
                    s.extra[mask] += 1
                else:
                    s.holds[mask, s.run[y, x]] = True
                    s.own_run[mask, y, x] = -1


@compiled
def _x_edge_row(floor: Bytes, y: int, x: int) -> int:
    """Return the row of the background x-edge (0, y, x), or -1 if a vertex is its partner."""
    width: int = floor.shape[1]
    if y > 0:
        return (1 + len(floor) + y) * width + x
    return x + 1 if floor[0, x + 1] and not floor[0, x] else -1


@compiled
def _y_edge_row(floor: Bytes, y: int, x: int) -> int:
    """Return the row of the background y-edge (0, y, x), or -1 if a vertex is its partner."""
    return (y + 2) * floor.shape[1] + x if floor[y + 1, x] and not floor[y, x] else -1


@inlined
def _add_row(row: int, column: int, start: Ints, rows: Ints) -> None:
    if row >= 0:
        rows[start[column + 1]] = row
        start[column + 1] += 1


@inlined
def _add_wall(
    run: int,
    top: int,
    first_row: int,
    begun: Ints,
    earlier: Ints,
    column: int,
    start: Ints,
    rows: Ints,
) -> None:
    """Add the edges right below the runs of a column of voxels, down to height `top`."""
    while run >= 0 and begun[run] > top:
        if begun[run] > 0:
            rows[start[column + 1]] = first_row + run
            start[column + 1] += 1
        run = earlier[run]


@inlined
def _add_curtain(
    at: tuple[int, int, int, int],
    floor: Bytes,
    overlaps: tuple[int, int],
    walls: tuple[int, int, int],
    begun: Ints,
    earlier: Ints,
    column: int,
    start: Ints,
    rows: Ints,
    tail_start: Ints,
    tails: Ints,
) -> None:
    """Add the column of the square right below an overlap.

    Squares further down are added to it until the next overlap below, or slice 0.

    `at` is z, y, x of the overlap's first voxel pair and its axis (0 towards x + 1, 1 y + 1);
    `overlaps` the overlap and the one below it; `walls` the latest runs on both sides and the
    highest z of the overlap below, or -1; `floor` slice 0; the rest is as in `Sweep`.
    """
    height, width = floor.shape
    top = walls[2]
    start[column + 1] = start[column]
    first_row = num_floor_rows(height, width)
    _add_wall(walls[0], top, first_row, begun, earlier, column, start, rows)
    _add_wall(walls[1], top, first_row, begun, earlier, column, start, rows)
    end = tail_start[column]
    tails[end] = overlaps[0]
    if top >= 0:
        tails[end + 1] = overlaps[1]
        end += 1
    elif at[3] == 0:
        _add_row(_x_edge_row(floor, at[1], at[2]), column, start, rows)
    else:
        _add_row(_y_edge_row(floor, at[1], at[2]), column, start, rows)
    tail_start[column + 1] = end + 1


@compiled
def num_floor_rows(height: int, width: int) -> int:
    """Return how many row numbers the edges of slice 0 take; rows of runs follow."""
    return (1 + 2 * height) * width


@inlined
def _note_own(
    new: int,
    overlap: int,
    one: tuple[int, int],
    other: tuple[int, int],
    pair: Ints,
    again: Ints,
    num: Ints,
) -> None:
    """Note the overlaps of prediction and label that begin inside the union's `overlap`.

    `one` and `other` are the own runs of both masks on either side.
    """
    for mask in range(2):
        if new >> mask & 1 == 0:
            continue
        if pair[mask, overlap, 0] == ABSENT:
            pair[mask, overlap, 0] = one[mask]
            pair[mask, overlap, 1] = other[mask]
        else:
            row = again[num[AGAIN]]
            row[0], row[1], row[2], row[3] = mask, one[mask], other[mask], overlap
            num[AGAIN] += 1


@compiled
def _begin_overlaps(here: Bytes, under: Bytes, floor: Bytes, z: int, s: Sweep) -> None:
    """Note the overlaps that begin in slice z, in scan order, and the columns below them."""
    height, width = here.shape
    # Each `s.x` counts references: unpacked once, the loop is four times faster.
    last, tops, num, run, own, pair, again = s.last, s.top, s.num, s.run, s.own_run, s.pair, s.again
    key, start, rows, tail_start, tails = s.key, s.start, s.rows, s.tail_start, s.tails
    begun, earlier = s.begun, s.earlier
    for y in range(height):
        for x in range(width):
            if here[y, x] == 0:
                continue
            for axis in range(2):
                v, w = y + axis, x + 1 - axis
                if v == height or w == width:
                    continue
                both = here[y, x] & here[v, w]
                new = both & ~(under[y, x] & under[v, w])
                if new & 4:
                    overlap = num[OVERLAPS]
                    if z > 0:
                        column = num[COLUMNS]
                        walls = (run[y, x], run[v, w], tops[axis, y, x])
                        _add_curtain(
                            (z, y, x, axis), floor, (overlap, last[axis, y, x]), walls,
                            begun, earlier, column, start, rows, tail_start, tails,
                        )  # fmt: skip
                        key[column] = (((z - 1) * height + y) * width + x) * 3 + 1 + axis
                        num[COLUMNS] += 1
                    last[axis, y, x] = overlap
                    num[OVERLAPS] += 1
                if both & 4:
                    tops[axis, y, x] = z
                if new & 3:
                    one, other = (own[0, y, x], own[1, y, x]), (own[0, v, w], own[1, v, w])
                    _note_own(new, last[axis, y, x], one, other, pair, again, num)


@compiled
def _begin_quads(here: Bytes, under: Bytes, z: int, s: Sweep) -> None:
    """Note the quads of the union that begin in slice z, in scan order."""
    height, width = here.shape
    for y in range(height - 1):
        for x in range(width - 1):
            if here[y, x] == 0 or here[y + 1, x + 1] == 0:
                continue
            if here[y, x + 1] == 0 or here[y + 1, x] == 0:
                continue
            if under[y, x] & under[y, x + 1] & under[y + 1, x] & under[y + 1, x + 1] & 4:
                continue
            at = s.num[QUADS]
            s.quad_key[at] = (z * height + y) * width + x
            s.quad[at, 0] = s.last[0, y, x]
            s.quad[at, 1] = s.last[0, y + 1, x]
            s.quad[at, 2] = s.last[1, y, x]
            s.quad[at, 3] = s.last[1, y, x + 1]
            s.num[QUADS] += 1


@compiled
def _floor_columns(floor: Bytes, across: Ints, along: Ints, s: Sweep) -> None:
    """Add a column for each background square of slice 0.

    `across` and `along` are the overlaps of slice 0 towards x + 1 and y + 1.
    """
    height, width = floor.shape
    start, rows, tails = s.start, s.rows, s.tails
    for y in range(height - 1):
        for x in range(width - 1):
            if floor[y, x] and floor[y, x + 1] and floor[y + 1, x] and floor[y + 1, x + 1]:
                continue
            column, end = s.num[COLUMNS], s.tail_start[s.num[COLUMNS]]
            s.key[column] = (y * width + x) * 3
            start[column + 1] = start[column]
            for line in (y, y + 1):
                if floor[line, x] and floor[line, x + 1]:
                    tails[end] = across[line, x]
                    end += 1
                else:
                    _add_row(_x_edge_row(floor, line, x), column, start, rows)
            for side in (x, x + 1):
                if floor[y, side] and floor[y + 1, side]:
                    tails[end] = along[y, side]
                    end += 1
                else:
                    _add_row(_y_edge_row(floor, y, side), column, start, rows)
            s.tail_start[column + 1] = end
            s.num[COLUMNS] += 1


@compiled
def _sweep_slices(code: Bytes, s: Sweep) -> None:
    floor = code[0]
    nothing = np.zeros(code.shape[1:], np.uint8)
    floor_last = s.last
    for z in range(len(code)):
        here, under = code[z], code[z - 1] if z > 0 else nothing
        _begin_runs(here, under, z, s)
        _begin_overlaps(here, under, floor, z, s)
        _begin_quads(here, under, z, s)
        if z == 0:
            floor_last = s.last.copy()
    _floor_columns(floor, floor_last[0], floor_last[1], s)


def sweep(code: Bytes, counts: Ints) -> Sweep:
    """Return the runs' complex of a block, trimmed to what was found.

    Args:
        code: (z, y, x) uint8, C order; bit 1 prediction, 2 label, 4 union.
        counts: its `count_cells`.
    """
    depth, height, width = code.shape
    s = _empty_sweep((depth, height, width), counts)
    _sweep_slices(code, s)
    columns = int(s.num[COLUMNS])
    return s._replace(
        key=s.key[:columns],
        start=s.start[: columns + 1],
        rows=s.rows[: s.start[columns]],
        tail_start=s.tail_start[: columns + 1],
        tails=s.tails[: s.tail_start[columns]],
        again=s.again[: s.num[AGAIN]],
    )
