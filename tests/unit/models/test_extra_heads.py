"""Deep supervision and signed-distance heads of the U-Nets."""

import pytest
import torch

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.models.dual_head_unet import DualHeadResUNet3D
from vesuvius.models.resenc import ResEncSurface


def unet(**options):
    torch.manual_seed(0)
    return DualHeadResUNet3D(n_filters=4, norm="instance", **options)


def resenc(**options):
    torch.manual_seed(0)
    return ResEncSurface(
        features_per_stage=[4, 8, 8, 8],
        blocks_per_stage=[1, 1, 1, 1],
        strides_zyx=[[1, 1, 1], [2, 2, 2], [1, 2, 2], [2, 2, 2]],
        **options,
    )


@pytest.fixture(params=[unet, resenc])
def build(request):
    return request.param


def test_deep_heads_are_there_in_training_only(build):
    model = build(deep_supervision=2)
    image = torch.rand(1, 1, 16, 16, 16)
    outputs = model(image)
    assert tuple(outputs) == model.heads
    assert model.heads[2:] == ("surface_logit_deep1", "surface_logit_deep2")
    assert outputs["surface_logit_deep1"].shape == (1, 1, 8, 8, 8)
    assert outputs["surface_logit_deep2"].shape == (1, 1, 8, 4, 4)
    sum(o.square().sum() for o in outputs.values()).backward()
    assert all(head.weight.grad.any() for head in model.deep_heads)
    model.eval()
    assert tuple(model(image)) == model.heads == ("surface_logit", "normals")


def test_deep_heads_leave_the_rest_as_it_is(build):
    plain, deep = build(), build(deep_supervision=1)
    image = torch.rand(1, 1, 16, 16, 16)
    torch.testing.assert_close(plain(image)["surface_logit"], deep(image)["surface_logit"])
    assert not [n for n, _ in plain.named_parameters() if "deep" in n]


def test_crops_that_deep_supervision_cannot_divide_are_refused(build):
    model = build(deep_supervision=1)
    with pytest.raises(ShapeMismatchError, match=r"training crop \(16, 16, 15\) does not divide"):
        model(torch.rand(1, 1, 16, 16, 15))
    assert model.eval()(torch.rand(1, 1, 16, 16, 15))["surface_logit"].shape[-1] == 15


def test_too_many_levels_are_refused():
    with pytest.raises(ConfigError, match=r"deep_supervision=4; expected 0 to 3: the decoder has"):
        unet(deep_supervision=4)


def test_the_distance_gives_the_logit(build):
    model = build(sdf_distance=4.0).eval()
    assert model.heads == ("surface_logit", "sdf", "normals")
    with torch.no_grad():
        outputs = model(torch.rand(1, 1, 16, 16, 13))
    assert outputs["sdf"].shape == (1, 1, 16, 16, 13)
    assert outputs["sdf"].abs().max() <= 4
    torch.testing.assert_close(outputs["surface_logit"], -2 * outputs["sdf"])


def test_the_distance_starts_from_background():
    model = unet(sdf_distance=4.0)
    with torch.no_grad():
        model.surface_head.weight.zero_()
        outputs = model(torch.rand(1, 1, 16, 16, 16))
    torch.testing.assert_close(outputs["surface_logit"], torch.full((1, 1, 16, 16, 16), -2.0))


@pytest.mark.parametrize("distance", [0.0, -1.0, 1.0])
def test_a_distance_too_small_is_refused(distance):
    with pytest.raises(ConfigError, match=rf"sdf_distance={distance} must exceed 1\.0 voxels"):
        unet(sdf_distance=distance)
