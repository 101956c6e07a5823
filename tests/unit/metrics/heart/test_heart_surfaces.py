"""Distances of surfaces against planes, spheres and an all-pairs computation."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.metrics.heart.surfaces import class_surfaces, surface_scores


def sphere(radius, count=4000, seed=0):
    way = np.random.default_rng(seed).normal(size=(count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    return way * radius, way


def test_scores_agree_with_all_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.random((80, 3)), rng.random((120, 3))
    table = cdist(a, b)
    found = surface_scores(a, b, threshold=0.15)
    there, back = table.min(1), table.min(0)
    assert found.chamfer == pytest.approx(there.mean() + back.mean())
    assert found.chamfer_squared == pytest.approx((there**2).mean() + (back**2).mean())
    precision, recall = (there < 0.15).mean(), (back < 0.15).mean()
    assert found.f_score == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert math.isnan(found.normal_consistency)


def test_concentric_spheres_are_their_gap_apart():
    (a, na), (b, nb) = sphere(1.0), sphere(1.1, seed=1)
    found = surface_scores(a, b, normals=na, true_normals=nb, threshold=0.02)
    assert found.chamfer == pytest.approx(0.2, abs=0.02)
    assert found.normal_consistency > 0.99
    assert found.f_score == 0
    assert surface_scores(a, b, threshold=0.2).f_score == 1


def test_the_same_points_are_at_no_distance():
    a, normals = sphere(0.5)
    found = surface_scores(a, a, normals=normals, true_normals=-normals)
    assert (found.chamfer, found.hd95, found.f_score) == (0, 0, 1)
    assert found.normal_consistency == pytest.approx(1)  # whichever way they point


def test_label_maps_moved_by_a_slice_are_its_thickness_apart():
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[5:15, 5:15, 5:15] = 1
    moved = np.roll(truth, 2, axis=2)
    truth[0, 0, 0] = 3
    found = class_surfaces(moved, truth, spacing=(1, 1, 1.5), num_classes=4, tolerance_mm=3.5)
    assert found.hd95[0] == pytest.approx(3.0)
    assert found.nsd[0] == 1
    assert math.isinf(found.hd95[2])
    assert found.nsd[2] == 0
    assert np.isnan(found.nsd[[1, 3]]).all()
    strict = class_surfaces(moved, truth, spacing=(1, 1, 1.5), num_classes=4, tolerance_mm=1.0)
    assert strict.nsd[0] < 0.95


def test_bad_input_is_refused():
    with pytest.raises(ShapeMismatchError, match=r"prediction has shape \(0, 3\)"):
        surface_scores(np.zeros((0, 3)), np.zeros((4, 3)))
    with pytest.raises(ConfigError, match="threshold is 0"):
        surface_scores(np.zeros((2, 3)), np.zeros((4, 3)), threshold=0)
    maps = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(ShapeMismatchError, match="expected the same"):
        class_surfaces(maps, maps[1:], spacing=(1, 1, 1))
    with pytest.raises(ConfigError, match="expected above 0"):
        class_surfaces(maps, maps, spacing=(1, 1, 0))
