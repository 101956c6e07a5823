"""Betti matching against boundary matrices reduced by hand (see metric_reference)."""

import numpy as np
import pytest
from unit.metrics import metric_reference as reference

from vesuvius.errors import ConfigError
from vesuvius.metrics.betti import betti_errors, betti_numbers
from vesuvius.metrics.cell_counts import count_cells
from vesuvius.metrics.reduction import reduce_columns
from vesuvius.metrics.topology import block_slices, match_block, score_counts
from vesuvius.metrics.topology_tunnels import match_tunnels


@pytest.mark.parametrize("seed", range(60))
def test_counts_of_random_volumes(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 7, 3)
    density = rng.uniform(0.2, 0.95)
    label = rng.random(shape) < density
    changed = rng.random(shape) < rng.choice([0, 0.02, 0.1, 0.3, 1])
    prediction = np.where(changed, rng.random(shape) < density, label)
    assert match_block(prediction, label) == reference.match_block(prediction, label)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("seed", range(3))
def test_counts_of_sheets_with_holes_and_bridges(axis, seed):
    rng = np.random.default_rng(seed)
    label = np.zeros((8, 8, 8), bool)
    label[1:3] = label[5:7] = True
    for volume in (label, prediction := label.copy()):
        for z in (1, 5):
            y, x = rng.integers(1, 6, 2)
            volume[z : z + 2, y : y + rng.integers(1, 3), x] = False
        y, x = rng.integers(0, 8, 2)
        volume[3:5, y, x] = True
    prediction[0, 3:5, 3:5] = True
    label, prediction = (np.moveaxis(v, 0, axis) for v in (label, prediction))
    assert match_block(prediction, label) == reference.match_block(prediction, label)


def test_perfect_prediction_matches_everything(rng):
    label = rng.random((14, 13, 15)) < 0.5
    for matched, prediction, truth in match_block(label, label).values():
        assert matched == prediction == truth


def test_tunnels_of_the_union_are_its_first_betti_number(rng):
    prediction, label = rng.random((2, 12, 9, 11)) < 0.35
    code = (prediction * 1 + label * 2).astype(np.uint8)
    code += (code > 0) * np.uint8(4)
    _, tunnels = match_tunnels(code, count_cells(code))
    assert tunnels == betti_numbers(prediction | label)[1]


def test_hand_counts():
    ring = np.zeros((5, 5, 5), bool)
    ring[2, 1:4, 1:4] = True
    ring[2, 2, 2] = False
    shell = np.zeros((5, 5, 5), bool)
    shell[1:4, 1:4, 1:4] = True
    shell[2, 2, 2] = False
    two = np.zeros((5, 5, 5), bool)
    two[0, 0, 0] = two[1, 1, 1] = True  # diagonal contact is none
    assert match_block(ring, ring) == {0: (0, 0, 0), 1: (1, 1, 1), 2: (0, 0, 0)}
    assert match_block(shell, ring) == {0: (0, 0, 0), 1: (0, 0, 1), 2: (0, 1, 0)}
    assert match_block(two, two) == {0: (1, 1, 1), 1: (0, 0, 0), 2: (0, 0, 0)}
    assert betti_numbers(ring) == (1, 1, 0)
    assert betti_numbers(shell) == (1, 0, 1)
    assert betti_errors(ring, shell) == (0, 1, 1)
    assert betti_errors(two, ring) == (1, 1, 0)


def test_betti_numbers_against_euler_number(rng):
    measure = pytest.importorskip("skimage.measure")
    volume = rng.random((9, 10, 11)) < 0.5
    pieces, tunnels, cavities = betti_numbers(volume)
    assert pieces == measure.label(volume, connectivity=1).max()
    holes = measure.label(np.pad(~volume, 1, constant_values=True), connectivity=3).max() - 1
    assert cavities == holes
    assert pieces - tunnels + cavities == measure.euler_number(volume, connectivity=1)


def test_blocks_split_each_axis_once_and_are_never_empty():
    assert block_slices((5, 1, 2)) == [
        (slice(a, b), slice(0, 1), slice(c, d))
        for a, b in ((0, 3), (3, 5))
        for c, d in ((0, 1), (1, 2))
    ]


def test_score_of_counts():
    assert score_counts({0: (0, 0, 0), 1: (0, 0, 0), 2: (0, 0, 0)}) == 1.0
    assert score_counts({0: (1, 2, 2), 1: (0, 0, 0), 2: (0, 0, 0)}) == 0.5
    assert score_counts({0: (0, 2, 0), 1: (3, 3, 3), 2: (0, 0, 0)}) == pytest.approx(
        (0.34 * 0.5 / 2.5 + 0.33) / 0.67
    )
    with pytest.raises(ConfigError, match="three numbers"):
        score_counts({}, weights=(1, 2))


def test_reduction_against_dense_elimination(rng):
    """Vanishing columns and their tails: the same space as dense elimination gives."""
    rows, columns, width = 12, 30, 9
    dense = rng.random((columns, rows)) < 0.25
    tails = rng.random((columns, width)) < 0.3
    start = np.concatenate([[0], np.cumsum(dense.sum(1))])
    tail_start = np.concatenate([[0], np.cumsum(tails.sum(1))])
    order = rng.permutation(columns)
    entries, tail_entries = (np.ascontiguousarray(np.nonzero(part)[1]) for part in (dense, tails))
    vanished, out_start, out = reduce_columns(start, entries, tail_start, tail_entries, order, rows)
    left = np.concatenate([dense, tails], axis=1)[order].astype(int)
    expected, pivots = [], {}
    for place, column in enumerate(left):
        work = column.copy()
        while work[:rows].any() and (low := np.flatnonzero(work[:rows]).max()) in pivots:
            work ^= pivots[low]
        if work[:rows].any():
            pivots[np.flatnonzero(work[:rows]).max()] = work
        else:
            expected.append((place, np.flatnonzero(work[rows:]).tolist()))
    found = [
        (int(p), out[out_start[i] : out_start[i + 1]].tolist()) for i, p in enumerate(vanished)
    ]
    assert found == expected
