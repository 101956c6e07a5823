"""Soft clDice against the paper's algorithm written out with plain pooling."""

import gc

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.losses import cldice
from vesuvius.losses.cldice import CenterlineDiceLoss, soft_cldice_loss, surface_probability
from vesuvius.losses.soft_skeleton import dilate, erode, soft_skeleton


def paper_erode(volume):
    kernels = ((3, 1, 1), (1, 3, 1), (1, 1, 3))
    mins = [-F.max_pool3d(-volume, k, 1, tuple(n // 2 for n in k)) for k in kernels]
    return torch.minimum(torch.minimum(mins[0], mins[1]), mins[2])


def paper_open(volume):
    return F.max_pool3d(paper_erode(volume), 3, 1, 1)


def paper_skeleton(volume, iterations):
    """Algorithm 1 of Shit et al. 2021, as its authors published it."""
    skeleton = F.relu(volume - paper_open(volume))
    for _ in range(iterations):
        volume = paper_erode(volume)
        delta = F.relu(volume - paper_open(volume))
        skeleton = skeleton + F.relu(delta - skeleton * delta)
    return skeleton


def paper_loss(p, t, iterations):
    skeleton_p, skeleton_t = paper_skeleton(p, iterations), paper_skeleton(t, iterations)
    precision = ((skeleton_p * t).sum() + 1) / (skeleton_p.sum() + 1)
    sensitivity = ((skeleton_t * p).sum() + 1) / (skeleton_t.sum() + 1)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def sheet(shape=(14, 16, 18), begin=5, end=8):
    mask = torch.zeros(1, 1, *shape)
    mask[:, :, begin:end] = 1
    return mask


def targets(label):
    return {"label": label, "surface": (label == 1).float(), "valid": (label != 2).float()}


def logit_of(probability):
    return torch.logit(probability.clamp(1e-4, 1 - 1e-4))


@pytest.mark.parametrize("iterations", [1, 3, 10, 50])
def test_loss_and_gradient_are_those_of_the_paper(iterations):
    torch.manual_seed(iterations)
    # all different: at a tie of two voxels several gradients are right
    p = ((torch.randperm(12 * 13 * 14) + 0.5) / (12 * 13 * 14)).view(1, 1, 12, 13, 14)
    p.requires_grad_()
    t = (torch.rand(1, 1, 12, 13, 14) > 0.6).float()
    ours = soft_cldice_loss(p, t, iterations=iterations).sum()
    direct = paper_loss(p, t, iterations)
    assert ours.item() == pytest.approx(direct.item(), abs=1e-5)
    (got,) = torch.autograd.grad(ours, p)
    (expected,) = torch.autograd.grad(direct, p)
    torch.testing.assert_close(got, expected, atol=1e-7, rtol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    iterations=st.integers(0, 8),
)
def test_skeleton_of_any_shape_is_that_of_the_paper(seed, shape, iterations):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 1, *shape, generator=generator, dtype=torch.double).requires_grad_()
    weight = torch.rand(2, 1, *shape, generator=generator, dtype=torch.double)
    ours = soft_skeleton(x, iterations=iterations, tolerance=0.0)
    direct = paper_skeleton(x, iterations)
    torch.testing.assert_close(ours, direct)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weight).sum(), x)[0],
        torch.autograd.grad((direct * weight).sum(), x)[0],
    )


def test_separable_filters_are_the_pooled_ones():
    x = torch.randn(2, 1, 5, 6, 7)
    assert torch.equal(erode(x), paper_erode(x))
    assert torch.equal(dilate(x), F.max_pool3d(x, 3, 1, 1))


def test_skeleton_of_a_sheet_three_thick_is_its_middle():
    skeleton = soft_skeleton(sheet(), iterations=3)
    assert torch.equal(skeleton, sheet(begin=6, end=7))


def test_the_loop_ends_when_nothing_is_left(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "vesuvius.losses.soft_skeleton.erode", lambda volume: calls.append(1) or erode(volume)
    )
    mask = torch.cat([sheet(), sheet(begin=3, end=8), torch.zeros_like(sheet())])
    mask = torch.cat([mask, torch.ones_like(sheet())])
    skeleton = soft_skeleton(mask, iterations=50)
    assert len(calls) == 3  # the thickest sheet has 5 layers: gone after 3 erosions
    torch.testing.assert_close(skeleton, paper_skeleton(mask, 50))


def test_an_early_end_changes_the_sum_by_no_more_than_the_tolerance():
    torch.manual_seed(0)
    p = (sheet() * 0.9 + 0.05 * torch.rand(1, 1, 14, 16, 18)).clamp(0, 1)
    exact = soft_skeleton(p, iterations=50, tolerance=0.0).sum().item()
    for tolerance in (1e-1, 1e-2, 1e-3):
        early = soft_skeleton(p, iterations=50, tolerance=tolerance).sum().item()
        assert 0 <= exact - early <= tolerance * exact


@pytest.mark.parametrize("with_gradient", [False, True])
def test_ignored_voxels_count_as_outside_the_volume(with_gradient):
    torch.manual_seed(0)
    whole = torch.rand(1, 1, 10, 11, 12)
    ignored = torch.ones(1, 1, 10, 11, 12, dtype=torch.bool)
    ignored[:, :, 2:9, :, 3:10] = False
    x = whole.clone().requires_grad_(with_gradient)
    part = whole[:, :, 2:9, :, 3:10].clone().requires_grad_(with_gradient)
    masked = soft_skeleton(x, iterations=4, ignored=ignored)
    alone = paper_skeleton(part, 4)
    torch.testing.assert_close(masked[:, :, 2:9, :, 3:10], alone)
    assert (masked[ignored] == 0).all()
    if with_gradient:
        masked.square().sum().backward()
        alone.square().sum().backward()
        torch.testing.assert_close(x.grad[:, :, 2:9, :, 3:10], part.grad)
        assert (x.grad[ignored] == 0).all()


def test_what_is_predicted_where_ignored_does_not_matter():
    torch.manual_seed(0)
    label = sheet().to(torch.uint8)
    label[..., 12:] = 2
    label[:, :, 6:7, :4] = 2
    logit = torch.randn(1, 1, 14, 16, 18)
    other = torch.where(label == 2, torch.randn_like(logit) * 9, logit).requires_grad_()
    term = CenterlineDiceLoss()
    loss = term({"surface_logit": other}, targets(label))
    assert loss.item() == term({"surface_logit": logit}, targets(label)).item()
    loss.backward()
    assert (other.grad[label == 2] == 0).all()
    assert (other.grad[label != 2] != 0).any()


@pytest.mark.parametrize("channels", [1, 2])
def test_perfect_is_better_than_noisy_is_better_than_wrong(channels):
    torch.manual_seed(0)
    mask = sheet()
    noisy = (0.75 * mask + 0.3 * torch.rand_like(mask)).clamp(0, 1)
    wrong = sheet(begin=10, end=13)
    losses = []
    for probability in (mask, noisy, wrong):
        logit = logit_of(probability)
        if channels == 2:
            logit = torch.cat([-logit / 2, logit / 2], dim=1)
        logit.requires_grad_()
        loss = CenterlineDiceLoss()({"surface_logit": logit}, targets(mask.to(torch.uint8)))
        loss.backward()
        assert torch.isfinite(logit.grad).all()
        assert logit.grad.abs().max() > 1e-9
        losses.append(loss.item())
    assert losses[0] < 0.01 < losses[1] < losses[2]
    assert losses[2] > 0.8


def test_a_step_against_the_gradient_lowers_the_loss():
    torch.manual_seed(0)
    logit = torch.randn(1, 1, 14, 16, 18).requires_grad_()
    term, target = CenterlineDiceLoss(), targets(sheet().to(torch.uint8))
    loss = term({"surface_logit": logit}, target)
    (gradient,) = torch.autograd.grad(loss, logit)
    moved = logit.detach() - 5.0 * gradient / gradient.abs().max()
    assert term({"surface_logit": moved}, target) < loss - 1e-3


def test_one_logit_and_two_channels_agree():
    logit = torch.randn(2, 1, 4, 5, 6)
    shift = torch.randn(2, 1, 4, 5, 6)  # softmax knows differences only
    pair = torch.cat([shift, shift + logit], dim=1)
    torch.testing.assert_close(surface_probability(pair), torch.sigmoid(logit))
    torch.testing.assert_close(surface_probability(pair), torch.softmax(pair, 1)[:, 1:])
    with pytest.raises(ShapeMismatchError, match=r"shape \(2, 3, 4, 5, 6\); expected \(b, 1"):
        surface_probability(torch.zeros(2, 3, 4, 5, 6))


def test_an_empty_crop_punishes_predictions_with_a_gradient():
    target = targets(torch.zeros(1, 1, 14, 16, 18, dtype=torch.uint8))
    logit = logit_of(sheet() * 0.9).requires_grad_()
    loss = CenterlineDiceLoss()({"surface_logit": logit}, target)
    loss.backward()
    assert loss > 0.9
    assert logit.grad[:, :, 6].min() > 0  # down everywhere on the sheet's middle
    nothing = CenterlineDiceLoss()({"surface_logit": torch.full_like(logit, -30.0)}, target)
    assert nothing.item() == pytest.approx(0.0, abs=1e-6)


def test_an_all_ignored_crop_costs_nothing_and_gives_no_gradient():
    label = torch.full((1, 1, 4, 5, 6), 2, dtype=torch.uint8)
    logit = torch.randn(1, 1, 4, 5, 6).requires_grad_()
    loss = CenterlineDiceLoss()({"surface_logit": logit}, targets(label))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logit.grad, torch.zeros_like(logit))


def test_two_samples_cost_the_mean_of_each_alone():
    torch.manual_seed(0)
    label = torch.cat([sheet(), sheet(begin=2, end=9)]).to(torch.uint8)
    logit = torch.randn(2, 1, 14, 16, 18)
    term = CenterlineDiceLoss(iterations=3)
    alone = [term({"surface_logit": logit[i : i + 1]}, targets(label[i : i + 1])) for i in (0, 1)]
    together = term({"surface_logit": logit}, targets(label))
    assert together.item() == pytest.approx((sum(alone) / 2).item(), rel=1e-5)


def test_the_label_skeleton_is_computed_once_for_a_label(monkeypatch):
    calls = []

    def counting(volume, **options):
        if not volume.requires_grad:
            calls.append(1)
        return soft_skeleton(volume, **options)

    monkeypatch.setattr(cldice, "soft_skeleton", counting)
    term = CenterlineDiceLoss()
    label = sheet().to(torch.uint8)
    logit = torch.randn(1, 1, 14, 16, 18).requires_grad_()
    first = term({"surface_logit": logit}, targets(label))
    assert term({"surface_logit": logit}, targets(label)) == first
    assert len(calls) == 1
    label[:, :, 6] = 0  # changed in place: another label
    assert term({"surface_logit": logit}, targets(label)) != first
    assert len(calls) == 2
    del label
    gc.collect()
    term({"surface_logit": logit}, targets(sheet().to(torch.uint8)))
    assert len(calls) == 3


def test_backward_keeps_few_levels():
    kept = []
    x = torch.rand(1, 1, 16, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.nbytes) or t, lambda t: t
    ):
        soft_skeleton(x, iterations=48, tolerance=0.0)
    assert sum(kept) <= 2 * 7 * x.nbytes  # not 49 levels and their maxima


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="iterations=0; expected >= 1"):
        CenterlineDiceLoss(iterations=0)
    with pytest.raises(ConfigError, match="smooth=0; expected > 0"):
        CenterlineDiceLoss(smooth=0)
    with pytest.raises(ConfigError, match=r"tolerance=1; expected in \[0, 1\)"):
        CenterlineDiceLoss(tolerance=1)
