"""What every term on `surface_logit` has to keep, and each of the newer ones by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.losses.boundary import BoundaryLoss
from vesuvius.losses.cldice import CenterlineDiceLoss
from vesuvius.losses.composite import label_targets
from vesuvius.losses.distance import signed_distance, truncated_distance
from vesuvius.losses.focal_tversky import FocalTverskyLoss
from vesuvius.losses.recall import MedialRecallLoss
from vesuvius.losses.sdf import SDFLoss
from vesuvius.losses.separation import SheetSeparationLoss
from vesuvius.losses.skeleton_recall import SkeletonRecallLoss, slice_skeleton
from vesuvius.losses.surface_dice import SurfaceDiceLoss, greatest_near

TERMS = {
    "boundary": BoundaryLoss,
    "cldice": CenterlineDiceLoss,
    "focal_tversky": FocalTverskyLoss,
    "medial_recall": MedialRecallLoss,
    "separation": SheetSeparationLoss,
    "skeleton_recall": SkeletonRecallLoss,
    "surface_dice": SurfaceDiceLoss,
}
SHAPE = (1, 1, 14, 8, 9)


def slabs(*ranges, shape=SHAPE):
    """Sheets across z: one per (begin, end)."""
    label = torch.zeros(shape, dtype=torch.uint8)
    for begin, end in ranges:
        label[:, :, begin:end] = 1
    return label


def loss_of(term, logit, label, **more):
    targets = label_targets({"label": label, **more})
    return term({"surface_logit": logit}, targets)


def logits(probability):
    return torch.logit(probability.clamp(1e-6, 1 - 1e-6))


@pytest.fixture(params=TERMS)
def term(request):
    return TERMS[request.param]()


def test_perfect_is_better_than_noisy_is_better_than_wrong(term):
    torch.manual_seed(0)
    label = slabs((2, 5), (9, 12))
    surface = label.float()
    perfect, noisy = logits(surface), logits(0.5 * surface + 0.45 * torch.rand(SHAPE))
    merged = torch.full(SHAPE, 0.3)
    merged[:, :, 4:10] = 0.95  # fills the gap, misses the sheets
    losses = []
    for logit in (perfect, noisy, logits(merged)):
        logit.requires_grad_()
        loss = loss_of(term, logit, label)
        loss.backward()
        assert torch.isfinite(logit.grad).all()
        losses.append(loss.item())
        if logit is not perfect:
            assert logit.grad.abs().sum() > 1e-3
    assert losses[0] < losses[1] < losses[2]


def test_a_step_down_the_gradient_lowers_the_loss(term):
    torch.manual_seed(0)
    label = slabs((2, 5), (9, 12))
    logit = torch.randn(SHAPE, requires_grad=True)
    loss = loss_of(term, logit, label)
    (gradient,) = torch.autograd.grad(loss, logit)
    step = 0.5 / gradient.norm() * gradient
    assert loss_of(term, (logit - step).detach(), label) < loss


def test_ignored_voxels_take_no_part(term):
    torch.manual_seed(0)
    label = slabs((2, 5), (9, 12))
    label[..., 5:] = 2
    logit = torch.randn(SHAPE, requires_grad=True)
    loss = loss_of(term, logit, label)
    loss.backward()
    assert (logit.grad[..., 5:] == 0).all()
    assert logit.grad[..., :4].any()
    other = logit.detach().clone()
    other[..., 5:] = 7.0
    torch.testing.assert_close(loss_of(term, other, label), loss.detach())


@pytest.mark.parametrize("value", [0, 2], ids=["background", "ignored"])
def test_a_crop_without_surface_is_finite_and_has_a_gradient_path(term, value):
    logit = torch.randn(SHAPE, requires_grad=True)
    loss = loss_of(term, logit, torch.full(SHAPE, value, dtype=torch.uint8))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logit.grad).all()


def test_two_processes_of_one_sample_equal_one_of_two(term):
    torch.manual_seed(0)
    label = torch.cat([slabs((2, 5), (9, 12)), slabs((4, 6))])
    logit = torch.randn(label.shape)
    alone = [loss_of(term, logit[i : i + 1], label[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(loss_of(term, logit, label), sum(alone) / 2)


def test_two_channels_equal_one(term):
    torch.manual_seed(0)
    label, two = slabs((2, 5), (9, 12)), torch.randn(1, 2, *SHAPE[2:])
    one = two[:, 1:] - two[:, :1]
    torch.testing.assert_close(loss_of(term, two, label), loss_of(term, one, label))
    with pytest.raises(ShapeMismatchError, match="surface logits have shape"):
        loss_of(term, torch.randn(1, 3, *SHAPE[2:]), label)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.floats(0.002, 0.5))
def test_truncated_distance_is_scipys_below_the_bound(seed, bound, density):
    rng = np.random.default_rng(seed)
    mask = rng.random((2, 1, 9, 4, 7)) < density
    mask[:, 0, 0, 0, 0] = True  # scipy has no distance to nothing
    found = truncated_distance(torch.from_numpy(mask).float(), bound)
    expected = np.stack([distance_transform_edt(~m[0])[None] for m in mask]).clip(max=bound)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_distance_to_nothing_is_the_bound():
    assert (truncated_distance(torch.zeros(SHAPE), 5) == 5).all()


def test_signed_distance_of_a_slab_and_where_it_is_known():
    label = slabs((5, 8))
    distance, known = signed_distance((label == 1).float(), (label != 2).float(), 4)
    expected = [3.5, 3.5, 2.5, 1.5, 0.5, -0.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 3.5, 3.5]
    assert distance[0, 0, :, 0, 0].tolist() == expected
    assert known.all()
    label[:, :, 11:] = 2
    _, known = signed_distance((label == 1).float(), (label != 2).float(), 4)
    # voxel 9 is 2 from the sheet and 2 from the ignored ones, voxel 10 is 3 and 1
    assert known[0, 0, :, 0, 0].tolist() == [True] * 10 + [False] * 4


def test_boundary_by_hand():
    label = slabs((5, 8))
    loss = loss_of(BoundaryLoss(max_distance=4), logits(label.float()), label)
    assert loss.item() == pytest.approx((-0.5 - 1.5 - 0.5) / 14, abs=1e-4)
    far = torch.zeros(SHAPE)
    far[:, :, 0] = 1.0  # 4 voxels or more away: 3.5
    loss = loss_of(BoundaryLoss(max_distance=4), logits(far), label)
    assert loss.item() == pytest.approx(3.5 / 14, abs=1e-4)


def test_focal_tversky_by_hand():
    label = slabs((5, 8))  # 216 of 1008 voxels
    loss = loss_of(
        FocalTverskyLoss(miss_weight=0.7, exponent=0.75), torch.zeros(SHAPE), label
    ).item()  # p = 1/2 everywhere
    wrong = 0.7 * 108 + 0.3 * 396
    assert loss == pytest.approx((wrong / (108 + wrong + 1)) ** 0.75, rel=1e-5)


def test_half_and_one_make_it_dice():
    torch.manual_seed(0)
    label, logit = slabs((5, 8)), torch.randn(SHAPE)
    loss = loss_of(FocalTverskyLoss(miss_weight=0.5, exponent=1, smooth=1e-6), logit, label)
    p, t = torch.sigmoid(logit), label.float()
    expected = 1 - 2 * (p * t).sum() / (p.sum() + t.sum())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_skeleton_of_slices_is_the_middle_of_sheets():
    surface = slabs((5, 8)).float()
    skeleton = slice_skeleton(surface, axes=(1, 2), widen=0)
    inner = skeleton[:, :, :, 2:-2, 2:-2]
    assert torch.equal(inner, slabs((6, 7)).float()[:, :, :, 2:-2, 2:-2])
    wide = slice_skeleton(surface, axes=(0, 1, 2), widen=1)
    assert torch.equal(wide, wide * surface)
    assert wide[:, :, 5:8, 2:-2, 2:-2].all()


def test_skeleton_recall_by_hand():
    label = slabs((5, 8))
    count = slice_skeleton(label.float(), axes=(0, 1, 2), widen=1).sum().item()
    loss = loss_of(SkeletonRecallLoss(), logits(torch.full(SHAPE, 0.3)), label)
    assert loss.item() == pytest.approx(1 - (0.3 * count + 1) / (count + 1), abs=1e-5)


@pytest.mark.parametrize(("tolerance", "expected"), [(0, 1 - 1 / 73), (1, 0.0)])
def test_surface_dice_by_hand(tolerance, expected):
    # middles of the two sheets at z 6 and 8; the label reaches z 7, with tolerance z 8
    label, predicted = slabs((5, 8)), slabs((7, 10))
    loss = loss_of(SurfaceDiceLoss(tolerance=tolerance), logits(predicted.float()), label)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_greatest_near_is_a_maximum_filter(reach):
    torch.manual_seed(0)
    volume = torch.rand(2, 1, 5, 6, 7)
    filtered = torch.nn.functional.max_pool3d(volume, 2 * reach + 1, stride=1, padding=reach)
    where = (torch.rand(volume.shape) < 0.3).nonzero()
    assert torch.equal(greatest_near(volume, where, reach), filtered[where.unbind(1)])


def test_surface_dice_costs_no_skeleton_gradient():
    """The weight of a voxel is held fixed: gradients where nothing is predicted stay small."""
    label = slabs((5, 8))
    logit = logits(label.float()).requires_grad_()
    loss_of(SurfaceDiceLoss(tolerance=0), logit, label).backward()
    assert logit.grad[:, :, 11:].abs().max() < 1e-9


def test_separation_by_hand():
    label = slabs((3, 4), (6, 7))
    logit = torch.full(SHAPE, 5.0)
    logit[:, :, 4], logit[:, :, 5] = 2.0, -1.0
    logit[..., 0] = 3.0  # one of nine columns
    loss = loss_of(SheetSeparationLoss(), logit, label)
    expected = (8 * math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 9
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_separation_looks_at_gaps_between_different_sheets_alone():
    logit = torch.full(SHAPE, 5.0)
    apart = slabs((3, 4), (6, 7))
    assert loss_of(SheetSeparationLoss(max_gap=2), logit, apart) > 5
    assert loss_of(SheetSeparationLoss(max_gap=1), logit, apart) == 0  # wider than that
    one = apart.clone()
    one[:, :, 3:7, :, 0] = 1  # joined in the label: one sheet
    assert loss_of(SheetSeparationLoss(), logit, one) == 0
    wrap = torch.zeros(SHAPE, dtype=torch.int16)
    wrap[:, :, :5], wrap[:, :, 5:] = 1, 2
    assert loss_of(SheetSeparationLoss(), logit, one, wrap=wrap) > 4  # the truth knows better
    assert loss_of(SheetSeparationLoss(), logit, apart, wrap=torch.ones_like(wrap)) == 0
    hidden = apart.clone()
    hidden[:, :, 4] = 2
    assert loss_of(SheetSeparationLoss(), logit, hidden) == 0


def test_separation_asks_for_one_voxel_of_background():
    label, logit = slabs((3, 4), (7, 8)), torch.zeros(SHAPE)
    logit[:, :, 5] = -0.5
    logit.requires_grad_()
    loss_of(SheetSeparationLoss(), logit, label).backward()
    assert (logit.grad[:, :, 5] > 0).all()
    assert logit.grad.count_nonzero() == 8 * 9


def test_sdf_by_hand():
    label = slabs((5, 8))
    targets = {"surface": (label == 1).float(), "valid": (label != 2).float()}
    distance, _ = signed_distance(targets["surface"], targets["valid"], 4)
    loss = SDFLoss(distance=4, beta=0.5)
    assert loss({"sdf": distance}, targets) == 0
    assert loss({"sdf": distance + 2.0}, targets).item() == pytest.approx(2 - 0.25)
    assert loss({"sdf": distance + 0.1}, targets).item() == pytest.approx(0.01, rel=1e-4)


def test_sdf_leaves_open_what_ignored_voxels_hide():
    label = slabs((5, 8))
    label[:, :, 11:] = 2
    targets = {"surface": (label == 1).float(), "valid": (label != 2).float()}
    sdf = torch.zeros(SHAPE, requires_grad=True)
    SDFLoss(distance=4)({"sdf": sdf}, targets).backward()
    assert (sdf.grad[:, :, 10:] == 0).all()
    assert sdf.grad[:, :, :9].all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BoundaryLoss(max_distance=0), "max_distance=0; expected 1 to 100"),
        (lambda: FocalTverskyLoss(miss_weight=1), r"miss_weight=1; expected in \(0, 1\)"),
        (lambda: FocalTverskyLoss(exponent=0), "exponent=0"),
        (lambda: SkeletonRecallLoss(axes=[3]), r"axes=\[3\]; expected some of 0 \(z\)"),
        (lambda: SkeletonRecallLoss(widen=-1), "widen=-1 must be >= 0"),
        (lambda: SurfaceDiceLoss(tolerance=-1), "tolerance=-1 >= 0"),
        (lambda: SurfaceDiceLoss(smooth=0), "smooth=0; expected > 0"),
        (lambda: SheetSeparationLoss(max_gap=0), "max_gap=0; expected >= 1"),
        (lambda: SDFLoss(distance=0), "distance=0 must lie in 1 to 100"),
        (
            lambda: SDFLoss(distance=None),
            r"distance=None must lie in 1 to 100 \(set model.sdf_distance",
        ),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
