"""Medial-surface recall by hand."""

import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.losses.recall import MedialRecallLoss, medial_surface


def sheet(begin=5, end=8):
    mask = torch.zeros(1, 1, 14, 6, 7)
    mask[:, :, begin:end] = 1
    return mask


def targets(label):
    return {"label": label, "surface": (label == 1).float(), "valid": (label != 2).float()}


def outputs(probability):
    return {"surface_logit": torch.logit(probability.clamp(1e-6, 1 - 1e-6)).requires_grad_()}


def test_the_middle_of_sheets():
    assert torch.equal(medial_surface(sheet(5, 8)), sheet(6, 7))
    assert torch.equal(medial_surface(sheet(4, 9)), sheet(6, 7))
    assert torch.equal(medial_surface(sheet(4, 9), widen=1), sheet(5, 8))
    assert torch.equal(medial_surface(sheet(5, 8), widen=5), sheet(5, 8))  # never leaves the mask


def test_loss_by_hand():
    # 42 medial voxels, predicted 0.3 there and 0.9 elsewhere: 1 - (0.3 * 42 + 1) / (42 + 1)
    probability = torch.full((1, 1, 14, 6, 7), 0.9)
    probability[:, :, 6] = 0.3
    loss = MedialRecallLoss()(outputs(probability), targets(sheet().to(torch.uint8)))
    assert loss.item() == pytest.approx(1 - (0.3 * 42 + 1) / 43, abs=1e-6)


def test_perfect_is_better_than_noisy_is_better_than_wrong():
    torch.manual_seed(0)
    losses = []
    for probability in (sheet(), 0.5 * sheet() + 0.3 * torch.rand(1, 1, 14, 6, 7), sheet(9, 12)):
        out = outputs(probability)
        loss = MedialRecallLoss()(out, targets(sheet().to(torch.uint8)))
        loss.backward()
        gradient = out["surface_logit"].grad
        assert torch.isfinite(gradient).all()
        assert (gradient[:, :, 6] < 0).all()  # up on the middle, nothing elsewhere
        assert (gradient[:, :, :6] == 0).all()
        losses.append(loss.item())
    assert losses[0] < 1e-4 < losses[1] < losses[2]
    assert losses[2] > 0.9


def test_ignored_voxels_take_no_part():
    label = sheet().to(torch.uint8)
    label[..., 4:] = 2
    probability = torch.full((1, 1, 14, 6, 7), 0.5)
    probability[..., 4:] = 0.01
    loss = MedialRecallLoss()(outputs(probability), targets(label))
    assert loss.item() == pytest.approx(1 - (0.5 * 24 + 1) / 25, abs=1e-6)


def test_a_crop_without_surface_costs_nothing():
    out = outputs(torch.rand(1, 1, 14, 6, 7))
    loss = MedialRecallLoss()(out, targets(torch.zeros(1, 1, 14, 6, 7, dtype=torch.uint8)))
    loss.backward()
    assert loss.item() == 0
    assert (out["surface_logit"].grad == 0).all()


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="max_half_thickness=0 must be >= 1"):
        MedialRecallLoss(max_half_thickness=0)
    with pytest.raises(ConfigError, match="smooth=0; expected > 0"):
        MedialRecallLoss(smooth=0)
