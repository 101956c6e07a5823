"""All sheets of a numbered volume in one picture, coloured by number, cut into terraces."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from scipy import ndimage

from vesuvius.pictures import raycast, style
from vesuvius.types import FloatVolume, LabelVolume

_LARGEST_SIDE = 256
_PICTURE_PX = 760
_ISO = 0.35  # of the blurred mask: rounds the voxel steps off, sheets of two voxels stay whole
_BLUR_VOXELS = 0.8
_MAP = "turbo"
_LOWEST = 0.3
"""The sheet nearest to the eye is cut down to this share of the height."""


def draw_sheets(path: Path, *, labels: LabelVolume, field: FloatVolume, title: str = "") -> Path:
    """Write a picture of all sheets seen along the rising field, the nearer ones cut lower.

    Args:
        path: PNG to write; its folder is made.
        labels: (z, y, x) sheet numbers, 0 = none.
        field: (z, y, x) winding field: the eye stands where it is highest.
        title: heading.

    Raises:
        ShapeMismatchError: the volumes differ in shape or are not 3-D.
        StorageError: the file cannot be written.
    """
    style.check_same_shape("labels", labels=labels, field=field)
    azimuth = _from_above(field)
    numbers = _shrunk(labels)
    last = max(int(numbers.max()), 1)
    height = 1.0 - (1.0 - _LOWEST) * (numbers - 1) / max(last - 1, 1)  # share of the z axis
    layer = (np.arange(numbers.shape[0]) / max(numbers.shape[0] - 1, 1))[:, None, None]
    numbers = np.where(layer <= height, numbers, 0)
    solid = ndimage.gaussian_filter((numbers > 0).astype(np.float32), _BLUR_VOXELS, mode="constant")
    nearest = ndimage.maximum_filter(numbers, 3)  # a ray ends in front of its sheet's first voxel
    scale = Normalize(1, max(last, 2))
    camera = raycast.look_at(numbers.shape, azimuth_deg=azimuth, elevation_deg=35.0)
    picture = raycast.render(
        solid, _colours(np.where(numbers > 0, numbers, nearest), scale), camera,
        iso=_ISO, size=_PICTURE_PX,
    )  # fmt: skip
    side = _PICTURE_PX / style.DPI
    figure = style.new_figure(side + 0.9, side + 0.6)
    axes = figure.add_axes((0.0, 0.0, side / (side + 0.9), side / (side + 0.6)))
    axes.imshow(picture)
    axes.set_axis_off()
    bar = figure.add_axes((side / (side + 0.9), 0.15, 0.22 / (side + 0.9), 0.6))
    figure.colorbar(ScalarMappable(scale, _MAP), cax=bar, label="sheet number")
    size = " x ".join(map(str, labels.shape))
    present = np.count_nonzero(np.bincount(labels.ravel())[1:])
    heading = f"{title}   |   " if title else ""
    figure.text(
        0.02, 0.98, f"{heading}{present} sheets, {size} voxels (z, y, x)", fontsize=13,
        color=style.INK, weight="bold", va="top",
    )  # fmt: skip
    return style.save_figure(figure, path)


def _from_above(field: FloatVolume) -> float:
    """Return the azimuth in degrees that looks down the field, turned aside by 25 degrees."""
    y = float(np.mean(field[:, -1]) - np.mean(field[:, 0]))
    x = float(np.mean(field[:, :, -1]) - np.mean(field[:, :, 0]))
    return float(np.degrees(np.arctan2(-y, -x))) + 25.0


def _shrunk(labels: LabelVolume) -> LabelVolume:
    """Return the labels reduced by a whole factor (the highest number of a block counts)."""
    factor = -(-max(labels.shape) // _LARGEST_SIDE)
    padded = np.pad(labels, [(0, -n % factor) for n in labels.shape])
    z, y, x = (n // factor for n in padded.shape)
    out: LabelVolume = padded.reshape(z, factor, y, factor, x, factor).max((1, 3, 5))
    return out


def _colours(numbers: LabelVolume, scale: Normalize) -> npt.NDArray[np.uint8]:
    """Return (z, y, x, 3) uint8 colours; every second number darker, so that neighbours differ."""
    table = mpl.colormaps[_MAP](scale(np.arange(int(numbers.max()) + 1)))[:, :3]
    table[::2] *= 0.8
    colours: npt.NDArray[np.uint8] = np.rint(255 * table).astype(np.uint8)[numbers]
    return colours
