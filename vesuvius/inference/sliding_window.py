"""Sliding-window inference whose memory is set by the window, not by the volume."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from vesuvius.errors import CheckpointError, ConfigError, ShapeMismatchError
from vesuvius.inference.accumulate import (
    CHANNELS,
    NORMALS,
    PROBABILITY,
    STORED_AS,
    Moments,
    OutputArray,
    SlabAccumulator,
)
from vesuvius.inference.device import select_device
from vesuvius.inference.reading import ImageVolume, SlabReader, cut_window, image_scale
from vesuvius.inference.windows import AxisWindows, Blend, Overlap, Zyx, plan_windows, split_axis
from vesuvius.types import Report

_LOG = logging.getLogger(__name__)

Predict = Callable[[Tensor], Mapping[str, Tensor]]
"""(b, 1, z, y, x) float32 in [0, 1] -> "probability" (b, 1, z, y, x) in [0, 1], optionally
"normals" (b, 3, z, y, x) in [-1, 1] and "density" (b, 1, z, y, x) in [0, 1] windings per voxel."""

SHORT_NORMALS = 0.5
"""Mean length of the normals below which the run warns."""
ROUNDING = 1e-3
"""Excess over [0, 1] that counts as rounding of a low-precision predictor."""


@dataclass(frozen=True, slots=True)
class Progress:
    """State after a batch of windows.

    Attributes:
        done: windows finished.
        total: windows in all.
        seconds: time since the start.
        eta_s: estimated time to the end.
        rss_mb: resident memory of the process now, in MiB.
    """

    done: int
    total: int
    seconds: float
    eta_s: float
    rss_mb: float

    def __str__(self) -> str:
        return (
            f"window {self.done}/{self.total}, {self.seconds:.0f} s, "
            f"{self.eta_s:.0f} s left, {self.rss_mb:.0f} MiB"
        )


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
    run = _Run(
        predict=predict,
        image=image,
        axes=axes,
        device=select_device(device),
        batch_size=batch_size,
        outputs=out,
        axial=axial_normals,
        skip_empty=skip_empty,
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


@dataclass(slots=True)
class _Run:
    """State of one call of `predict_volume`."""

    predict: Predict
    image: ImageVolume
    axes: tuple[AxisWindows, AxisWindows, AxisWindows]
    device: torch.device
    batch_size: int
    outputs: Mapping[str, OutputArray] | None
    axial: bool
    skip_empty: bool
    threshold: float
    progress: Callable[[Progress], None] | None
    channels: int = 1
    total: int = 0
    done: int = 0
    skipped: int = 0
    rss_peak: int = 0
    moments: Moments = field(default_factory=Moments)
    started: float = field(default_factory=time.perf_counter)
    process: psutil.Process = field(default_factory=psutil.Process)

    @property
    def roi(self) -> Zyx:
        z, y, x = self.axes
        return z.window, y.window, x.window

    def layer(self, y_range: tuple[int, int], x_range: tuple[int, int]) -> list[tuple[int, int]]:
        """Windows (y0, x0) of one layer that touch a block."""
        return list(product(self.axes[1].touching(*y_range), self.axes[2].touching(*x_range)))

    def block(self, y_range: tuple[int, int], x_range: tuple[int, int]) -> None:
        """Predict one block through all layers of windows."""
        corners, z_axis = self.layer(y_range, x_range), self.axes[0]
        origin = corners[0]
        reader = SlabReader(
            self.image,
            y_range=(origin[0], min(corners[-1][0] + self.roi[1], self.axes[1].size)),
            x_range=(origin[1], min(corners[-1][1] + self.roi[2], self.axes[2].size)),
            channels=self.channels,
        )
        sums: SlabAccumulator | None = None
        for z0, next_z0 in zip(z_axis.starts, (*z_axis.starts[1:], None), strict=True):
            slab = reader.read(z0, min(z0 + self.roi[0], z_axis.size))
            for places, windows in self._batches(slab, corners, origin):
                result = self._call(windows, scale=reader.scale, z0=z0, places=places)
                if sums is None:
                    sums = self._accumulator(y_range, x_range, result)
                for index, (y0, x0) in enumerate(places):
                    sums.add(y0, x0, {name: value[index] for name, value in result.items()})
                self._tell(len(places))
            if sums is None:
                sums = self._accumulator(y_range, x_range, {})
            sums.finish_layer(next_z0)

    def _batches(
        self, slab: npt.NDArray[Any], corners: list[tuple[int, int]], origin: tuple[int, int]
    ) -> Iterator[tuple[list[tuple[int, int]], npt.NDArray[Any]]]:
        """Yield the corners and the raw windows of each batch of a layer."""
        places: list[tuple[int, int]] = []
        windows: list[npt.NDArray[Any]] = []
        for y0, x0 in corners:
            window = cut_window(slab, y0 - origin[0], x0 - origin[1], self.roi)
            if self.skip_empty and self.outputs is not None and not window.any():
                self.skipped += 1
                self._tell(1)
                continue
            places.append((y0, x0))
            windows.append(window)
            if len(places) == self.batch_size:
                yield places, np.stack(windows)
                places, windows = [], []
        if places:
            yield places, np.stack(windows)

    def _call(
        self,
        windows: npt.NDArray[Any],
        *,
        scale: float,
        z0: int,
        places: list[tuple[int, int]],
    ) -> Mapping[str, Tensor]:
        """Run the predictor on raw windows and check what it returns."""
        scaled = windows.astype(np.float32)
        if scale != 1.0:
            scaled *= np.float32(scale)
        batch = torch.from_numpy(scaled if self.channels > 1 else scaled[:, None]).to(self.device)
        result = self.predict(batch)
        names = self._names(result)
        where = f"window at (z, y, x) = ({z0}, {places[0][0]}, {places[0][1]})"
        for name in names:
            _check_result(name, result[name], tuple(batch.shape), where)
        return {name: result[name] for name in names}

    def _names(self, result: Mapping[str, Tensor]) -> list[str]:
        """Return the outputs to keep; on the first call allocate them if none were given."""
        if PROBABILITY not in result:
            msg = (
                f"predict must return a mapping with 'probability', got {sorted(result)}; wrap the "
                "network with vesuvius.inference.surface_predictor"
            )
            raise ConfigError(msg)
        if self.outputs is None:
            shape = tuple(axis.size for axis in self.axes)
            self.outputs = {
                name: np.zeros((3, *shape) if name == NORMALS else shape, STORED_AS[name])
                for name in CHANNELS
                if name in result
            }
        missing = [name for name in self.outputs if name not in result]
        if missing:
            msg = f"out asks for {missing}, but predict returns only {sorted(result)}"
            raise ConfigError(msg)
        return [name for name in CHANNELS if name in self.outputs]

    def _accumulator(
        self, y_range: tuple[int, int], x_range: tuple[int, int], result: Mapping[str, Tensor]
    ) -> SlabAccumulator:
        del result  # by now `outputs` is known
        return SlabAccumulator(
            self.axes,
            y_range=y_range,
            x_range=x_range,
            outputs=self.outputs or {},
            axial=self.axial,
            device=self.device,
            moments=self.moments,
            threshold=self.threshold,
        )

    def _tell(self, windows: int) -> None:
        self.done += windows
        rss = self.process.memory_info().rss
        self.rss_peak = max(self.rss_peak, rss)
        if self.progress is not None:
            seconds = time.perf_counter() - self.started
            eta = seconds / self.done * (self.total - self.done)
            self.progress(Progress(self.done, self.total, seconds, eta, rss / 2**20))

    def report(self, *, blocks: int) -> Report:
        """Return the figures of the run; warn where the normals are short."""
        seconds = time.perf_counter() - self.started
        shape = [axis.size for axis in self.axes]
        figures: Report = {
            "shape_zyx": [float(n) for n in shape],
            "windows": self.total,
            "windows_skipped": self.skipped,
            "blocks": blocks,
            "seconds": seconds,
            "voxels_per_s": math.prod(shape) / seconds,
            "mask_share": self.moments.above / max(1, self.moments.voxels),
            "rss_peak_mb": self.rss_peak / 2**20,
        }
        if self.outputs is not None and NORMALS in self.outputs and self.moments.confident:
            figures["normal_length_mean"] = self.moments.length_mean
            figures["normal_length_std"] = self.moments.length_std
            if self.moments.length_mean < SHORT_NORMALS:
                _LOG.warning(
                    "normals are short: mean length %.2f where p > 0.3 (expected over %.1f); "
                    "the normal head is untrained or overlapping windows disagree",
                    self.moments.length_mean,
                    SHORT_NORMALS,
                )
        return figures


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


def _check_result(name: str, value: Tensor, batch: tuple[int, ...], where: str) -> None:
    """Refuse a prediction of the wrong shape, with NaN, or out of its range."""
    expected = (batch[0], CHANNELS[name], *batch[2:])
    if tuple(value.shape) != expected:
        msg = f"predict returned {name!r} of shape {tuple(value.shape)}, expected {expected}"
        raise ShapeMismatchError(msg)
    low, high = (float(bound) for bound in torch.aminmax(value))
    if math.isnan(low) or math.isnan(high):
        msg = (
            f"the network returns NaN in {name!r}, {where}; the weights diverged or fp16 "
            "overflowed: try precision=fp32, else an earlier checkpoint"
        )
        raise CheckpointError(msg)
    least = -1.0 if name == NORMALS else 0.0
    if low < least - ROUNDING or high > 1 + ROUNDING:
        msg = (
            f"predict must return {name!r} in [{least:g}, 1], got {low:.4g} to {high:.4g} in the "
            f"{where}; does it return logits?"
        )
        raise ConfigError(msg)
