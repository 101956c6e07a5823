"""Lesion scores by hand, surface distance by brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vesuvius.errors import ShapeMismatchError
from vesuvius.metrics.lesion import LesionMetric, hausdorff95, slice_rows, summarize

NAMES = ["a0", "a1", "b0", "b1"]
PATIENTS = ["a", "a", "b", "b"]


def masks(*pixels, size=4):
    """One (1, size, size) slice each: how many pixels, from the first on, are lesion."""
    out = torch.zeros(len(pixels), 1, size, size, dtype=torch.uint8)
    for slice_, (begin, end) in zip(out, pixels, strict=True):
        slice_.view(-1)[begin:end] = 1
    return out


# TP/FP/FN: a0 2/2/2, a1 both empty, b0 false alarm of 3, b1 missed 4
MASK = masks((0, 4), (0, 0), (0, 3), (0, 0))
LABEL = masks((2, 6), (0, 0), (0, 0), (0, 4))


def test_aggregations_by_hand():
    found = summarize(slice_rows(MASK, LABEL, NAMES, PATIENTS))
    assert found["dice_slice"] == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert found["dice_positive"] == pytest.approx((0.5 + 0) / 2)
    # patient a: 4 / 8; patient b: 0 of 3 + 4
    assert found["dice_patient"] == pytest.approx((0.5 + 0) / 2)
    assert found["dice_global"] == pytest.approx(4 / (4 + 5 + 6))
    assert found["iou_slice"] == pytest.approx((1 / 3 + 1) / 4)
    assert found["iou_positive"] == pytest.approx(1 / 6)
    assert found["iou_global"] == pytest.approx(2 / 13)
    assert found["fp_rate"] == pytest.approx(1 / 2)
    assert found["hd95_share"] == pytest.approx(1 / 2)
    assert found["accuracy"] == pytest.approx(1 - 11 / 64)


def test_both_empty_counts_one_and_positive_means_are_undefined():
    found = summarize(slice_rows(masks((0, 0)), masks((0, 0)), ["a"], ["a"]))
    assert found["dice_slice"] == found["dice_global"] == found["iou_slice"] == 1
    assert found["fp_rate"] == 0
    assert math.isnan(found["dice_positive"])
    assert math.isnan(found["hd95"])


def test_the_metric_adds_up_batches_and_counts_repeated_slices_once():
    metric = LesionMetric()
    metric.update(MASK[:1], LABEL[:1], NAMES[:1], PATIENTS[:1])
    metric.update(MASK[1:], LABEL[1:], NAMES[1:], PATIENTS[1:])
    metric.update(MASK[:1], LABEL[:1], NAMES[:1], PATIENTS[:1])  # a sampler filled up
    expected = summarize(slice_rows(MASK, LABEL, NAMES, PATIENTS))
    found = {k: float(v) for k, v in metric.compute().items()}
    assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)


def border(mask):
    """Pixels with a 4-neighbour outside, by looking at each."""
    inside = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return [(y, x) for y, x in inside if any((y + dy, x + dx) not in inside for dy, dx in steps)]


def brute_force(a, b):
    def directed(own, other):
        return np.percentile([min(math.dist(p, q) for q in other) for p in own], 95)

    return max(directed(border(a), border(b)), directed(border(b), border(a)))


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(bool, st.tuples(st.just(2), st.integers(2, 9), st.integers(2, 9))).filter(
        lambda pair: pair.any(axis=(1, 2)).all()
    )
)
def test_hd95_is_that_of_every_pair_of_border_pixels(pair):
    assert hausdorff95(*pair) == pytest.approx(brute_force(*pair), abs=1e-5)


def test_hd95_by_hand_and_undefined():
    a, b = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    a[5, 5] = True
    assert math.isnan(hausdorff95(a, b))
    b[9, 8] = True
    assert hausdorff95(a, b) == pytest.approx(5.0)


def test_shapes_must_agree():
    with pytest.raises(ShapeMismatchError, match=r"4 names, 3 patients"):
        slice_rows(MASK, LABEL, NAMES, PATIENTS[:3])
