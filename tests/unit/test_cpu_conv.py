"""The guard against wrong bf16 weight gradients on the CPU."""

import pytest
import torch
from torch import nn

from vesuvius.cpu_conv import CPUConv3d, mend_cpu_convolutions


def gradients(conv, image, grad, *, reference):
    conv.zero_grad()
    image = image.clone().requires_grad_()
    if reference:  # float32, on numbers that bf16 holds exactly
        out = conv(image)
        out.backward(grad)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(image)
        assert out.dtype is torch.bfloat16
        out.backward(grad.bfloat16())
    return out.detach().float(), image.grad, conv.weight.grad.clone()


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((2, 2, 2), 3),
        ((2, 4, 4), 3),
        ((1, 3, 3), 3),
        ((3, 4, 4), 5),
        ((4, 4, 4), 3),
        ((2, 2, 2), 1),
        ((8, 4, 4), 3),  # slender: z along the rows
        ((16, 5, 8), (3, 1, 5)),
        ((8, 2, 2), 3),  # too narrow for that
    ],
    ids=str,
)
def test_gradients_of_bf16_equal_those_of_float32(shape, kernel):
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    network = nn.Sequential(nn.Conv3d(32, 32, kernel, padding=padding))
    assert mend_cpu_convolutions(network) == 1
    conv = network[0]
    conv.weight.data = conv.weight.data.bfloat16().float()
    image = torch.randn(2, 32, *shape).bfloat16().float()
    grad = torch.randn(2, 32, *shape).bfloat16().float()
    for found, expected in zip(
        gradients(conv, image, grad, reference=False),
        gradients(conv, image, grad, reference=True),
        strict=True,
    ):
        assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_the_guard_changes_no_name_and_no_subclass():
    class OwnConv(nn.Conv3d):
        pass

    network = nn.Sequential(nn.Conv3d(1, 2, 3), OwnConv(2, 2, 3), nn.Conv2d(1, 1, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert mend_cpu_convolutions(network) == 1
    assert mend_cpu_convolutions(network) == 0
    assert [type(module) for module in network] == [CPUConv3d, OwnConv, nn.Conv2d]
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_in_bf16_and_inference_keep_their_dtype():
    conv = nn.Sequential(nn.Conv3d(16, 16, 3, padding=1)).to(torch.bfloat16)
    mend_cpu_convolutions(conv)
    image = torch.randn(1, 16, 2, 2, 2, dtype=torch.bfloat16)
    assert conv(image).dtype is torch.bfloat16
    with torch.inference_mode():
        assert conv(image).dtype is torch.bfloat16


def slender(**options):
    """Return the outputs of a convolution of a slender map: as the class computes it, and plain."""
    torch.manual_seed(0)
    conv = nn.Conv3d(8, 16, (3, 3, 1), **options)
    image = torch.randn(2, 8, 12, 5, 4).contiguous(memory_format=torch.channels_last_3d)
    expected = conv(image)
    mend_cpu_convolutions(network := nn.Sequential(conv))
    with torch.autocast("cpu", torch.bfloat16):
        return network(image), expected


@pytest.mark.parametrize(
    "options",
    [
        {"padding": (1, 0, 0), "stride": (2, 1, 3)},
        {"padding": (2, 1, 0), "dilation": (2, 1, 1), "groups": 4, "bias": False},
        {"padding": "same"},
        {"padding": (1, 1, 0), "padding_mode": "replicate"},
    ],
    ids=str,
)
def test_a_slender_map_keeps_every_option_of_the_convolution(options):
    found, expected = slender(**options)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)


def test_a_slender_map_stays_in_channels_last():
    found, _ = slender(padding=(1, 1, 0))
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert not found.is_contiguous()
