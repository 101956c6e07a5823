"""CoCoSeg: parameter count, stage shapes, any size, switches, normalisation."""

from functools import partial

import pytest
import torch
from torch import nn

from vesuvius.errors import ConfigError, ShapeMismatchError, VolumeFormatError
from vesuvius.models.petct.cocoseg import CoCoSeg, UNetEncoder, scale_slices
from vesuvius.models.petct.vgg import VGG19Branch, vgg19_branch

STRUCTURE = partial(vgg19_branch, weights="checkpoint")


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(**options):
    torch.manual_seed(0)
    return CoCoSeg(**{"width": 2, "vgg": STRUCTURE, **options}).eval()


def image(height=32, width=32, batch=1):
    generator = torch.Generator().manual_seed(0)
    size = (batch, 2, height, width)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


def test_parameters_of_v2_are_those_of_the_original():
    network = CoCoSeg(vgg=STRUCTURE)
    assert count(network) == 13_390_596
    assert count(network.vggs) == 2 * 2_324_416
    assert count(network.unets) == 2 * 1_171_680
    without = CoCoSeg(vgg=partial(vgg19_branch, weights="none"))
    # two sources less in each fusion: 9 * 2 c^2
    assert count(without) == 8_741_764 - 18 * (64**2 + 128**2 + 256**2)


def test_parameters_of_v1():
    assert count(CoCoSeg(vgg=STRUCTURE, encoders="shared", norm="batch")) == 11_440_004


def test_stage_shapes_at_512():
    with torch.device("meta"):
        x = torch.empty(1, 1, 512, 512)
        unet, vgg = UNetEncoder(1, 32, norm="instance")(x), VGG19Branch()(x)
    assert [tuple(f.shape[1:]) for f in unet] == [
        (32, 512, 512), (64, 256, 256), (128, 128, 128), (256, 64, 64),
    ]  # fmt: skip
    assert [f.shape for f in vgg] == [f.shape for f in unet[1:]]


def test_unet_blocks_are_conv_leaky_relu_norm():
    block = UNetEncoder(1, 2, norm="instance").levels[0]
    kinds = [nn.Conv2d, nn.LeakyReLU, nn.InstanceNorm2d]
    assert [type(layer) for layer in block] == kinds * 2
    assert block[1].negative_slope == 0.2
    assert not block[2].affine


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 47), (50, 64), (17, 100)])
def test_any_size_gives_a_logit_of_that_size(height, width):
    with torch.no_grad():
        logit = small()(image(height, width))["lesion_logit"]
    assert logit.shape == (1, 1, height, width)
    assert logit.isfinite().all()


def test_odd_sizes_are_reflected_to_a_multiple_of_16_and_cropped_back():
    network, x = small(), image(20, 30)
    padded = torch.nn.functional.pad(x.float(), (0, 2, 0, 12), mode="reflect").to(torch.uint8)
    with torch.no_grad():
        expected = network(padded)["lesion_logit"][:, :, :20, :30]
        found = network(x)["lesion_logit"]
    torch.testing.assert_close(found, expected)


def test_bytes_and_floats_of_unit_range_are_the_same_to_the_network():
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(scale_slices(x).flatten(), torch.tensor([-1.0, -0.6, 1.0]))
    torch.testing.assert_close(scale_slices(x.float() / 255), scale_slices(x))
    with pytest.raises(VolumeFormatError, match=r"dtype torch\.int32"):
        scale_slices(x.int())


def test_the_output_starts_from_the_prior():
    network = small(output_bias=-3.0)
    nn.init.zeros_(network.lesion_head.weight)
    with torch.no_grad():
        assert torch.equal(network(image())["lesion_logit"], torch.full((1, 1, 32, 32), -3.0))


def test_inputs_decide_what_is_seen():
    x = image()
    other_ct, other_pet = x.clone(), x.clone()
    other_ct[:, 0] = 255 - other_ct[:, 0]
    other_pet[:, 1] = 255 - other_pet[:, 1]
    for inputs, blind_to, sees in (
        (["ct", "ct"], other_pet, other_ct),
        (["pet", "pet"], other_ct, other_pet),
    ):
        network = small(inputs=inputs)
        with torch.no_grad():
            plain, blind, changed = (network(i)["lesion_logit"] for i in (x, blind_to, sees))
        assert torch.equal(plain, blind)
        assert not torch.allclose(plain, changed)


@pytest.mark.parametrize(
    "options",
    [
        {"encoders": "shared"},
        {"share_vgg": True},
        {"vgg": None},
        {"norm": "batch"},
        {"attention": "none"},
        {"scale_energy": True},
        {"encoders": "shared", "vgg": None},
    ],
    ids=str,
)
def test_every_switch_trains_all_parameters(options):
    network = small(**options).train()
    for fusion in network.fusions:
        if fusion.attention is not None:
            nn.init.constant_(fusion.attention.gamma, 0.5)
    network(image(batch=2))["lesion_logit"].square().mean().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias before a norm without affine parameters has no effect: LeakyReLU lies between here
    assert idle == []


def test_wrong_arguments_and_images():
    for arguments, words in (
        ({"width": 0}, r"model\.width=0"),
        ({"encoders": "both"}, r"model\.encoders='both'"),
        ({"attention": "se"}, r"model\.attention='se'"),
        ({"norm": "layer"}, r"model\.norm='layer'"),
        ({"inputs": ["ct", "mr"]}, r"model\.inputs=\['ct', 'mr'\]"),
    ):
        with pytest.raises(ConfigError, match=words):
            small(**arguments)
    with pytest.raises(ShapeMismatchError, match=r"expected \(b, 2, y, x\)"):
        small()(image()[:, :1])
    with pytest.raises(ShapeMismatchError, match="expected 16 x 16 or more"):
        small()(image(8, 32))


def test_provenance_tells_where_vgg_weights_started():
    assert small(vgg=None).provenance == {"vgg": "none"}
    assert small().provenance == {"vgg": "random"}
