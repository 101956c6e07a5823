"""A labelled point cloud to a set of latent vectors."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.vecset.attention import CrossBlock
from vesuvius.models.vecset.embedding import PointEmbedding
from vesuvius.models.vecset.sampling import Sampling, choose_points

Queries = Literal["learnable", "point"]


class PointSetEncoder(nn.Module):
    """Latent queries gather from the embedded points by one cross-attention.

    Args:
        in_channels: numbers per point: xyz and features.
        channels: width.
        num_latents: size of the set.
        queries: "learnable" vectors, or "point": a sample of the points themselves, embedded.
        query_sampling: of "point": "farthest" or "random".
        dim_head: channels of an attention head.
        num_frequencies: of the point embedding.

    Source: Zhang et al. 2023 (3DShape2VecSet), section 5.1.

    Raises:
        ConfigError: unknown kind of queries, or no latents.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_latents: int,
        queries: Queries,
        query_sampling: Sampling,
        dim_head: int,
        num_frequencies: int,
    ) -> None:
        super().__init__()
        if queries not in ("learnable", "point"):
            raise ConfigError(f"model.query_type={queries!r}; expected learnable or point.")
        if query_sampling not in ("farthest", "random"):
            raise ConfigError(
                f"model.query_sampling={query_sampling!r}; expected farthest or random."
            )
        if num_latents < 1:
            raise ConfigError(f"model.num_latents={num_latents}; expected >= 1.")
        self.num_latents = num_latents
        self.query_sampling: Sampling = query_sampling
        self.embed = PointEmbedding(in_channels, channels, num_frequencies=num_frequencies)
        self.latents = nn.Embedding(num_latents, channels) if queries == "learnable" else None
        self.block = CrossBlock(channels, dim_head=dim_head)

    def forward(
        self, surface: Float[Tensor, "b n f"]
    ) -> tuple[Float[Tensor, "b l c"], Float[Tensor, "b l c"] | None]:
        """Return the latents, and the learnable queries they started from (None for "point")."""
        context = self.embed(surface)
        if self.latents is not None:
            queries = self.latents.weight.expand(len(surface), -1, -1)
            return self.block(queries, context), queries
        index = choose_points(surface[..., :3], self.num_latents, sampling=self.query_sampling)
        queries = torch.gather(context, 1, index.unsqueeze(-1).expand(-1, -1, context.shape[-1]))
        return self.block(queries, context), None
