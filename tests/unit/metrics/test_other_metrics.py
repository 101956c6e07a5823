"""Overlap, clDice, normals, wraps: numbers counted by hand and independent implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from vesuvius.errors import ShapeMismatchError
from vesuvius.metrics import (
    cldice_score,
    dice,
    iou,
    normal_angle_error,
    precision,
    recall,
    voxel_overlap,
    wrap_accuracy,
)
from vesuvius.metrics.cldice import skeleton
from vesuvius.metrics.normals import normal_angles


def line(*values):
    return np.array(values, np.uint8).reshape(1, 1, -1)


def test_overlap_by_hand():
    prediction, label = line(1, 1, 1, 0, 0, 1), line(1, 1, 0, 1, 0, 2)
    assert voxel_overlap(prediction, label).both == 2
    assert dice(prediction, label) == pytest.approx(4 / 6)
    assert iou(prediction, label) == pytest.approx(2 / 4)
    assert precision(prediction, label) == pytest.approx(2 / 3)
    assert recall(prediction, label) == pytest.approx(2 / 3)
    assert precision(prediction, label, ignore_label=None) == pytest.approx(3 / 4)


def test_overlap_of_empty_masks():
    some, none = line(1, 0), line(0, 0)
    assert [f(none, none) for f in (dice, iou, precision, recall)] == [1.0] * 4
    assert [f(none, some) for f in (dice, iou, precision, recall)] == [0.0] * 4
    assert [f(some, none) for f in (dice, iou, precision, recall)] == [0.0] * 4


def test_skeleton_against_scipy(rng):
    mask = ndimage.gaussian_filter(rng.random((14, 15, 16)), 1.5) > 0.5
    cross, box = ndimage.generate_binary_structure(3, 1), np.ones((3, 3, 3), bool)
    expected, left = np.zeros_like(mask), mask
    while left.any():
        eroded = ndimage.binary_erosion(left, cross, border_value=1)
        expected |= left & ~ndimage.binary_dilation(eroded, box)
        left = eroded
    np.testing.assert_array_equal(skeleton(mask), expected)
    assert skeleton(np.ones((3, 3, 3), bool)).all()


def test_cldice_sees_breaks_more_than_thickness():
    label = np.zeros((9, 20, 20), bool)
    label[3:6] = True
    thinner = np.zeros_like(label)
    thinner[4] = True
    broken = label.copy()
    broken[:, 8:12] = False
    assert cldice_score(label, label) == 1.0
    assert cldice_score(thinner, label) == 1.0
    # Skeleton of the label: its middle plane; 320 of 400 voxels of it are left.
    assert cldice_score(broken, label) == pytest.approx(2 * 0.8 / 1.8)
    assert cldice_score(np.zeros_like(label), label) == 0.0
    assert cldice_score(np.zeros_like(label), np.zeros_like(label)) == 1.0


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.1),
    st.floats(0, 90),
    st.floats(0.5, 3),
)
def test_turned_normal_has_the_angle_it_was_turned_by(vector, degrees, length):
    normal = np.array(vector) / np.linalg.norm(vector)
    side = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    side /= np.linalg.norm(side)
    turned = np.cos(np.radians(degrees)) * normal + np.sin(np.radians(degrees)) * side
    for sign in (1, -1):
        assert normal_angles(sign * length * turned, normal) == pytest.approx(degrees, abs=1e-6)


def test_normal_error_by_hand():
    truth = np.zeros((3, 1, 1, 4))
    truth[0] = 1  # along z
    prediction = np.array([[1, 0, 0], [-1, 0, 0], [1, 1, 0], [0, 0, 0]], float).T
    error = normal_angle_error(prediction.reshape(3, 1, 1, 4), truth)
    assert (error.voxels, error.undefined) == (3, 1)
    assert error.mean == pytest.approx(15.0)
    assert error.median == pytest.approx(0.0)
    masked = normal_angle_error(prediction.reshape(3, 1, 1, 4), truth, np.array([[[0, 0, 1, 0]]]))
    assert masked.mean == pytest.approx(45.0)
    assert np.isnan(normal_angle_error(truth, truth, np.zeros((1, 1, 4))).mean)
    with pytest.raises(ShapeMismatchError, match=r"expected equal shapes \(3, \.\.\.\)"):
        normal_angle_error(truth[:2], truth[:2])


def test_wraps_up_to_offset_and_sign():
    true = np.repeat(np.arange(1, 6), 100).reshape(1, 5, 100)
    perfect = wrap_accuracy(17 - true, true)
    assert (perfect.right, perfect.sign, perfect.offset) == (1.0, -1, 17)
    assert (perfect.voi_split, perfect.voi_merge, perfect.merged, perfect.split) == (0, 0, 0, 0)
    shifted = true + 3
    shifted[0, 2:, :] += 1  # a jump: wraps 1 and 2 fit one offset, 3 to 5 another
    found = wrap_accuracy(shifted, true)
    assert found.right == pytest.approx(0.6)
    assert (found.sign, found.offset) == (1, -4)


def test_wraps_merged_split_and_uncovered():
    true = np.repeat(np.arange(1, 5), 100).reshape(1, 4, 100)
    sheets = true.copy()
    sheets[true == 2] = 1  # sheets 1 and 2 fused
    sheets[0, 2, :50] = 7  # wrap 3 in two pieces
    sheets[0, 3, :50] = 0  # half of wrap 4 has no number
    found = wrap_accuracy(sheets, true)
    assert (found.merged, found.split) == (1, 1)
    assert (found.sheets, found.wraps, found.voxels) == (4, 4, 400)
    assert found.covered == pytest.approx(0.875)
    assert found.right == pytest.approx(200 / 400)
    assert found.voi_merge == pytest.approx(200 / 350)  # one bit on the fused 200 of 350
    assert found.voi_split == pytest.approx(100 / 350)


def test_a_few_stray_voxels_are_no_merger():
    true = np.repeat([1, 2], 1000).reshape(1, 2, 1000)
    sheets = true.copy()
    sheets[0, 0, :15] = 2
    assert wrap_accuracy(sheets, true).merged == 0
    assert wrap_accuracy(sheets, true, min_voxels=10, min_share=0.01).merged == 1
    nothing = wrap_accuracy(sheets, np.zeros_like(true))
    assert np.isnan(nothing.right)
    with pytest.raises(ShapeMismatchError, match="wrap_accuracy"):
        wrap_accuracy(sheets, true[:, :1])
