"""VecSet: one latent set for the whole heart."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.vecset.attention import SelfBlock
from vesuvius.models.vecset.bottleneck import Kind, make_bottleneck
from vesuvius.models.vecset.decoder import QueryDecoder
from vesuvius.models.vecset.encoder import PointSetEncoder, Queries
from vesuvius.models.vecset.field import FieldNetwork
from vesuvius.models.vecset.sampling import Sampling


class VecSet(FieldNetwork):
    """Point-set auto-encoder: encoder, bottleneck, latent transformer, query decoder.

    Args:
        num_classes: K, channels of the input's one-hot and of the class output.
        dim: width.
        depth: layers of the latent transformer.
        num_latents: vectors in the latent set.
        latent_dim: channels of a vector in the bottleneck.
        bottleneck: "normalised", "kl" or "identity" (latent_dim unused).
        query_type: "learnable" or "point" latent queries.
        query_sampling: of "point": "farthest" or "random".
        dim_head: channels of an attention head; divides dim.
        num_frequencies: octaves of the point embeddings.
        field, sharpness, gap, decoder_float32, block: see FieldNetwork.
        decoder_residual: see QueryDecoder.

    `dim=1024, depth=24, num_latents=1024, latent_dim=16` has 425.20 M parameters.

    Source: Zhang et al. 2023 (3DShape2VecSet), with VecSetX's bottleneck.

    Raises:
        ConfigError: an argument out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        dim: int = 1024,
        depth: int = 24,
        num_latents: int = 1024,
        latent_dim: int = 16,
        bottleneck: Kind = "normalised",
        query_type: Queries = "learnable",
        query_sampling: Sampling = "farthest",
        dim_head: int = 64,
        num_frequencies: int = 8,
        field: Literal["union", "per_class"] = "union",
        decoder_residual: bool = False,
        sharpness: float = 0.02,
        gap: float = 0.0,
        decoder_float32: bool = True,
        block: int = 100_000,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            field=field,
            sharpness=sharpness,
            gap=gap,
            decoder_float32=decoder_float32,
            block=block,
        )
        if depth < 0:
            raise ConfigError(f"model.depth={depth}; expected >= 0.")
        self.heads += ("kl",) if bottleneck == "kl" else ()
        self.encoder = PointSetEncoder(
            3 + num_classes,
            dim,
            num_latents=num_latents,
            queries=query_type,
            query_sampling=query_sampling,
            dim_head=dim_head,
            num_frequencies=num_frequencies,
        )
        self.bottleneck = make_bottleneck(bottleneck, channels=dim, code_channels=latent_dim)
        self.layers = nn.ModuleList(SelfBlock(dim, dim_head=dim_head) for _ in range(depth))
        self.decoder = QueryDecoder(
            dim,
            out_channels=1 + num_classes if field == "union" else num_classes,
            dim_head=dim_head,
            num_frequencies=num_frequencies,
            residual=decoder_residual,
        )

    def encode(
        self, surface: Float[Tensor, "b n f"]
    ) -> tuple[Float[Tensor, "b l c"], Float[Tensor, " b"] | None]:
        """Return the latent set of a point cloud (xyz, one-hot), and the KL divergence or None."""
        latents, queries = self.encoder(surface)
        latents, divergence = self.bottleneck(latents)
        if queries is not None:
            latents = latents + queries
        for layer in self.layers:
            latents = layer(latents)
        return latents, divergence
