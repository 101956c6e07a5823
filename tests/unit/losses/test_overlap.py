"""Dice and BCE terms against hand-computed numbers."""

import math

import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.losses.overlap import BCELoss, DiceLoss


def targets(label):
    label = torch.tensor(label, dtype=torch.uint8).view(1, 1, 1, 1, -1)
    return {
        "label": label,
        "surface": (label == 1).float(),
        "valid": (label != 2).float(),
    }


def logits(probabilities):
    p = torch.tensor(probabilities).view(1, 1, 1, 1, -1)
    return {"surface_logit": torch.log(p / (1 - p)).requires_grad_()}


def test_dice_by_hand():
    # p t = 0.8 + 0.4, sum p = 0.8 + 0.4 + 0.2, sum t = 2: 1 - 2.4 / 3.4
    loss = DiceLoss()(logits([0.8, 0.4, 0.2]), targets([1, 1, 0]))
    assert loss.item() == pytest.approx(1 - 2.4 / 3.4, abs=1e-6)


def test_dice_ignores_label_two():
    # the ignored voxel's 0.9 appears nowhere
    loss = DiceLoss()(logits([0.8, 0.4, 0.9]), targets([1, 0, 2]))
    assert loss.item() == pytest.approx(1 - 1.6 / 2.2, abs=1e-6)


def test_dice_of_an_empty_crop_is_zero_for_an_empty_prediction():
    outputs = {"surface_logit": torch.full((1, 1, 1, 1, 3), -200.0)}
    assert DiceLoss()(outputs, targets([0, 0, 0])).item() == pytest.approx(0.0, abs=1e-6)


def test_dice_is_a_mean_over_samples_not_over_voxels():
    label = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.uint8).view(2, 1, 1, 1, 4)
    t = {"label": label, "surface": (label == 1).float(), "valid": torch.ones(2, 1, 1, 1, 4)}
    logit = torch.full((2, 1, 1, 1, 4), -200.0)
    logit[0] = 200.0  # first sample perfect, second entirely missed
    assert DiceLoss()({"surface_logit": logit}, t).item() == pytest.approx(0.5, abs=1e-5)


def test_bce_by_hand_with_positive_weight():
    # (-10 ln 0.8 - ln(1 - 0.3)) / 2 valid voxels
    loss = BCELoss(pos_weight=10)(logits([0.8, 0.3, 0.9]), targets([1, 0, 2]))
    expected = (-10 * math.log(0.8) - math.log(0.7)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_bce_of_an_all_ignored_crop_is_zero_with_a_gradient():
    outputs = logits([0.8, 0.3])
    loss = BCELoss()(outputs, targets([2, 2]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(outputs["surface_logit"].grad, torch.zeros(1, 1, 1, 1, 2))


@pytest.mark.parametrize("term", [DiceLoss(), BCELoss()], ids=["dice", "bce"])
def test_two_samples_cost_the_mean_of_each_alone(term):
    torch.manual_seed(0)
    label = torch.tensor([[1, 0, 0, 2, 2, 2], [1, 1, 0, 0, 0, 2]], dtype=torch.uint8)
    label = label.view(2, 1, 1, 1, 6)
    outputs = {"surface_logit": torch.randn(2, 1, 1, 1, 6)}
    t = {"surface": (label == 1).float(), "valid": (label != 2).float()}
    alone = [
        term(
            {"surface_logit": outputs["surface_logit"][i : i + 1]},
            {k: v[i : i + 1] for k, v in t.items()},
        )
        for i in range(2)
    ]
    assert term(outputs, t).item() == pytest.approx((sum(alone) / 2).item(), rel=1e-6)


def test_few_labelled_voxels_count_less():
    # 1 of 20 voxels labelled: -ln 0.5 / (0.1 * 20), not / 1
    label = torch.full((1, 1, 1, 1, 20), 2, dtype=torch.uint8)
    label[..., 0] = 0
    t = {"surface": (label == 1).float(), "valid": (label != 2).float()}
    loss = BCELoss()({"surface_logit": torch.zeros(1, 1, 1, 1, 20)}, t)
    assert loss.item() == pytest.approx(math.log(2) / 2, rel=1e-6)


@pytest.mark.parametrize("term", [DiceLoss(), BCELoss()], ids=["dice", "bce"])
def test_perfect_is_better_than_noisy_is_better_than_wrong(term):
    t = targets([1, 1, 0, 0, 2])
    losses = []
    for p in ([0.99, 0.99, 0.01, 0.01, 0.5], [0.7, 0.8, 0.3, 0.4, 0.5], [0.1, 0.1, 0.9, 0.9, 0.5]):
        outputs = logits(p)
        loss = term(outputs, t)
        loss.backward()
        gradient = outputs["surface_logit"].grad
        assert torch.isfinite(gradient).all()
        assert (gradient[..., :4] != 0).all()
        assert gradient[..., 4] == 0
        losses.append(loss.item())
    assert losses == sorted(losses)
    assert losses[0] < losses[1] < losses[2]


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="pos_weight=0; expected > 0"):
        BCELoss(pos_weight=0)
    with pytest.raises(ConfigError, match="smooth=-1; expected > 0"):
        DiceLoss(smooth=-1)
