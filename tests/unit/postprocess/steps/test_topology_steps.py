"""Plugging by table (proved by enumeration), the link of a voxel, tunnels and their guard."""

from itertools import combinations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.metrics import betti_numbers
from vesuvius.postprocess.steps.link import link_counts
from vesuvius.postprocess.steps.plug import PlugHoles, is_tight, plug_holes, plug_table
from vesuvius.postprocess.steps.state import ChainState
from vesuvius.postprocess.steps.tunnels import CloseTunnels, close_tunnels


def cube(code):
    return np.array([code >> i & 1 for i in range(8)], bool).reshape(2, 2, 2)


def euler(mask):
    pieces, tunnels, cavities = betti_numbers(mask)
    return pieces - tunnels + cavities


def test_tight_cubes_are_those_of_one_piece_without_tunnels():
    for code in range(1, 256):
        assert is_tight(code) == (betti_numbers(cube(code)) == (1, 0, 0)), code
    assert is_tight(0)
    connected = [
        c for c in range(1, 256) if cc3d.connected_components(cube(c), connectivity=6).max() == 1
    ]
    assert sum(map(is_tight, range(256))) == 1 + len(connected) - 4  # four of them are rings


def test_table_holds_exactly_the_smallest_plugs():
    starts, plugs = plug_table()
    for code in range(256):
        found = plugs[starts[code] : starts[code + 1]].tolist()
        if code == 0 or betti_numbers(cube(code)) == (1, 0, 0):
            assert found == []
            continue
        empty = [i for i in range(8) if not code >> i & 1]
        for size in range(1, len(empty) + 1):
            sets = [sum(1 << i for i in chosen) for chosen in combinations(empty, size)]
            good = [s for s in sets if betti_numbers(cube(code | s)) == (1, 0, 0)]
            if good:
                break
        assert sorted(found) == sorted(good), code


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.02, 0.6))
def test_plugged_masks_have_the_same_pieces_for_6_and_26_neighbours(seed, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 6, 5)) < share
    out, added = plug_holes(mask, rng.random(mask.shape).astype(np.float32))
    assert out[mask].all()
    assert added == int(out.sum() - mask.sum())
    six = cc3d.connected_components(out, connectivity=6)
    many = cc3d.connected_components(out, connectivity=26)
    assert six.max() == many.max()
    for index in np.ndindex(6, 5, 4):
        corner = out[tuple(slice(i, i + 2) for i in index)]
        assert not corner.any() or betti_numbers(corner) == (1, 0, 0)
    again, more = plug_holes(out, np.zeros(mask.shape, np.float32))
    assert more == 0
    assert np.array_equal(again, out)


def test_likelier_plug_is_taken_and_improbable_ones_are_left():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = True
    p = np.zeros((2, 2, 2), np.float32)
    p[0, 1, 0] = 0.4
    out, added = plug_holes(mask, p)
    assert added == 1
    assert out[0, 1, 0]
    kept = PlugHoles(min_probability=0.5)(ChainState(p, mask=mask))
    assert np.array_equal(kept.mask, mask)


def test_diagonal_sheet_is_made_watertight():
    z, _, x = np.ogrid[:8, :1, :8]
    mask = np.broadcast_to(z == x, (8, 6, 8)).copy()
    assert betti_numbers(mask)[0] == 8
    out, _ = plug_holes(mask, np.zeros(mask.shape, np.float32))
    assert betti_numbers(out) == (1, 0, 0)


@settings(max_examples=80, deadline=None)
@given(bits=st.integers(0, 2**27 - 1))
def test_link_tells_what_a_voxel_does_to_the_betti_numbers(bits):
    mask = np.array([bits >> i & 1 for i in range(27)], np.uint8).reshape(3, 3, 3)
    without, with_it = mask.copy(), mask.copy()
    without[1, 1, 1], with_it[1, 1, 1] = 0, 1
    pieces, change = link_counts(without, 1, 1, 1)
    assert change == euler(with_it > 0) - euler(without > 0)
    if pieces == 1 and change == 0:
        assert betti_numbers(without) == betti_numbers(with_it)


def holed_slab(radius, thickness=3, size=32):
    mask = np.zeros((size,) * 3, bool)
    mask[14 : 14 + thickness] = True
    _, y, x = np.ogrid[:size, :size, :size]
    mask &= ~((y - 16) ** 2 + (x - 16) ** 2 <= radius**2)
    return mask


@pytest.mark.parametrize(("hole", "radius"), [(0, 2), (1, 2), (2, 4), (3, 6)])
def test_holes_are_closed_by_one_membrane(hole, radius):
    mask = holed_slab(hole)
    assert betti_numbers(mask) == (1, 1, 0)
    out, counts = close_tunnels(mask, mask.astype(np.float32), radius=radius)
    assert betti_numbers(out) == (1, 0, 0)
    assert (counts["membranes"], counts["euler_rise"]) == (1, 1)
    assert set(np.flatnonzero((out & ~mask).any((1, 2)))) <= {14, 15, 16}


def test_larger_holes_and_forbidden_places_stay_open():
    out, _ = close_tunnels(holed_slab(9), np.ones((32,) * 3, np.float32), radius=4)
    assert betti_numbers(out) == (1, 1, 0)
    mask = holed_slab(2)
    step = CloseTunnels(radius=4, min_probability=0.1)
    assert np.array_equal(step(ChainState(mask.astype(np.float32), mask=mask)).mask, mask)


def test_guard_refuses_bridges_between_sheets():
    mask = np.zeros((32, 32, 32), bool)
    mask[8:10] = mask[13:15] = True
    mask[10:13, 16, 16] = False
    mask[10, 5:9, 5:9] = True  # bumps that the closing would join
    mask[12, 5:9, 5:9] = True
    out, counts = close_tunnels(mask, np.ones(mask.shape, np.float32), radius=3)
    assert betti_numbers(out)[0] == 2
    assert counts["membranes"] == 0
    assert np.array_equal(out, mask)


def test_a_handle_between_merged_sheets_is_not_filled():
    mask = np.zeros((40, 40, 40), bool)
    mask[10:12] = mask[15:17] = True
    mask[12:15, 5, 5] = mask[12:15, 30, 30] = True  # two bridges: one ring through both sheets
    assert betti_numbers(mask) == (1, 1, 0)
    out, _ = close_tunnels(mask, np.ones(mask.shape, np.float32), radius=4)
    assert betti_numbers(out) == (1, 1, 0)


def test_the_step_counts_over_its_rounds():
    mask = holed_slab(3)
    mask[14:17, 4, 4] = False
    after = CloseTunnels(radius=6, rounds=2)(ChainState(mask.astype(np.float32), mask=mask))
    assert after.notes["membranes"] == 2
    assert betti_numbers(after.mask) == (1, 0, 0)
