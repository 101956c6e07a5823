"""Angle between predicted and true sheet normals, without regard to their sign."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ShapeMismatchError


@dataclass(frozen=True, slots=True)
class NormalError:
    """Angles in degrees, in [0, 90], over the voxels where both normals are defined.

    NaN where there is no such voxel.

    Attributes:
        mean: mean angle.
        median: median angle.
        p90: 90th percentile.
        voxels: voxels compared.
        undefined: voxels asked for in which a normal is zero or not finite.
    """

    mean: float
    median: float
    p90: float
    voxels: int
    undefined: int


def normal_angles(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the sign-free angles in degrees of (3, ...) vectors, NaN where one is undefined.

    Lengths do not matter. Uses atan2 of the cross and dot product: exact near 0 degrees too, where
    acos of a float32 dot product is off by up to 0.03 degrees.

    Raises:
        ShapeMismatchError: if shapes differ or the first axis is not 3 long.
    """
    a, b = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if a.shape != b.shape or a.ndim < 1 or a.shape[0] != 3:
        raise ShapeMismatchError(
            f"normals: prediction has shape {a.shape}, truth {b.shape}; expected equal shapes "
            "(3, ...) with components (nz, ny, nx)"
        )
    with np.errstate(invalid="ignore"):
        cross = np.cross(a, b, axis=0)
        across, along = np.sqrt((cross**2).sum(0)), np.abs((a * b).sum(0))
        angles = np.degrees(np.arctan2(across, along))
    defined = (a != 0).any(0) & (b != 0).any(0) & np.isfinite(along)
    return np.where(defined, angles, np.nan)


def normal_angle_error(
    prediction: npt.ArrayLike, truth: npt.ArrayLike, mask: npt.ArrayLike | None = None
) -> NormalError:
    """Return the sign-free angle error of two normal fields.

    Args:
        prediction: (3, z, y, x) components (nz, ny, nx), any length.
        truth: (3, z, y, x).
        mask: (z, y, x) voxels to compare, e.g. the true surface; None for all.

    Raises:
        ShapeMismatchError: if shapes do not fit.
    """
    a, b = np.asarray(prediction), np.asarray(truth)
    if mask is not None:
        chosen = np.asarray(mask) != 0
        if chosen.shape != a.shape[1:] or a.shape != b.shape:
            raise ShapeMismatchError(
                f"normals: mask has shape {chosen.shape}, prediction {a.shape}, truth {b.shape}; "
                "expected (z, y, x) and twice (3, z, y, x)"
            )
        a, b = a[:, chosen], b[:, chosen]
    angles = normal_angles(a, b).ravel()
    defined = angles[~np.isnan(angles)]
    if not len(defined):
        return NormalError(float("nan"), float("nan"), float("nan"), 0, len(angles))
    median, p90 = np.percentile(defined, (50, 90))
    return NormalError(
        float(defined.mean()), float(median), float(p90), len(defined), len(angles) - len(defined)
    )
