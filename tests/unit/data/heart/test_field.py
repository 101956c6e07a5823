"""Signed distances of voxel masks: zero on the faces, slope 1, every spacing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesuvius.data.heart.field import box_around, crop_padded, interpolate, signed_distance
from vesuvius.errors import LabelValueError


def ball(radius, spacing, edge):
    """Return a ball's mask, its true signed distance and the points' coordinates in mm."""
    shape = [round(edge / s) for s in spacing]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    centre = (np.array(shape) - 1) / 2 * spacing + 0.13
    truth = np.linalg.norm(index * spacing - centre, axis=-1) - radius
    return truth < 0, truth


def shell_points(spacing, width):
    """Return the field of a ball, 40 000 random points about its surface (indices), distances."""
    mask, _ = ball(12.0, spacing, 40)
    centre = (np.array(mask.shape) - 1) / 2 * spacing + 0.13
    rng = np.random.default_rng(0)
    way = rng.normal(size=(40_000, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    truth = rng.uniform(-width, width, 40_000)
    points = (centre + way * (12 + truth)[:, None]) / spacing
    return signed_distance(mask, spacing), points, truth


def test_a_ball_has_its_distance_to_a_fifth_of_a_voxel_and_slope_one():
    # the naive field edt(~m) - edt(m) has an error of 0.33 and a slope of 1.85 (finding 7)
    field, points, truth = shell_points((1.0, 1.0, 1.0), 1.0)
    assert np.abs(interpolate(field, points) - truth).mean() < 0.2
    step = 0.02 * np.eye(3)
    rise = [interpolate(field, points + s) - interpolate(field, points - s) for s in step]
    slope = np.linalg.norm(np.array(rise) / 0.04, axis=0)
    assert slope.mean() == pytest.approx(1.0, abs=0.1)


def test_faces_lie_half_way_between_the_voxels_along_every_axis():
    spacing = (1.0, 2.0, 5.0)
    for axis in range(3):
        mask = np.zeros((12, 12, 12), bool)
        mask[tuple(slice(0, 6) if a == axis else slice(None) for a in range(3))] = True
        field = signed_distance(mask, spacing)
        line = field[tuple(slice(None) if a == axis else 5 for a in range(3))]
        assert line == pytest.approx((np.arange(12) - 5.5) * spacing[axis], abs=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (0.5, 0.5, 3.0), (1.0, 1.5, 1.0)], ids=str)
def test_signs_are_the_mask_s_and_the_distance_fits_for_flat_voxels(spacing):
    mask, _ = ball(12.0, spacing, 40)
    field, points, truth = shell_points(spacing, np.mean(spacing))
    assert ((field < 0) == mask).all()
    assert np.abs(interpolate(field, points) - truth).mean() < 0.2 * np.mean(spacing)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(1, 1, 1), (1, 1, 1.5), (2, 0.7, 1)]))
def test_signs_match_and_no_value_is_farther_than_the_voxel_distance(seed, spacing):
    rng = np.random.default_rng(seed)
    mask = ndimage.zoom(rng.random((4, 4, 4)), 3, order=1) > rng.uniform(0.35, 0.65)
    if mask.all() or not mask.any():
        return
    field = signed_distance(mask, spacing)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    assert ((field < 0) == mask).all()
    assert (np.abs(field) <= outside + inside + 1e-5).all()
    assert (np.abs(field) >= (outside + inside) / 2 - 1e-5).all()


def test_a_mask_without_a_surface_is_refused():
    for mask in (np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)):
        with pytest.raises(LabelValueError, match="all voxels are of one kind"):
            signed_distance(mask, (1, 1, 1))


def test_interpolation_of_a_linear_field_is_exact_in_blocks_of_any_size():
    grid = np.indices((6, 7, 8)).astype(np.float32)
    field = 2 * grid[0] - 3 * grid[1] + 0.5 * grid[2] + 1
    points = np.random.default_rng(1).uniform(0, 5, (500, 3))
    expected = 2 * points[:, 0] - 3 * points[:, 1] + 0.5 * points[:, 2] + 1
    assert interpolate(field, points, block=7) == pytest.approx(expected, abs=1e-4)


def test_boxes_may_leave_the_grid_and_are_filled_with_zeros():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[0, 2, 4] = 3
    box = box_around(labels == 3, 2)
    assert [(s.start, s.stop) for s in box] == [(-2, 3), (0, 5), (2, 7)]
    crop = crop_padded(labels, box)
    assert crop.shape == (5, 5, 5)
    assert crop[2, 2, 2] == 3
    assert crop.sum() == 3
