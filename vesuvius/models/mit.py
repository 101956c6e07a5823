"""Mix transformer encoder (MiT) in 3-D: the backbone of SegFormer and UPerNet."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.attention import DropPath, grid_of, to_map, to_tokens
from vesuvius.models.surface_network import (
    check_choice,
    check_divides,
    check_positive,
    run_checkpointed,
)

MIT_VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
"""Channels and number of blocks of the four stages (Xie et al. 2021, table 6)."""
NUM_HEADS = (1, 2, 5, 8)
REDUCTIONS = (4, 2, 1, 1)  # the paper's (8, 4, 2, 1) leaves too few keys in a volume
MLP_RATIO = 4


class ReducedAttention3D(nn.Module):
    """Self-attention whose keys and values come from a map reduced `reduction` times an axis.

    Source: Xie et al. 2021, equation 2, after Wang et al. 2021 (PVT).
    """

    def __init__(self, channels: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.reduce: nn.Conv3d | None = None
        if reduction > 1:
            self.reduce = nn.Conv3d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels, eps=1e-5)

    def forward(
        self, x: Float[Tensor, "b n c"], grid_zyx: tuple[int, int, int]
    ) -> Float[Tensor, "b n c"]:
        """Return the attended sequence of a map of `grid_zyx`."""
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        source = x
        if self.reduce is not None:
            source = self.norm(to_tokens(self.reduce(to_map(x, grid_zyx))))
        k, v = self.kv(source).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected


class MixFFN3D(nn.Module):
    """Linear, depth-wise 3^3 convolution, GELU, Linear; the convolution tells positions apart.

    Source: Xie et al. 2021, equation 3.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.shrink = nn.Linear(hidden, channels)

    def forward(
        self, x: Float[Tensor, "b n c"], grid_zyx: tuple[int, int, int]
    ) -> Float[Tensor, "b n c"]:
        """Return the transformed sequence of a map of `grid_zyx`."""
        hidden = to_tokens(self.convolve(to_map(self.expand(x), grid_zyx)))
        out: Tensor = self.shrink(F.gelu(hidden))
        return out

    def convolve(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c z y x"]:
        """Return the depth-wise convolution; on a CPU in float32, where bf16 is 4 times slower."""
        if x.device.type != "cpu" or x.dtype != torch.bfloat16:
            out: Tensor = self.depthwise(x)
            return out
        with torch.autocast("cpu", enabled=False):
            exact: Tensor = self.depthwise(x.float())
        return exact.to(x.dtype)


class MixBlock3D(nn.Module):
    """Attention and Mix-FFN, each behind a layer norm and beside a residual."""

    def __init__(self, channels: int, num_heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = ReducedAttention3D(channels, num_heads, reduction)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.ffn = MixFFN3D(channels, MLP_RATIO * channels)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "b n c"], grid_zyx: tuple[int, int, int]
    ) -> Float[Tensor, "b n c"]:
        """Return the block's sequence."""
        x = x + self.drop_path(self.attention(self.norm1(x), grid_zyx))
        out: Tensor = x + self.drop_path(self.ffn(self.norm2(x), grid_zyx))
        return out


class MixStage3D(nn.Module):
    """Overlapping patch embedding, blocks, layer norm: one level of the encoder."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        patch: int,
        stride: int,
        num_heads: int,
        reduction: int,
        drop_paths: Sequence[float],
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.embed = nn.Conv3d(in_channels, channels, patch, stride, padding=patch // 2)
        self.embed_norm = nn.LayerNorm(channels, eps=1e-5)
        self.blocks = nn.ModuleList(
            MixBlock3D(channels, num_heads, reduction, rate) for rate in drop_paths
        )
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "b i z y x"]) -> Float[Tensor, "b o sz sy sx"]:
        """Return the level's feature map."""
        embedded = self.embed(x)
        grid_zyx = grid_of(embedded)
        # contiguous tokens: convolutions see channels_last_3d, where depth-wise ones are 10x faster
        tokens = self.embed_norm(to_tokens(embedded).contiguous())
        for block in self.blocks:
            run = partial(block, grid_zyx=grid_zyx)
            tokens = run_checkpointed(run, tokens, enabled=self.checkpointing and self.training)
        return to_map(self.norm(tokens), grid_zyx)


class MixTransformer3D(nn.Module):
    """Four-level encoder; strides s, 2s, 4s, 8s with s = `patch_stride`.

    Args:
        variant: 'b0' ... 'b5'.
        in_channels: image channels.
        dims: channels of the levels instead of the variant's; heads are 1, 2, 5, 8.
        depths: blocks of the levels instead of the variant's.
        patch_stride: stride of the first level.
        drop_path: highest rate of stochastic depth, rising from 0 over the blocks.
        checkpointing: recompute blocks in the backward pass.

    Source: Xie et al. 2021, SegFormer (arXiv:2105.15203), made 3-D as in Perera et al. 2024,
    SegFormer3D (arXiv:2404.10156).

    Raises:
        ConfigError: unknown variant, wrong number of levels, channels that heads cannot share.
    """

    def __init__(
        self,
        *,
        variant: str = "b0",
        in_channels: int = 1,
        dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        patch_stride: int = 4,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_choice("variant", variant, tuple(MIT_VARIANTS))
        dims = list(dims or MIT_VARIANTS[variant][0])
        depths = list(depths or MIT_VARIANTS[variant][1])
        if len(dims) != 4 or len(depths) != 4 or min(depths) < 1:
            raise ConfigError(
                f"model.dims={dims}, model.depths={depths}: expected four integers >= 1 each."
            )
        check_positive(in_channels=in_channels, patch_stride=patch_stride)
        for channels, heads in zip(dims, NUM_HEADS, strict=True):
            check_divides("dims", channels, heads)
        rates = torch.linspace(0.0, drop_path, sum(depths), device="cpu").tolist()
        self.dims = tuple(dims)
        self.stages = nn.ModuleList()
        for level in range(4):
            first = sum(depths[:level])
            self.stages.append(
                MixStage3D(
                    in_channels if level == 0 else dims[level - 1],
                    dims[level],
                    patch=7 if level == 0 else 3,
                    stride=patch_stride if level == 0 else 2,
                    num_heads=NUM_HEADS[level],
                    reduction=REDUCTIONS[level],
                    drop_paths=rates[first : first + depths[level]],
                    checkpointing=checkpointing,
                )
            )
        self.apply(_initialise)

    def forward(self, image: Float[Tensor, "b c z y x"]) -> list[Tensor]:
        """Return the maps of the levels, finest first; sides divide by 8 * patch_stride."""
        maps: list[Tensor] = []
        hidden: Tensor = image
        for stage in self.stages:
            hidden = stage(hidden)
            maps.append(hidden)
        return maps


def _initialise(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear layers, fan-out normal for convolutions (as the paper's)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    if isinstance(module, nn.Linear | nn.Conv3d) and module.bias is not None:
        nn.init.zeros_(module.bias)
