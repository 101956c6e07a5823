"""Chunks that hold the scroll's axis: numbers gain one a turn, sheets are not torn at the cut."""

import numpy as np
import pytest

from vesuvius.postprocess import winding_field
from vesuvius.postprocess.winding.backend import ArrayBackend
from vesuvius.postprocess.winding.field import solve_field
from vesuvius.postprocess.winding.umbilicus import is_inside, other_branch, plane_turns, turns

AXIS = (44.0, 40.0)
PITCH = 8.0


def spiral(sense: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probability and winding coordinate of a spiral around AXIS, (32, 96, 96)."""
    y, x = np.mgrid[:96, :96]
    radius = np.hypot(y - AXIS[0], x - AXIS[1])
    turn = np.arctan2(y - AXIS[0], x - AXIS[1]) / (2 * np.pi)
    winding = radius / PITCH + sense * turn
    across = PITCH * (winding - np.floor(winding) - 0.5)
    plane = (0.95 * np.exp(-((across / 1.5) ** 2)) * (radius > 6)).astype(np.float32)
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.random((32, 96, 96), dtype=np.float32)
    return np.broadcast_to(plane, noise.shape) * 0.95 + noise, winding


@pytest.mark.parametrize("sense", [1, -1])
def test_every_turn_has_its_number_and_no_sheet_is_torn_at_the_cut(sense):
    probability, winding = spiral(sense)
    result = winding_field(probability, umbilicus_yx=AXIS, threads=1)
    assert result.coherence > 0.95
    y, x = np.mgrid[:96, :96]
    known = (np.hypot(y - AXIS[0], x - AXIS[1]) > 12) & (result.labels > 0)
    number = np.broadcast_to(np.floor(winding), known.shape)[known] - result.labels[known]
    assert np.unique(number, return_counts=True)[1].max() > 0.995 * number.size
    ridge = np.broadcast_to((probability > 0.8).all(0), known.shape)
    at_cut = ridge & (np.abs(y - AXIS[0]) < 2) & (x < AXIS[1] - 12) & (x > 3)
    assert at_cut.sum() > 200
    assert result.mask[at_cut].mean() > 0.98


def test_without_the_axis_the_same_chunk_agrees_less():
    probability, _ = spiral(1)
    around, plain = (
        winding_field(probability, umbilicus_yx=axis, threads=1) for axis in (AXIS, None)
    )
    assert around.coherence > plain.coherence + 0.03


def test_the_array_stages_know_the_turn_too():
    probability, _ = spiral(-1)
    crop = np.ascontiguousarray(probability[:16])
    loops = solve_field(crop, umbilicus_yx=AXIS)
    arrays = solve_field(crop, umbilicus_yx=AXIS, backend=ArrayBackend(np))
    assert loops.spiral == arrays.spiral
    assert loops.spiral is not None
    assert loops.spiral.sense == -1
    np.testing.assert_allclose(arrays.field, loops.field, atol=1e-3)


def test_an_axis_outside_only_fixes_the_sign():
    assert is_inside((0.0, 9.0), (4, 8, 10))
    assert not is_inside((-1.0, 5.0), (4, 8, 10))
    assert not is_inside((3.0, 9.5), (4, 8, 10))
    assert not is_inside(None, (4, 8, 10))


def test_turns_by_hand():
    at = turns(np.array([1.0, 3.0, 1.0]), np.array([5.0, 2.0, -1.0]), (1.0, 2.0))
    np.testing.assert_allclose(at, [0.0, 0.25, 0.5])
    plane = plane_turns((4, 4), (1.5, 1.5), 1)
    assert plane[0, 2] < 0 < plane[3, 2]
    np.testing.assert_allclose(other_branch(plane)[0, 2], plane[0, 2] + 1)
    np.testing.assert_array_equal(other_branch(plane)[2:], plane[2:])
