"""The memory layout of feature maps, also where a single channel leaves it open."""

import torch
from jaxtyping import Float
from torch import Tensor


def to_channels_last(image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c z y x"]:
    """Return the map in channels_last_3d, also if it has one channel.

    One channel's memory is the same in either layout, so PyTorch returns such a map as it came,
    with the strides of the default layout, and so does a 1^3 convolution of it: everything that
    meets its result is then copied. The strides say which layout is meant.
    """
    image = image.contiguous(memory_format=torch.channels_last_3d)
    if image.shape[1] != 1:
        return image
    _, _, z, y, x = image.shape
    return image.as_strided(image.shape, (z * y * x, 1, y * x, x, 1))


def is_channels_last(image: Float[Tensor, "b c z y x"]) -> bool:
    """Return whether a map is in channels_last_3d; for one channel, whether its strides say so."""
    return image.is_contiguous(memory_format=torch.channels_last_3d) and image.stride(1) == 1
