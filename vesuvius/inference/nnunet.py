"""nnU-Net's own inference of one volume, step by step, so that imported models answer the same.

Own implementation of what nnU-Net v2 does (Isensee et al. 2021): crop to non-zero voxels,
normalise, pad to the window, blend logits of overlapping windows with a Gaussian in half
precision, softmax at the end. The half precision is kept: it moves probabilities at the faces of
a volume by up to several percent, which a comparison at 1e-4 would show.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.inference.device import select_device
from vesuvius.types import FloatVolume

Logits = Callable[[Tensor], Tensor]
"""(1, 1, z, y, x) normalised float32 -> logits (1, heads, z, y, x)."""
Box = tuple[slice, slice, slice]

SCHEMES = (
    "CTNormalization",
    "ZScoreNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
    "NoNormalization",
)
SIGMA_SHARE = 1 / 8
GAUSSIAN_PEAK = 10.0
"""nnU-Net's scale of the blend weights, against underflow in half precision."""
LEAST_DEVIATION = 1e-8


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How a channel is normalised.

    Attributes:
        scheme: one of SCHEMES, nnU-Net's class names.
        mean: of the foreground of all training volumes, in stored grey values ("CT").
        std: its standard deviation ("CT").
        low: its 0.5th percentile ("CT").
        high: its 99.5th percentile ("CT").
        mask_only: "ZScore" measures and changes non-zero voxels only.

    Raises:
        ConfigError: unknown scheme.
    """

    scheme: str
    mean: float = 0.0
    std: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    mask_only: bool = False

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ConfigError(
                f"normalisation {self.scheme!r} is unknown; expected one of {', '.join(SCHEMES)}"
            )

    def __call__(self, image: FloatVolume) -> FloatVolume:
        """Return a normalised copy of a volume of stored grey values, cropped to non-zero."""
        image = image.copy()
        if self.scheme == "CTNormalization":
            np.clip(image, self.low, self.high, out=image)
            image -= self.mean
            image /= max(self.std, LEAST_DEVIATION)
        elif self.scheme == "ZScoreNormalization":
            if self.mask_only:
                inside = ndimage.binary_fill_holes(image != 0)
                values = image[inside]
                image[inside] = (values - values.mean()) / max(values.std(), LEAST_DEVIATION)
            else:
                mean, std = image.mean(), image.std()
                image -= mean
                image /= max(std, LEAST_DEVIATION)
        elif self.scheme == "RescaleTo01Normalization":
            image -= image.min()
            image /= max(image.max(), LEAST_DEVIATION)
        elif self.scheme == "RGBTo01Normalization":
            image /= 255.0
        return image


def predict_nnunet(
    networks: Sequence[Logits],
    image: FloatVolume,
    *,
    roi_zyx: Sequence[int],
    normalisation: Normalisation,
    head: int = 1,
    softmax: bool = True,
    step_share: float = 0.5,
    mirror_axes: Sequence[int] = (),
    transpose: Sequence[int] = (0, 1, 2),
    device: str | torch.device = "auto",
    autocast: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FloatVolume:
    """Return the probability nnU-Net gives to one class.

    The volume is held in memory: about 4 bytes a voxel, and 2 for each head of the networks.

    Args:
        networks: one for each fold; their blended logits are averaged.
        image: (z, y, x) float32 of stored grey values (0 to 255 for uint8), not scaled.
        roi_zyx: window in voxels, in the network's axis order.
        normalisation: from the plans.
        head: which channel of the logits.
        softmax: probabilities over all heads; False: each head is a region of its own (sigmoid).
        step_share: step between windows as a share of the window, nnU-Net's tile_step_size.
        mirror_axes: axes (0 = first of the window) mirrored in all combinations; () = none.
        transpose: axis of the volume that each axis of the network shows.
        device: "auto", "cpu", "cuda", ...
        autocast: dtype of torch.autocast; nnU-Net takes float16 on CUDA and none on the CPU.
        progress: called with windows done and in all.

    Returns:
        (z, y, x) float32 in [0, 1]; 0 outside the box of non-zero voxels.

    Raises:
        ConfigError: step, window or head out of range.
        CheckpointError: the network returns infinities or NaN.
    """
    if not 0 < step_share <= 1:
        raise ConfigError(f"step_share is {step_share}; expected above 0 to 1 (overlap below 1)")
    volume = np.ascontiguousarray(image.transpose(tuple(transpose)), dtype=np.float32)
    box = nonzero_box(volume)
    part = torch.from_numpy(normalisation(volume[box]))
    window = (int(roi_zyx[0]), int(roi_zyx[1]), int(roi_zyx[2]))
    padded, inner = _pad(part, window)
    blender = _Blender(
        window=window,
        places=window_boxes(tuple(padded.shape), window, step_share),
        mirrors=mirror_combinations(mirror_axes),
        device=select_device(device),
        autocast=autocast,
        progress=progress,
        total=len(networks),
    )
    with torch.inference_mode():
        logits = blender.logits(networks[0], padded)
        for network in networks[1:]:
            logits += blender.logits(network, padded)
        if len(networks) > 1:
            logits /= len(networks)
        values = logits[(slice(None), *inner)].float()
        if not 0 <= head < values.shape[0]:
            raise ConfigError(f"head is {head}; the network has {values.shape[0]} heads")
        chosen = torch.softmax(values, 0)[head] if softmax else torch.sigmoid(values[head])
    probability = np.zeros(volume.shape, np.float32)
    probability[box] = chosen.numpy()
    return np.ascontiguousarray(probability.transpose(np.argsort(transpose)))


@dataclass(slots=True)
class _Blender:
    """Windows of one padded volume, the same for all networks."""

    window: tuple[int, int, int]
    places: list[Box]
    mirrors: list[tuple[int, ...]]
    device: torch.device
    autocast: torch.dtype | None
    progress: Callable[[int, int], None] | None
    total: int
    done: int = 0

    def logits(self, network: Logits, image: Tensor) -> Tensor:
        """Return blended logits (heads, z, y, x) in half precision, on the CPU."""
        weight = gaussian_weights(self.window).to(self.device)
        image = image.to(self.device)
        sums: Tensor | None = None
        weights = torch.zeros(image.shape, dtype=torch.half, device=self.device)
        for place in self.places:
            with self._context():
                found = self._mirrored(network, image[place][None, None].contiguous())[0]
            if sums is None:
                sums = torch.zeros(
                    (found.shape[0], *image.shape), dtype=torch.half, device=self.device
                )
            found *= weight
            sums[(slice(None), *place)] += found
            weights[place] += weight
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total * len(self.places))
        assert sums is not None
        torch.div(sums, weights, out=sums)
        if not bool(torch.isfinite(sums).all()):
            raise CheckpointError(
                "the network returns infinities or NaN (logits are blended in half precision, "
                "as nnU-Net does); is this checkpoint finished?"
            )
        return sums.cpu()

    def _mirrored(self, network: Logits, window: Tensor) -> Tensor:
        found = network(window)
        for axes in self.mirrors:
            found += torch.flip(network(torch.flip(window, axes)), axes)
        if self.mirrors:
            found /= len(self.mirrors) + 1
        return found

    def _context(self) -> contextlib.AbstractContextManager[object]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


def nonzero_box(image: FloatVolume) -> Box:
    """Return the box of voxels that are not 0; the whole volume if all are."""
    bounds = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        found = np.flatnonzero((image != 0).any(axis=others))
        bounds.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(None))
    return bounds[0], bounds[1], bounds[2]


def gaussian_weights(window: tuple[int, int, int]) -> Tensor:
    """Return nnU-Net's blend weights: a filtered impulse, peak 10, half precision, never 0."""
    impulse = np.zeros(window)
    impulse[tuple(n // 2 for n in window)] = 1
    weights = ndimage.gaussian_filter(
        impulse, [n * SIGMA_SHARE for n in window], 0, mode="constant", cval=0
    )
    weights /= weights.max() / GAUSSIAN_PEAK
    half = torch.from_numpy(weights).to(torch.half)
    half[half == 0] = half[half != 0].min()
    return half


def window_boxes(
    shape: tuple[int, ...], window: tuple[int, int, int], step_share: float
) -> list[Box]:
    """Return the windows that cover a volume no smaller than one, z slowest."""
    starts: list[list[int]] = []
    for size, edge in zip(shape, window, strict=True):
        count = math.ceil((size - edge) / (edge * step_share)) + 1
        step = (size - edge) / (count - 1) if count > 1 else 0.0
        starts.append([int(np.round(step * i)) for i in range(count)])
    return [
        (
            slice(z, z + window[0]),
            slice(y, y + window[1]),
            slice(x, x + window[2]),
        )
        for z, y, x in itertools.product(*starts)
    ]


def mirror_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all non-empty combinations of axes, as axes of (b, c, z, y, x).

    Raises:
        ConfigError: an axis outside 0 to 2.
    """
    if any(axis not in (0, 1, 2) for axis in axes):
        raise ConfigError(f"mirror_axes is {list(axes)}; expected some of 0, 1, 2")
    shifted = [axis + 2 for axis in axes]
    return [
        chosen
        for count in range(1, len(shifted) + 1)
        for chosen in itertools.combinations(shifted, count)
    ]


def _pad(image: Tensor, window: tuple[int, int, int]) -> tuple[Tensor, Box]:
    """Return the image padded with zeros to at least one window, and where it lies in it."""
    missing = [max(0, edge - size) for edge, size in zip(window, image.shape, strict=True)]
    before = [n // 2 for n in missing]
    pad = [
        n for low, all_ in zip(before[::-1], missing[::-1], strict=True) for n in (low, all_ - low)
    ]
    inner = [slice(low, low + size) for low, size in zip(before, image.shape, strict=True)]
    return torch.nn.functional.pad(image, pad), (inner[0], inner[1], inner[2])
