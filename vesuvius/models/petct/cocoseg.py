"""CoCoSeg: lesion segmentation of CT-PET slices with two encoders."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError, ShapeMismatchError, VolumeFormatError
from vesuvius.models.petct.attention import ChannelAttention, Fusion
from vesuvius.models.petct.vgg import BranchFactory, VGG19Branch

Encoders = Literal["independent", "shared"]
Norm2D = Literal["instance", "batch"]
NUM_LEVELS = 4
DIVISOR = 16
MODALITIES = ("ct", "pet")


def scale_slices(image: Tensor) -> Tensor:
    """Return CT and PET in [-1, 1] as float32: (v / 255 - 0.5) / 0.5 for bytes.

    The one place where grey values are normalised, in training, validation and inference alike.

    Args:
        image: (b, 2, y, x) uint8, or floating point in [0, 1] (augmented batches).

    Raises:
        VolumeFormatError: another dtype.
    """
    if image.dtype == torch.uint8:
        return image.to(torch.float32) / 127.5 - 1
    if image.is_floating_point():
        return image.float() * 2 - 1
    raise VolumeFormatError(
        f"image batch has dtype {image.dtype}; expected uint8, or floats in [0, 1]."
    )


class ConvBlock(nn.Sequential):
    """Convolutions 3x3, each with LeakyReLU 0.2 and norm; channels[0] in, channels[-1] out."""

    def __init__(self, *channels: int, norm: Norm2D) -> None:
        layers: list[nn.Module] = []
        for i, o in pairwise(channels):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.LeakyReLU(0.2), make_norm(norm, o)]
        super().__init__(*layers)


def make_norm(norm: Norm2D, num_channels: int) -> nn.Module:
    """Return a 2-D norm: instance without, batch with affine parameters.

    Raises:
        ConfigError: unknown name.
    """
    if norm == "instance":
        return nn.InstanceNorm2d(num_channels)
    if norm == "batch":
        return nn.BatchNorm2d(num_channels)
    raise ConfigError(f"model.norm={norm!r}; expected 'instance' or 'batch'.")


class UNetEncoder(nn.Module):
    """Four levels of two convolutions, max pooling between; widths w, 2w, 4w, 8w.

    Args:
        in_channels: of the slice.
        width: w.
        norm: 'instance' or 'batch'.
    """

    def __init__(self, in_channels: int, width: int, *, norm: Norm2D) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(NUM_LEVELS)]
        self.levels = nn.ModuleList(
            ConvBlock(i, o, o, norm=norm)
            for i, o in zip([in_channels, *widths[:-1]], widths, strict=True)
        )

    def forward(self, x: Float[Tensor, "b i y x"]) -> list[Float[Tensor, "b c sy sx"]]:
        """Return the features of stride 1, 2, 4 and 8."""
        features: list[Tensor] = []
        for level in self.levels:
            x = level(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features


class CoCoSeg(nn.Module):
    """Independent encoders of CT and PET, each beside a VGG branch, fused on three levels.

    Defaults are V2: 13.391 M parameters at width 32, of which 4.649 M are the two VGG branches.

    Args:
        width: channels of the first level, w; levels have w, 2w, 4w, 8w. VGG branches have 2w, 4w,
            8w, so weights of a file need width 32.
        encoders: 'independent' (one per modality) or 'shared' (one of two channels, as V1).
        vgg: makes a VGG branch (`vgg.vgg19_branch`), or None for no branches.
        share_vgg: one branch serves both modalities.
        norm: 'instance' or 'batch'.
        attention: 'cam', or 'none' to fuse the sources as they are.
        scale_energy: divide the attention's energies by sqrt(pixels).
        inputs: modality each of the two encoders sees; [ct, ct] is CT alone at equal capacity.
        output_bias: initial bias of the logit; -4 (sigmoid 0.018) is the share of lesion pixels.

    Source: the CoCoSeg project's V2; CoCoNet (Liu et al. 2023) for encoders and attention.

    Raises:
        ConfigError: an argument out of range.
    """

    heads = ("lesion_logit",)

    def __init__(
        self,
        *,
        width: int = 32,
        encoders: Encoders = "independent",
        vgg: BranchFactory | None = None,
        share_vgg: bool = False,
        norm: Norm2D = "instance",
        attention: Literal["cam", "none"] = "cam",
        scale_energy: bool = False,
        inputs: Sequence[str] = MODALITIES,
        output_bias: float = -4.0,
    ) -> None:
        super().__init__()
        _check(width, encoders, attention, inputs)
        self.encoders = encoders
        self.inputs = [MODALITIES.index(name) for name in inputs]
        num_unets, in_channels = (1, 2) if encoders == "shared" else (2, 1)
        self.unets = nn.ModuleList(
            UNetEncoder(in_channels, width, norm=norm) for _ in range(num_unets)
        )
        branches = [] if vgg is None else [vgg(width=2 * width) for _ in range(2 - share_vgg)]
        self.vggs = nn.ModuleList(branch for branch in branches if branch is not None)
        num_sources = num_unets + (2 if len(self.vggs) else 0)
        self.fusions = nn.ModuleList(
            Fusion(
                c,
                num_sources,
                attention=ChannelAttention(c, scale_energy=scale_energy)
                if attention == "cam"
                else None,
                norm=make_norm(norm, c),
            )
            for c in (2 * width, 4 * width, 8 * width)
        )
        self.rise3 = ConvBlock(8 * width, 4 * width, norm=norm)
        self.merge3 = ConvBlock(8 * width, 4 * width, 4 * width, norm=norm)
        self.rise2 = ConvBlock(4 * width, 2 * width, norm=norm)
        self.merge2 = ConvBlock(4 * width, 2 * width, 2 * width, norm=norm)
        self.rise1 = ConvBlock(2 * width, width, norm=norm)
        self.merge1 = ConvBlock((1 + num_unets) * width, width, width, norm=norm)
        self.lesion_head = nn.Conv2d(width, 1, 1)
        assert self.lesion_head.bias is not None
        nn.init.constant_(self.lesion_head.bias, output_bias)

    @property
    def provenance(self) -> dict[str, str]:
        """Return what a checkpoint must tell about the weights it started from."""
        origins = {branch.origin for branch in self.vggs if isinstance(branch, VGG19Branch)}
        return {"vgg": ", ".join(sorted(origins)) or "none"}

    def forward(self, image: Float[Tensor, "b 2 y x"]) -> dict[str, Tensor]:
        """Return {"lesion_logit": (b, 1, y, x)} for CT and PET of any size from 16 x 16.

        Args:
            image: CT and PET, uint8 or floats in [0, 1].

        Raises:
            ShapeMismatchError: another shape, or sides too short to reflect.
            VolumeFormatError: another dtype.
        """
        if image.dim() != 4 or image.shape[1] != 2:
            raise ShapeMismatchError(
                f"image has shape {tuple(image.shape)}; expected (b, 2, y, x) with CT and PET."
            )
        height, width = image.shape[2:]
        if min(height, width) < DIVISOR:
            raise ShapeMismatchError(
                f"image of {height} x {width} pixels; expected {DIVISOR} x {DIVISOR} or more."
            )
        pad = (0, -width % DIVISOR, 0, -height % DIVISOR)
        scaled = F.pad(scale_slices(image), pad, mode="reflect")
        return {"lesion_logit": self.logit(scaled)[:, :, :height, :width]}

    def logit(self, scaled: Float[Tensor, "b 2 y x"]) -> Float[Tensor, "b 1 y x"]:
        """Return the logit for CT and PET in [-1, 1] whose sides divide by 16."""
        scaled = scaled[:, self.inputs]
        planes = torch.split(scaled, 1, dim=1)
        seen = [scaled] if self.encoders == "shared" else planes
        unets = [unet(x) for unet, x in zip(self.unets, seen, strict=True)]
        vggs = [self.vggs[i % len(self.vggs)](x) for i, x in enumerate(planes) if len(self.vggs)]
        fused = [
            fusion([u[level + 1] for u in unets] + [v[level] for v in vggs])
            for level, fusion in enumerate(self.fusions)
        ]
        x = self.merge3(torch.cat([self.rise3(_up(fused[2])), fused[1]], 1))
        x = self.merge2(torch.cat([self.rise2(_up(x)), fused[0]], 1))
        x = self.merge1(torch.cat([self.rise1(_up(x)), *(u[0] for u in unets)], 1))
        logit: Tensor = self.lesion_head(x)
        return logit


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _check(width: int, encoders: str, attention: str, inputs: Sequence[str]) -> None:
    """Raise ConfigError for an argument out of range."""
    if width < 1:
        raise ConfigError(f"model.width={width}; expected an integer >= 1.")
    if encoders not in ("independent", "shared"):
        raise ConfigError(f"model.encoders={encoders!r}; expected 'independent' or 'shared'.")
    if attention not in ("cam", "none"):
        raise ConfigError(f"model.attention={attention!r}; expected 'cam' or 'none'.")
    if len(inputs) != 2 or any(name not in MODALITIES for name in inputs):
        raise ConfigError(
            f"model.inputs={list(inputs)}; expected two of 'ct' and 'pet', e.g. [ct, pet] or "
            "[pet, pet]."
        )
