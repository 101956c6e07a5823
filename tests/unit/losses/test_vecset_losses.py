"""Terms of the point-set networks at hand-computed numbers."""

import math

import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.vecset import (
    ClassLoss,
    CodeLoss,
    EikonalLoss,
    SdfLoss,
    SurfaceLoss,
)


def batch(*, per_class=False):
    """One heart: two volume queries (inside class 2, outside), one near query (inside class 1).

    Three channels: class 3 is padding. Two surface points, of classes 1 and 2.
    """
    found = {
        "target": torch.tensor([[[-0.2, 2.0], [0.3, 0.0], [-0.01, 1.0]]]),
        "surface_target": torch.tensor([[[0.0, 0, 0, 1, 0, 0], [0.0, 0, 0, 0, 1, 0]]]),
        "valid_class_mask": torch.tensor([[1.0, 1, 0]]),
        "present_class_mask": torch.tensor([[1.0, 1, 0]]),
    }
    if per_class:
        found["points_class_sdf"] = torch.tensor(
            [[[0.5, -0.2, 4.0], [0.3, 0.7, 4.0], [-0.01, 0.2, 4.0]]]
        )
    return found


def outputs(vol, near, surface, logits):
    parts = {"sdf_vol": vol, "sdf_near": near, "sdf_surface": surface}
    parts = {name: torch.tensor([rows], dtype=torch.float32) for name, rows in parts.items()}
    heads = {"sdf": torch.cat(list(parts.values()), 1), "class_logits": torch.tensor([logits])}
    return {**parts, **heads}


UNION = outputs([[-0.1], [0.1]], [[0.05]], [[0.02], [-0.04]], [[0.0, 0.0, 0.0]] * 5)
EACH = outputs(
    [[0.4, -0.2, -9.0], [0.3, 0.5, -9.0]],
    [[0.0, 0.2, -9.0]],
    [[0.03, 0.8, 0.0], [0.9, -0.01, 0.0]],
    [[0.0, 0.0, 50.0]] * 5,
)


def test_distance_terms_by_hand():
    assert float(SdfLoss(part="vol")(UNION, batch())) == pytest.approx((0.1 + 0.2) / 2)
    assert float(SdfLoss(part="near")(UNION, batch())) == pytest.approx(0.06)
    assert float(SurfaceLoss()(UNION, batch())) == pytest.approx(0.03)


def test_truncation_counts_far_points_by_their_sign_only():
    loss = SdfLoss(part="vol", truncation=0.15)
    assert float(loss(UNION, batch())) == pytest.approx((0.05 + 0.05) / 2)


def test_distances_per_class_leave_out_padding_and_absent_classes():
    targets = batch(per_class=True)
    vol = (0.1 + 0.0 + 0.0 + 0.2) / 4
    assert float(SdfLoss(part="vol")(EACH, targets)) == pytest.approx(vol, rel=1e-4)
    assert float(SdfLoss(part="near")(EACH, targets)) == pytest.approx(0.01 / 2, rel=1e-3)
    assert float(SurfaceLoss()(EACH, targets)) == pytest.approx((0.03 + 0.01) / 2, rel=1e-4)
    targets["present_class_mask"][0, 0] = 0
    assert float(SdfLoss(part="vol")(EACH, targets)) == pytest.approx(0.2 / 2, rel=1e-4)


def test_a_network_with_distances_per_class_needs_them_in_the_batch():
    with pytest.raises(ConfigError, match=r"data\.sdf_mode=per_class"):
        SdfLoss(part="vol")(EACH, batch())


def test_class_term_covers_queries_and_surface_and_skips_padding():
    logits = torch.zeros(1, 5, 3)
    logits[..., 2] = 50.0  # padding: would cost 50 a point
    logits[0, 0, 1] = 2.0  # right: inside class 2
    logits[0, 4, 1] = -1.0  # wrong: a surface point of class 2
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(1))
    expected = (right + wrong + 8 * math.log(2)) / 10
    found = ClassLoss()({**UNION, "class_logits": logits}, batch())
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_class_term_of_distances_per_class_leaves_the_surface_out():
    logits = torch.zeros(1, 5, 3)
    logits[:, 3:] = 99.0
    found = ClassLoss()({**EACH, "class_logits": logits}, batch(per_class=True))
    assert float(found) == pytest.approx(math.log(2), rel=1e-4)


def test_eikonal_and_code_by_hand():
    gradient = torch.tensor([[[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]]])
    assert float(EikonalLoss()({"sdf_gradient": gradient}, {})) == pytest.approx(16 / 2)
    assert float(CodeLoss()({"kl": torch.tensor([1.0, 3.0])}, {})) == 2.0


def test_the_distance_to_a_sphere_has_no_eikonal_loss():
    points = torch.randn(1, 200, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((points.norm(dim=-1) - 0.5).sum(), points)
    assert float(EikonalLoss()({"sdf_gradient": gradient}, {})) < 1e-20


def test_a_flat_field_has_a_finite_eikonal_gradient():
    gradient = torch.zeros(1, 4, 3, requires_grad=True)
    EikonalLoss()({"sdf_gradient": gradient}, {}).backward()
    assert bool(gradient.grad.isfinite().all())


def test_no_decoded_surface_point_costs_nothing_but_keeps_the_graph():
    sdf = torch.zeros(1, 3, 1, requires_grad=True)
    loss = SurfaceLoss()({"sdf": sdf, "sdf_surface": sdf[:, 3:]}, batch())
    loss.backward()
    assert float(loss.detach()) == 0
    assert sdf.grad is not None


def test_terms_work_in_the_composite_without_a_label_volume():
    loss = CompositeLoss(
        term={
            "sdf_vol": {"weight": 1.0, "fn": SdfLoss(part="vol")},
            "sdf_near": {"weight": 10.0, "fn": SdfLoss(part="near")},
        }
    )
    found = loss(UNION, batch())
    assert float(found["total"]) == pytest.approx(0.15 + 10 * 0.06)


def test_a_worse_prediction_costs_more():
    targets = batch(per_class=True)
    better = targets["points_class_sdf"] + 0.01
    worse = targets["points_class_sdf"] + 0.3
    for part, where in (("vol", slice(0, 2)), ("near", slice(2, 3))):
        costs = [
            float(SdfLoss(part=part)({"sdf_vol": x[:, :2], f"sdf_{part}": x[:, where]}, targets))
            for x in (targets["points_class_sdf"], better, worse)
        ]
        assert costs[0] == 0
        assert costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"part": "surface"}, "part='surface'"), ({"part": "vol", "truncation": 0.0}, "truncation=0")],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        SdfLoss(**options)
