"""Checks of what a network hands to post-processing."""

from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.errors import SolverError
from vesuvius.types import FloatVolume


def check_probability(probability: npt.ArrayLike) -> FloatVolume:
    """Return the (z, y, x) probability as float32.

    Raises:
        SolverError: not 3-D, empty, NaN, or outside [0, 1].
    """
    array: npt.NDArray[Any] = np.asarray(probability)
    if array.ndim != 3 or array.size == 0:
        msg = f"probability must be a non-empty volume (z, y, x), got shape {array.shape}"
        raise SolverError(msg)
    if array.dtype.kind not in "fbiu":
        raise SolverError(f"probability must be float in [0, 1], got dtype {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if np.isnan(low) or np.isnan(high):
        msg = (
            f"probability holds NaN in {int(np.isnan(array).sum())} of {array.size} voxels; "
            "the network diverged or a window was not predicted"
        )
        raise SolverError(msg)
    if low < 0 or high > 1:
        msg = (
            f"probability must lie in [0, 1], got {low:.4g} to {high:.4g}; "
            "divide stored uint8 by 255, or apply the sigmoid to logits"
        )
        raise SolverError(msg)
    return array.astype(np.float32, copy=False)


def check_normals(normals: npt.ArrayLike | None, shape_zyx: tuple[int, ...]) -> FloatVolume:
    """Return the (3, z, y, x) normals as float32; int8 (127 = 1) is scaled.

    Raises:
        SolverError: missing, of another shape, NaN or infinite.
    """
    if normals is None:
        msg = (
            "normals are missing: the harmonic solver needs (3, z, y, x) from the network's "
            "normals head; enable the head, or use postprocess=threshold"
        )
        raise SolverError(msg)
    array: npt.NDArray[Any] = np.asarray(normals)
    if array.shape != (3, *shape_zyx):
        msg = (
            f"normals have shape {array.shape}, expected {(3, *shape_zyx)} (nz, ny, nx first) "
            "for this probability"
        )
        raise SolverError(msg)
    if array.dtype == np.int8:
        return array.astype(np.float32) / np.float32(127)
    floats: FloatVolume = array.astype(np.float32, copy=False)
    # The sum of finite numbers of this size is finite, and needs no temporary volume.
    if not np.isfinite(floats.sum(dtype=np.float64)):
        bad = int((~np.isfinite(floats)).sum())
        raise SolverError(f"normals hold NaN or infinity in {bad} of {floats.size} values")
    return floats


def check_share(name: str, value: float) -> float:
    """Return a threshold that must lie in [0, 1].

    Raises:
        SolverError: outside.
    """
    if not 0 <= value <= 1:
        raise SolverError(f"{name} must lie in [0, 1], got {value!r}")
    return float(value)
