"""TransUNet3D: convolutional encoder, transformer bottleneck, cascaded decoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.attention import (
    PositionGrid,
    TransformerBlock,
    grid_of,
    make_mlp,
    to_map,
    to_tokens,
)
from vesuvius.models.blocks import Norm
from vesuvius.models.resnet import ConvNormReLU, ResNet3D
from vesuvius.models.surface_network import (
    SurfaceNetwork,
    check_divides,
    check_positive,
    run_checkpointed,
)


class MaskedCrossAttention3D(nn.Module):
    """Queries read one level of the encoder, each only where its own mask is set.

    Keys and values are linear in the level's few channels, so their projections are applied to the
    100 queries instead of to the thousands of voxels of a level: the same result with six times
    less work. Keys have no bias: softmax does not see it.

    Source: Cheng et al. 2022, Mask2Former (arXiv:2112.01527), equation 2.
    """

    def __init__(
        self, channels: int, level_channels: int, num_heads: int, mlp_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.level = nn.Linear(level_channels, channels)
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels, bias=False)
        self.v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = make_mlp(channels, mlp_dim, dropout=dropout)

    def forward(
        self,
        queries: Float[Tensor, "b q c"],
        level: Float[Tensor, "b n l"],
        allowed: Float[Tensor, "b q n"],
    ) -> Float[Tensor, "b q c"]:
        """Return the updated queries; a query without any allowed voxel reads all of them."""
        heads = self.num_heads
        weight = self.level.weight  # (c, l)
        key = torch.unflatten(self.k.weight @ weight, 0, (heads, -1))  # (h, d, l)
        value = torch.unflatten(self.v.weight @ weight, 0, (heads, -1))
        bias = F.linear(self.level.bias, self.v.weight, self.v.bias)
        q = self.q(self.norm1(queries)).unflatten(-1, (heads, -1))
        scale = q.shape[-1] ** -0.5
        # All heads read the same source, so they are more queries of one head.
        q = torch.einsum("bqhd,hdl->bqhl", q, key).flatten(1, 2)
        source = level.to(q.dtype)[:, None]
        mask = allowed | ~allowed.any(dim=-1, keepdim=True)
        mask = mask.repeat_interleave(heads, dim=1)
        out = F.scaled_dot_product_attention(
            q[:, None], source, source, attn_mask=mask[:, None], scale=scale
        )
        out = torch.unflatten(out[:, 0], 1, (-1, heads))
        read = torch.einsum("bqhl,hdl->bqhd", out, value).flatten(2) + bias
        queries = queries + self.proj(read)
        updated: Tensor = queries + self.mlp(self.norm2(queries))
        return updated


class QueryDecoder3D(nn.Module):
    """Learned queries refined from coarse to fine, then written back into the bottleneck.

    The finest level (stride 2) is not read, as in Mask2Former: it has 7 times more voxels than the
    others together.

    Source: Chen et al. 2023, "3D TransUNet" (arXiv:2310.07781), section 3.3. There the queries'
    class scores are the output; here their values are painted through their masks into the
    transformer's map, so that the cascaded decoder sees all channels and not only two classes.
    """

    def __init__(
        self,
        channels: int,
        levels: Sequence[int],
        *,
        num_queries: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(1, num_queries, channels).normal_(std=0.02))
        self.blocks = nn.ModuleList(
            MaskedCrossAttention3D(channels, level, num_heads, mlp_dim, dropout)
            for level in levels[::-1]
        )
        self.value = nn.Linear(channels, channels)

    def forward(
        self, bottleneck: Float[Tensor, "b c z y x"], maps: Sequence[Tensor]
    ) -> Float[Tensor, "b c z y x"]:
        """Return bottleneck + painted queries; `maps` are the encoder's, finest first."""
        grid = grid_of(bottleneck)
        tokens = to_tokens(bottleneck)
        scale = tokens.shape[-1] ** -0.5
        # Not `expand`: a view of a parameter trips FlopCounterMode under no_grad (torch 2.13).
        queries = self.queries + tokens.new_zeros(tokens.shape[0], 1, 1)
        for block, level in zip(self.blocks, maps[::-1], strict=True):
            logits = queries @ tokens.transpose(1, 2)
            coarse = torch.unflatten(logits.detach(), -1, grid)
            allowed = F.interpolate(coarse, size=grid_of(level), mode="nearest") > 0
            queries = block(queries, to_tokens(level), allowed.flatten(2))
        masks = torch.sigmoid(scale * (queries @ tokens.transpose(1, 2)))
        painted = masks.transpose(1, 2) @ self.value(queries)
        return bottleneck + to_map(painted / queries.shape[1], grid)


class TransUNet3D(SurfaceNetwork):
    """U-Net whose bottleneck is a transformer over the coarsest level of a ResNet.

    Args:
        backbone: 'resnet18' or 'resnet34'.
        in_channels: image channels.
        width: channels of the backbone's first stage.
        num_levels: levels of the backbone, 3 to 5; the bottleneck has stride 2^num_levels.
        embed_dim: channels of the transformer.
        num_layers: its blocks.
        num_heads: its attention heads.
        mlp_dim: hidden width of its MLPs.
        num_queries: queries of 3D TransUNet's mask decoder; 0 = the cascaded decoder alone
            (TransUNet of 2021).
        decoder_channels: width of the decoder, bottleneck first, `num_levels` used.
        crop_zyx: crop that the learned position embedding is made for; interpolated for others.
        dropout: of the transformer.
        norm: 'batch' (as published), 'instance' or 'group'.
        checkpointing: recompute the blocks of encoder and transformer in the backward pass.
        normals_head: predict the sheet's normal (nz, ny, nx), tanh, in [-1, 1].
        surface_bias: initial bias of the surface logit.

    Source: Chen et al. 2021, "TransUNet" (arXiv:2102.04306); Chen et al. 2023, "3D TransUNet"
    (arXiv:2310.07781). Parameters at the defaults with one logit: 68.0 M; medicai 0.0.4
    (`TransUNet(encoder_name="resnet18", num_classes=2)`, 64^3) 69.8 M.

    Raises:
        ConfigError: levels out of 3..5, too few decoder widths, heads that do not divide.
    """

    def __init__(
        self,
        *,
        backbone: str = "resnet18",
        in_channels: int = 1,
        width: int = 64,
        num_levels: int = 5,
        embed_dim: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        mlp_dim: int = 1024,
        num_queries: int = 100,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        crop_zyx: Sequence[int] = (64, 64, 64),
        dropout: float = 0.0,
        norm: Norm = "batch",
        checkpointing: bool = False,
        normals_head: bool = True,
        surface_bias: float = -2.0,
    ) -> None:
        if not 3 <= num_levels <= 5 or len(decoder_channels) < num_levels:
            raise ConfigError(
                f"model.num_levels={num_levels}, model.decoder_channels={list(decoder_channels)}: "
                "expected 3 to 5 levels and at least as many decoder widths."
            )
        check_positive(embed_dim=embed_dim, num_layers=num_layers, mlp_dim=mlp_dim)
        check_divides("embed_dim", embed_dim, num_heads)
        widths = list(decoder_channels[:num_levels])
        stride = 2**num_levels
        super().__init__(
            in_channels=in_channels,
            divisor=stride,
            feature_channels=widths[-1],
            feature_stride=1,
            normals_head=normals_head,
            surface_bias=surface_bias,
        )
        self.checkpointing = checkpointing
        self.encoder = ResNet3D(
            variant=backbone,
            in_channels=in_channels,
            width=width,
            num_levels=num_levels,
            norm=norm,
            checkpointing=checkpointing,
        )
        dims = self.encoder.dims
        self.embed = nn.Conv3d(dims[-1], embed_dim, 1)
        grid = (-(-crop_zyx[0] // stride), -(-crop_zyx[1] // stride), -(-crop_zyx[2] // stride))
        self.position = PositionGrid(embed_dim, grid, std=0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, num_heads, mlp_dim, dropout=dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.query_decoder: QueryDecoder3D | None = None
        if num_queries > 0:
            self.query_decoder = QueryDecoder3D(
                embed_dim,
                dims[1:-1],
                num_queries=num_queries,
                num_heads=num_heads,
                mlp_dim=mlp_dim,
                dropout=dropout,
            )
        self.shrink = ConvNormReLU(embed_dim, widths[0], kernel=1, norm=norm)
        self.decoder = nn.ModuleList(
            ConvNormReLU(coarse + skip, fine, kernel=3, norm=norm)
            for coarse, fine, skip in zip(widths, widths[1:], dims[-2::-1], strict=False)
        )
        self.last = ConvNormReLU(widths[-1], widths[-1], kernel=3, norm=norm)

    def bottleneck(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b e z y x"]:
        """Return the transformer's map for the encoder's coarsest."""
        embedded = self.position(self.embed(x))
        tokens = to_tokens(embedded).contiguous()
        for block in self.blocks:
            tokens = run_checkpointed(block, tokens, enabled=self.checkpointing and self.training)
        return to_map(self.norm(tokens), grid_of(x))

    def features(self, image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n z y x"]:
        """Return the decoder's map at full resolution."""
        maps = self.encoder(image)
        hidden = self.bottleneck(maps[-1])
        if self.query_decoder is not None:
            hidden = self.query_decoder(hidden, maps[1:-1])
        hidden = self.shrink(hidden)
        for block, skip in zip(self.decoder, maps[-2::-1], strict=True):
            hidden = block(torch.cat([_double(hidden), skip], dim=1))
        out: Tensor = self.last(_double(hidden))
        return out


def _double(x: Tensor) -> Tensor:
    """Return the map at twice the resolution (trilinear)."""
    size = [2 * side for side in x.shape[2:]]
    return F.interpolate(x, size=size, mode="trilinear", align_corners=False)
