"""Residual network in 3-D: the convolutional backbone of TransUNet and UPerNet."""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.models.blocks import Norm, make_norm
from vesuvius.models.surface_network import check_choice, check_positive, run_checkpointed

RESNET_VARIANTS: dict[str, tuple[int, ...]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
}
"""Basic blocks of the four stages (He et al. 2016, table 1)."""


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, norm, ReLU; keeps (z, y, x) at stride 1."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, norm: Norm
    ) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
            make_norm(norm, out_channels),
            nn.ReLU(inplace=True),
        )


class BasicBlock3D(nn.Module):
    """Two 3^3 convolutions with a residual; the first may have stride 2."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = ConvNormReLU(in_channels, out_channels, kernel=3, stride=stride, norm=norm)
        self.conv = nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = make_norm(norm, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, stride, bias=False),
                make_norm(norm, out_channels),
            )

    def forward(self, x: Float[Tensor, "b i z y x"]) -> Float[Tensor, "b o sz sy sx"]:
        """Return the block's activation."""
        hidden = self.norm(self.conv(self.first(x)))
        return F.relu(hidden + self.shortcut(x), inplace=True)


class ResNet3D(nn.Module):
    """Stem of stride 2 and up to four stages; strides 2, 4, 8, 16, 32.

    Args:
        variant: 'resnet18' or 'resnet34'.
        in_channels: image channels.
        width: channels of the stem and the first stage; they double from stage to stage.
        num_levels: maps to return, 2 to 5; 5 = the stem and all four stages.
        norm: 'batch', 'instance' or 'group'.
        checkpointing: recompute blocks in the backward pass.

    Source: He et al. 2016 (arXiv:1512.03385), convolutions made 3-D.

    Raises:
        ConfigError: unknown variant.
    """

    def __init__(
        self,
        *,
        variant: str = "resnet18",
        in_channels: int = 1,
        width: int = 64,
        num_levels: int = 5,
        norm: Norm = "batch",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_choice("backbone", variant, tuple(RESNET_VARIANTS))
        check_positive(in_channels=in_channels, width=width)
        self.checkpointing = checkpointing
        self.stem = ConvNormReLU(in_channels, width, kernel=7, stride=2, norm=norm)
        self.pool = nn.MaxPool3d(3, 2, 1)
        self.stages = nn.ModuleList()
        channels = [width]
        for level, depth in enumerate(RESNET_VARIANTS[variant][: num_levels - 1]):
            out = width * 2**level
            blocks = [
                BasicBlock3D(
                    channels[-1] if index == 0 else out,
                    out,
                    stride=2 if index == 0 and level > 0 else 1,
                    norm=norm,
                )
                for index in range(depth)
            ]
            self.stages.append(nn.Sequential(*blocks))
            channels.append(out)
        self.dims = tuple(channels)

    def forward(self, image: Float[Tensor, "b c z y x"]) -> list[Tensor]:
        """Return the maps of the levels, finest (stride 2) first."""
        hidden: Tensor = self.stem(image)
        maps = [hidden]
        hidden = self.pool(hidden)
        for stage in self.stages:
            hidden = run_checkpointed(stage, hidden, enabled=self.checkpointing and self.training)
            maps.append(hidden)
        return maps
