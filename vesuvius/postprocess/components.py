"""Connected components of a mask: dust, hysteresis, closing."""

from typing import Literal

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.errors import ConfigError
from vesuvius.types import ByteVolume, FloatVolume

Connectivity = Literal[6, 18, 26]
Mask = npt.NDArray[np.bool_]


def check_connectivity(connectivity: int) -> None:
    """Refuse anything but 6, 18 or 26 neighbours.

    Raises:
        ConfigError: another number.
    """
    if connectivity not in (6, 18, 26):
        raise ConfigError(f"connectivity must be 6, 18 or 26 neighbours, got {connectivity!r}")


def remove_dust(
    mask: Mask | ByteVolume, *, min_size_voxels: int, connectivity: Connectivity = 26
) -> tuple[Mask, int]:
    """Return the mask without components below `min_size_voxels`, and how many were removed.

    Raises:
        ConfigError: negative size or unknown connectivity.
    """
    check_connectivity(connectivity)
    if min_size_voxels < 0:
        raise ConfigError(f"min_size_voxels must be 0 or more, got {min_size_voxels}")
    binary = np.ascontiguousarray(mask, dtype=np.bool_)
    if min_size_voxels <= 1 or not binary.any():
        return binary, 0
    labels = cc3d.connected_components(binary, connectivity=connectivity)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    keep = sizes >= min_size_voxels
    kept: Mask = keep[labels]
    return kept, int((~keep[1:]).sum())


def hysteresis_mask(
    probability: FloatVolume, *, low: float, high: float, connectivity: Connectivity = 26
) -> Mask:
    """Return the components of p > low that hold a voxel with p > high.

    Raises:
        ConfigError: low above high, or unknown connectivity.

    Source: Canny, 1986, section V.
    """
    check_connectivity(connectivity)
    if low > high:
        raise ConfigError(f"the low threshold ({low}) must not exceed the high one ({high})")
    weak, strong = np.ascontiguousarray(probability > low), probability > high
    if not strong.any():
        return np.zeros(probability.shape, np.bool_)
    labels = cc3d.connected_components(weak, connectivity=connectivity)
    keep = np.zeros(int(labels.max()) + 1, np.bool_)
    keep[labels[strong]] = True
    kept: Mask = keep[labels]
    return kept


def close_gaps(mask: Mask | ByteVolume, *, iterations: int) -> Mask:
    """Return the morphological closing by a cube of 2 * iterations + 1 voxels.

    A cube, because a cross does not close a hole in a sheet one voxel thick. Never removes a voxel.

    Raises:
        ConfigError: negative iterations.
    """
    if iterations < 0:
        raise ConfigError(f"closing must be 0 or more steps, got {iterations}")
    binary = np.asarray(mask, dtype=np.bool_)
    if iterations == 0:
        return binary
    # Padded, so that the erosion finds what the dilation put beyond the faces.
    padded = np.pad(binary.view(np.uint8), iterations)
    size = 2 * iterations + 1
    grown = ndimage.maximum_filter(padded, size=size, mode="constant")
    closed = ndimage.minimum_filter(grown, size=size, mode="constant")
    inner = tuple(slice(iterations, -iterations) for _ in range(3))
    result: Mask = closed[inner].astype(np.bool_)
    return result
