"""Memory layout where one channel leaves it open."""

import pytest
import torch
from torch import nn

from vesuvius.layout import is_channels_last, to_channels_last


@pytest.mark.parametrize("channels", [1, 3])
def test_strides_say_channels_last_and_values_stay(channels):
    image = torch.randn(2, channels, 3, 4, 5)
    last = to_channels_last(image)
    assert torch.equal(last, image)
    assert not is_channels_last(image)
    assert is_channels_last(last)
    assert last.stride() == (60 * channels, 1, 20 * channels, 5 * channels, channels)


def test_one_channel_is_not_copied():
    image = torch.randn(1, 1, 3, 4, 5)
    assert to_channels_last(image).data_ptr() == image.data_ptr()


def test_one_channel_cut_out_of_a_volume_keeps_its_values():
    volume = torch.randn(2, 1, 6, 7, 8)
    cut = volume[:, :, 1:4, 2:5, 3:7]
    assert torch.equal(to_channels_last(cut), cut)


def test_a_pointwise_convolution_of_one_channel_returns_channels_last():
    conv = nn.Conv3d(1, 16, 1).to(memory_format=torch.channels_last_3d)
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_channels_last(conv(to_channels_last(image)))
        assert not is_channels_last(conv(image))  # what the strides are for
