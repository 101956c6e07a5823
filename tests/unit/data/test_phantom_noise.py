"""Noise without state: bounded, reproducible, the same wherever a chunk begins."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.data.phantom_noise import lattice, smooth_field, spline3, streams, value2, value3

SEED = streams(0, 1)[0]
whole = st.integers(-10_000, 10_000)


@settings(max_examples=50, deadline=None)
@given(whole, whole, whole)
def test_lattice_values_lie_in_their_range_and_repeat(i, j, k):
    value = lattice(SEED, i, j, k)
    assert -1.0 <= value < 1.0
    assert value == lattice(SEED, i, j, k)


def test_lattice_values_are_uniform_and_independent_of_their_neighbours():
    grid = np.array([[lattice(SEED, i, j, 5) for j in range(60)] for i in range(60)])
    assert abs(grid.mean()) < 0.05
    assert abs(grid.std() - 1 / np.sqrt(3)) < 0.03
    assert abs(np.corrcoef(grid[1:].ravel(), grid[:-1].ravel())[0, 1]) < 0.06
    assert abs(np.corrcoef(grid[:, 1:].ravel(), grid[:, :-1].ravel())[0, 1]) < 0.06


@settings(max_examples=30, deadline=None)
@given(whole, whole)
def test_value_noise_passes_through_its_lattice(i, j):
    assert value2(SEED, float(i), float(j)) == lattice(SEED, i, j, 0)
    assert value3(SEED, float(i), float(j), 2.0) == lattice(SEED, i, j, 2)


def test_value_noise_is_halfway_between_lattice_points():
    expected = 0.5 * (lattice(SEED, 3, 4, 0) + lattice(SEED, 4, 4, 0))
    assert abs(value2(SEED, 3.5, 4.0) - expected) < 1e-12


def test_smooth_field_is_the_spline_at_each_voxel_whatever_the_chunk():
    field = smooth_field((9, 10, 21), 3, origin_zyx=(-4, 7, 2), scale=5.0)
    seed = streams(3, 1)[0]
    for place in ((0, 0, 0), (8, 9, 20), (3, 5, 11)):
        z, y, x = (p + o for p, o in zip(place, (-4, 7, 2), strict=True))
        assert abs(field[place] - spline3(seed, z / 5, y / 5, x / 5)) < 1e-6
    part = smooth_field((3, 3, 3), 3, origin_zyx=(-2, 9, 6), scale=5.0)
    np.testing.assert_allclose(part, field[2:5, 2:5, 4:7], atol=1e-6)
