"""Geometry of the windows: hand numbers and properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.errors import ConfigError
from vesuvius.inference.windows import (
    axis_windows,
    blend_profile,
    plan_windows,
    split_axis,
    stride,
    window_starts,
)


@pytest.mark.parametrize(
    ("window", "overlap", "step"),
    [(64, 0.5, 32), (64, 0, 64), (64, 8, 56), (64, 0.25, 48), (4, 0.9, 1), (1, 0.5, 1)],
)
def test_stride(window, overlap, step):
    assert stride(window, overlap) == step


@pytest.mark.parametrize(
    ("size", "window", "step", "starts"),
    [
        (64, 64, 32, (0,)),
        (10, 64, 32, (0,)),
        (128, 64, 32, (0, 32, 64)),
        (100, 64, 32, (0, 18, 36)),  # room 36 -> 2 steps of 18, no shift of a lone last window
        (65, 64, 32, (0, 1)),
    ],
)
def test_window_starts(size, window, step, starts):
    assert window_starts(size, window, step) == starts


@pytest.mark.parametrize("overlap", [-0.1, 16, 20, float("nan")])
def test_overlap_out_of_range(overlap):
    with pytest.raises(ConfigError, match="overlap must be a share"):
        stride(16, overlap)


def test_roi_and_names_out_of_range():
    with pytest.raises(ConfigError, match="three positive integers, got \\(0, 4, 4\\)"):
        plan_windows((8, 8, 8), (0, 4, 4), overlap=0.5, blend="gaussian")
    with pytest.raises(ConfigError, match="overlap must be one number or three"):
        plan_windows((8, 8, 8), (4, 4, 4), overlap=(0.5, 0.5), blend="gaussian")
    with pytest.raises(ConfigError, match="'gaussian' or 'constant', got 'linear'"):
        plan_windows((8, 8, 8), (4, 4, 4), overlap=0.5, blend="linear")


def test_gaussian_profile_hand_number():
    profile = blend_profile(5, "gaussian")  # sigma 0.625; centre 1, neighbour exp(-1.28) = 0.2780
    np.testing.assert_allclose(profile[[1, 2, 3]], [0.27804, 1.0, 0.27804], atol=1e-5)
    assert blend_profile(64, "gaussian").min() == np.float32(1e-3)
    assert np.all(np.diff(blend_profile(64, "gaussian")[:32]) >= 0)


geometry = st.tuples(
    st.integers(1, 200),
    st.integers(1, 64),
    st.floats(0, 0.95),
    st.sampled_from(("gaussian", "constant")),
)


@settings(max_examples=200, deadline=None)
@given(geometry)
def test_every_voxel_is_covered_and_weights_normalise(case):
    size, window, overlap, blend = case
    axis = axis_windows(size, window, overlap=overlap, blend=blend)
    share = np.zeros(size)
    for start in axis.starts:
        assert start >= 0
        assert start + window <= size or len(axis.starts) == 1
        stop = min(start + window, size)
        share[start:stop] += axis.profile[: stop - start] / axis.weight_sum[start:stop]
    np.testing.assert_allclose(share, 1, atol=1e-5)
    assert max(np.diff(axis.starts), default=1) <= stride(window, overlap)
    assert axis.starts == tuple(sorted(set(axis.starts)))


@settings(max_examples=200, deadline=None)
@given(geometry, st.integers(1, 100))
def test_cores_tile_the_axis(case, most):
    size, window, overlap, blend = case
    axis = axis_windows(size, window, overlap=overlap, blend=blend)
    cores = split_axis(axis, most)
    assert cores[0][0] == 0
    assert cores[-1][1] == size
    for (low, high), (following, _) in itertools.pairwise(cores):
        assert low < high == following
    for low, high in cores:
        covered = np.zeros(size, bool)
        for start in axis.touching(low, high):
            covered[start : start + window] = True
        assert covered[low:high].all()
        longest_step = max([*np.diff(axis.starts), size - axis.starts[-1]])
        assert high - low <= max(most, longest_step)
