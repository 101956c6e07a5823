"""The loop over windows: read a layer, predict it, add it up, write what is finished."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
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
from vesuvius.inference.reading import ImageVolume, SlabReader, cut_window
from vesuvius.inference.windows import AxisWindows, Zyx
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


@dataclass(slots=True)
class WindowRun:
    """State of one pass over windows; made by `predict_volume` and `predict_blocks`.

    Attributes:
        predict: see `Predict`.
        image: (z, y, x), or (channels, z, y, x) with more than one channel.
        axes: plan of the three axes.
        device: where windows are predicted and summed.
        batch_size: windows predicted at once.
        outputs: array per output name; None until the first prediction tells the names.
        axial: n and -n mean the same.
        empty_max: windows whose values are all at most this are not predicted but 0; None
            predicts every window.
        threshold: probability from which a voxel counts as mask in the figures.
        progress: called after each batch.
        channels: of the image.
        occupied: tells whether the window at a corner (z, y, x) is wanted; others are neither
            read nor predicted but 0. None wants all.
        total: windows of the whole pass, for the estimate of the end.
        done: windows finished, predicted or not.
        skipped: windows that were not predicted.
    """

    predict: Predict
    image: ImageVolume
    axes: tuple[AxisWindows, AxisWindows, AxisWindows]
    device: torch.device
    batch_size: int
    outputs: Mapping[str, OutputArray] | None
    axial: bool
    empty_max: float | None
    threshold: float
    progress: Callable[[Progress], None] | None
    channels: int = 1
    occupied: Callable[[Zyx], bool] | None = None
    total: int = 0
    done: int = 0
    skipped: int = 0
    rss_peak: int = 0
    moments: Moments = field(default_factory=Moments)
    started: float = field(default_factory=time.perf_counter)
    process: psutil.Process = field(default_factory=psutil.Process)

    @property
    def roi(self) -> Zyx:
        """Window in voxels."""
        z, y, x = self.axes
        return z.window, y.window, x.window

    def layer(self, y_range: tuple[int, int], x_range: tuple[int, int]) -> list[tuple[int, int]]:
        """Windows (y0, x0) of one layer that touch a block."""
        return list(product(self.axes[1].touching(*y_range), self.axes[2].touching(*x_range)))

    def block(
        self,
        y_range: tuple[int, int],
        x_range: tuple[int, int],
        z_range: tuple[int, int] | None = None,
    ) -> None:
        """Predict one block: all windows that touch it, layer by layer along z.

        Voxels in the ranges get the same sums in the same order whatever the ranges are. With a
        `z_range`, planes in front of it may be handed to the outputs too; they are incomplete.
        """
        corners, z_axis = self.layer(y_range, x_range), self.axes[0]
        z_low, z_high = z_range or (0, z_axis.size)
        starts = z_axis.touching(z_low, z_high)
        end = None if z_high == z_axis.size else z_high
        origin = corners[0]
        reader = SlabReader(
            self.image,
            y_range=(origin[0], min(corners[-1][0] + self.roi[1], self.axes[1].size)),
            x_range=(origin[1], min(corners[-1][1] + self.roi[2], self.axes[2].size)),
            channels=self.channels,
        )
        sums: SlabAccumulator | None = None
        for z0, next_z0 in zip(starts, (*starts[1:], end), strict=True):
            wanted = self._wanted(z0, corners)
            if wanted:
                slab = reader.read(z0, min(z0 + self.roi[0], z_axis.size))
                for places, windows in self._batches(slab, wanted, origin):
                    result = self._call(windows, scale=reader.scale, z0=z0, places=places)
                    if sums is None:
                        sums = self._accumulator(y_range, x_range, starts[0])
                    for index, (y0, x0) in enumerate(places):
                        sums.add(y0, x0, {name: value[index] for name, value in result.items()})
                    self._tell(len(places))
            if sums is None:
                sums = self._accumulator(y_range, x_range, starts[0])
            sums.finish_layer(next_z0)

    def _wanted(self, z0: int, corners: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the corners of a layer whose windows are to be read; count the others."""
        if self.occupied is None:
            return corners
        wanted = [corner for corner in corners if self.occupied((z0, *corner))]
        if len(wanted) < len(corners):
            self.skipped += len(corners) - len(wanted)
            self._tell(len(corners) - len(wanted))
        return wanted

    def _batches(
        self, slab: npt.NDArray[Any], corners: list[tuple[int, int]], origin: tuple[int, int]
    ) -> Iterator[tuple[list[tuple[int, int]], npt.NDArray[Any]]]:
        """Yield the corners and the raw windows of each batch of a layer."""
        places: list[tuple[int, int]] = []
        windows: list[npt.NDArray[Any]] = []
        for y0, x0 in corners:
            window = cut_window(slab, y0 - origin[0], x0 - origin[1], self.roi)
            if self.outputs is not None and self._is_empty(window):
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

    def _is_empty(self, window: npt.NDArray[Any]) -> bool:
        if self.empty_max is None:
            return False
        # any() stops nowhere but needs no comparison; max() is for air that is not 0
        return not window.any() if self.empty_max == 0 else bool(window.max() <= self.empty_max)

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
        self, y_range: tuple[int, int], x_range: tuple[int, int], z_start: int
    ) -> SlabAccumulator:
        return SlabAccumulator(
            self.axes,
            y_range=y_range,
            x_range=x_range,
            outputs=self.outputs or {},
            axial=self.axial,
            device=self.device,
            moments=self.moments,
            threshold=self.threshold,
            z_start=z_start,
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
