"""CAM and fusion against the formulas written out."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from vesuvius.models.petct import winograd
from vesuvius.models.petct.attention import ChannelAttention, Fusion, _fast


def written_out(cam, x):
    """Out = gamma A v + v, A = softmax(max_row(E) - E), E = q k^T over pixels."""
    b, c, h, w = x.shape
    q, k, v = (conv(x).view(b, c, h * w) for conv in (cam.query, cam.key, cam.value))
    energy = q @ k.transpose(1, 2)
    attention = torch.softmax(energy.max(-1, keepdim=True).values - energy, -1)
    return (cam.gamma * (attention @ v) + v).view(b, c, h, w)


def attention(channels=3, gamma=0.7):
    torch.manual_seed(0)
    cam = ChannelAttention(channels)
    nn.init.constant_(cam.gamma, gamma)
    return cam


def test_gamma_zero_is_the_value_convolution():
    cam, x = attention(gamma=0.0), torch.randn(2, 3, 6, 5)
    torch.testing.assert_close(cam(x), cam.value(x))
    assert ChannelAttention(3).gamma.item() == 0


def test_output_is_that_of_the_formula():
    cam, x = attention(), torch.randn(2, 3, 6, 5)
    torch.testing.assert_close(cam(x), written_out(cam, x), rtol=1e-4, atol=1e-5)


def test_by_hand_one_pixel_two_channels():
    cam = ChannelAttention(2)
    for conv in (cam.query, cam.key, cam.value):
        nn.init.zeros_(conv.weight)
    for conv, bias in ((cam.query, [1.0, 2.0]), (cam.key, [1.0, 0.0]), (cam.value, [4.0, 8.0])):
        conv.bias.data = torch.tensor(bias)
    nn.init.constant_(cam.gamma, 0.5)
    # E = [[1, 0], [2, 0]]; max - E = [[0, 1], [0, 2]]; rows of A by softmax
    a = [1 / (1 + 2.718281828), 1 / (1 + 7.389056099)]
    expected = [0.5 * (r * 4 + (1 - r) * 8) + v for r, v in zip(a, (4, 8), strict=True)]
    assert cam(torch.zeros(1, 2, 1, 1)).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_energies_beyond_float16_do_not_overflow_in_low_precision():
    cam = attention()
    x = 100 * torch.randn(1, 3, 32, 32)
    energy = cam.query(x).flatten(2) @ cam.key(x).flatten(2).transpose(1, 2)
    assert energy.abs().max() > 65504
    with torch.autocast("cpu", torch.bfloat16):
        assert cam(x).isfinite().all()
    seen = []
    cam.mixing = lambda energy, pixels: seen.append(energy) or torch.eye(3)[None]
    with torch.autocast("cpu", torch.float16):
        cam(x)
    assert seen[0].dtype == torch.float32
    assert seen[0].isfinite().all()


def test_scaled_energy_divides_by_root_of_pixels():
    plain, scaled = attention(), attention()
    scaled.scale_energy = True
    energy = torch.randn(1, 3, 3)
    torch.testing.assert_close(scaled.mixing(energy, 16), plain.mixing(energy / 4, 16))


@pytest.mark.parametrize("num", [1, 4])
def test_fusion_is_attention_then_concatenation_then_convolution(num):
    torch.manual_seed(0)
    fusion = Fusion(3, num, attention=attention(), norm=nn.Identity())
    sources = [torch.randn(2, 3, 5, 7, requires_grad=True) for _ in range(num)]
    expected = fusion.conv(torch.cat([written_out(fusion.attention, s) for s in sources], 1))
    weights = torch.randn_like(expected)
    parameters = [*fusion.parameters(), *sources]
    slow = torch.autograd.grad((expected * weights).sum(), parameters)
    found = fusion.fuse(sources)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    fast = torch.autograd.grad((found * weights).sum(), parameters)
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fusion(sources), F.leaky_relu(expected, 0.2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 4, 8), (5, 12, 72), (2, 40, 4)])
def test_winograd_is_the_zero_padded_convolution(channels, height, width):
    torch.manual_seed(0)
    x = torch.randn(channels, height, width)
    weight, bias = torch.randn(4, channels, 3, 3), torch.randn(4)
    kernel = winograd.transform_kernel(weight)
    found = torch.full((4, height, width), torch.nan)
    for row, out in winograd.products(x, kernel, bias):
        rows = winograd.as_rows(out, width)
        found[:, row : row + rows.shape[1]] = rows
    expected = F.conv2d(x[None].double(), weight.double(), bias.double(), padding=1)[0]
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (36, 40), (260, 8)])
def test_the_inference_path_gives_what_the_formula_gives(height, width):
    torch.manual_seed(0)
    channels = 64
    cam = ChannelAttention(channels)
    nn.init.constant_(cam.gamma, 0.5)
    fusion = Fusion(channels, 2, attention=cam, norm=nn.Identity())
    sources = [torch.randn(2, channels, height, width) for _ in range(2)]
    expected = fusion.conv(torch.cat([written_out(cam, s) for s in sources], 1)).detach()
    with torch.no_grad():
        assert _fast(sources[0])
        found = fusion.fuse(sources)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_training_odd_sizes_and_low_precision_take_plain_convolutions():
    x = torch.zeros(1, 64, 64, 64)
    assert not _fast(x)  # gradients are wanted
    with torch.no_grad():
        assert _fast(x)
        assert not _fast(x[:, :, :62])
        assert not _fast(x[:, :32])
        assert not _fast(x.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            assert not _fast(x)
