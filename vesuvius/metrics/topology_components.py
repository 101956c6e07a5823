"""Matched components (k = 0) and cavities (k = 2) of the Betti matching, from runs alone.

Source: Stucki et al., "Topologically faithful image segmentation via induced matching of
persistence barcodes", ICML 2023, for the matching; the shortcuts below are our own.

Why no union-find over voxels is needed. Edges of value 1 run in scan order, and every voxel but the
first has an earlier neighbour, so what has been scanned is always one piece: each merge joins one
component of the union to that piece. A component of the union is therefore met once, at the
earliest edge into it. Likewise the dual run meets each cavity from outside, whose value is
infinite, so the cavity's own oldest cell dies whatever the order.
"""

import numpy as np
import numpy.typing as npt

from vesuvius.metrics.runs import (
    CORNERS,
    FACES,
    Bytes,
    Ints,
    Runs,
    component_roots,
    containing_runs,
    find_runs,
)

PREDICTION, LABEL, UNION = 1, 2, 4
"""Bits of the block code."""
_LATE = np.iinfo(np.int64).max


def _first_of(groups: Ints, size: int) -> Ints:
    """Return (size,) the first position at which each group number occurs, or a huge number."""
    first = np.full(size, _LATE, np.int64)
    np.minimum.at(first, groups, np.arange(len(groups)))
    return first


def _arrival(runs: Runs, shape: tuple[int, int, int]) -> Ints:
    """Return (n,) the order (edge position, edge axis) at which the scan first enters each run."""
    _, height, width = shape
    line = np.repeat(np.arange(len(runs.line) - 1), np.diff(runs.line))
    index = line * width + runs.first
    entered = (index - height * width) * 3  # from z - 1
    entered = np.where(line < height, (index - width) * 3 + 1, entered)  # first slice: from y - 1
    return np.where(line == 0, (index - 1) * 3 + 2, entered)  # first line: from x - 1


def match_components(code: Bytes) -> tuple[int, int, int, dict[int, int]]:
    """Return matched, prediction and label counts of components, and the plain numbers of pieces.

    Args:
        code: (z, y, x) uint8 block, bit 1 prediction, bit 2 label.

    Returns:
        (matched, prediction, label, pieces): finite bars of k = 0, and 6-connected components by
        bit (the finite bars are one fewer: one component never dies).
    """
    height = code.shape[1]
    union = find_runs(code, bits=UNION)
    root = component_roots(union, height=height, reach=FACES)
    pieces: dict[int, int] = {}
    seen: dict[int, npt.NDArray[np.bool_]] = {}
    for bit in (PREDICTION, LABEL):
        runs = find_runs(code, bits=bit)
        own = component_roots(runs, height=height, reach=FACES)
        pieces[bit] = int(np.count_nonzero(own == np.arange(len(own))))
        held = root[containing_runs(union, runs)]
        seen[bit] = _first_of(held, len(root)) < _LATE
    arrival = np.full(len(root), _LATE, np.int64)
    np.minimum.at(arrival, root, _arrival(union, (code.shape[0], height, code.shape[2])))
    roots = np.flatnonzero(root == np.arange(len(root)))
    roots = roots[np.argsort(arrival[roots], kind="stable")]
    prediction, label = seen[PREDICTION][roots], seen[LABEL][roots]
    # A piece holding both counts once the scanned part holds an older root of both.
    before_p = np.cumsum(prediction) - prediction > 0
    before_g = np.cumsum(label) - label > 0
    matched = int(np.count_nonzero(prediction & label & before_p & before_g))
    return matched, max(pieces[1] - 1, 0), max(pieces[2] - 1, 0), pieces


def _cavities(runs: Runs, shape: tuple[int, int, int]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return each run's component root and, by root, whether it is a closed cavity."""
    depth, height, width = shape
    root = component_roots(runs, height=height, reach=CORNERS)
    line = np.repeat(np.arange(depth * height), np.diff(runs.line))
    z, y = line // height, line % height
    open_run = (z == 0) | (z == depth - 1) | (y == 0) | (y == height - 1)
    open_run |= (runs.first == 0) | (runs.stop == width)
    closed = root == np.arange(len(root))
    closed[root[open_run]] = False
    return root, closed


def count_cavities(code: Bytes) -> int:
    """Return the cavities of the foreground (any bit set) of a (z, y, x) uint8 volume."""
    depth, height, width = code.shape
    _, closed = _cavities(find_runs(code, inverted=True), (depth, height, width))
    return int(np.count_nonzero(closed))


def match_cavities(code: Bytes) -> tuple[int, int, int]:
    """Return matched, prediction and label counts of cavities (k = 2) of one block."""
    matched, prediction, label = cavity_voxels(code)
    return len(matched), prediction, label


def cavity_voxels(code: Bytes) -> tuple[Ints, int, int]:
    """Return a voxel (z, y, x) of each matched cavity, and the cavities of prediction and label.

    A cavity is a 26-connected piece of background that touches no face of the block. A cavity of
    the union is matched when the prediction's and the label's cavity around it both end, in scan
    order, with the same background voxel as it does.
    """
    depth, height, width = code.shape
    shape = (depth, height, width)
    union = find_runs(code, bits=UNION, inverted=True)
    union_root, union_closed = _cavities(union, shape)
    last = np.zeros(len(union_root), np.int64)  # runs are in scan order: the largest number is last
    np.maximum.at(last, union_root, np.arange(len(union_root)))
    names = last[np.flatnonzero(union_closed)]
    counts = []
    for bit in (PREDICTION, LABEL):
        runs = find_runs(code, bits=bit, inverted=True)
        root, closed = _cavities(runs, shape)
        counts.append(int(np.count_nonzero(closed)))
        held = root[containing_runs(runs, union)]
        name = np.full(len(root), -1, np.int64)
        np.maximum.at(name, held, np.arange(len(held)))
        names = names[closed[held[names]] & (name[held[names]] == names)]
    line = np.searchsorted(union.line, names, side="right") - 1
    voxels = np.stack([line // height, line % height, union.first[names]], 1)
    return voxels, counts[0], counts[1]
