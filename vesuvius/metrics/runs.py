"""Foreground as runs of voxels along x: components without a label volume.

A run is a maximal stretch of set voxels on one (z, y) line. Sheets of 320^3 hold a hundred times
fewer runs than voxels, so components, joint tables and cavities cost little more than one read.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vesuvius.metrics.compiled import compiled

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

FACES, CORNERS = 0, 1
"""Reach of a contact between neighbouring runs: 0 = 6-connected, 1 = 26-connected."""


class Runs(NamedTuple):
    """Runs of one mask in C order.

    Attributes:
        first: (n,) int64 first x of each run.
        stop: (n,) int64 one past the last x.
        line: (z * y + 1,) int64; the runs of line i are `line[i]:line[i + 1]`.
    """

    first: Ints
    stop: Ints
    line: Ints


@compiled
def _count_runs(code: Bytes, bits: int, inverted: int) -> Ints:
    depth, height, width = code.shape
    line = np.zeros(depth * height + 1, np.int64)
    for z in range(depth):
        for y in range(height):
            count = 0
            before = False
            for x in range(width):
                inside = ((code[z, y, x] & bits) != 0) != (inverted != 0)
                count += inside and not before
                before = inside
            line[z * height + y + 1] = line[z * height + y] + count
    return line


@compiled
def _fill_runs(code: Bytes, bits: int, inverted: int, line: Ints) -> tuple[Ints, Ints]:
    depth, height, width = code.shape
    first = np.empty(line[-1], np.int64)
    stop = np.empty(line[-1], np.int64)
    for z in range(depth):
        for y in range(height):
            at = line[z * height + y]
            if at == line[z * height + y + 1]:
                continue
            before = False
            for x in range(width):
                inside = ((code[z, y, x] & bits) != 0) != (inverted != 0)
                if inside and not before:
                    first[at] = x
                elif before and not inside:
                    stop[at] = x
                    at += 1
                before = inside
            if before:
                stop[at] = width
    return first, stop


def find_runs(code: Bytes, *, bits: int = 255, inverted: bool = False) -> Runs:
    """Return the x-runs of the voxels of (z, y, x) `code` that have any of `bits` set.

    Args:
        code: (z, y, x) uint8, C order.
        bits: which bits make a voxel foreground.
        inverted: take the other voxels instead.
    """
    line = _count_runs(code, bits, int(inverted))
    first, stop = _fill_runs(code, bits, int(inverted), line)
    return Runs(first, stop, line)


@compiled
def find_root(parent: Ints, node: int) -> int:
    """Return the root of `node`, halving its path."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def _join(parent: Ints, a: int, b: int) -> None:
    a = find_root(parent, a)
    b = find_root(parent, b)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@compiled
def _join_lines(
    parent: Ints, first: Ints, stop: Ints, line: Ints, here: int, there: int, reach: int
) -> None:
    a, a_end = line[here], line[here + 1]
    b, b_end = line[there], line[there + 1]
    while a < a_end and b < b_end:
        if first[a] < stop[b] + reach and first[b] < stop[a] + reach:
            _join(parent, a, b)
        if stop[a] < stop[b]:
            a += 1
        else:
            b += 1


@compiled
def join_runs(first: Ints, stop: Ints, line: Ints, height: int, reach: int) -> Ints:
    """Return the smallest run number of each run's component.

    Args:
        first: as in `Runs`.
        stop: as in `Runs`.
        line: as in `Runs`.
        height: lines per z slice.
        reach: FACES (6-connected) or CORNERS (26-connected).
    """
    parent = np.arange(len(first))
    for here in range(len(line) - 1):
        if line[here] == line[here + 1]:
            continue
        z, y = here // height, here % height
        if y > 0:
            _join_lines(parent, first, stop, line, here, here - 1, reach)
        if z > 0:
            for step in range(-reach, reach + 1):
                if 0 <= y + step < height:
                    _join_lines(parent, first, stop, line, here, here - height + step, reach)
    for run in range(len(parent)):
        parent[run] = parent[parent[run]]  # parents come first: one step reaches the root
    return parent


def component_roots(runs: Runs, *, height: int, reach: int) -> Ints:
    """Return (n,) int64: the first run of the component each run belongs to."""
    roots: Ints = join_runs(runs.first, runs.stop, runs.line, height, reach)
    return roots


@compiled
def _containing(outer_first: Ints, outer_line: Ints, inner_first: Ints, inner_line: Ints) -> Ints:
    inside = np.empty(len(inner_first), np.int64)
    for here in range(len(inner_line) - 1):
        outer = outer_line[here]
        for run in range(inner_line[here], inner_line[here + 1]):
            while outer + 1 < outer_line[here + 1] and outer_first[outer + 1] <= inner_first[run]:
                outer += 1
            inside[run] = outer
    return inside


def containing_runs(outer: Runs, inner: Runs) -> Ints:
    """Return for each run of `inner` the run of `outer` that holds it (inner is a subset)."""
    found: Ints = _containing(outer.first, outer.line, inner.first, inner.line)
    return found
