"""Parts of the U-Nets of nnU-Net plans; parameters are named as nnU-Net names them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.blocks import make_norm

UNetNorm = Literal["instance", "batch"]
Activation = Literal["leaky_relu", "relu"]
Triple = tuple[int, int, int]
ONE: Triple = (1, 1, 1)


@dataclass(frozen=True, slots=True)
class Style:
    """What all convolutions of one network share.

    Attributes:
        bias: of convolutions; a norm follows, but nnU-Net keeps it.
        norm: 'instance' or 'batch'.
        activation: 'leaky_relu' (slope 0.01) or 'relu'.

    Raises:
        ConfigError: unknown norm or activation.
    """

    bias: bool = True
    norm: UNetNorm = "instance"
    activation: Activation = "leaky_relu"

    def __post_init__(self) -> None:
        if self.norm not in ("instance", "batch"):
            raise ConfigError(f"norm is {self.norm!r}; expected 'instance' or 'batch'.")
        if self.activation not in ("leaky_relu", "relu"):
            raise ConfigError(
                f"activation is {self.activation!r}; expected 'leaky_relu' or 'relu'."
            )

    def act(self) -> nn.Module:
        """Return a new activation layer."""
        if self.activation == "relu":
            return nn.ReLU(inplace=True)
        return nn.LeakyReLU(0.01, inplace=True)


class ConvUnit(nn.Module):
    """Convolution (odd kernel, padded to keep the size at stride 1), norm, activation if `act`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple,
        stride: Triple = ONE,
        style: Style,
        act: bool = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
            bias=style.bias if bias is None else bias,
        )
        self.norm = make_norm(style.norm, out_channels)
        self.act = style.act() if act else nn.Identity()

    def forward(self, x: Float[Tensor, "b i z y x"]) -> Float[Tensor, "b o sz sy sx"]:
        """Return the unit's activation."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class ConvStack(nn.Module):
    """Convolution units in a row; the first may have a stride."""

    def __init__(
        self,
        count: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple,
        stride: Triple = ONE,
        style: Style,
    ) -> None:
        super().__init__()
        first = ConvUnit(in_channels, out_channels, kernel=kernel, stride=stride, style=style)
        others = (
            ConvUnit(out_channels, out_channels, kernel=kernel, style=style)
            for _ in range(1, count)
        )
        self.convs = nn.Sequential(first, *others)

    def forward(self, x: Float[Tensor, "b i z y x"]) -> Float[Tensor, "b o sz sy sx"]:
        """Return the last unit's activation."""
        out: Tensor = self.convs(x)
        return out


class ResidualBlockD(nn.Module):
    """Two units and a shortcut that averages voxels before its 1^3 convolution.

    Source: He et al. 2019, "Bag of Tricks" (ResNet-D), the basic block.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: Triple, stride: Triple, style: Style
    ) -> None:
        super().__init__()
        self.conv1 = ConvUnit(in_channels, out_channels, kernel=kernel, stride=stride, style=style)
        self.conv2 = ConvUnit(out_channels, out_channels, kernel=kernel, style=style, act=False)
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(nn.AvgPool3d(stride, stride))
        if in_channels != out_channels:
            shortcut.append(
                ConvUnit(in_channels, out_channels, kernel=ONE, style=style, act=False, bias=False)
            )
        self.skip = nn.Sequential(*shortcut)
        self.act = style.act()

    def forward(self, x: Float[Tensor, "b i z y x"]) -> Float[Tensor, "b o sz sy sx"]:
        """Return the block's activation."""
        out: Tensor = self.act(self.conv2(self.conv1(x)) + self.skip(x))
        return out


class ResidualStack(nn.Module):
    """Residual blocks in a row; the first may have a stride."""

    def __init__(
        self,
        count: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple,
        stride: Triple,
        style: Style,
    ) -> None:
        super().__init__()
        first = ResidualBlockD(in_channels, out_channels, kernel=kernel, stride=stride, style=style)
        others = (
            ResidualBlockD(out_channels, out_channels, kernel=kernel, stride=ONE, style=style)
            for _ in range(1, count)
        )
        self.blocks = nn.Sequential(first, *others)

    def forward(self, x: Float[Tensor, "b i z y x"]) -> Float[Tensor, "b o sz sy sx"]:
        """Return the last block's activation."""
        out: Tensor = self.blocks(x)
        return out


class UNetEncoder(nn.Module):
    """Stages from full resolution down; each stage's activation is a skip connection."""

    def __init__(self, stages: Sequence[nn.Module], *, stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Float[Tensor, "b i z y x"]) -> list[Tensor]:
        """Return the activations of all stages, finest first."""
        hidden = x if self.stem is None else self.stem(x)
        skips: list[Tensor] = []
        for stage in self.stages:
            hidden = stage(hidden)
            skips.append(hidden)
        return skips


class UNetDecoder(nn.Module):
    """Transposed convolution, skip connection, convolutions; a segmentation layer a level.

    Modules run from the deepest level to the finest. All segmentation layers exist whatever
    `deep_supervision` says, as in nnU-Net, so that weights fit both ways.
    """

    def __init__(
        self,
        features: Sequence[int],
        num_convs: Sequence[int],
        *,
        kernels: Sequence[Triple],
        strides: Sequence[Triple],
        num_classes: int,
        deep_supervision: bool,
        style: Style,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        below, above = features[:0:-1], features[-2::-1]
        self.transpconvs = nn.ModuleList(
            nn.ConvTranspose3d(deep, fine, stride, stride, bias=style.bias)
            for deep, fine, stride in zip(below, above, strides[:0:-1], strict=True)
        )
        self.stages = nn.ModuleList(
            ConvStack(count, 2 * fine, fine, kernel=kernel, style=style)
            for count, fine, kernel in zip(num_convs, above, kernels[-2::-1], strict=True)
        )
        self.seg_layers = nn.ModuleList(nn.Conv3d(fine, num_classes, 1) for fine in above)

    def features(self, skips: Sequence[Tensor]) -> list[Tensor]:
        """Return the activation of each level, finest first."""
        hidden = skips[-1]
        levels: list[Tensor] = []
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            hidden = stage(torch.cat((up(hidden), skip), dim=1))
            levels.append(hidden)
        return levels[::-1]

    def forward(self, skips: Sequence[Tensor]) -> list[Tensor]:
        """Return logits, finest first: of all levels with deep supervision, else of one."""
        levels = self.features(skips)
        count = len(levels) if self.deep_supervision else 1
        layers = list(self.seg_layers)[::-1]
        return [layer(x) for layer, x in zip(layers[:count], levels[:count], strict=True)]
