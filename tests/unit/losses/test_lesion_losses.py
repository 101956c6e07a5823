"""The six losses against hand-computed numbers and, where installed, MONAI."""

import math

import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.lesion import LesionCE, LesionDice, LesionFocal, LesionIoU, LesionTversky

TERMS = {
    "dice": LesionDice(),
    "iou": LesionIoU(),
    "tversky": LesionTversky(),
    "ce": LesionCE(),
    "focal": LesionFocal(),
}
P, T = [0.8, 0.4, 0.3, 0.1], [1, 1, 0, 0]  # sum p = 1.6, sum t = 2, TP = 1.2, FP = 0.4, FN = 0.8


def value(term, probabilities=P, target=T):
    p = torch.tensor(probabilities, dtype=torch.float64)
    outputs = {"lesion_logit": torch.log(p / (1 - p)).view(1, 1, 2, -1)}
    label = torch.tensor(target, dtype=torch.uint8).view(1, 1, 2, -1)
    return float(term(outputs, {"label": label}))


CE = -(math.log(0.8) + math.log(0.4) + math.log(0.7) + math.log(0.9)) / 4
FOCAL = -sum((1 - p) ** 2 * math.log(p) for p in (0.8, 0.4, 0.7, 0.9)) / 4


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (LesionDice(), 1 - 2.4 / 3.6),
        (LesionIoU(), 1 - 1.2 / 2.4),
        (LesionTversky(), 1 - 1.2 / (1.2 + 0.6 * 0.4 + 0.4 * 0.8)),
        (LesionTversky(fp_weight=0.3, fn_weight=0.7), 1 - 1.2 / (1.2 + 0.3 * 0.4 + 0.7 * 0.8)),
        (LesionCE(), CE),
        (LesionCE(pos_weight=5), CE - 4 * (math.log(0.8) + math.log(0.4)) / 4),
        (LesionFocal(), FOCAL),
        (LesionFocal(alpha=0.5, gamma=0), CE / 2),
    ],
)
def test_by_hand(term, expected):
    assert value(term) == pytest.approx(expected, rel=1e-5)


def test_sums_run_over_the_batch_not_over_slices():
    logit = torch.full((2, 1, 2, 2), -200.0)
    label = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    label[0], label[1, 0, 0, 0] = 1, 1
    logit[0] = 200.0  # first slice found, the one pixel of the second missed
    loss = LesionDice()({"lesion_logit": logit}, {"label": label})
    assert loss.item() == pytest.approx(1 - 8 / 9, abs=1e-6)


@pytest.mark.parametrize("name", ["dice", "iou", "tversky"])
def test_an_empty_batch_costs_nothing_if_nothing_is_predicted(name):
    logit = torch.full((1, 1, 2, 2), -200.0)
    label = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    assert TERMS[name]({"lesion_logit": logit}, {"label": label}).item() == pytest.approx(0)


@pytest.mark.parametrize("name", list(TERMS))
def test_better_predictions_cost_less_and_gradients_point_there(name):
    good, noisy, wrong = ([0.99, 0.98, 0.02, 0.01], P, [0.1, 0.2, 0.7, 0.9])
    costs = [value(TERMS[name], p) for p in (good, noisy, wrong)]
    assert costs == sorted(costs)
    assert costs[0] < 0.03
    logit = torch.zeros(1, 1, 2, 2, requires_grad=True)
    label = torch.tensor(T, dtype=torch.uint8).view(1, 1, 2, 2)
    TERMS[name]({"lesion_logit": logit}, {"label": label}).backward()
    assert (logit.grad.flatten()[:2] < 0).all()
    assert (logit.grad.flatten()[2:] > 0).all()


@pytest.mark.parametrize("name", list(TERMS))
def test_large_logits_give_finite_losses_and_gradients(name):
    logit = torch.tensor([300.0, -300.0, 300.0, -300.0]).view(1, 1, 2, 2).requires_grad_()
    label = torch.tensor(T, dtype=torch.uint8).view(1, 1, 2, 2)
    loss = TERMS[name]({"lesion_logit": logit}, {"label": label})
    loss.backward()
    assert loss.isfinite()
    assert logit.grad.isfinite().all()


def test_combined_is_the_weighted_sum():
    term = {
        "lesion_dice": {"weight": 0.6, "fn": LesionDice()},
        "lesion_ce": {"weight": 0.4, "fn": LesionCE()},
    }
    loss = CompositeLoss(term=term)
    loss.check_heads(("lesion_logit",))
    p = torch.tensor(P)
    outputs = {"lesion_logit": torch.log(p / (1 - p)).view(1, 1, 2, 2)}
    found = loss(outputs, {"label": torch.tensor(T, dtype=torch.uint8).view(1, 1, 2, 2)})
    assert found["total"].item() == pytest.approx(0.6 / 3 + 0.4 * CE, rel=1e-5)


@pytest.mark.slow  # its import takes 10 s; part of the extra bench
@pytest.mark.filterwarnings("default")
def test_monai_agrees():
    losses = pytest.importorskip("monai.losses")
    torch.manual_seed(0)
    logit, label = torch.randn(3, 1, 8, 8), (torch.rand(3, 1, 8, 8) > 0.8).to(torch.uint8)
    options = {"sigmoid": True, "batch": True, "smooth_nr": 1e-6, "smooth_dr": 1e-6}
    pairs = [
        (LesionDice(), losses.DiceLoss(**options)),
        (LesionIoU(), losses.DiceLoss(jaccard=True, **options)),
        (LesionTversky(), losses.TverskyLoss(alpha=0.6, beta=0.4, **options)),
        (LesionFocal(), losses.FocalLoss(gamma=2.0)),
    ]
    for ours, monai in pairs:
        found = ours({"lesion_logit": logit}, {"label": label})
        assert found.item() == pytest.approx(monai(logit, label.float()).item(), rel=1e-4)


def test_numbers_out_of_range():
    for make, words in (
        (lambda: LesionDice(smooth=0), "LesionDice smooth=0"),
        (lambda: LesionTversky(fp_weight=-1), "fp_weight=-1"),
        (lambda: LesionCE(pos_weight=0), "pos_weight=0"),
        (lambda: LesionFocal(gamma=-1), "gamma=-1"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()
