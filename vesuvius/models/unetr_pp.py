"""UNETRPlusPlus: encoder-decoder of efficient paired attention."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.attention import PositionGrid, grid_of, resize_grid, to_map, to_tokens
from vesuvius.models.blocks import Norm, ResidualBlock3D, make_norm
from vesuvius.models.surface_network import (
    SurfaceNetwork,
    check_divides,
    check_positive,
    run_checkpointed,
)

Grid = tuple[int, int, int]


class PairedAttention3D(nn.Module):
    """Channel and spatial attention that share queries and keys.

    Spatial attention sees `num_tokens` learned mixtures of all voxels, so it costs n * num_tokens
    instead of n^2. The mixing weights belong to the grid of the training crop; on another grid they
    are interpolated and scaled so that their sum stays.

    Source: Shaker et al. 2024, "UNETR++" (arXiv:2212.04497), section 3.3. Their code reshapes the
    spatial branch (b, heads, n, d) by an order that mixes voxels and channels; here it is (n, c).
    """

    def __init__(
        self, channels: int, grid_zyx: Grid, num_tokens: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.grid_zyx = grid_zyx
        self.dropout = dropout
        self.qkvv = nn.Linear(channels, 4 * channels, bias=False)
        self.mix = nn.Linear(math.prod(grid_zyx), num_tokens)
        self.temperature = nn.Parameter(torch.ones(2, num_heads))
        self.proj_channel = nn.Linear(channels, channels // 2)
        self.proj_spatial = nn.Linear(channels, channels - channels // 2)

    def mixing_weight(self, grid_zyx: Grid) -> Float[Tensor, "p n"]:
        """Return the weights of the mixtures on a grid."""
        if grid_zyx == self.grid_zyx:
            return self.mix.weight
        weight = resize_grid(torch.unflatten(self.mix.weight, 1, self.grid_zyx)[None], grid_zyx)[0]
        return weight.flatten(1) * (math.prod(self.grid_zyx) / math.prod(grid_zyx))

    def forward(self, x: Float[Tensor, "b n c"], grid_zyx: Grid) -> Float[Tensor, "b n c"]:
        """Return the attended sequence of a map of `grid_zyx`."""
        heads = self.qkvv(x).unflatten(-1, (4, self.num_heads, -1)).permute(2, 0, 3, 4, 1)
        q, k, v_channel, v_spatial = heads  # (b, h, d, n)
        rate = self.dropout if self.training else 0.0
        weight = self.mixing_weight(grid_zyx)
        k_mixed = F.linear(k, weight, self.mix.bias)  # (b, h, d, p)
        v_mixed = F.linear(v_spatial, weight, self.mix.bias)
        # float32: squares of thousands of voxels overflow half precision
        q = F.normalize(q.float(), dim=-1).to(v_mixed.dtype)
        k = F.normalize(k.float(), dim=-1).to(v_mixed.dtype)
        warm = self.temperature.to(v_mixed.dtype)[:, :, None, None]
        channel = F.scaled_dot_product_attention(
            q * warm[0], k, v_channel.to(q.dtype), dropout_p=rate, scale=1.0
        )
        spatial = F.scaled_dot_product_attention(
            (q * warm[1]).transpose(-2, -1),
            k_mixed.transpose(-2, -1),
            v_mixed.transpose(-2, -1),
            dropout_p=rate,
            scale=1.0,
        )
        channel = channel.permute(0, 3, 1, 2).flatten(2)
        spatial = spatial.transpose(1, 2).flatten(2)
        return torch.cat([self.proj_spatial(spatial), self.proj_channel(channel)], dim=-1)


class PairedBlock3D(nn.Module):
    """Paired attention, then a residual convolution block, each beside a residual."""

    def __init__(
        self,
        channels: int,
        grid_zyx: Grid,
        *,
        num_tokens: int,
        num_heads: int,
        dropout: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.position = PositionGrid(channels, grid_zyx)
        self.norm = nn.LayerNorm(channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.attention = PairedAttention3D(channels, grid_zyx, num_tokens, num_heads, dropout)
        self.conv = ResidualBlock3D(channels, channels, norm=norm)
        self.mix = nn.Sequential(nn.Dropout3d(dropout), nn.Conv3d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c z y x"]:
        """Return the block's map."""
        grid = grid_of(x)
        tokens = to_tokens(self.position(x)).contiguous()
        tokens = tokens + self.gamma * self.attention(self.norm(tokens), grid)
        attended = to_map(tokens, grid)
        out: Tensor = attended + self.mix(self.conv(attended))
        return out


class UNETRPlusPlus(SurfaceNetwork):
    """Four levels of paired attention down and three up; the finest level is convolutional.

    Args:
        in_channels: image channels.
        dims: channels of the four levels; half of dims[0] is the width at full resolution.
        depths: paired blocks of each level, in the encoder and (first three) in the decoder.
        patch_stride: stride of the first level.
        num_tokens: mixtures that spatial attention sees, of each level.
        num_heads: attention heads of every level.
        crop_zyx: crop that position embeddings and mixtures are made for; interpolated for others.
        dropout: of attention and of the maps behind the convolutions (the paper: 0.1).
        norm: 'batch' (as published in the blocks), 'instance' or 'group'.
        checkpointing: recompute the paired blocks in the backward pass.
        normals_head: predict the sheet's normal (nz, ny, nx), tanh, in [-1, 1].
        surface_bias: initial bias of the surface logit.

    Source: Shaker et al. 2024, "UNETR++: Delving into Efficient and Accurate 3D Medical Image
    Segmentation" (arXiv:2212.04497). Parameters at crops of 64^3 with one logit: 22.8 M; medicai
    0.0.4 (`UNETRPlusPlus(encoder_name="unetr_plusplus_encoder", num_classes=2)`, 64^3) 22.8 M.
    The paper's 42.96 M are of 32^3 tokens at the first level: crops of 128^3 here give 43 M.

    Raises:
        ConfigError: not four levels, heads that do not divide.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        dims: Sequence[int] = (32, 64, 128, 256),
        depths: Sequence[int] = (3, 3, 3, 3),
        patch_stride: int = 4,
        num_tokens: Sequence[int] = (64, 64, 64, 32),
        num_heads: int = 4,
        crop_zyx: Sequence[int] = (64, 64, 64),
        dropout: float = 0.0,
        norm: Norm = "batch",
        checkpointing: bool = False,
        normals_head: bool = True,
        surface_bias: float = -2.0,
    ) -> None:
        check_levels(dims, depths, num_tokens, crop_zyx, num_heads)
        check_positive(patch_stride=patch_stride)
        full = max(1, dims[0] // 2)
        super().__init__(
            in_channels=in_channels,
            divisor=8 * patch_stride,
            feature_channels=full,
            feature_stride=1,
            normals_head=normals_head,
            surface_bias=surface_bias,
        )
        self.checkpointing = checkpointing
        grids = [
            tuple(-(-side // (8 * patch_stride)) * 2 ** (3 - level) for side in crop_zyx)
            for level in range(4)
        ]

        def blocks(level: int, *, tokens: int) -> nn.ModuleList:
            z, y, x = grids[level]
            return nn.ModuleList(
                PairedBlock3D(
                    dims[level],
                    (z, y, x),
                    num_tokens=tokens,
                    num_heads=num_heads,
                    dropout=dropout,
                    norm=norm,
                )
                for _ in range(depths[level])
            )

        self.shrink = nn.ModuleList(
            nn.Sequential(nn.Conv3d(i, o, s, s, bias=False), make_norm("group", o))
            for i, o, s in zip([in_channels, *dims[:3]], dims, [patch_stride, 2, 2, 2], strict=True)
        )
        self.encoder = nn.ModuleList(blocks(level, tokens=num_tokens[level]) for level in range(4))
        # From the second coarsest level to the finest, the order in which forward runs them.
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose3d(dims[level + 1], dims[level], 2, 2, bias=False)
            for level in (2, 1, 0)
        )
        self.decoder = nn.ModuleList(blocks(level, tokens=num_tokens[0]) for level in (2, 1, 0))
        self.full_in = ResidualBlock3D(in_channels, full, norm=norm)
        self.full_up = nn.ConvTranspose3d(dims[0], full, patch_stride, patch_stride, bias=False)
        self.full_out = ResidualBlock3D(full, full, norm=norm)

    def run_blocks(self, blocks: nn.Module, x: Tensor) -> Tensor:
        """Return the map behind a level's blocks."""
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x = run_checkpointed(block, x, enabled=self.checkpointing and self.training)
        return x

    def features(self, image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n z y x"]:
        """Return the decoder's map at full resolution."""
        skips: list[Tensor] = []
        hidden: Tensor = image
        for shrink, blocks in zip(self.shrink, self.encoder, strict=True):
            hidden = self.run_blocks(blocks, shrink(hidden))
            skips.append(hidden)
        skips.pop()
        for enlarge, blocks in zip(self.enlarge, self.decoder, strict=True):
            hidden = self.run_blocks(blocks, enlarge(hidden) + skips.pop())
        out: Tensor = self.full_out(self.full_up(hidden) + self.full_in(image))
        return out


def check_levels(
    dims: Sequence[int],
    depths: Sequence[int],
    num_tokens: Sequence[int],
    crop_zyx: Sequence[int],
    num_heads: int,
) -> None:
    """Raise ConfigError unless the lists fit four levels and three axes."""
    if len(dims) != 4 or len(depths) != 4 or len(num_tokens) != 4:
        raise ConfigError(
            f"model.dims={list(dims)}, model.depths={list(depths)}, "
            f"model.num_tokens={list(num_tokens)}: expected four integers each, finest level first."
        )
    if len(crop_zyx) != 3 or min(crop_zyx) < 1:
        raise ConfigError(f"model.crop_zyx={list(crop_zyx)}; expected (z, y, x) in voxels.")
    for channels in dims:
        check_divides("dims", channels, num_heads)
