"""Read a volume slab by slab, scaled to [0, 1] by its dtype."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vesuvius.errors import VolumeFormatError

SCALES = {np.dtype(np.uint8): 1 / 255, np.dtype(np.uint16): 1 / 65535}


class ImageVolume(Protocol):
    """Anything sliceable with a shape and a dtype: NumPy, Zarr, a TIFF memory map."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along z, y, x."""
        ...

    @property
    def dtype(self) -> Any:
        """Element type."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return a part of the volume."""
        ...


def image_scale(image: ImageVolume, channels: int = 1) -> float:
    """Return the factor to [0, 1] of a (z, y, x) image, or (channels, z, y, x) if more than one.

    Raises:
        VolumeFormatError: not of that shape, empty, or a dtype without a defined range.
    """
    if channels > 1 and (len(image.shape) != 4 or image.shape[0] != channels):
        msg = (
            f"image must be ({channels}, z, y, x) for this network, got shape "
            f"{tuple(image.shape)}; a second-stage network also needs the prediction it refines: "
            "prior=<folder> of infer.py, data.prior_root in training"
        )
        raise VolumeFormatError(msg)
    if channels == 1 and (len(image.shape) != 3 or min(image.shape) < 1):
        msg = (
            f"image must be a non-empty 3-D volume (z, y, x), got shape {tuple(image.shape)}; "
            "select one channel or stack the slices first"
        )
        raise VolumeFormatError(msg)
    dtype = np.dtype(image.dtype).newbyteorder("=")  # TIFF may be big-endian
    if dtype in SCALES:
        return SCALES[dtype]
    if dtype.kind == "f":
        return 1.0
    msg = (
        f"image has dtype {dtype}, expected uint8, uint16 or float in [0, 1]; "
        "convert it with `vesuvius prepare` or image.astype"
    )
    raise VolumeFormatError(msg)


class SlabReader:
    """Hands out (..., z, y, x) slabs in ascending z; each voxel of a block is read once.

    Args:
        image: (z, y, x) volume, or (channels, z, y, x).
        y_range: first and last-plus-one row of the block.
        x_range: the same for columns.
    """

    def __init__(
        self,
        image: ImageVolume,
        *,
        y_range: tuple[int, int],
        x_range: tuple[int, int],
        channels: int = 1,
    ) -> None:
        self.scale = image_scale(image, channels)
        self._lead = (slice(None),) * (len(image.shape) - 3)
        self._image = image
        self._y, self._x = slice(*y_range), slice(*x_range)
        self._slab: npt.NDArray[Any] | None = None
        self._z = (0, 0)

    def read(self, z0: int, z1: int) -> npt.NDArray[Any]:
        """Return the raw slab [z0, z1), reusing what the slab before it already holds."""
        known = min(max(self._z[1], z0), z1) if self._slab is not None else z0
        fresh = np.asarray(self._image[(*self._lead, slice(known, z1), self._y, self._x)])
        _check_range(fresh, known)
        if self._slab is not None and known > z0:
            fresh = np.concatenate([self._slab[..., z0 - self._z[0] :, :, :], fresh], axis=-3)
        self._slab, self._z = fresh, (z0, z1)
        return fresh


def _check_range(slab: npt.NDArray[Any], z0: int) -> None:
    """Refuse NaN, infinities and values outside [0, 1] in a float slab."""
    if slab.dtype.kind != "f" or slab.size == 0:
        return
    low, high = float(slab.min()), float(slab.max())
    where = f"between z={z0} and z={z0 + slab.shape[-3]}"
    if np.isnan(low) or np.isnan(high):
        msg = (
            f"image holds NaN {where}; replace it (for example by 0) before inference, "
            "a network spreads one NaN over its whole window"
        )
        raise VolumeFormatError(msg)
    if low < 0 or high > 1:
        msg = (
            f"float image must lie in [0, 1], got values from {low:.4g} to {high:.4g} {where}; "
            "divide by the dtype's maximum (255 or 65535), never by the crop's own"
        )
        raise VolumeFormatError(msg)


def cut_window(
    slab: npt.NDArray[Any], y0: int, x0: int, roi_zyx: tuple[int, int, int]
) -> npt.NDArray[Any]:
    """Return the window at row y0, column x0 of the slab, mirrored outward where it is too small.

    Mirroring (edge voxel repeated) continues the grey level and texture: a black margin would show
    the network a border that is not there.
    """
    window = slab[..., y0 : y0 + roi_zyx[1], x0 : x0 + roi_zyx[2]]
    if window.shape[-3:] == roi_zyx:
        return window
    pad = [(0, want - have) for want, have in zip(roi_zyx, window.shape[-3:], strict=True)]
    return np.pad(window, [(0, 0)] * (window.ndim - 3) + pad, mode="symmetric")
