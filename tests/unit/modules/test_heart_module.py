"""The heart's module: what it decodes, which parts it names, what it feeds to metrics."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torchmetrics import Metric

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.vecset import ClassLoss, EikonalLoss, SdfLoss, SurfaceLoss
from vesuvius.models.vecset import VecSet
from vesuvius.modules.heart import HeartModule

PARTS = {
    "sdf_vol": SdfLoss(part="vol"),
    "sdf_near": SdfLoss(part="near"),
    "sdf_surface": SurfaceLoss(),
    "class_bce": ClassLoss(),
}


class Spy(Metric):
    """Keeps what it was given."""

    full_state_update = False

    def update(self, sdf, class_logits, target):
        self.given = (sdf, class_logits, target)

    def compute(self):
        return {}


def make(*, eikonal=False, field="union", metrics=None, **options):
    torch.manual_seed(0)
    net = VecSet(
        num_classes=3, dim=16, depth=1, num_latents=4, latent_dim=4, dim_head=8, field=field
    )
    torch.nn.init.normal_(net.decoder.head.weight, std=0.2)
    terms = PARTS | ({"eikonal": EikonalLoss()} if eikonal else {})
    loss = CompositeLoss(term={n: {"weight": 1.0, "fn": fn} for n, fn in terms.items()})
    options = {"sdf_size": 16, **options}
    return HeartModule(
        model=net, loss=loss, optimizer=torch.optim.AdamW, metrics=metrics, **options
    )


def batch(size=2, *, queries=12):
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(20) % 2
    xyz = torch.rand(size, 20, 3, generator=generator) - 0.5
    surface = torch.cat((xyz, F.one_hot(label, 3).float().expand(size, -1, -1)), -1)
    target = torch.rand(size, queries, 2, generator=generator) - 0.5
    target[..., 1] = (target[..., 0] < 0).float()
    return {
        "surface": surface,
        "surface_target": surface,
        "points": torch.rand(size, queries, 3, generator=generator) - 0.5,
        "target": target,
        "points_class_sdf": target[..., :1].repeat(1, 1, 3),
        "valid_class_mask": torch.tensor([[1.0, 1, 0]]).repeat(size, 1),
        "present_class_mask": torch.tensor([[1.0, 1, 0]]).repeat(size, 1),
        "case_id": ["a"] * size,
    }


def test_parts_are_volume_near_and_surface_points_in_that_order():
    module, given = make(), batch()
    outputs = module.forward_batch(given)
    assert [outputs[f"sdf_{p}"].shape[1] for p in ("vol", "near", "surface")] == [8, 4, 20]
    latents = module.encode_surface(given["surface"])
    near = module.model.decode(latents, given["points"][:, 8:])["sdf"]
    torch.testing.assert_close(outputs["sdf_near"], near, atol=1e-5, rtol=1e-4)
    at_surface = module.model.decode(latents, given["surface_target"][..., :3])["sdf"]
    torch.testing.assert_close(outputs["sdf_surface"], at_surface, atol=1e-5, rtol=1e-4)


def test_the_gradient_is_computed_only_for_a_term_that_asks():
    assert "sdf_gradient" not in make().forward_batch(batch())
    module = make(eikonal=True)
    outputs = module.forward_batch(batch())
    assert outputs["sdf_gradient"].shape == (2, 8, 3)
    module.loss(outputs, batch())["eikonal"].backward()
    assert all(p.grad is not None for p in module.model.encoder.parameters())


def test_the_whole_loss_reaches_every_parameter():
    module = make(eikonal=True)
    module.loss(module.forward_batch(batch()), batch())["total"].backward()
    assert [n for n, p in module.model.named_parameters() if p.grad is None] == []


def test_fewer_surface_queries_than_input_points():
    outputs = make(num_surface_queries=5).forward_batch(batch())
    assert outputs["sdf_surface"].shape[1] == 5
    assert make(num_surface_queries=0).forward_batch(batch())["sdf_surface"].shape[1] == 0


def test_metrics_get_queries_and_no_padding():
    spy = Spy()
    module, given = make(metrics={"points": spy}, field="per_class"), batch()
    outputs = module.forward_batch(given)
    outputs["sdf"][..., 2] = -9.0  # padding says inside everywhere
    module.update_metrics(outputs, given)
    inside, logits, target = spy.given
    assert inside.shape == (2, 12)
    assert logits.shape == (2, 12, 3)
    torch.testing.assert_close(inside, outputs["sdf"][:, :12, :2].amin(-1))
    assert set(logits.argmax(-1).unique().tolist()) <= {0, 1}
    assert target is given["target"]


def test_dense_prediction_predicts_only_allowed_classes():
    module, given = make(field="per_class"), batch(1)
    latents = module.encode_surface(given["surface"])
    heads = module.decode_points(latents, given["points"], torch.tensor([1.0, 0, 0]))
    own = module.model.decode(latents, given["points"])["sdf"][..., 0]
    torch.testing.assert_close(heads["inside"], own)
    assert bool((heads["class_logits"].argmax(-1) == 0).all())


def test_gaps_between_two_classes_are_closed_and_the_outside_stays_outside():
    net = make(field="per_class").model
    net.gap = 0.02
    wall = torch.tensor([[[0.005, 0.01, 0.9]]])  # both slightly outside, between them
    outside = torch.tensor([[[0.005, 0.4, 0.9]]])
    assert float(net.inside(wall)) == pytest.approx((0.015 - 0.02) / 2)
    assert float(net.inside(outside)) == pytest.approx(0.005)
    net.gap = 0.0
    assert float(net.inside(wall)) == pytest.approx(0.005)


def test_another_number_of_queries_than_configured_is_named():
    with pytest.raises(ShapeMismatchError, match="9 queries; expected 8 volume and 4 near"):
        make().forward_batch(batch(queries=9))


@pytest.mark.parametrize("options", [{"sdf_size": 6}, {"num_surface_queries": -1}])
def test_arguments_out_of_range_are_named(options):
    name = next(iter(options))
    with pytest.raises(ConfigError, match=name):
        make(**options)


def test_a_head_without_a_term_is_named():
    loss = CompositeLoss(term={"sdf_vol": {"weight": 1.0, "fn": SdfLoss(part="vol")}})
    with pytest.raises(ConfigError, match="'class_logits' has no loss term"):
        HeartModule(model=make().model, loss=loss, optimizer=torch.optim.AdamW)
