"""Where sliding windows lie and how they are weighted; plain arithmetic, no tensors of images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError

Blend = Literal["gaussian", "constant"]
Overlap = float | int | Sequence[float | int]
Zyx = tuple[int, int, int]

SIGMA_SHARE = 0.125
"""Standard deviation of the Gaussian blend as a share of the window, as nnU-Net and MONAI use."""
WEIGHT_FLOOR = 1e-3
"""Least weight along one axis: three axes give 1e-9, which float32 sums still resolve."""


@dataclass(frozen=True, slots=True)
class AxisWindows:
    """Windows along one axis.

    Attributes:
        size: length of the axis in voxels.
        window: length of a window; may exceed `size`, then the one window is padded.
        starts: first voxel of each window, ascending.
        profile: (window,) blend weight within a window, in (0, 1].
        weight_sum: (size,) sum over all windows of their weight at each voxel, > 0 everywhere.
    """

    size: int
    window: int
    starts: tuple[int, ...]
    profile: npt.NDArray[np.float32]
    weight_sum: npt.NDArray[np.float32]

    def touching(self, low: int, high: int) -> tuple[int, ...]:
        """Starts of the windows that cover any voxel of [low, high)."""
        return tuple(start for start in self.starts if start < high and start + self.window > low)


def stride(window: int, overlap: float) -> int:
    """Return the step in voxels for an overlap given as a share (float below 1) or in voxels.

    Raises:
        ConfigError: the overlap is negative or leaves no step.
    """
    voxels = window * overlap if overlap < 1 else float(overlap)
    if overlap < 0 or voxels >= window or not math.isfinite(overlap):
        msg = (
            f"overlap must be a share in [0, 1) or whole voxels below the window, got {overlap!r} "
            f"for a window of {window} voxels; use for example overlap=0.5"
        )
        raise ConfigError(msg)
    return max(1, round(window - voxels))


def window_starts(size: int, window: int, step: int) -> tuple[int, ...]:
    """Return the starts of the fewest evenly spread windows that cover [0, size).

    The first window starts at 0 and the last ends at `size` (windows are shifted inward, so that
    they see real neighbours); neighbours are at most `step` apart. An axis shorter than the window
    has one window, which the reader pads.
    """
    if size <= window:
        return (0,)
    room = size - window
    count = math.ceil(room / step) + 1
    return tuple(round(i * room / (count - 1)) for i in range(count))


def blend_profile(window: int, blend: Blend) -> npt.NDArray[np.float32]:
    """Return the (window,) weights of one axis: Gaussian of sigma window/8, or ones."""
    if blend == "constant":
        return np.ones(window, np.float32)
    if blend != "gaussian":
        raise ConfigError(f"blend must be 'gaussian' or 'constant', got {blend!r}")
    offset = np.arange(window) - (window - 1) / 2
    weight = np.exp(-0.5 * (offset / (SIGMA_SHARE * window)) ** 2)
    floored: npt.NDArray[np.float32] = np.maximum(weight / weight.max(), WEIGHT_FLOOR).astype(
        np.float32
    )
    return floored


def axis_windows(size: int, window: int, *, overlap: float, blend: Blend) -> AxisWindows:
    """Plan one axis."""
    starts = window_starts(size, window, stride(window, overlap))
    profile = blend_profile(window, blend)
    total = np.zeros(size, np.float64)
    for start in starts:
        stop = min(start + window, size)
        total[start:stop] += profile[: stop - start]
    return AxisWindows(size, window, starts, profile, total.astype(np.float32))


def plan_windows(
    shape_zyx: Zyx, roi_zyx: Sequence[int], *, overlap: Overlap, blend: Blend
) -> tuple[AxisWindows, AxisWindows, AxisWindows]:
    """Plan the three axes; the windows of a volume are the product of the three.

    Args:
        shape_zyx: volume in voxels.
        roi_zyx: window in voxels.
        overlap: share in [0, 1) or whole voxels (from 1), for all axes or one value per axis.
        blend: "gaussian" or "constant".

    Raises:
        ConfigError: window or overlap out of range.
    """
    roi = tuple(int(n) for n in roi_zyx)
    if len(roi) != 3 or min(roi) < 1:
        raise ConfigError(f"roi_zyx must be three positive integers, got {tuple(roi_zyx)!r}")
    shares = (overlap,) * 3 if isinstance(overlap, (int, float)) else tuple(overlap)
    if len(shares) != 3:
        raise ConfigError(f"overlap must be one number or three (z, y, x), got {overlap!r}")
    z, y, x = (
        axis_windows(size, window, overlap=share, blend=blend)
        for size, window, share in zip(shape_zyx, roi, shares, strict=True)
    )
    return z, y, x


def split_axis(axis: AxisWindows, max_size: int) -> list[tuple[int, int]]:
    """Cut an axis into consecutive cores of at most about `max_size` voxels, at window starts.

    Cutting where a window starts keeps the number of windows that touch two cores (and are
    predicted twice) smallest. A core is never shorter than one step.
    """
    cuts, last = [0], 0
    for start, following in zip(axis.starts, (*axis.starts[1:], axis.size), strict=True):
        if start > 0 and following - last > max_size:
            cuts.append(start)
            last = start
    return list(zip(cuts, (*cuts[1:], axis.size), strict=True))
