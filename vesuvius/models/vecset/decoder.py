"""Latent vectors to values at query points: signed distances and class logits."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.models.vecset.attention import (
    Attention,
    GegluFeedForward,
    attention_kernel,
    autocast_off,
)
from vesuvius.models.vecset.embedding import PointEmbedding


class QueryDecoder(nn.Module):
    """Cross-attention from embedded points to the latents, LayerNorm, one linear layer.

    The linear layer starts at zero: an untrained network answers 0 everywhere.

    Args:
        channels: width of latents and tokens.
        out_channels: numbers per query point.
        dim_head: channels of an attention head.
        num_frequencies: of the point embedding.
        residual: add the attention to the embedded point and follow with a feed-forward (own): a
            network of few latents learns faster with it. False is the original.

    Source: Zhang et al. 2023 (3DShape2VecSet).
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int,
        dim_head: int,
        num_frequencies: int = 8,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.embed = PointEmbedding(3, channels, num_frequencies=num_frequencies)
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, dim_head=dim_head)
        self.norm_feed = nn.LayerNorm(channels) if residual else None
        self.feed = GegluFeedForward(channels, multiplier=1) if residual else None
        self.norm_out = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, out_channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, points: Float[Tensor, "b n 3"], keys: Tensor, values: Tensor
    ) -> Float[Tensor, "b n o"]:
        """Return values at points; keys and values (b, h, l, d) come from `keys_values`."""
        x = self.embed(points)
        found = self.attention.attend(self.norm(x), keys, values)
        if self.feed is not None and self.norm_feed is not None:
            found = x + found
            found = found + self.feed(self.norm_feed(found))
        out: Tensor = self.head(self.norm_out(found))
        return out


Decode = Callable[[Float[Tensor, "b n 3"]], Float[Tensor, "b n o"]]


def decode_in_blocks(
    decode: Decode, points: Float[Tensor, "b n 3"], *, block: int
) -> Float[Tensor, "b n o"]:
    """Return `decode(points)`, at most `block` points at a time."""
    return torch.cat([decode(part) for part in torch.split(points, block, 1)], 1)


def decode_with_gradient(
    decode: Decode,
    field: Callable[[Float[Tensor, "b n o"]], Float[Tensor, "b n"]],
    points: Float[Tensor, "b n 3"],
) -> tuple[Float[Tensor, "b n o"], Float[Tensor, "b n 3"]]:
    """Return values at points and the spatial gradient of one number of them, in float32.

    While training the gradient can be differentiated again (eikonal term), for which the decoder's
    attention runs on the MATH kernel: no fused one has a second derivative. In validation it is
    just a number, also under `torch.inference_mode`, as long as the caller prepared keys and
    values outside of it.

    Args:
        decode: points to values.
        field: values to the number whose gradient is wanted.
        points: query points.
    """
    train = torch.is_grad_enabled()
    with torch.enable_grad(), autocast_off(points.device):
        points = points.detach().float().clone().requires_grad_()
        with attention_kernel(twice_differentiable=train):
            values = decode(points)
        (gradient,) = torch.autograd.grad(field(values).sum(), points, create_graph=train)
    if not train:
        values = values.detach()
    return values, gradient
