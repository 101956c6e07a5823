"""Column reduction over Z/2 with numba: pivots, and what is left of columns that vanish.

The standard algorithm of persistent homology (Edelsbrunner, Letscher, Zomorodian 2002) on sparse
columns: a working column is a binary max-heap of row numbers in which equal pairs cancel. Each
column may drag a `tail`, entries that take part in additions but never give a pivot.
"""

from typing import Any

import numpy as np

from vesuvius.metrics.compiled import compiled
from vesuvius.metrics.runs import Ints


@compiled
def grow(array: Ints, size: int) -> Ints:
    """Return `array`, or a copy at least twice as long, so that index `size - 1` exists."""
    if size <= len(array):
        return array
    larger = np.empty(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@compiled
def _push(heap: Ints, size: int, row: int) -> int:
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if heap[above] >= row:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = row
    return size + 1


@compiled
def _pop(heap: Ints, size: int) -> tuple[int, int]:
    top = heap[0]
    size -= 1
    row = heap[size]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and heap[below + 1] > heap[below]:
            below += 1
        if heap[below] <= row:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = row
    return top, size


@compiled
def _pop_pivot(heap: Ints, size: int) -> tuple[int, int]:
    """Return the largest row that does not cancel (-1: none is left) and the heap's new size."""
    while size > 0:
        top, size = _pop(heap, size)
        if size == 0 or heap[0] != top:
            return top, size
        _, size = _pop(heap, size)
    return -1, 0


@compiled
def cancel_pairs(rows: Ints) -> Ints:
    """Return the sorted rows that occur an odd number of times."""
    rows = np.sort(rows)
    kept = 0
    for row in rows:
        if kept > 0 and rows[kept - 1] == row:
            kept -= 1
        else:
            rows[kept] = row
            kept += 1
    return rows[:kept]


@compiled
def _append(pool: Ints, used: int, entries: Ints) -> tuple[Ints, int]:
    """Return the pool, grown if need be, with the entries after place `used`, and its new use."""
    pool = grow(pool, used + len(entries))
    pool[used : used + len(entries)] = entries
    return pool, used + len(entries)


@compiled
def _extend_tail(tail: Ints, size: int, entries: Ints) -> tuple[Ints, int]:
    """Return the tail with the entries added, cancelling pairs whenever it would have to grow."""
    if size + len(entries) > len(tail):
        kept = cancel_pairs(tail[:size])
        size = len(kept)
        tail = grow(tail, 2 * (size + len(entries)))
        tail[:size] = kept
    return _append(tail, size, entries)


@compiled
def _reduce_one(
    column: int, owner: Ints, bounds: Ints, pool: Ints, tail_pool: Ints, heap: Ints, tail: Ints
) -> Any:
    """Add earlier columns until the pivot is nobody's; return it and the working column.

    Returns:
        (pivot, heap, heap size, tail, tail size, whether anything was added); pivot -1 for zero.
    """
    size = tail_size = 0
    source, added = column, False
    while True:
        begin, end = bounds[source, 0], bounds[source, 1]
        heap = grow(heap, size + end - begin)
        for at in range(begin, end):
            size = _push(heap, size, pool[at])
        entries = tail_pool[bounds[source, 2] : bounds[source, 3]]
        tail, tail_size = _extend_tail(tail, tail_size, entries)
        pivot, size = _pop_pivot(heap, size)
        if pivot < 0 or owner[pivot] < 0:
            return pivot, heap, size, tail, tail_size, added
        size = _push(heap, size, pivot)  # cancels against the owner's pivot
        source, added = owner[pivot], True


@compiled
def reduce_columns(
    start: Ints, rows: Ints, tail_start: Ints, tails: Ints, order: Ints, num_rows: int
) -> tuple[Ints, Ints, Ints]:
    """Reduce columns from left to right; return which vanish, and their tails.

    Args:
        start: (c + 1,) bounds of the columns in `rows`.
        rows: entries; the pivot of a column is its largest row.
        tail_start: (c + 1,) bounds of the tails.
        tails: entries that are added along but give no pivot.
        order: column numbers in the order of reduction.
        num_rows: rows are smaller than this.

    Returns:
        (vanished, bounds, tails): places in `order` whose column reduces to zero, and the tails of
        those columns with pairs cancelled.
    """
    owner = np.full(num_rows, -1, np.int64)
    bounds = np.stack((start[:-1], start[1:], tail_start[:-1], tail_start[1:]), 1)
    pool, used, tail_pool, tail_used = rows, len(rows), tails, len(tails)
    heap, tail = np.empty(64, np.int64), np.empty(64, np.int64)
    vanished = np.empty(len(order), np.int64)
    out, out_start, found = np.empty(64, np.int64), np.zeros(len(order) + 1, np.int64), 0
    for place in range(len(order)):
        column = order[place]
        pivot, heap, size, tail, tail_size, added = _reduce_one(
            column, owner, bounds, pool, tail_pool, heap, tail
        )
        if pivot < 0:
            vanished[found] = place
            kept = cancel_pairs(tail[:tail_size])
            out, out_start[found + 1] = _append(out, out_start[found], kept)
            found += 1
            continue
        owner[pivot] = column
        if not added:
            continue  # the column stays where it is
        kept = cancel_pairs(tail[:tail_size])
        bounds[column, 2] = tail_used
        tail_pool, tail_used = _append(tail_pool, tail_used, kept)
        kept = cancel_pairs(heap[:size])
        bounds[column, 0] = used
        pool, used = _append(pool, used, kept)
        pool, used = _append(pool, used, np.full(1, pivot))
        bounds[column, 1], bounds[column, 3] = used, tail_used
    return vanished[:found], out_start[: found + 1], out[: out_start[found]]
