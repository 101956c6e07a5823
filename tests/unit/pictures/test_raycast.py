"""The ray caster against shapes whose picture is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.pictures import raycast

ISO = 30.0


def ball(size=24, radius=7.0):
    axis = np.arange(size) - (size - 1) / 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    # the level ISO is the sphere; it lies above the zero that surrounds every field
    return (ISO + radius - np.sqrt(z**2 + y**2 + x**2)).astype(np.float32)


def white(shape):
    return np.full((*shape, 3), 255, dtype=np.uint8)


@given(st.floats(-180, 180), st.floats(-80, 80))
@settings(max_examples=50, deadline=None)
def test_camera_is_orthonormal_and_sees_the_whole_box(azimuth, elevation):
    shape = (10, 20, 30)
    camera = raycast.look_at(shape, azimuth_deg=azimuth, elevation_deg=elevation)
    basis = np.stack([camera.right, camera.up, camera.forward])
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)
    assert np.abs(camera.project(raycast.box_corners(shape))).max() <= 1.0
    assert camera.up[0] > 0, "z points upwards"


def test_camera_by_hand_from_the_front():
    camera = raycast.look_at((10, 10, 10), azimuth_deg=0, elevation_deg=0)
    np.testing.assert_allclose(camera.forward, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(camera.up, [1, 0, 0], atol=1e-12)
    # seen along +x with z up, a right-handed (x, y, z) puts y to the left
    np.testing.assert_allclose(camera.right, [0, -1, 0], atol=1e-12)


def test_a_ball_is_a_disc_of_the_right_area_and_place():
    field = ball(radius=7.0)
    camera = raycast.look_at(field.shape)
    rgba = raycast.render(field, white(field.shape), camera, iso=ISO, size=120)
    area_px = (rgba[..., 3] / 255).sum()
    voxel_px = 120 / (2 * camera.half_width)
    assert area_px == pytest.approx(np.pi * (7.0 * voxel_px) ** 2, rel=0.02)
    rows, columns = np.nonzero(rgba[..., 3] > 127)
    assert rows.mean() == pytest.approx(59.5, abs=0.5)
    assert columns.mean() == pytest.approx(59.5, abs=0.5)


def test_hits_lie_on_the_sphere_and_normals_point_outwards():
    field = ball(radius=7.0)
    camera = raycast.look_at(field.shape)
    gap = np.zeros_like(field)
    hits, normals = raycast._march(
        field, gap, ISO, 40, camera.half_width, camera.centre, camera.right, camera.up,
        camera.forward,
    )  # fmt: skip
    seen = np.isfinite(hits[..., 0])
    offset = hits[seen] - camera.centre
    np.testing.assert_allclose(np.linalg.norm(offset, axis=1), 7.0, atol=0.05)
    outward = offset / np.linalg.norm(offset, axis=1, keepdims=True)
    assert (outward * normals[seen]).sum(axis=1).min() > 0.98
    assert (offset @ camera.forward).max() < 0.5, "the near side is seen"


def test_skipping_empty_space_changes_nothing(rng):
    field = np.zeros((20, 20, 20), dtype=np.float32)
    for z, y, x in rng.integers(2, 18, (40, 3)):
        field[z, y - 1 : y + 2, x - 1 : x + 2] = 1.0
    camera = raycast.look_at(field.shape)
    view = (camera.half_width, camera.centre, camera.right, camera.up, camera.forward)
    gap = raycast.edt.edt(field < 0.4)
    slow, _ = raycast._march(field, np.zeros_like(gap), 0.4, 80, *view)
    fast, _ = raycast._march(field, gap, 0.4, 80, *view)
    same = np.isfinite(slow[..., 0]) == np.isfinite(fast[..., 0])
    assert same.mean() > 0.995, "only grazing rays may differ"
    both = np.isfinite(slow[..., 0]) & np.isfinite(fast[..., 0])
    assert both.sum() > 500
    distance = np.linalg.norm(slow[both] - fast[both], axis=1)
    assert np.quantile(distance, 0.99) < 0.05


def test_the_nearer_of_two_plates_hides_the_other():
    field = np.zeros((16, 16, 16), dtype=np.float32)
    field[:, :, 3:5] = 1.0
    field[:, :, 11:13] = 1.0
    colours = np.zeros((16, 16, 16, 3), dtype=np.uint8)
    colours[:, :, :8] = (255, 0, 0)
    colours[:, :, 8:] = (0, 0, 255)
    camera = raycast.look_at(field.shape, azimuth_deg=0, elevation_deg=0)  # from small x
    rgba = raycast.render(field, colours, camera, iso=0.4, size=60)
    seen = rgba[..., 3] == 255
    assert seen.sum() > 1000
    assert rgba[seen][:, 0].min() > 80
    assert rgba[seen][:, 2].max() == 0


def test_an_empty_field_is_transparent():
    field = np.zeros((8, 8, 8), dtype=np.float32)
    rgba = raycast.render(field, white(field.shape), raycast.look_at(field.shape), iso=0.4, size=20)
    assert rgba.shape == (20, 20, 4)
    assert rgba.max() == 0
