"""Weighted sums of overlapping windows for one slab of a volume, and their 8-bit output."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vesuvius.inference.windows import AxisWindows

PROBABILITY, NORMALS, DENSITY = "probability", "normals", "density"
CHANNELS = {PROBABILITY: 1, NORMALS: 3, DENSITY: 1}
"""Outputs a predictor may return, in the order in which they are summed."""
STORED_AS = {PROBABILITY: np.uint8, NORMALS: np.int8, DENSITY: np.uint16}
"""Type of each stored output."""
STORED_MAX = {PROBABILITY: 255, NORMALS: 127, DENSITY: 65535}
"""Stored integer that stands for 1.0."""
CONFIDENT = 0.3
"""The length of the normals is measured where the probability exceeds this."""
PLANES_AT_ONCE = 8
"""Planes turned into integers together: bounds the temporaries."""


class OutputArray(Protocol):
    """An array that takes assignment to a slice: NumPy, Zarr."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis."""
        ...

    @property
    def dtype(self) -> Any:
        """Element type."""
        ...

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Store a part."""
        ...


@dataclass(slots=True)
class Moments:
    """Running figures of what was written."""

    voxels: int = 0
    above: int = 0
    confident: int = 0
    length_sum: float = 0.0
    length_square_sum: float = 0.0

    def add_lengths(self, lengths: Tensor) -> None:
        """Add lengths of normals at confident voxels."""
        values = lengths.double()
        self.confident += values.numel()
        self.length_sum += float(values.sum())
        self.length_square_sum += float(values.square().sum())

    @property
    def length_mean(self) -> float:
        """Mean length, NaN where there was no confident voxel."""
        return self.length_sum / self.confident if self.confident else math.nan

    @property
    def length_std(self) -> float:
        """Standard deviation of the length, NaN where there was no confident voxel."""
        if not self.confident:
            return math.nan
        return math.sqrt(max(0.0, self.length_square_sum / self.confident - self.length_mean**2))


@dataclass(slots=True)
class PlaneBuffer:
    """Collects finished planes so that a chunked array is written in whole chunks along z.

    Without it every Zarr chunk would be decoded and encoded again for each layer of windows.
    """

    target: OutputArray
    y: slice
    x: slice
    z_step: int = 1
    z0: int = 0
    parts: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def push(self, planes: np.ndarray[Any, Any], *, last: bool) -> None:
        """Take (z, y, x) or (3, z, y, x) planes that follow the ones before."""
        self.parts.append(planes)
        held = sum(part.shape[-3] for part in self.parts)
        count = held if last else (self.z0 + held) // self.z_step * self.z_step - self.z0
        if count <= 0:
            return
        block = np.concatenate(self.parts, axis=-3) if len(self.parts) > 1 else self.parts[0]
        place = (slice(self.z0, self.z0 + count), self.y, self.x)
        self.target[place if block.ndim == 3 else (slice(None), *place)] = block[..., :count, :, :]
        rest = block[..., count:, :, :]
        self.parts = [rest.copy()] if rest.shape[-3] else []
        self.z0 += count


class SlabAccumulator:
    """Sums of one block: all z layers in turn, float32, only as deep as one window.

    The blend weights are a product of three profiles, so their sum over windows is one too and
    needs no volume of its own.

    Args:
        axes: plan of the three axes.
        y_range: rows of the block's core.
        x_range: columns of the block's core.
        outputs: array per output name; fixes which outputs are summed.
        axial: normals are axes (n and -n are the same): each is added with the sign that agrees
            with the sum so far.
        device: where the sums live.
        moments: figures to add to.
        threshold: probability above which a voxel counts as mask in `moments`.
        z_start: start of the first layer of windows.
    """

    def __init__(
        self,
        axes: tuple[AxisWindows, AxisWindows, AxisWindows],
        *,
        y_range: tuple[int, int],
        x_range: tuple[int, int],
        outputs: Mapping[str, OutputArray],
        axial: bool,
        device: torch.device,
        moments: Moments,
        threshold: float,
        z_start: int = 0,
    ) -> None:
        self._axes, self._y, self._x = axes, y_range, x_range
        self._names = [name for name in CHANNELS if name in outputs]
        self._axial, self._moments, self._threshold = axial, moments, threshold
        depth = min(axes[0].window, axes[0].size)
        plane = (y_range[1] - y_range[0], x_range[1] - x_range[0])
        self._sums = {
            name: torch.zeros((CHANNELS[name], depth, *plane), device=device)
            for name in self._names
        }
        profiles = [torch.from_numpy(axis.profile).to(device) for axis in axes]
        self._weight = torch.einsum("z,y,x->zyx", *profiles).contiguous()
        self._total_yx = torch.outer(
            torch.from_numpy(axes[1].weight_sum[slice(*y_range)]),
            torch.from_numpy(axes[2].weight_sum[slice(*x_range)]),
        ).to(device)
        self._buffers = {
            name: PlaneBuffer(
                outputs[name], slice(*y_range), slice(*x_range), _z_step(outputs[name]), z_start
            )
            for name in self._names
        }
        self._z0 = z_start

    def add(self, y0: int, x0: int, window: Mapping[str, Tensor]) -> None:
        """Add one window of the current layer: name -> (c, z, y, x) on the accumulator's device."""
        ys, yw = _clip(y0, self._axes[1], self._y)
        xs, xw = _clip(x0, self._axes[2], self._x)
        depth = next(iter(self._sums.values())).shape[1]
        weight = self._weight[:depth, yw, xw]
        for name, total in self._sums.items():
            part = total[:, :, ys, xs]
            value = window[name][:, :depth, yw, xw].float()
            if name == NORMALS and self._axial:
                agreement = _dot(part, value)
                part.addcmul_(value, torch.where(agreement < 0, -weight, weight))
            else:
                part.addcmul_(value, weight)

    def finish_layer(self, next_z0: int | None) -> None:
        """Write the planes that no later layer touches and move the sums up to `next_z0`."""
        z_axis = self._axes[0]
        stop = z_axis.size if next_z0 is None else next_z0
        count = stop - self._z0
        for first in range(0, count, PLANES_AT_ONCE):
            planes = slice(first, min(first + PLANES_AT_ONCE, count))
            self._write(planes, last=next_z0 is None and planes.stop == count)
        for total in self._sums.values():
            depth = total.shape[1]
            for plane in range(depth - count):
                total[:, plane] = total[:, plane + count]
            total[:, depth - count :] = 0
        self._z0 = stop

    def _write(self, planes: slice, *, last: bool) -> None:
        z_sum = self._axes[0].weight_sum[self._z0 + planes.start : self._z0 + planes.stop]
        weight = torch.from_numpy(z_sum).to(self._total_yx.device)[:, None, None] * self._total_yx
        mean = {name: total[:, planes].div_(weight) for name, total in self._sums.items()}
        self._measure(mean)
        for name, value in mean.items():
            low = -1.0 if name == NORMALS else 0.0
            dtype = STORED_AS[name]
            whole = value.clamp_(low, 1.0).mul_(STORED_MAX[name]).round_()
            if dtype == np.uint16:
                stored = whole.to(torch.int32).cpu().numpy().astype(np.uint16)
            else:
                stored = whole.to(torch.int8 if dtype == np.int8 else torch.uint8).cpu().numpy()
            self._buffers[name].push(stored if name == NORMALS else stored[0], last=last)

    def _measure(self, mean: Mapping[str, Tensor]) -> None:
        probability = mean.get(PROBABILITY)
        if probability is None:
            return
        self._moments.voxels += probability.numel()
        self._moments.above += int((probability > self._threshold).sum())
        if NORMALS in mean:
            squared = _dot(mean[NORMALS], mean[NORMALS])
            self._moments.add_lengths(squared[probability[0] > CONFIDENT].sqrt_())


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the (z, y, x) dot product of (3, z, y, x) vectors, 10 times torch.linalg's speed."""
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def _z_step(target: OutputArray) -> int:
    """Return the chunk (or shard) length of an array along z, 1 for arrays without chunks."""
    chunks = getattr(target, "shards", None) or getattr(target, "chunks", None)
    return int(chunks[-3]) if chunks else 1


def _clip(start: int, axis: AxisWindows, core: tuple[int, int]) -> tuple[slice, slice]:
    """Return where a window lies in the core, and which part of the window that is."""
    low, high = max(start, core[0]), min(start + axis.window, core[1], axis.size)
    return slice(low - core[0], high - core[0]), slice(low - start, high - start)
