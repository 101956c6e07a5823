"""What the solver refuses, and how it says so."""

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ShapeMismatchError, SolverError, VolumeFormatError
from vesuvius.types import FloatVolume


def checked_probability(probability: npt.NDArray[np.generic]) -> FloatVolume:
    """Return the probability as contiguous float32.

    Raises:
        SolverError: not 3-D, empty, or smaller than 8 voxels along an axis.
        VolumeFormatError: not floating point, NaN, or outside [0, 1].
    """
    if probability.ndim != 3 or min(probability.shape, default=0) < 8:
        raise SolverError(
            f"probability has shape {probability.shape}; expected (z, y, x) with at least 8 "
            "voxels along each axis"
        )
    if not np.issubdtype(probability.dtype, np.floating):
        raise VolumeFormatError(
            f"probability has dtype {probability.dtype}; expected floating point in [0, 1]. "
            "Divide a stored uint8 probability by 255"
        )
    volume = np.ascontiguousarray(probability, np.float32)
    low, high = float(volume.min()), float(volume.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(volume)))
        raise VolumeFormatError(
            f"probability holds {bad} NaN or infinite voxels; expected values in [0, 1]. "
            "Look for a diverged network or an unwritten part of the prediction"
        )
    if low < -1e-4 or high > 1 + 1e-4:
        raise VolumeFormatError(
            f"probability spans {low:g} to {high:g}; expected [0, 1]. Apply the sigmoid to logits, "
            "or divide a stored uint8 probability by 255"
        )
    return volume


def checked_normals(
    normals: npt.NDArray[np.generic] | None, shape_zyx: tuple[int, ...]
) -> FloatVolume | None:
    """Return normals as contiguous float32, None if there are none or all are zero.

    Raises:
        ShapeMismatchError: not (3, z, y, x).
        VolumeFormatError: NaN.
    """
    if normals is None:
        return None
    if normals.shape != (3, *shape_zyx):
        raise ShapeMismatchError(
            f"normals have shape {normals.shape}; expected {(3, *shape_zyx)}, three channels "
            "(nz, ny, nx) over the probability's voxels"
        )
    vectors = np.ascontiguousarray(normals, np.float32)
    low, high = float(vectors.min()), float(vectors.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise VolumeFormatError("normals hold NaN or infinite values; expected finite vectors")
    return None if low == high == 0.0 else vectors


def checked_density(
    density: npt.NDArray[np.generic] | None, shape_zyx: tuple[int, ...]
) -> FloatVolume | None:
    """Return the density (windings per voxel) as contiguous float32.

    Raises:
        ShapeMismatchError: not (z, y, x).
        VolumeFormatError: NaN, negative or zero everywhere.
    """
    if density is None:
        return None
    if density.shape != shape_zyx:
        raise ShapeMismatchError(
            f"density has shape {density.shape}; expected {shape_zyx}, windings per voxel"
        )
    volume = np.ascontiguousarray(density, np.float32)
    low, high = float(volume.min()), float(volume.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0.0 or high == 0.0:
        raise VolumeFormatError(
            f"density spans {low:g} to {high:g}; expected windings per voxel, above 0 "
            "(1 / pitch, about 0.03 to 0.15)"
        )
    return volume
