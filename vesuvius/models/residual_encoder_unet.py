"""U-Nets as nnU-Net plans describe them: plain stages, or a residual encoder ("ResEnc").

The names of parameters are nnU-Net's, so that its checkpoints load strictly; what nnU-Net stores
under two names (`all_modules`, `decoder.encoder`) exists here once.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.models.unet_parts import (
    Activation,
    ConvStack,
    ResidualBlockD,
    ResidualStack,
    Style,
    Triple,
    UNetDecoder,
    UNetEncoder,
    UNetNorm,
)


class PlanUNet3D(nn.Module):
    """What both U-Nets share: checked arguments, decoder, forward; a subclass sets `encoder`.

    Args:
        features_per_stage: channels of each stage, finest first; at least two stages.
        num_per_stage: convolutions or residual blocks of each encoder stage.
        kernel_sizes: (z, y, x), odd, of each stage.
        strides: (z, y, x) of each stage's first convolution; the first is normally (1, 1, 1).
        n_conv_per_stage_decoder: convolutions of each decoder stage, deepest first; one fewer.
        in_channels: image channels.
        num_classes: channels of the logits.
        deep_supervision: `forward` returns the logits of all levels.
        conv_bias: convolutions have a bias, as in nnU-Net's plans.
        norm: 'instance' or 'batch'.
        activation: 'leaky_relu' or 'relu'.

    Raises:
        ConfigError: lists of different lengths, even kernels, sizes below 1, unknown names.
    """

    encoder: UNetEncoder

    def __init__(
        self,
        *,
        features_per_stage: Sequence[int],
        num_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage_decoder: Sequence[int],
        in_channels: int,
        num_classes: int,
        deep_supervision: bool,
        conv_bias: bool,
        norm: UNetNorm,
        activation: Activation,
    ) -> None:
        super().__init__()
        _check_counts(features_per_stage, num_per_stage, n_conv_per_stage_decoder)
        if in_channels < 1 or num_classes < 1:
            raise ConfigError(
                f"in_channels={in_channels}, num_classes={num_classes}: both must be at least 1."
            )
        num_stages = len(features_per_stage)
        self.style = Style(conv_bias, norm, activation)
        self.in_channels, self.num_classes = in_channels, num_classes
        self.features_per_stage = [int(n) for n in features_per_stage]
        self.num_per_stage = [int(n) for n in num_per_stage]
        self.kernels = _triples("kernel_sizes", kernel_sizes, num_stages, odd=True)
        self.strides = _triples("strides", strides, num_stages, odd=False)
        z, y, x = (math.prod(stride[axis] for stride in self.strides) for axis in range(3))
        self.divisor_zyx: Triple = (z, y, x)
        self.decoder = UNetDecoder(
            self.features_per_stage,
            [int(n) for n in n_conv_per_stage_decoder],
            kernels=self.kernels,
            strides=self.strides,
            num_classes=num_classes,
            deep_supervision=deep_supervision,
            style=self.style,
        )

    @property
    def deep_supervision(self) -> bool:
        """Whether `forward` returns the logits of all levels."""
        return self.decoder.deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, value: bool) -> None:
        self.decoder.deep_supervision = value

    def features(self, image: Float[Tensor, "b c z y x"]) -> list[Tensor]:
        """Return the decoder's activations, finest first; (z, y, x) divide by `divisor_zyx`."""
        return self.decoder.features(self.encoder(self._checked(image)))

    def forward(self, image: Float[Tensor, "b c z y x"]) -> Tensor | list[Tensor]:
        """Return logits (b, num_classes, z, y, x); with deep supervision a list, finest first.

        Raises:
            ShapeMismatchError: channels or (z, y, x) do not fit the network.
        """
        logits: list[Tensor] = self.decoder(self.encoder(self._checked(image)))
        return logits if self.deep_supervision else logits[0]

    def _checked(self, image: Tensor) -> Tensor:
        fits = image.dim() == 5 and image.shape[1] == self.in_channels
        if not fits or any(n % d for n, d in zip(image.shape[2:], self.divisor_zyx, strict=True)):
            raise ShapeMismatchError(
                f"image has shape {tuple(image.shape)}; expected (b, {self.in_channels}, z, y, x) "
                f"with z, y, x multiples of {self.divisor_zyx}."
            )
        return image

    def _stages(self, first_in: int) -> Iterator[tuple[int, int, int, Triple, Triple]]:
        """Yield (count, channels in, channels out, kernel, stride) of the encoder's stages."""
        inputs = [first_in, *self.features_per_stage[:-1]]
        yield from zip(
            self.num_per_stage,
            inputs,
            self.features_per_stage,
            self.kernels,
            self.strides,
            strict=True,
        )

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw weights as nnU-Net does: He et al. 2015 for leaky ReLU, biases 0.

        A residual block's last norm starts at 0: each block starts as its shortcut.
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(module.weight, a=1e-2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ResidualBlockD):
                for parameter in module.conv2.norm.parameters():
                    nn.init.zeros_(parameter)


class PlainConvUNet3D(PlanUNet3D):
    """nnU-Net's default U-Net.

    Args:
        n_conv_per_stage: convolutions of each encoder stage.

    All other arguments and errors: see PlanUNet3D.

    Source: Isensee et al. 2021, nnU-Net; own implementation.
    """

    def __init__(
        self,
        *,
        features_per_stage: Sequence[int],
        n_conv_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage_decoder: Sequence[int],
        in_channels: int = 1,
        num_classes: int = 2,
        deep_supervision: bool = False,
        conv_bias: bool = True,
        norm: UNetNorm = "instance",
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__(
            features_per_stage=features_per_stage,
            num_per_stage=n_conv_per_stage,
            kernel_sizes=kernel_sizes,
            strides=strides,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
            in_channels=in_channels,
            num_classes=num_classes,
            deep_supervision=deep_supervision,
            conv_bias=conv_bias,
            norm=norm,
            activation=activation,
        )
        self.encoder = UNetEncoder(
            [
                # nnU-Net wraps each stack once more, which its parameter names show
                nn.Sequential(
                    ConvStack(count, i, o, kernel=kernel, stride=stride, style=self.style)
                )
                for count, i, o, kernel, stride in self._stages(in_channels)
            ]
        )
        self._initialise()


class ResidualEncoderUNet3D(PlanUNet3D):
    """nnU-Net's U-Net with a residual encoder (its presets ResEnc M, L, XL).

    Args:
        n_blocks_per_stage: residual blocks of each encoder stage.

    All other arguments and errors: see PlanUNet3D.

    Source: Isensee et al. 2024, "nnU-Net Revisited"; own implementation.
    """

    def __init__(
        self,
        *,
        features_per_stage: Sequence[int],
        n_blocks_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage_decoder: Sequence[int],
        in_channels: int = 1,
        num_classes: int = 2,
        deep_supervision: bool = False,
        conv_bias: bool = True,
        norm: UNetNorm = "instance",
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__(
            features_per_stage=features_per_stage,
            num_per_stage=n_blocks_per_stage,
            kernel_sizes=kernel_sizes,
            strides=strides,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
            in_channels=in_channels,
            num_classes=num_classes,
            deep_supervision=deep_supervision,
            conv_bias=conv_bias,
            norm=norm,
            activation=activation,
        )
        first = self.features_per_stage[0]
        self.encoder = UNetEncoder(
            [
                ResidualStack(count, i, o, kernel=kernel, stride=stride, style=self.style)
                for count, i, o, kernel, stride in self._stages(first)
            ],
            stem=ConvStack(1, in_channels, first, kernel=self.kernels[0], style=self.style),
        )
        self._initialise()


def _check_counts(
    features: Sequence[int], num_per_stage: Sequence[int], num_decoder: Sequence[int]
) -> None:
    """Raise ConfigError unless all lists fit the number of stages and hold positive numbers."""
    num_stages = len(features)
    if num_stages < 2:
        raise ConfigError(f"features_per_stage is {list(features)}; expected two stages or more.")
    for name, values, expected in (
        ("features_per_stage", features, num_stages),
        ("n_conv_per_stage or n_blocks_per_stage", num_per_stage, num_stages),
        ("n_conv_per_stage_decoder", num_decoder, num_stages - 1),
    ):
        if len(values) != expected or min(values) < 1:
            raise ConfigError(
                f"{name} is {list(values)}; expected {expected} numbers of at least 1 "
                f"({num_stages} stages)."
            )


def _triples(name: str, values: Sequence[Sequence[int]], count: int, *, odd: bool) -> list[Triple]:
    """Return (z, y, x) triples; raise ConfigError for another number of them or wrong sizes."""
    wrong = [v for v in values if len(v) != 3 or min(v) < 1 or (odd and any(n % 2 == 0 for n in v))]
    if len(values) != count or wrong:
        raise ConfigError(
            f"{name} is {[list(v) for v in values]}; expected {count} (z, y, x) triples of "
            f"{'odd numbers' if odd else 'numbers of at least 1'}, one per stage."
        )
    return [(int(z), int(y), int(x)) for z, y, x in values]
