"""Slices of a whole volume: with probability and mask, and the label check of `verify`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.patches import Patch

from vesuvius.errors import ConfigError
from vesuvius.pictures import layout, style
from vesuvius.types import BACKGROUND, IGNORE, SURFACE

_CELL_PX = 380


def slice_panel(
    path: Path,
    image: npt.NDArray[np.generic],
    probability: npt.NDArray[np.generic],
    mask: npt.NDArray[np.generic],
    label: npt.NDArray[np.generic] | None = None,
    *,
    title: str = "",
    indices: Sequence[int] | None = None,
    axis: int = 0,
) -> Path:
    """Write slices of a volume with its probability and mask as a PNG; return the path.

    One row per slice; columns are the image, the probability and the mask painted on the image.
    With a label the mask is painted by verdict (found, missed, false, not scored); without one in
    a single colour.

    Args:
        path: PNG to write; its folder is made.
        image: (z, y, x) grey values, any dtype.
        probability: (z, y, x), [0, 1] as float or 0 to 255 as uint8.
        mask: (z, y, x), non-zero is surface.
        label: (z, y, x) of 0 background, 1 surface, 2 ignore; None where there is none.
        title: heading.
        indices: slices along `axis`; by default those at 1/4, 1/2 and 3/4.
        axis: 0 axial (z), 1 coronal (y), 2 sagittal (x).

    Raises:
        ShapeMismatchError: if the volumes differ in shape or are not 3-D.
        ConfigError: if an index lies outside the volume.
        StorageError: if the file cannot be written.
    """
    style.check_same_shape("image", image=image, probability=probability, mask=mask, label=label)
    chosen = _slices(image.shape[axis], indices)
    columns = ["Image", "Probability", "Mask" if label is None else "Mask against label"]
    cell_height, cell_width = _cells(_plane_shape(image, axis))
    figure, cells = layout.cell_grid([cell_height] * len(chosen), cell_width, columns)
    window = style.grey_window(image)
    scale = 255.0 if probability.dtype == np.uint8 else 1.0
    for row, index in enumerate(chosen):
        grey = style.grey_rgb(np.take(image, index, axis=axis), window)
        on = np.take(mask, index, axis=axis) != 0
        heat = np.take(probability, index, axis=axis).astype(np.float32) / scale
        painted = (
            style.paint(grey, on, style.LABEL, alpha=0.55)
            if label is None
            else style.verdict_rgb(grey, np.take(label, index, axis=axis), on)
        )
        cells[row][0].imshow(grey, interpolation="auto")
        cells[row][1].imshow(heat, cmap=style.HEAT, vmin=0.0, vmax=1.0, interpolation="auto")
        cells[row][2].imshow(painted, interpolation="auto")
        cells[row][0].set_ylabel(f"{'zyx'[axis]} = {index}", fontsize=11, color=style.INK)
    share = float((mask != 0).mean())
    facts = f"{' x '.join(map(str, image.shape))} voxels   mask {share:.1%} of voxels"
    layout.heading(figure, title or "Prediction", facts)
    layout.legend(figure, _mask_legend(label))
    layout.probability_bar(figure, threshold=0.5)
    return style.save_figure(figure, path)


def label_panel(
    path: Path,
    label: npt.NDArray[np.generic],
    *,
    image: npt.NDArray[np.generic] | None = None,
    title: str = "",
    index: int | None = None,
) -> Path:
    """Write one axial slice of a label: all values, surface alone, ignore alone; return the path.

    Args:
        path: PNG to write; its folder is made.
        label: (z, y, x) of 0 background, 1 surface, 2 ignore.
        image: (z, y, x) grey values; when given it is the first column.
        title: heading, e.g. the volume's name.
        index: slice; the middle by default.

    Raises:
        ShapeMismatchError: if the volumes differ in shape or are not 3-D.
        ConfigError: if the index lies outside the volume.
        StorageError: if the file cannot be written.
    """
    style.check_same_shape("label", label=label, image=image)
    z = _slices(label.shape[0], [label.shape[0] // 2 if index is None else index])[0]
    plane = label[z]
    pictures = [("Labels", style.label_rgb(plane))]
    for name, value in (("Surface", SURFACE), ("Ignore", IGNORE)):
        only = np.where(plane == value, value, BACKGROUND)
        pictures.append((name, style.label_rgb(only)))
    if image is not None:
        pictures.insert(0, ("Image", style.grey_rgb(image[z], style.grey_window(image))))
    cell_height, cell_width = _cells(plane.shape)
    figure, cells = layout.cell_grid([cell_height], cell_width, [name for name, _ in pictures])
    for axes, (_, rgb) in zip(cells[0], pictures, strict=True):
        axes.imshow(rgb, interpolation="auto")
    cells[0][0].set_ylabel(f"z = {z}", fontsize=11, color=style.INK)
    names = {BACKGROUND: "background", SURFACE: "surface", IGNORE: "ignore"}
    shares = "   ".join(f"{name} {float((label == v).mean()):.1%}" for v, name in names.items())
    size = " x ".join(map(str, label.shape))
    layout.heading(figure, title or "Label", f"all {size} voxels: {shares}")
    colours = (style.LABEL_BACKGROUND, style.LABEL, style.LABEL_IGNORE)
    layout.legend(
        figure,
        [
            Patch(color=style.hex_colour(colour), label=name)
            for colour, name in zip(colours, names.values(), strict=True)
        ],
    )
    return style.save_figure(figure, path)


def _slices(size: int, indices: Sequence[int] | None) -> list[int]:
    chosen = [size // 4, size // 2, 3 * size // 4] if indices is None else list(indices)
    for index in chosen:
        if not 0 <= index < size:
            raise ConfigError(
                f"picture: slice {index} is outside the volume; expected 0 to {size - 1} in "
                "argument 'indices'."
            )
    return sorted(set(chosen))


def _plane_shape(image: npt.NDArray[Any], axis: int) -> tuple[int, int]:
    height, width = (size for other, size in enumerate(image.shape) if other != axis)
    return height, width


def _cells(plane_shape: tuple[int, ...]) -> tuple[float, float]:
    """Return height and width in inches of the cell of a plane; never a sliver."""
    scale = layout.inches_per_voxel(max(plane_shape), target_px=_CELL_PX)
    height, width = (max(size * scale, 1.0) for size in plane_shape)
    return height, width


def _mask_legend(label: npt.NDArray[np.generic] | None) -> list[Patch]:
    if label is None:
        return [Patch(color=style.hex_colour(style.LABEL), label="predicted mask")]
    return style.verdict_legend(with_ignore=bool((label == IGNORE).any()))
