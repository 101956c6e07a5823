"""VecSetPerClass: a latent set and a binary field for every class, one shared transformer."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.vecset.attention import CrossBlock, SelfBlock
from vesuvius.models.vecset.decoder import QueryDecoder
from vesuvius.models.vecset.embedding import PointEmbedding
from vesuvius.models.vecset.encoder import Queries
from vesuvius.models.vecset.field import FieldNetwork, KeysValues
from vesuvius.models.vecset.sampling import Sampling, choose_points


class VecSetPerClass(FieldNetwork):
    """Every class is a point set of its own; the classes share all weights.

    The points of a class (without the one-hot: the class is an embedding) give `num_latents`
    vectors; layers alternate between the vectors of one class and those of the whole heart; a
    query attends to the vectors of one class and gets the signed distance to it. A class without
    points starts from its embedding alone: the other classes complete it.

    Args:
        num_classes: K.
        dim: width.
        depth: layers of the latent transformer; every second one sees the whole heart.
        num_latents: vectors of a class.
        points_per_class: input points of a class; spread over those it has, some repeated if it
            has fewer.
        query_type, query_sampling: see VecSet.
        dim_head: channels of an attention head; divides dim.
        num_frequencies: octaves of the point embeddings.
        decoder_residual: see QueryDecoder.
        sharpness, gap, decoder_float32, block: see FieldNetwork.

    Source: VecHeart (arXiv 2604.19403) for the idea: a binary field per part, interleaved local
    and global attention; the rest as in VecSet.

    Raises:
        ConfigError: an argument out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        dim: int = 512,
        depth: int = 7,
        num_latents: int = 256,
        points_per_class: int = 1024,
        query_type: Queries = "learnable",
        query_sampling: Sampling = "farthest",
        dim_head: int = 64,
        num_frequencies: int = 8,
        decoder_residual: bool = False,
        sharpness: float = 0.02,
        gap: float = 0.0,
        decoder_float32: bool = True,
        block: int = 20_000,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            field="per_class",
            sharpness=sharpness,
            gap=gap,
            decoder_float32=decoder_float32,
            block=block,
        )
        self.num_fields = num_classes  # one class is a per-class field as well
        if depth < 0 or num_latents < 1 or points_per_class < num_latents:
            raise ConfigError(
                f"model.depth={depth} must be >= 0, model.num_latents={num_latents} >= 1, "
                f"model.points_per_class={points_per_class} >= num_latents."
            )
        if query_type not in ("learnable", "point"):
            raise ConfigError(f"model.query_type={query_type!r}; expected learnable or point.")
        self.num_latents = num_latents
        self.points_per_class = points_per_class
        self.query_type = query_type
        self.query_sampling: Sampling = query_sampling
        self.embed = PointEmbedding(3, dim, num_frequencies=num_frequencies)
        self.latents = nn.Parameter(torch.randn(num_latents, dim) * 0.5)
        self.classes = nn.Parameter(torch.randn(num_classes, dim) * 0.5)
        self.block_in = CrossBlock(dim, dim_head=dim_head)
        self.layers = nn.ModuleList(SelfBlock(dim, dim_head=dim_head) for _ in range(depth))
        self.decoder = QueryDecoder(
            dim,
            out_channels=1,
            dim_head=dim_head,
            num_frequencies=num_frequencies,
            residual=decoder_residual,
        )

    def encode(
        self, surface: Float[Tensor, "b n f"]
    ) -> tuple[Float[Tensor, "bk l c"], Float[Tensor, " b"] | None]:
        """Return the latent sets of all classes, one after the other along the batch axis."""
        clouds, there = group_by_class(surface, self.points_per_class)
        batch, num_classes = there.shape
        clouds = clouds.flatten(0, 1)
        context = self.embed(clouds)
        start = self.latents + self.classes.unsqueeze(1)  # (k, l, c)
        start = start.repeat(batch, 1, 1)
        queries = start
        if self.query_type == "point":
            index = choose_points(clouds, self.num_latents, sampling=self.query_sampling)
            index = index.unsqueeze(-1).expand(-1, -1, context.shape[-1])
            queries = torch.gather(context, 1, index) + self.classes.repeat(batch, 1).unsqueeze(1)
        found = self.block_in(queries, context)
        latents = torch.where(there.flatten()[:, None, None], found, start.to(found.dtype))
        for number, layer in enumerate(self.layers):
            if number % 2:
                whole = layer(torch.unflatten(latents, 0, (batch, num_classes)).flatten(1, 2))
                latents = torch.unflatten(whole, 1, (num_classes, -1)).flatten(0, 1)
            else:
                latents = layer(latents)
        return latents, None

    def values(
        self, points: Float[Tensor, "b m 3"], keys_values: KeysValues
    ) -> Float[Tensor, "b m k"]:
        """Return the signed distances to all classes at points."""
        repeated = points.repeat_interleave(self.num_classes, 0)
        out = self.decoder(repeated, *keys_values)
        fields = torch.unflatten(out.squeeze(-1), 0, (-1, self.num_classes))
        return fields.transpose(1, 2)


def group_by_class(
    surface: Float[Tensor, "b n f"], count: int
) -> tuple[Float[Tensor, "b k count 3"], Bool[Tensor, "b k"]]:
    """Return `count` points of every class, spread over those there are, and which have any.

    Args:
        surface: xyz and one-hot class; rows without a class are in no group.
        count: points of a class; repeated if it has fewer. Zeros for a class without points.
    """
    one_hot = surface[..., 3:]
    num_classes = one_hot.shape[-1]
    label = torch.where(one_hot.amax(-1) > 0, one_hot.argmax(-1), num_classes)
    order = label.argsort(dim=1, stable=True)
    sizes = (one_hot > 0).sum(1)  # (b, k)
    starts = sizes.cumsum(1) - sizes
    steps = torch.arange(count, device=surface.device)
    rank = starts.unsqueeze(-1) + steps * sizes.unsqueeze(-1) // count  # (b, k, count)
    index = torch.gather(order, 1, rank.clamp(max=surface.shape[1] - 1).flatten(1))
    xyz = torch.gather(surface[..., :3], 1, index.unsqueeze(-1).expand(-1, -1, 3))
    there = sizes > 0
    clouds = torch.unflatten(xyz, 1, (num_classes, count)) * there[..., None, None]
    return clouds, there
