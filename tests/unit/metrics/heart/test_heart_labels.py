"""Heart scores at points and on grids against numbers worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.metrics.heart.labels import (
    background_accuracy,
    class_overlap,
    inside_overlap,
    inside_recall,
    predicted_label,
)
from vesuvius.metrics.heart.metrics import HeartDenseMetric, HeartPointMetric


def one_hot(labels, num_classes=10):
    """Return logits whose argmax over [0, logits] is the label."""
    table = torch.nn.functional.one_hot(labels, num_classes + 1)[..., 1:]
    return 2.0 * table - 1.0


def test_overlaps_by_hand():
    truth = torch.tensor([[0, 1, 1, 2, 2, 2]])
    label = torch.tensor([[1, 1, 0, 2, 2, 1]])
    found = class_overlap(label, truth, 3)
    # class 1: both 1, prediction 3, truth 2; class 2: both 2, prediction 2, truth 3
    assert found.iou[0, :2].tolist() == pytest.approx([1 / 4, 2 / 3])
    assert found.dice[0, :2].tolist() == pytest.approx([2 / 5, 4 / 5])
    assert math.isnan(found.iou[0, 2])  # on neither side
    union = inside_overlap(label > 0, truth > 0)
    assert union.iou.item() == pytest.approx(4 / 6)
    assert union.dice.item() == pytest.approx(8 / 10)


def test_a_class_on_one_side_alone_scores_zero_not_nan():
    label, truth = torch.tensor([[0, 1]]), torch.tensor([[0, 0]])
    assert class_overlap(label, truth, 1).iou.tolist() == [[0.0]]
    assert class_overlap(truth, label, 1).dice.tolist() == [[0.0]]


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_overlaps_agree_with_sets(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, (2, 40))
    found = class_overlap(torch.from_numpy(a)[None], torch.from_numpy(b)[None], 4)
    for c in range(1, 5):
        x, y = set(np.flatnonzero(a == c)), set(np.flatnonzero(b == c))
        if x | y:
            assert found.iou[0, c - 1].item() == pytest.approx(len(x & y) / len(x | y))
            assert found.dice[0, c - 1].item() == pytest.approx(2 * len(x & y) / (len(x) + len(y)))


def perfect(batch=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 11, (batch, 300), generator=rng)
    sdf = torch.where(label > 0, -0.1, 0.1) * (1 + torch.rand(batch, 300, generator=rng))
    return sdf, label, torch.stack([sdf, label.float()], -1)


def test_a_perfect_prediction_scores_one_and_its_inverse_zero():
    sdf, label, target = perfect()
    metric = HeartPointMetric()
    metric.update(sdf, one_hot(label), target)
    scores = metric.compute()
    for name in ("vol_iou", "near_iou", "iou", "dice", "acc", "class_iou", "class_dice"):
        assert scores[name].item() == pytest.approx(1), name
    metric.reset()
    metric.update(-sdf, one_hot(label), target)
    assert metric.compute()["iou"].item() == 0
    assert metric.compute()["class_dice"].item() == 0


def test_zero_is_outside():
    assert predicted_label(torch.zeros(1, 3), torch.ones(1, 3, 2)).tolist() == [[0, 0, 0]]


def test_swapped_classes_lower_the_class_score_which_the_recall_of_the_original_does_not():
    sdf, label, target = perfect()
    swapped = torch.where(label == 1, 2, torch.where(label == 2, 1, label))
    metric = HeartPointMetric()
    metric.update(sdf, one_hot(swapped), target)
    scores = metric.compute()
    assert scores["iou_class_1"].item() == 0
    assert scores["iou_class_3"].item() == 1
    assert scores["inside_recall_class_1"].item() == 1
    assert scores["iou"].item() == 1
    assert scores["acc"].item() < 1


def test_volume_and_near_points_are_scored_apart():
    sdf, label, target = perfect(batch=1)
    sdf[:, 200:] = -sdf[:, 200:]
    metric = HeartPointMetric(per_class=False)
    metric.update(sdf, one_hot(label), target)
    scores = metric.compute()
    assert (scores["vol_iou"].item(), scores["near_iou"].item()) == (1, 0)
    assert scores["iou"].item() == 0.5
    assert "iou_class_1" not in scores


def test_means_are_over_hearts_and_absent_classes_do_not_count():
    sdf, label, target = perfect(batch=1)
    label[label == 9] = 0
    sdf = torch.where(label > 0, -0.1, 0.1)
    target = torch.stack([sdf, label.float()], -1)
    metric = HeartPointMetric()
    metric.update(sdf, one_hot(label), target)
    assert math.isnan(metric.compute()["iou_class_9"])
    assert metric.compute()["class_iou"].item() == 1
    metric.update(-sdf, one_hot(label), target)
    assert metric.compute()["iou"].item() == pytest.approx(0.5)


def test_padding_channels_are_never_a_class():
    sdf, label, target = perfect()
    padded = torch.cat([one_hot(label), torch.full((2, 300, 6), 9.0)], -1)
    metric = HeartPointMetric()
    metric.update(sdf, padded, target)
    assert metric.compute()["class_iou"].item() == 1


def test_recall_and_accuracy_by_hand():
    truth = torch.tensor([[1, 1, 2, 0]])
    recall = inside_recall(torch.tensor([[-1.0, 1.0, -1.0, -1.0]]), truth, 2)
    assert recall.tolist() == [[0.5, 1.0]]
    logits = torch.tensor([[[1.0, -1.0], [-1.0, -2.0], [3.0, 4.0], [-1.0, -1.0]]])
    assert background_accuracy(logits, truth).tolist() == [0.75]


def test_dense_scores_of_a_shifted_cube_by_hand():
    truth = torch.zeros(8, 8, 8, dtype=torch.uint8)
    truth[2:6, 2:6, 2:6] = 1
    labels = torch.roll(truth, 1, 0)
    labels[0, 0, 0] = 2
    metric = HeartDenseMetric(num_classes=2)
    metric.update(labels, truth)
    scores = metric.compute()
    assert scores["iou_class_1"].item() == pytest.approx(48 / 80)
    assert scores["dice_class_1"].item() == pytest.approx(48 / 64)
    assert scores["dice_class_2"].item() == 0
    assert scores["class_dice"].item() == pytest.approx(0.375)
    assert scores["union_iou"].item() == pytest.approx(48 / 81)
    batch = HeartDenseMetric(num_classes=2, per_class=False)
    batch.update(torch.stack([labels, truth]), torch.stack([truth, truth]))
    assert batch.compute()["union_iou"].item() == pytest.approx((48 / 81 + 1) / 2)


def test_shapes_and_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ShapeMismatchError, match="expected equal shapes"):
        class_overlap(torch.zeros(1, 3), torch.zeros(1, 4), 2)
    metric = HeartPointMetric()
    with pytest.raises(ShapeMismatchError, match=r"expected \(b, Q\)"):
        metric.update(torch.zeros(2, 30), torch.zeros(2, 30, 10), torch.zeros(2, 31, 2))
    with pytest.raises(ConfigError, match="num_classes is 0"):
        HeartDenseMetric(num_classes=0)
