"""Sliding-window inference whose memory is set by the window, not by the volume."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.inference.accumulate import CHANNELS, NORMALS, PROBABILITY, STORED_AS, OutputArray
from vesuvius.inference.device import select_device
from vesuvius.inference.reading import ImageVolume, image_scale
from vesuvius.inference.window_run import Predict, Progress, WindowRun
from vesuvius.inference.windows import AxisWindows, Blend, Overlap, Zyx, plan_windows, split_axis
from vesuvius.types import Report

__all__ = ["Predict", "Progress", "VolumePrediction", "predict_volume"]


@dataclass(frozen=True, slots=True)
class VolumePrediction:
    """Result of one volume.

    Attributes:
        outputs: array per name: "probability" (z, y, x) uint8 = round(255 p); if predicted,
            "normals" (3, z, y, x) int8 = round(127 n) and "density" (z, y, x) uint16 =
            round(65535 d). These are the arrays given as `out`, or NumPy arrays.
        report: shape, windows, seconds, voxels per second, mask share, length of the normals.
    """

    outputs: Mapping[str, Any]
    report: Report

    @property
    def probability(self) -> Any:
        """(z, y, x) uint8, 255 = 1."""
        return self.outputs[PROBABILITY]

    @property
    def normals(self) -> Any | None:
        """(3, z, y, x) int8, 127 = 1, or None."""
        return self.outputs.get(NORMALS)


def predict_volume(
    predict: Predict,
    image: ImageVolume,
    *,
    roi_zyx: Sequence[int],
    overlap: Overlap = 0.5,
    batch_size: int = 1,
    blend: Blend = "gaussian",
    device: str | torch.device = "auto",
    out: Mapping[str, OutputArray] | None = None,
    progress: Callable[[Progress], None] | None = None,
    axial_normals: bool = True,
    skip_empty: bool = False,
    threshold: float = 0.5,
    max_slab_bytes: int = 1 << 30,
    channels: int = 1,
) -> VolumePrediction:
    """Return the blended prediction of a volume of any size.

    Windows are visited layer by layer along z. The sums are as deep as one window; planes that no
    later layer touches are divided by the blend weights, rounded to integers and written. A wide
    volume is cut into blocks of y and x so that the sums of one block fit in `max_slab_bytes`.

    Args:
        predict: see `Predict`; called under `torch.inference_mode` with tensors on `device`.
        image: (z, y, x) uint8, uint16 (scaled by dtype) or float in [0, 1]; read in slabs.
        roi_zyx: window in voxels; a smaller volume is mirrored outward to fill it.
        overlap: least overlap of neighbours: a share in [0, 1), or voxels from 1; or one per axis.
        batch_size: windows predicted at once; the result does not depend on it.
        blend: "gaussian" (sigma = window / 8) or "constant".
        device: "auto", "cpu", "cuda", ...
        out: arrays to fill, by output name; only these outputs are kept. None: NumPy arrays for
            everything that `predict` returns.
        progress: called after each batch.
        axial_normals: n and -n mean the same, so overlapping normals are added with signs that
            agree; False adds them as they are.
        skip_empty: windows whose image is zero throughout are not predicted but set to 0 (a scroll
            cut free from its background). The first window is always predicted.
        threshold: probability above which a voxel counts in the report's mask share.
        max_slab_bytes: memory for the sums.
        channels: of the image; with more than one it is (channels, z, y, x).

    Raises:
        VolumeFormatError: not a 3-D volume, NaN, float outside [0, 1].
        ConfigError: window, overlap, batch size or the predictor's output is wrong.
        ShapeMismatchError: an array of `out` or the predictor's output has another shape.
        CheckpointError: the network returns NaN.
        DeviceError: the device is not there.

    Source: own; Gaussian blending after Isensee et al., nnU-Net, 2021.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    image_scale(image, channels)
    shape = (int(image.shape[-3]), int(image.shape[-2]), int(image.shape[-1]))
    axes = plan_windows(shape, roi_zyx, overlap=overlap, blend=blend)
    for name, array in (out or {}).items():
        _check_output(name, array, shape)
    run = WindowRun(
        predict=predict,
        image=image,
        axes=axes,
        device=select_device(device),
        batch_size=batch_size,
        outputs=out,
        axial=axial_normals,
        empty_max=0 if skip_empty else None,
        threshold=threshold,
        progress=progress,
        channels=channels,
    )
    blocks = _blocks(axes, max_slab_bytes, channels=sum(CHANNELS[name] for name in out or CHANNELS))
    run.total = sum(len(run.layer(y, x)) for y, x in blocks) * len(axes[0].starts)
    with torch.inference_mode():
        for y_range, x_range in blocks:
            run.block(y_range, x_range)
    return VolumePrediction(outputs=run.outputs or {}, report=run.report(blocks=len(blocks)))


def _blocks(
    axes: tuple[AxisWindows, AxisWindows, AxisWindows], max_bytes: int, *, channels: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return (y range, x range) of the blocks; one block where the whole slab fits."""
    column = 4 * channels * min(axes[0].window, axes[0].size)
    if axes[1].size * axes[2].size * column <= max_bytes:
        return [((0, axes[1].size), (0, axes[2].size))]
    side = max(1, math.isqrt(max_bytes // column))
    return list(product(split_axis(axes[1], side), split_axis(axes[2], side)))


def _check_output(name: str, array: OutputArray, shape: Zyx) -> None:
    """Refuse an output array of an unknown name, of another shape or type."""
    if name not in CHANNELS:
        raise ConfigError(f"out holds {name!r}, expected some of {list(CHANNELS)}")
    expected = (3, *shape) if name == NORMALS else shape
    if tuple(array.shape) != expected:
        msg = f"out[{name!r}] has shape {tuple(array.shape)}, expected {expected} for this image"
        raise ShapeMismatchError(msg)
    if np.dtype(array.dtype) != STORED_AS[name]:
        msg = f"out[{name!r}] has dtype {array.dtype}, expected {np.dtype(STORED_AS[name])}"
        raise ConfigError(msg)
