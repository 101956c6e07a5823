"""Frame of the surface networks: padding, the heads, output at input resolution."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.layout import is_channels_last, to_channels_last
from vesuvius.models.standardise import Standardise3D

Upsample = Literal["trilinear", "subvoxel"]
SDF_SOFTNESS = 0.5
"""Voxels of signed distance per unit of surface logit: half a voxel inside gives 0.73."""


def deep_name(level: int) -> str:
    """Return the name of the surface logits of the `level`-th coarser level, from 1."""
    return f"surface_logit_deep{level}"


def run_checkpointed(block: Callable[[Tensor], Tensor], x: Tensor, *, enabled: bool) -> Tensor:
    """Return `block(x)`; if enabled, its activations are recomputed in the backward pass."""
    if enabled and torch.is_grad_enabled():
        out = checkpoint(block, x, use_reentrant=False)
        assert isinstance(out, Tensor)
        return out
    return block(x)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError unless `value` is one of `choices`; `name` is the argument of the model."""
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ConfigError(f"model.{name} is {value!r}; expected one of {expected}.")


def check_positive(**values: int) -> None:
    """Raise ConfigError naming the first argument of the model that is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"model.{name}={value}; expected an integer >= 1.")


def check_divides(name: str, channels: int, num_heads: int) -> None:
    """Raise ConfigError unless attention heads share the channels evenly."""
    if num_heads < 1 or channels % num_heads:
        raise ConfigError(
            f"model.{name}={channels} cannot be shared by {num_heads} attention heads; "
            "choose a multiple."
        )


def to_cells(image: Float[Tensor, "b c z y x"], side: int) -> Float[Tensor, "b k cz cy cx"]:
    """Return the voxels of each cell of `side`^3 as channels (c, z, y, x): space to depth."""
    if side == 1:
        return image
    b, c, z, y, x = image.shape
    parts = image.reshape(b, c, z // side, side, y // side, side, x // side, side)
    cells = parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(
        b, c * side**3, z // side, y // side, x // side
    )
    return to_channels_last(cells) if is_channels_last(image) else cells


class Head3D(nn.Module):
    """1^3 convolution that turns features of stride s into a map of stride 1.

    'trilinear' enlarges the map of the convolution, as the papers do: nothing thinner than about s
    voxels can be drawn. 'subvoxel' gives each of the s^3 voxels of a feature its own weights
    (Shi et al. 2016, sub-pixel convolution), which draws sheets of 1 to 3 voxels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, upsample: Upsample, bias: float
    ) -> None:
        super().__init__()
        self.stride = stride
        self.subvoxel = upsample == "subvoxel" and stride > 1
        num_maps = out_channels * stride**3 if self.subvoxel else out_channels
        self.conv = nn.Conv3d(in_channels, num_maps, 1)
        assert self.conv.bias is not None
        nn.init.constant_(self.conv.bias, bias)

    def forward(self, x: Float[Tensor, "b i z y x"]) -> Float[Tensor, "b o sz sy sx"]:
        """Return the map at stride 1."""
        maps: Tensor = self.conv(x)
        if self.stride == 1:
            return maps
        if not self.subvoxel:
            size = [side * self.stride for side in x.shape[2:]]
            return F.interpolate(maps, size=size, mode="trilinear", align_corners=False)
        b, _, z, y, w = maps.shape
        s = self.stride
        cells = maps.reshape(b, -1, s, s, s, z, y, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return cells.reshape(b, -1, z * s, y * s, w * s)


def biased_conv(channels: int, bias: float) -> nn.Conv3d:
    """Return a 1^3 convolution to one channel that starts from this bias."""
    conv = nn.Conv3d(channels, 1, 1)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, bias)
    return conv


def distance_bias(sdf_distance: float, surface_bias: float) -> float:
    """Return the bias with which a head of signed distance starts from `surface_bias`.

    Raises:
        ConfigError: a distance that cannot hold that logit.
    """
    start = -surface_bias * SDF_SOFTNESS / sdf_distance if sdf_distance > 0 else 1.0
    if not -1 < start < 1:
        raise ConfigError(
            f"model.sdf_distance={sdf_distance} must exceed {abs(surface_bias) * SDF_SOFTNESS} "
            f"voxels to start at model.surface_bias={surface_bias}; 4 to 8 are usual."
        )
    return math.atanh(start)


class PaddedNetwork(nn.Module):
    """Images of any size through `features` and the heads: padded (replicated), then cut back.

    Subclasses set the attributes below (`add_heads` sets the heads) and implement `features`; those
    that can supervise coarser levels implement `feature_levels`, those without a norm behind their
    first layer set `standardise`.
    """

    in_channels: int
    divisor_zyx: tuple[int, ...]
    surface_head: nn.Module
    normals_head: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.deep_heads: nn.ModuleList | None = None
        self.sdf_distance: float | None = None
        self.standardise: Standardise3D | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the outputs, the keys of what `forward` returns in the current mode."""
        names = ["surface_logit"]
        if self.sdf_distance is not None:
            names.append("sdf")
        if self.normals_head is not None:
            names.append("normals")
        if self.training and self.deep_heads is not None:
            names += [deep_name(level) for level in range(1, len(self.deep_heads) + 1)]
        return tuple(names)

    def features(self, image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n sz sy sx"]:
        """Return the last feature map; (z, y, x) divide by `divisor_zyx`."""
        raise NotImplementedError

    def feature_levels(self, image: Float[Tensor, "b c z y x"]) -> list[Tensor]:
        """Return the feature maps of the decoder's levels, the finest first."""
        return [self.features(image)]

    def add_heads(
        self,
        channels: Sequence[int],
        *,
        normals_head: bool,
        surface_bias: float,
        deep_supervision: int = 0,
        sdf_distance: float | None = None,
        stride: int = 1,
    ) -> None:
        """Add heads, 1^3 convolutions, to the levels of a decoder.

        Args:
            channels: of all levels, the finest first.
            normals_head: predict the sheet's normal as well.
            surface_bias: surface logit to start from.
            deep_supervision: so many levels after the finest get a surface head.
            sdf_distance: the finest surface head gives the signed distance, within +- so many
                voxels; None = the logit.
            stride: of the finest level in voxels; its heads are sub-voxel ones (Head3D) above 1.

        Raises:
            ConfigError: fewer levels than that, or a distance that cannot hold the first logit.
        """
        if not 0 <= deep_supervision < len(channels):
            raise ConfigError(
                f"model.deep_supervision={deep_supervision}; expected 0 to {len(channels) - 1}: "
                f"the decoder has {len(channels)} levels and the finest has its heads already."
            )
        self.sdf_distance = sdf_distance
        first = surface_bias if sdf_distance is None else distance_bias(sdf_distance, surface_bias)
        if stride == 1:
            self.surface_head = biased_conv(channels[0], first)
            self.normals_head = nn.Conv3d(channels[0], 3, 1) if normals_head else None
        else:
            draw = partial(Head3D, channels[0], stride=stride, upsample="subvoxel")
            self.surface_head = draw(1, bias=first)
            self.normals_head = draw(3, bias=0.0) if normals_head else None
        if deep_supervision:
            self.deep_heads = nn.ModuleList(
                biased_conv(n, surface_bias) for n in channels[1 : deep_supervision + 1]
            )

    def forward(self, image: Float[Tensor, "b c z y x"]) -> dict[str, Tensor]:
        """Return the heads for an image in [0, 1] of any (z, y, x).

        Returns:
            surface_logit: (b, 1, z, y, x), sigmoid gives the surface probability.
            sdf: (b, 1, z, y, x), signed distance to the sheets' faces in voxels, negative inside,
                within +-sdf_distance; only if that is set, and then surface_logit is
                -sdf / SDF_SOFTNESS.
            normals: (b, 3, z, y, x), (nz, ny, nx) in [-1, 1]; absent without the head.
            surface_logit_deep<i>: in training with deep supervision, at the i-th coarser level.

        Raises:
            ShapeMismatchError: not five axes, another number of channels, or a training crop that
                deep supervision cannot divide.
        """
        if image.dim() != 5 or image.shape[1] != self.in_channels:
            raise ShapeMismatchError(
                f"image has shape {tuple(image.shape)}; expected (b, {self.in_channels}, z, y, x)."
            )
        if self.standardise is not None:
            image = self.standardise(image)
        size = image.shape[2:]
        pad = [(-s) % d for s, d in zip(size, self.divisor_zyx, strict=True)]
        if any(pad):
            image = F.pad(image, (0, pad[2], 0, pad[1], 0, pad[0]), mode="replicate")
        if self.training and self.deep_heads is not None:
            if any(pad):
                raise ShapeMismatchError(
                    f"training crop {tuple(size)} does not divide by {self.divisor_zyx}, which "
                    "model.deep_supervision needs; change data.patch_zyx."
                )
            levels = self.feature_levels(image)
            outputs = self._read_heads(levels[0])
            for number, head in enumerate(self.deep_heads, start=1):
                outputs[deep_name(number)] = head(levels[number])
            return outputs
        outputs = self._read_heads(self.features(image))
        if any(pad):
            return {k: v[:, :, : size[0], : size[1], : size[2]] for k, v in outputs.items()}
        return outputs

    def _read_heads(self, hidden: Tensor) -> dict[str, Tensor]:
        surface = self.surface_head(hidden)
        if self.sdf_distance is None:
            outputs = {"surface_logit": surface}
        else:
            distance = torch.tanh(surface) * self.sdf_distance
            outputs = {"surface_logit": distance / -SDF_SOFTNESS, "sdf": distance}
        if self.normals_head is not None:
            outputs["normals"] = torch.tanh(self.normals_head(hidden))
        return outputs


class SurfaceNetwork(PaddedNetwork):
    """Base of networks whose last feature map feeds a surface head and a normals head.

    Subclasses implement `features`, which gets z-scores. Images of any size are padded (replicated)
    to a multiple of `divisor` and the outputs cut back.

    Args:
        in_channels: image channels.
        divisor: what the sides of an image must divide by inside the network.
        feature_channels: channels of what `features` returns.
        feature_stride: its stride in voxels.
        normals_head: predict the sheet's normal (nz, ny, nx), tanh, in [-1, 1].
        surface_bias: initial bias of the surface logit; -2 (sigmoid 0.12) starts from background.
        upsample: 'trilinear' or 'subvoxel', see Head3D.

    Raises:
        ConfigError: unknown `upsample`, no channels.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        divisor: int,
        feature_channels: int,
        feature_stride: int,
        normals_head: bool,
        surface_bias: float,
        upsample: Upsample = "trilinear",
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels)
        check_choice("upsample", upsample, ("trilinear", "subvoxel"))
        self.in_channels = in_channels
        self.divisor_zyx = (divisor, divisor, divisor)
        self.standardise = Standardise3D(in_channels)

        def head(num: int, bias: float) -> Head3D:
            return Head3D(
                feature_channels, num, stride=feature_stride, upsample=upsample, bias=bias
            )

        self.surface_head = head(1, surface_bias)
        self.normals_head = head(3, 0.0) if normals_head else None
