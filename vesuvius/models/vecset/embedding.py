"""Fourier features of points."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError


class PointEmbedding(nn.Module):
    """Points with attached features to tokens.

    sin and cos of pi 2^k x for k = 0 .. num_frequencies - 1, on each coordinate by itself, beside
    the raw input, then a linear layer.

    Args:
        in_channels: coordinates (the first three) and attached features, such as a one-hot class.
        channels: width of the tokens.
        num_frequencies: octaves; the finest wavelength is 2^(2 - num_frequencies) of the half cube.

    Source: Mildenhall et al. 2020 (NeRF), frequencies as in 3DShape2VecSet.
    """

    frequencies: Tensor

    def __init__(self, in_channels: int, channels: int, *, num_frequencies: int = 8) -> None:
        super().__init__()
        if num_frequencies < 1 or in_channels < 3:
            raise ConfigError(
                f"model.num_frequencies={num_frequencies}; expected >= 1 (and points of >= 3 "
                f"numbers, got {in_channels})."
            )
        octaves = torch.tensor([math.pi * 2.0**k for k in range(num_frequencies)])
        self.register_buffer("frequencies", octaves, persistent=False)
        self.linear = nn.Linear(6 * num_frequencies + in_channels, channels)

    def forward(self, points: Float[Tensor, "b n f"]) -> Float[Tensor, "b n c"]:
        """Return tokens; the angles are computed in float32 whatever the precision around."""
        xyz = points[..., :3].float()
        angles = (xyz.unsqueeze(-1) * self.frequencies).flatten(-2)
        features = torch.cat((angles.sin(), angles.cos(), points.to(angles.dtype)), -1)
        out: Tensor = self.linear(features)
        return out
