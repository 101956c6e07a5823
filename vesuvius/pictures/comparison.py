"""The per-epoch panel: three planes of one crop, each as input, label, probability and overlay."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vesuvius.errors import ShapeMismatchError
from vesuvius.pictures import layout, style
from vesuvius.types import IGNORE, SURFACE

PLANES = ("axial", "coronal", "sagittal")
"""Planes normal to axes 0, 1, 2 (z, y, x)."""
COLUMNS = ("Input", "Label", "Probability", "Overlay")
_AXIS_NAMES = "zyx"
_CELL_PX = 300


@dataclass(frozen=True)
class _Crop:
    """One crop as NumPy volumes (z, y, x), normals (3, z, y, x) or None."""

    image: npt.NDArray[np.generic]
    label: npt.NDArray[np.generic]
    probability: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32] | None
    threshold: float
    window: tuple[float, float]


def best_slice(
    label: npt.NDArray[np.generic], probability: npt.NDArray[np.floating[Any]], *, axis: int
) -> int:
    """Return the index along `axis` of the plane with most labelled surface.

    Where the label (z, y, x) has no surface, the plane with the largest summed probability is
    taken; of equal planes the one nearest the middle.
    """
    others = tuple(a for a in range(3) if a != axis)
    score = np.asarray((label == SURFACE).sum(axis=others), dtype=np.float64)
    if not score.any():
        score = np.asarray(probability, dtype=np.float64).sum(axis=others)
    candidates = np.flatnonzero(score == score.max())
    return int(candidates[np.argmin(np.abs(candidates - (len(score) - 1) / 2))])


def comparison_panel(
    path: Path,
    *,
    image: npt.NDArray[np.generic],
    label: npt.NDArray[np.generic],
    probability: npt.NDArray[np.floating[Any]],
    normals: npt.NDArray[np.floating[Any]] | None = None,
    title: str = "",
    threshold: float = 0.5,
) -> Path:
    """Write the panel of one crop as a PNG and return its path.

    Rows are the axial, coronal and sagittal plane with most labelled surface; columns are the
    input, the label (ignore grey), the probability and the overlay of found, missed and false
    surface. The Dice in the title is that of the whole crop at the threshold without ignored
    voxels. The file is written atomically.

    Args:
        path: PNG to write; its folder is made.
        image: (z, y, x) grey values, any dtype.
        label: (z, y, x), 0 background, 1 surface, 2 ignore.
        probability: (z, y, x) in [0, 1].
        normals: (3, z, y, x) ordered (nz, ny, nx); drawn as ticks on the probability.
        title: heading, e.g. "epoch 3 - volume 0007".
        threshold: probability from which a voxel counts as surface.

    Raises:
        ShapeMismatchError: if the volumes differ in shape or are not 3-D.
        StorageError: if the file cannot be written.
    """
    style.check_same_shape("image", image=image, label=label, probability=probability)
    if normals is not None and normals.shape != (3, *image.shape):
        raise ShapeMismatchError(
            f"picture: argument 'normals' has shape {normals.shape}; expected "
            f"{(3, *image.shape)}, the image's shape after 3 components (nz, ny, nx)."
        )
    crop = _Crop(
        image=image,
        label=label,
        probability=np.asarray(probability, dtype=np.float32),
        normals=None if normals is None else np.asarray(normals, dtype=np.float32),
        threshold=threshold,
        window=style.grey_window(image),
    )
    return style.save_figure(_draw(crop, title), path)


def _draw(crop: _Crop, title: str) -> Figure:
    depth, height, width = crop.image.shape
    plane_sizes = [(height, width), (depth, width), (depth, height)]
    scale = layout.inches_per_voxel(max(crop.image.shape), target_px=_CELL_PX)
    figure, cells = layout.cell_grid(
        [max(h * scale, 0.9) for h, _ in plane_sizes],
        max(w for _, w in plane_sizes) * scale,
        COLUMNS,
    )
    for axis, row in enumerate(cells):
        for column, axes in enumerate(row):
            _draw_cell(axes, crop, axis=axis, column=column)
    _caption(figure, crop, title)
    return figure


def _draw_cell(axes: Axes, crop: _Crop, *, axis: int, column: int) -> None:
    index = best_slice(crop.label, crop.probability, axis=axis)
    label = np.take(crop.label, index, axis=axis)
    probability = np.take(crop.probability, index, axis=axis)
    grey = style.grey_rgb(np.take(crop.image, index, axis=axis), crop.window)
    if column == 0:
        axes.imshow(grey, interpolation="auto")
        axes.set_ylabel(
            f"{PLANES[axis]}, {_AXIS_NAMES[axis]} = {index}", color=style.INK, fontsize=11
        )
    elif column == 1:
        axes.imshow(style.label_rgb(label), interpolation="auto")
    elif column == 2:
        axes.imshow(probability, cmap=style.HEAT, vmin=0.0, vmax=1.0, interpolation="auto")
        if crop.normals is not None:
            _draw_normals(axes, crop, probability=probability, axis=axis, index=index)
    else:
        verdict = style.verdict_rgb(grey, label, probability >= crop.threshold)
        axes.imshow(verdict, interpolation="auto")


def _draw_normals(
    axes: Axes, crop: _Crop, *, probability: npt.NDArray[np.float32], axis: int, index: int
) -> None:
    """Draw the in-plane part of the normals as short ticks, one at most per grid cell."""
    assert crop.normals is not None
    step = max(3, round(max(probability.shape) / 16))
    height, width = probability.shape
    peaks = []
    for row in range(0, height, step):  # the likeliest voxel of each cell: ticks sit on sheets
        for column in range(0, width, step):
            cell = probability[row : row + step, column : column + step]
            i, j = np.unravel_index(int(np.argmax(cell)), cell.shape)
            if cell[i, j] >= crop.threshold:
                peaks.append((row + int(i), column + int(j)))
    if not peaks:
        return
    rows, columns = np.asarray(peaks).T
    kept = [component for component in range(3) if component != axis]
    plane = np.take(crop.normals, index, axis=axis + 1)
    vertical, horizontal = plane[kept[0]][rows, columns], plane[kept[1]][rows, columns]
    axes.quiver(
        columns, rows, horizontal, vertical,
        angles="xy", scale_units="xy", scale=1.0 / (0.8 * step), pivot="mid",
        headwidth=0, headlength=0, headaxislength=0, width=0.01, color=style.TICK,
    )  # fmt: skip


def _caption(figure: Figure, crop: _Crop, title: str) -> None:
    score = style.dice(crop.label, crop.probability >= crop.threshold)
    text = "Dice n/a (no surface)" if math.isnan(score) else f"Dice {score:.3f}"
    labelled = crop.label != IGNORE
    num_labelled = max(1, int(labelled.sum()))
    surface = int((crop.label == SURFACE).sum()) / num_labelled
    predicted = int(((crop.probability >= crop.threshold) & labelled).sum()) / num_labelled
    facts = (
        f"crop {' x '.join(map(str, crop.image.shape))}   of labelled voxels: "
        f"surface {surface:.1%}, predicted {predicted:.1%} at threshold {crop.threshold:g}"
    )
    layout.heading(figure, f"{title}   |   {text}" if title else text, facts)
    with_ignore = bool((crop.label == IGNORE).any())
    handles = [Patch(color=style.hex_colour(style.LABEL), label="labelled surface")]
    if with_ignore:
        handles.append(Patch(color=style.hex_colour(style.LABEL_IGNORE), label="ignored"))
    layout.legend(figure, handles + style.verdict_legend(with_ignore=with_ignore))
    layout.probability_bar(figure, threshold=crop.threshold)
