"""UPerNet3D: pyramid pooling and a feature pyramid on a transformer or convolutional backbone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.attention import grid_of
from vesuvius.models.blocks import Norm
from vesuvius.models.mit import MIT_VARIANTS, MixTransformer3D
from vesuvius.models.resnet import RESNET_VARIANTS, ConvNormReLU, ResNet3D
from vesuvius.models.surface_network import SurfaceNetwork, Upsample, check_choice, check_positive

BACKBONES = (*(f"mit_{variant}" for variant in MIT_VARIANTS), *RESNET_VARIANTS)
POOL_SCALES = (1, 2, 3, 6)


def enlarge(x: Tensor, size_zyx: tuple[int, int, int]) -> Tensor:
    """Return the map at `size_zyx` (trilinear)."""
    if grid_of(x) == size_zyx:
        return x
    return F.interpolate(x, size=size_zyx, mode="trilinear", align_corners=False)


class PyramidPooling3D(nn.Module):
    """Averages of the coarsest map over grids of 1, 2, 3 and 6 cells a side, fused with it.

    Source: Zhao et al. 2017, PSPNet (arXiv:1612.01105), figure 3.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm) -> None:
        super().__init__()
        # A grid of one cell has one value a channel: batch and instance norm would fail on it.
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool3d(scale),
                ConvNormReLU(in_channels, out_channels, kernel=1, norm="group"),
            )
            for scale in POOL_SCALES
        )
        total = in_channels + len(POOL_SCALES) * out_channels
        self.fuse = ConvNormReLU(total, out_channels, kernel=3, norm=norm)

    def forward(self, x: Float[Tensor, "b i z y x"]) -> Float[Tensor, "b o z y x"]:
        """Return the fused map."""
        pooled = [enlarge(branch(x), grid_of(x)) for branch in self.branches]
        out: Tensor = self.fuse(torch.cat([x, *pooled], dim=1))
        return out


class FeaturePyramid3D(nn.Module):
    """Top-down path over four maps; returns their fusion at the finest.

    Source: Lin et al. 2017, FPN (arXiv:1612.03144); the fusion is UPerNet's.
    """

    def __init__(self, dims: Sequence[int], channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.pooling = PyramidPooling3D(dims[-1], channels, norm=norm)
        # coarse to fine, the order in which forward runs them
        self.lateral = nn.ModuleList(
            ConvNormReLU(dim, channels, kernel=1, norm=norm) for dim in dims[-2::-1]
        )
        self.smooth = nn.ModuleList(
            ConvNormReLU(channels, channels, kernel=3, norm=norm) for _ in dims[:-1]
        )
        self.fuse = ConvNormReLU(channels * len(dims), channels, kernel=3, norm=norm)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "b c z y x"]:
        """Return the fused map of maps given finest first."""
        levels: list[Tensor] = [self.pooling(maps[-1])]
        for x, lateral, smooth in zip(maps[-2::-1], self.lateral, self.smooth, strict=True):
            top_down = enlarge(levels[-1], grid_of(x))
            levels.append(smooth(lateral(x) + top_down))
        finest = grid_of(maps[0])
        out: Tensor = self.fuse(torch.cat([enlarge(x, finest) for x in levels[::-1]], dim=1))
        return out


class UPerNet3D(SurfaceNetwork):
    """Multi-scale context (pyramid pooling) and detail (feature pyramid) on any backbone.

    Args:
        backbone: 'mit_b0' ... 'mit_b5', 'resnet18' or 'resnet34'.
        in_channels: image channels.
        dims: channels of the four levels of a 'mit' backbone instead of the variant's.
        depths: blocks of the four levels of a 'mit' backbone instead of the variant's.
        width: channels of the first stage of a 'resnet' backbone.
        decoder_channels: width of pyramid pooling and feature pyramid.
        norm: 'batch' (as published), 'instance' or 'group'; the pooled grids always use group.
        drop_path: highest rate of stochastic depth of a 'mit' backbone.
        upsample: 'trilinear' as published, or 'subvoxel' for sheets thinner than the stride (4).
        checkpointing: recompute the backbone's blocks in the backward pass.
        normals_head: predict the sheet's normal (nz, ny, nx), tanh, in [-1, 1].
        surface_bias: initial bias of the surface logit.

    Source: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding"
    (arXiv:1807.10221). Parameters with one logit, trilinear, 256 decoder channels: mit_b0 25.7 M,
    resnet18 56.8 M; medicai 0.0.4 (`UPerNet(encoder_name=..., num_classes=2)`) 25.66 and 56.81 M.

    Raises:
        ConfigError: unknown backbone; `dims` or `depths` with a 'resnet'.
    """

    def __init__(
        self,
        *,
        backbone: str = "mit_b0",
        in_channels: int = 1,
        dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        width: int = 64,
        decoder_channels: int = 256,
        norm: Norm = "batch",
        drop_path: float = 0.0,
        upsample: Upsample = "trilinear",
        checkpointing: bool = False,
        normals_head: bool = True,
        surface_bias: float = -2.0,
    ) -> None:
        check_choice("backbone", backbone, BACKBONES)
        check_positive(decoder_channels=decoder_channels)
        super().__init__(
            in_channels=in_channels,
            divisor=32,
            feature_channels=decoder_channels,
            feature_stride=4,
            normals_head=normals_head,
            surface_bias=surface_bias,
            upsample=upsample,
        )
        self.backbone: MixTransformer3D | ResNet3D
        if backbone.startswith("mit_"):
            self.backbone = MixTransformer3D(
                variant=backbone.removeprefix("mit_"),
                in_channels=in_channels,
                dims=dims,
                depths=depths,
                drop_path=drop_path,
                checkpointing=checkpointing,
            )
        elif dims or depths:
            raise ConfigError(
                f"model.dims and model.depths are of the 'mit' backbones; model.backbone is "
                f"{backbone!r}: set model.width instead."
            )
        else:
            self.backbone = ResNet3D(
                variant=backbone,
                in_channels=in_channels,
                width=width,
                norm=norm,
                checkpointing=checkpointing,
            )
        self.decoder = FeaturePyramid3D(self.backbone.dims[-4:], decoder_channels, norm=norm)

    def features(self, image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n sz sy sx"]:
        """Return the decoder's map at stride 4."""
        out: Tensor = self.decoder(self.backbone(image)[-4:])
        return out
