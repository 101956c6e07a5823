"""Second-stage networks: they start from the former prediction and change it as they say."""

import pytest
import torch
from torch import nn

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.losses.velocity import VelocitySmoothnessLoss
from vesuvius.models.dual_head_unet import DualHeadResUNet3D
from vesuvius.models.refine import RefineNetwork
from vesuvius.models.segformer import SegFormer3D
from vesuvius.models.velocity_field import DeformNetwork, integrate, warp

SHAPE = (12, 16, 20)


def unet(**options):
    torch.manual_seed(0)
    return DualHeadResUNet3D(n_filters=2, in_channels=2, strides_zyx=[[2, 2, 2]], **options)


def image(num=2, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, channels, *SHAPE, generator=generator)


def silence(network):
    """Let the backbone say nothing."""
    nn.init.zeros_(network.backbone.surface_head.weight)
    nn.init.zeros_(network.backbone.surface_head.bias)
    return network.eval()


def test_refine_keeps_the_mask_where_the_network_says_nothing():
    network = silence(RefineNetwork(backbone=unet(), threshold=0.4, trust=3.0))
    x = image()
    logit = network(x)["surface_logit"]
    assert torch.equal(logit > 0, x[:, 1:] > 0.4)
    assert logit.abs().unique().tolist() == [3.0]
    assert network.heads == ("surface_logit", "normals")


def test_refine_sees_a_mask_not_a_probability():
    network = RefineNetwork(backbone=unet(), threshold=0.5).eval()
    x = image()
    binary = torch.cat([x[:, :1], (x[:, 1:] > 0.5).float()], 1)
    torch.testing.assert_close(network(x)["surface_logit"], network(binary)["surface_logit"])
    other = torch.cat([1 - x[:, :1], x[:, 1:]], 1)
    assert not torch.allclose(network(other)["surface_logit"], network(x)["surface_logit"])


@pytest.mark.parametrize("space_to_depth", [1, 2])
def test_deform_starts_as_the_former_prediction(space_to_depth):
    network = DeformNetwork(backbone=unet(space_to_depth=space_to_depth)).eval()
    x = image() * 0.9 + 0.05
    outputs = network(x)
    torch.testing.assert_close(torch.sigmoid(outputs["surface_logit"]), x[:, 1:], atol=1e-4, rtol=0)
    assert outputs["velocity"].shape == (2, 3, *SHAPE)
    assert not outputs["velocity"].any()
    assert set(network.heads) == set(outputs)


@pytest.mark.parametrize("space_to_depth", [1, 2])
def test_deform_learns_to_move_and_thicken_a_sheet(space_to_depth):
    torch.manual_seed(0)
    prior = torch.full((1, 1, 16, 16, 16), 0.02)
    prior[:, :, 5:7] = 0.98
    target = torch.zeros(1, 1, 16, 16, 16)
    target[:, :, 6:9] = 1
    x = torch.cat([target, prior], 1)
    network = DeformNetwork(backbone=unet(space_to_depth=space_to_depth), max_speed=6.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    for _ in range(60):
        logit = network(x)["surface_logit"]
        loss = nn.functional.binary_cross_entropy_with_logits(logit, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mask = network(x)["surface_logit"] > 0
    overlap = 2 * float((mask & (target > 0)).sum()) / float(mask.sum() + target.sum())
    assert overlap > 0.9  # it was 0.4


def test_every_trained_weight_of_a_deform_network_gets_a_gradient():
    for evidence in (False, True):
        network = DeformNetwork(backbone=unet(), evidence=evidence)
        outputs = network(image())
        (outputs["surface_logit"].square().mean() + outputs["velocity"].mean()).backward()
        without = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []


def test_a_constant_velocity_moves_everything_by_itself():
    velocity = torch.zeros(1, 3, *SHAPE)
    velocity[:, 1], velocity[:, 2] = 2.0, -1.0
    torch.testing.assert_close(integrate(velocity, 4), velocity, atol=1e-5, rtol=0)
    x = image(1, 1)
    moved = warp(x, velocity)
    torch.testing.assert_close(moved[..., :-2, 1:], x[..., 2:, :-1], atol=1e-5, rtol=0)
    coarse = DeformNetwork(backbone=unet(), stride=2).displacement(velocity)
    torch.testing.assert_close(coarse, velocity, atol=1e-5, rtol=0)


def test_the_flow_of_a_linear_field_is_the_exponential():
    z = torch.arange(64.0) - 31.5  # dz/dt = 0.2 z: after time 1 at z e^0.2
    velocity = torch.zeros(1, 3, 64, 4, 4)
    velocity[:, 0] = 0.2 * z[:, None, None]
    flow = integrate(velocity, 6)[0, 0, :, 2, 2]
    expected = z * (torch.e**0.2 - 1)
    inner = slice(12, 52)
    torch.testing.assert_close(flow[inner], expected[inner], atol=0.03, rtol=0)


def test_flow_and_opposite_flow_undo_each_other():
    generator = torch.Generator().manual_seed(0)
    rough = torch.randn(1, 3, 4, 4, 4, generator=generator) * 1.5
    velocity = nn.functional.interpolate(rough, (24, 24, 24), mode="trilinear", align_corners=True)
    there, back = integrate(velocity, 5), integrate(-velocity, 5)
    both = (there + warp(back, there))[..., 5:-5, 5:-5, 5:-5]
    assert float(both.abs().mean()) < 0.03 * float(there.abs().mean())
    assert float(both.abs().max()) < 0.25  # trilinear on a field that bends within 7 voxels


def test_smoothness_does_not_see_the_sign_but_the_direction():
    def loss(velocity):
        return float(VelocitySmoothnessLoss(speed=0.0)({"velocity": velocity}, {}))

    same = torch.zeros(1, 3, 4, 4, 4)
    same[:, 0] = 2.0
    opposite, turned = same.clone(), same.clone()
    opposite[:, 0, 2:] = -2.0  # away from the middle on both sides: thickens
    turned[:, 0, 2:], turned[:, 1, 2:] = 0.0, 2.0
    assert loss(same) == loss(opposite) == pytest.approx(0)
    # v v^T / |v| changes from diag(2, 0, 0) to diag(0, 2, 0) across one of 3 faces: 8 / 3
    assert loss(turned) == pytest.approx(8 / 3, rel=1e-4)
    speed = VelocitySmoothnessLoss(speed=0.5)({"velocity": same}, {})
    assert float(speed) == pytest.approx(0.5 * 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RefineNetwork(backbone=DualHeadResUNet3D(n_filters=2)), "in_channels=1; expect"),
        (lambda: RefineNetwork(backbone=unet(), threshold=1.0), r"model\.threshold=1\.0"),
        (lambda: DeformNetwork(backbone=unet(normals_head=False)), "normals_head=true"),
        (lambda: DeformNetwork(backbone=unet(), steps=0), r"model\.steps=0"),
        (lambda: VelocitySmoothnessLoss(speed=-1), "speed=-1"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("kind", [RefineNetwork, DeformNetwork])
def test_an_image_without_its_prior_is_explained(kind):
    with pytest.raises(ShapeMismatchError, match=r"data\.prior_root"):
        kind(backbone=unet())(image(channels=1))


def test_a_transformer_can_refine():
    torch.manual_seed(0)
    backbone = SegFormer3D(in_channels=2, dims=[8, 8, 10, 8], depths=[1, 1, 1, 1])
    outputs = RefineNetwork(backbone=backbone)(torch.rand(1, 2, 32, 32, 32))
    assert outputs["surface_logit"].shape == (1, 1, 32, 32, 32)
