"""Primus: a plain transformer on patches of voxels with rotary positions and a light decoder."""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.attention import DropPath, PositionGrid, grid_of, to_map, to_tokens
from vesuvius.models.standardise import Standardise3D
from vesuvius.models.surface_network import (
    PaddedNetwork,
    check_divides,
    check_positive,
    run_checkpointed,
)


def rotary_angles(
    grid_zyx: tuple[int, int, int], head_dim: int, *, device: torch.device
) -> Float[Tensor, "n half"]:
    """Return the angle of each pair of channels for each token; a third of the pairs an axis.

    Frequencies fall from 1 to 1 / 10000 a token, so that attention depends on where tokens lie
    relative to each other, on any grid. What a third does not divide keeps angle 0.
    Source: Su et al. 2021 (RoFormer), equation 15, for three axes.
    """
    per_axis = head_dim // 6
    rates = 10_000 ** -(torch.arange(per_axis, device=device) / per_axis)
    axes = []
    for axis, length in enumerate(grid_zyx):
        shape = [1, 1, 1, per_axis]
        shape[axis] = length
        angles = torch.outer(torch.arange(length, device=device), rates)
        axes.append(angles.view(shape).expand(*grid_zyx, per_axis))
    joined = torch.cat(axes, dim=-1).flatten(0, 2)
    return F.pad(joined, (0, head_dim // 2 - 3 * per_axis))


def rotate(
    x: Float[Tensor, "b h n d"], cos: Float[Tensor, "n half"], sin: Float[Tensor, "n half"]
) -> Float[Tensor, "b h n d"]:
    """Return the channels, channel i and half + i as one pair, turned by their angles."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class RotaryAttention3D(nn.Module):
    """Multi-head self-attention with rotary positions and a norm before its last layer (EVA-02)."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))  # a bias of k would change nothing
        self.v_bias = nn.Parameter(torch.zeros(channels))
        self.norm = nn.LayerNorm(channels)
        self.proj = nn.Linear(channels, channels)

    def forward(
        self, x: Float[Tensor, "b n c"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "b n c"]:
        """Return the attended sequence."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = torch.unflatten(F.linear(x, self.qkv.weight, bias), -1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        projected: Tensor = self.proj(self.norm(out.transpose(1, 2).flatten(2)))
        return projected


class SwiGLU(nn.Module):
    """Gated MLP: W3 norm(silu(W1 x) * W2 x). Source: Shazeer 2020; the norm as in EVA-02."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, hidden)
        self.value = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, channels)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Return the mapped sequence."""
        mapped: Tensor = self.out(self.norm(F.silu(self.gate(x)) * self.value(x)))
        return mapped


class PrimusBlock(nn.Module):
    """Attention and gated MLP, each normed before, scaled by a learned gain, with a residual."""

    def __init__(
        self, channels: int, num_heads: int, *, hidden: int, gain: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = RotaryAttention3D(channels, num_heads)
        self.gain1 = nn.Parameter(torch.full((channels,), gain))
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = SwiGLU(channels, hidden)
        self.gain2 = nn.Parameter(torch.full((channels,), gain))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "b n c"], cos: Tensor, sin: Tensor
    ) -> Float[Tensor, "b n c"]:
        """Return the block's sequence."""
        x = x + self.drop_path(self.gain1 * self.attention(self.norm1(x), cos, sin))
        out: Tensor = x + self.drop_path(self.gain2 * self.mlp(self.norm2(x)))
        return out


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map, voxel by voxel."""

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c z y x"]:
        """Return the normed map."""
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Primus3D(PaddedNetwork):
    """Tokens of `patch`^3 voxels, transformer blocks, three transposed convolutions.

    Almost all parameters lie in the transformer; the decoder only draws. Any image size: rotary
    positions need no fixed grid and the learned ones are interpolated.

    Args:
        embed_dim: channels of a token; S 396, B 792, M 864, L 1056.
        num_layers: blocks; S and B 12, M 16, L 24.
        num_heads: S 6, B and M 12, L 16.
        patch: side of a token in voxels, a power of 2; 8 in the paper. Half of it costs 8 times
            the tokens.
        in_channels: image channels.
        crop_zyx: crop of training: the learned positions have its grid.
        drop_path: stochastic depth of the last block, rising from 0; the paper: 0.2.
        gain: first value of the learned gains of the branches.
        feature_channels: channels of the finest map; the decoder's widths fall to it in equal
            ratios, as multiples of 8.
        checkpointing: recompute blocks in the backward pass.
        normals_head: predict the sheet's normal (nz, ny, nx), tanh, in [-1, 1].
        surface_bias: initial bias of the surface logit; -2 (sigmoid 0.12) starts from background.

    Source: Wald et al. 2025, Primus: Enforcing attention usage for 3D medical image segmentation
    (arXiv:2503.01835); blocks of EVA-02 (Fang et al. 2023). Own implementation.

    Raises:
        ConfigError: sizes that do not fit each other.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 396,
        num_layers: int = 12,
        num_heads: int = 6,
        patch: int = 8,
        in_channels: int = 1,
        crop_zyx: Sequence[int] = (64, 64, 64),
        drop_path: float = 0.0,
        gain: float = 0.1,
        feature_channels: int = 16,
        checkpointing: bool = False,
        normals_head: bool = True,
        surface_bias: float = -2.0,
    ) -> None:
        super().__init__()
        check_positive(
            embed_dim=embed_dim,
            num_layers=num_layers,
            in_channels=in_channels,
            feature_channels=feature_channels,
        )
        check_divides("embed_dim", embed_dim, num_heads)
        _check_sizes(embed_dim // num_heads, patch, crop_zyx)
        self.in_channels = in_channels
        self.divisor_zyx = (patch,) * 3
        self.standardise = Standardise3D(in_channels)
        self.checkpointing = checkpointing
        self.head_dim = embed_dim // num_heads
        self.embed = nn.Conv3d(in_channels, embed_dim, patch, patch)
        z, y, x = (-(-int(side) // patch) for side in crop_zyx)
        self.position = PositionGrid(embed_dim, (z, y, x), std=0.02)
        rates = [drop_path * i / max(1, num_layers - 1) for i in range(num_layers)]
        self.blocks = nn.ModuleList(
            PrimusBlock(embed_dim, num_heads, hidden=embed_dim * 8 // 3, gain=gain, drop_path=rate)
            for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.decoder = nn.Sequential()
        num_stages, width = round(math.log2(patch)), embed_dim
        for stage in range(1, num_stages + 1):
            ideal = embed_dim * (feature_channels / embed_dim) ** (stage / num_stages)
            out = feature_channels if stage == num_stages else max(8, 8 * round(ideal / 8))
            self.decoder.append(nn.ConvTranspose3d(width, out, 2, 2))
            self.decoder.append(ChannelNorm(out))
            self.decoder.append(nn.GELU())
            width = out
        self.add_heads([width], normals_head=normals_head, surface_bias=surface_bias)

    def features(self, image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n z y x"]:
        """Return the decoder's map at full resolution; (z, y, x) must divide by the patch."""
        tokens = self.position(self.embed(image))
        grid = grid_of(tokens)
        angles = rotary_angles(grid, self.head_dim, device=image.device)
        cos, sin = angles.cos(), angles.sin()
        hidden = to_tokens(tokens)
        for block in self.blocks:
            hidden = run_checkpointed(
                partial(block, cos=cos, sin=sin),
                hidden,
                enabled=self.checkpointing and self.training,
            )
        out: Tensor = self.decoder(to_map(self.norm(hidden), grid))
        return out


def _check_sizes(head_dim: int, patch: int, crop_zyx: Sequence[int]) -> None:
    if head_dim < 6 or head_dim % 2:
        raise ConfigError(
            f"model.embed_dim / model.num_heads = {head_dim} channels a head; rotary positions on "
            "three axes need an even number of at least 6."
        )
    if patch < 2 or patch & (patch - 1):
        raise ConfigError(f"model.patch={patch}; expected a power of 2, 8 in the paper.")
    if len(crop_zyx) != 3 or min(crop_zyx) < 1:
        raise ConfigError(f"model.crop_zyx={list(crop_zyx)}; expected (z, y, x) >= 1.")
