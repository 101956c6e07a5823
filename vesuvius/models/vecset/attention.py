"""Attention and feed-forward of the point-set auto-encoder.

Everything goes through `scaled_dot_product_attention`, whose fused kernels never store the
(queries, keys) matrix. They have no second derivative; where the eikonal term needs one, the
caller asks for the MATH kernel around that one call.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vesuvius.errors import ConfigError


@contextmanager
def attention_kernel(*, twice_differentiable: bool) -> Iterator[None]:
    """Run attention inside with the MATH kernel, or with whatever torch finds fastest."""
    if not twice_differentiable:
        yield
        return
    with sdpa_kernel([SDPBackend.MATH]):
        yield


class Attention(nn.Module):
    """Multi-head attention of a sequence to a context (itself for self-attention).

    Args:
        channels: width of queries, context and output.
        dim_head: channels of a head; `channels` must be a multiple.

    Source: Zhang et al. 2023 (3DShape2VecSet): q and kv without bias, the output with.

    Raises:
        ConfigError: dim_head does not divide channels.
    """

    def __init__(self, channels: int, *, dim_head: int) -> None:
        super().__init__()
        if dim_head < 1 or channels % dim_head:
            raise ConfigError(
                f"model.dim_head={dim_head} does not divide model.dim={channels}; choose a divisor."
            )
        self.num_heads = channels // dim_head
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(channels, 2 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)

    def keys_values(self, context: Float[Tensor, "b m c"]) -> tuple[Tensor, Tensor]:
        """Return keys and values (b, h, m, d) of a context; they can be used many times."""
        k, v = self.to_kv(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def attend(
        self, x: Float[Tensor, "b n c"], keys: Tensor, values: Tensor
    ) -> Float[Tensor, "b n c"]:
        """Return x attended to prepared keys and values."""
        q = self.to_q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, keys, values)
        projected: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return projected

    def forward(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m c"] | None = None
    ) -> Float[Tensor, "b n c"]:
        """Return x attended to the context, or to itself."""
        return self.attend(x, *self.keys_values(x if context is None else context))


class GegluFeedForward(nn.Module):
    """Linear to 2 * multiplier * c, half of it gates the other through GELU, Linear back.

    Source: Shazeer 2020 (GLU variants).
    """

    def __init__(self, channels: int, *, multiplier: int = 4) -> None:
        super().__init__()
        self.rise = nn.Linear(channels, 2 * multiplier * channels)
        self.fall = nn.Linear(multiplier * channels, channels)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Return the transformed sequence."""
        value, gate = self.rise(x).chunk(2, -1)
        out: Tensor = self.fall(value * F.gelu(gate))
        return out


class CrossBlock(nn.Module):
    """Pre-norm cross-attention and feed-forward with residuals.

    Only the queries are normalised, not keys and values.
    """

    def __init__(self, channels: int, *, dim_head: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, dim_head=dim_head)
        self.norm_feed = nn.LayerNorm(channels)
        self.feed = GegluFeedForward(channels)

    def forward(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m c"]
    ) -> Float[Tensor, "b n c"]:
        """Return x enriched from the context."""
        x = x + self.attention(self.norm(x), context)
        out: Tensor = x + self.feed(self.norm_feed(x))
        return out


class SelfBlock(nn.Module):
    """Pre-norm self-attention and feed-forward with residuals."""

    def __init__(self, channels: int, *, dim_head: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, dim_head=dim_head)
        self.norm_feed = nn.LayerNorm(channels)
        self.feed = GegluFeedForward(channels)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Return the block's sequence."""
        x = x + self.attention(self.norm(x))
        out: Tensor = x + self.feed(self.norm_feed(x))
        return out


def autocast_off(device: torch.device) -> torch.autocast:
    """Return a context in which this device computes in the tensors' own precision."""
    return torch.autocast(device_type=device.type, enabled=False)
