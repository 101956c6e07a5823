"""Matched tunnels (k = 1) of the Betti matching.

Source: the definition is that of Stucki et al., ICML 2023, and of the image persistence of
Bauer and Schmahl, 2022; the way to it is our own and rests on three facts.

1. With foreground P inside C = P or G inside the box, a face that kills a tunnel of C is matched in
   P exactly when the tunnel it kills is, up to tunnels killed earlier, the image of a cycle of P.
   The exact sequence H1(P) -> H1(C) -> H1(C, P) turns this into: its cycle is, in H1(C, P), a sum
   of the cycles of earlier faces. H1(C, P) lives where the masks differ and is small.
2. All further conditions on values hold by themselves: the pivot lies in P, hence is a tunnel of P.
3. In scan order almost every background cell has an apparent partner along z. What is left are the
   squares right below the overlaps of z-runs (`run_complex`).
"""

import numpy as np
import numpy.typing as npt

from vesuvius.metrics.compiled import compiled
from vesuvius.metrics.reduction import cancel_pairs, grow, reduce_columns
from vesuvius.metrics.run_complex import ABSENT, Sweep, num_floor_rows, sweep
from vesuvius.metrics.runs import Bytes, Ints, find_root


@compiled
def _opens_no_cavity(
    key: Ints, order: Ints, quad_key: Ints, height: int, width: int
) -> npt.NDArray[np.bool_]:
    """Return for each place of `order` whether its square is no column of the k = 2 dual run.

    Dual nodes: 0 = outside, else 1 + the quad that closes a stack of cubes from above. Squares that
    join two nodes, in reverse scan order, pair with cubes (clearing).
    """
    nearest = np.zeros((height, width), np.int64)
    parent = np.arange(len(quad_key) + 1)
    kept = np.empty(len(order), np.bool_)
    quad = len(quad_key) - 1
    for place in range(len(order) - 1, -1, -1):
        at, kind = key[order[place]] // 3, key[order[place]] % 3
        y, x = at // width % height, at % width
        above = (at // (height * width) + 1) * height * width
        while quad >= 0 and quad_key[quad] >= above:
            nearest[quad_key[quad] // width % height, quad_key[quad] % width] = quad + 1
            quad -= 1
        one = 0
        if kind == 1 and y > 0:
            one = nearest[y - 1, x]
        elif kind == 2 and x > 0:
            one = nearest[y, x - 1]
        one, other = find_root(parent, one), find_root(parent, nearest[y, x])
        kept[place] = one == other
        parent[one] = other
    return kept


@compiled
def _relative_rows(
    overlap: int, mask: int, pair: Ints, extra: Ints, base: int, out: Ints, size: int
) -> int:
    """Append the rows that the overlap stands for in H1(C, mask); return the new size."""
    if pair[mask, overlap, 0] == ABSENT:
        out[size] = base + extra[mask] + overlap
        return size + 1
    for side in range(2):
        if pair[mask, overlap, side] >= 0:
            out[size] = base + pair[mask, overlap, side]
            size += 1
    return size


@compiled
def _relative_tails(tail_start: Ints, tails: Ints, pair: Ints, extra: Ints) -> tuple[Ints, Ints]:
    """Return the columns' overlaps as rows of H1(C, P), then rows of H1(C, G) after all of P's."""
    start = np.zeros_like(tail_start)
    out = np.empty(64, np.int64)
    label_base = extra[0] + pair.shape[1]
    for column in range(len(start) - 1):
        size = start[column]
        out = grow(out, size + 4 * (tail_start[column + 1] - tail_start[column]))
        for at in range(tail_start[column], tail_start[column + 1]):
            size = _relative_rows(tails[at], 0, pair, extra, 0, out, size)
            size = _relative_rows(tails[at], 1, pair, extra, label_base, out, size)
        start[column + 1] = size
    return start, out[: start[-1]]


@compiled
def _relations(mask: int, quad: Ints, pair: Ints, again: Ints, extra: Ints) -> tuple[Ints, Ints]:
    """Return the columns that vanish in H1(C, mask): quads and repeated overlaps of the mask."""
    start = np.zeros(len(quad) + len(again) + 1, np.int64)
    out, columns = np.empty(64, np.int64), 0
    for index in range(len(quad) + len(again)):
        size = start[columns]
        out = grow(out, size + 8)
        if index < len(quad):
            for side in range(4):
                size = _relative_rows(quad[index, side], mask, pair, extra, 0, out, size)
        else:
            item = again[index - len(quad)]
            if item[0] != mask:
                continue
            size = _relative_rows(item[3], mask, pair, extra, 0, out, size)
            for row in item[1:3]:
                if row >= 0:
                    out[size] = row
                    size += 1
        if size == start[columns]:
            continue
        kept = cancel_pairs(out[start[columns] : size])
        if len(kept):
            out[start[columns] : start[columns] + len(kept)] = kept
            columns += 1
            start[columns] = start[columns - 1] + len(kept)
    return start[: columns + 1], out[: start[columns]]


def _empty_tails(columns: int) -> tuple[Ints, Ints]:
    return np.zeros(columns + 1, np.int64), np.empty(0, np.int64)


def _comes_from(mask: int, found: Sweep, start: Ints, rows: Ints) -> npt.NDArray[np.bool_]:
    """Return for each cycle (Z/2 column of relative rows) whether it is matched in the mask."""
    cycles = len(start) - 1
    if not len(rows):
        return np.ones(cycles, np.bool_)
    first, relations = _relations(mask, found.quad, found.pair, found.again, found.extra)
    joined = np.concatenate([first, start[1:] + first[-1]])
    order = np.arange(len(joined) - 1)
    num_rows = int(found.extra[mask]) + found.pair.shape[1]
    vanished, _, _ = reduce_columns(
        joined, np.concatenate([relations, rows]), *_empty_tails(len(order)), order, num_rows
    )
    matched = np.zeros(len(order), np.bool_)
    matched[vanished] = True
    return matched[len(first) - 1 :]


def _part(start: Ints, rows: Ints, low: int, high: int) -> tuple[Ints, Ints]:
    """Return the columns with only the rows in [low, high), counted from low."""
    inside = (rows >= low) & (rows < high)
    before = np.concatenate([[0], np.cumsum(inside)])
    return before[start], rows[inside] - low


def match_tunnels(code: Bytes, counts: Ints) -> tuple[int, int]:
    """Return the matched tunnels of prediction and label, and the tunnels of their union.

    Args:
        code: (z, y, x) uint8 block; bit 1 prediction, 2 label, 4 union.
        counts: its `count_cells`.
    """
    squares, matched = tunnel_squares(code, counts)
    return int(np.count_nonzero(matched)), len(squares)


def tunnel_squares(code: Bytes, counts: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return the squares that close the union's tunnels in scan order, and which are matched.

    Args:
        code: (z, y, x) uint8 block; bit 1 prediction, 2 label, 4 union.
        counts: its `count_cells`.

    Returns:
        ((n, 4), (n,)): z, y, x of the square's first voxel and its normal axis (0, 1, 2); whether
        the tunnel is one of prediction and label.
    """
    found = sweep(code, counts)
    order = np.argsort(found.key, kind="stable")
    order = order[_opens_no_cavity(found.key, order, found.quad_key, *code.shape[1:])]
    tails = _relative_tails(found.tail_start, found.tails, found.pair, found.extra)
    num_rows = num_floor_rows(*code.shape[1:]) + len(found.begun)
    vanished, start, rows = reduce_columns(found.start, found.rows, *tails, order, num_rows)
    middle = int(found.extra[0]) + found.pair.shape[1]
    in_both = _comes_from(0, found, *_part(start, rows, 0, middle))
    end = middle + int(found.extra[1]) + found.pair.shape[1]
    in_both &= _comes_from(1, found, *_part(start, rows, middle, end))
    at, kind = np.divmod(found.key[order[vanished]], 3)
    _, height, width = code.shape
    squares = np.stack([at // (height * width), at // width % height, at % width, kind], 1)
    return squares, in_both
