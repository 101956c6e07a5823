"""Parts shared by the transformer networks: tokens, position grids, attention blocks.

Attention goes through `scaled_dot_product_attention`, which never stores the (n, n) matrix where
the device has a fused kernel.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn


def to_tokens(x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n c"]:
    """Return a feature map as a sequence; a view if the map is channels_last_3d."""
    return x.flatten(2).transpose(1, 2)


def to_map(
    tokens: Float[Tensor, "b n c"], grid_zyx: tuple[int, int, int]
) -> Float[Tensor, "b c z y x"]:
    """Return a sequence as a feature map (channels_last_3d if the sequence is contiguous)."""
    return torch.unflatten(tokens, 1, grid_zyx).permute(0, 4, 1, 2, 3)


def grid_of(x: Tensor) -> tuple[int, int, int]:
    """Return (z, y, x) of a feature map."""
    return (x.shape[2], x.shape[3], x.shape[4])


def resize_grid(
    grid: Float[Tensor, "k c z y x"], size_zyx: tuple[int, int, int]
) -> Float[Tensor, "k c sz sy sx"]:
    """Return weights learned on one token grid at another grid (trilinear)."""
    if grid_of(grid) == size_zyx:
        return grid
    return F.interpolate(grid, size=size_zyx, mode="trilinear", align_corners=False)


class PositionGrid(nn.Module):
    """Adds a learned position embedding; on another grid than `grid_zyx` it is interpolated."""

    def __init__(self, channels: int, grid_zyx: tuple[int, int, int], *, std: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, *grid_zyx))
        if std > 0:
            nn.init.normal_(self.weight, std=std)

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c z y x"]:
        """Return x + embedding."""
        return x + resize_grid(self.weight, grid_of(x)).to(x.dtype)


class DropPath(nn.Module):
    """Drops a residual branch of whole samples while training (stochastic depth, Huang 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Return x, or zeros for a share `rate` of the samples; the mean is kept."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep).div_(keep)


class SelfAttention(nn.Module):
    """Multi-head self-attention of a short sequence (b, n, c)."""

    def __init__(self, channels: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Return the attended sequence."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected


def make_mlp(channels: int, hidden: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Return Linear, GELU, Linear with dropout after each."""
    return nn.Sequential(
        nn.Linear(channels, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, channels),
        nn.Dropout(dropout),
    )


class TransformerBlock(nn.Module):
    """Pre-norm block: attention and MLP, each with a residual. Source: Dosovitskiy et al. 2021."""

    def __init__(
        self, channels: int, num_heads: int, mlp_dim: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = SelfAttention(channels, num_heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = make_mlp(channels, mlp_dim, dropout=dropout)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Return the block's sequence."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out
