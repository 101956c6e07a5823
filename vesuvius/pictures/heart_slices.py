"""A slice of a heart: label map, prediction, both outlines, what is missing or too much."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.patches import Patch

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.pictures import layout, style
from vesuvius.pictures.hearts import COLOURS

Labels = npt.NDArray[np.uint8]

TRUTH, FOUND, BOTH = (60, 190, 90), (225, 60, 60), (245, 215, 60)
CLASS_ERROR = (120, 120, 235)
_DARK = 24
_AXES = ("x", "y", "z")
_PANELS = ("label map", "prediction", "whole heart", "difference")


def draw_heart_slices(
    truth: Labels, found: Labels, path: Path, *, class_names: Sequence[str], axis: int = 2
) -> Path:
    """Write a PNG of four panels of the slice in which the true heart is largest.

    Label map; prediction; the whole heart, green where only the truth has it, red where only the
    prediction does, yellow where both do; difference: the same without what agrees, blue inside
    both but of another class.

    Args:
        truth: (x, y, z) labels 0..K.
        found: of the same shape.
        path: PNG.
        class_names: of labels 1..K.
        axis: across the slice, 0, 1 or 2.

    Raises:
        ShapeMismatchError: the shapes differ.
        ConfigError: another axis.
        StorageError: the file cannot be written.
    """
    if truth.shape != found.shape or truth.ndim != 3:
        raise ShapeMismatchError(
            f"truth {truth.shape}, prediction {found.shape}; expected the same (x, y, z)"
        )
    if axis not in (0, 1, 2):
        raise ConfigError(f"axis is {axis}; expected 0, 1 or 2")
    others = tuple(a for a in range(3) if a != axis)
    number = int(np.count_nonzero(truth, axis=others).argmax())
    a, b = (np.asarray(np.take(grid, number, axis), np.uint8) for grid in (truth, found))
    pictures = (_coloured(a), _coloured(b), _overlay(a, b), _difference(a, b))
    width, (columns, rows) = 4.0, (a.shape[0], a.shape[1])
    figure, cells = layout.cell_grid([width * rows / columns], width, list(_PANELS))
    for axes, picture in zip(cells[0], pictures, strict=True):
        axes.imshow(picture.transpose(1, 0, 2), origin="lower", interpolation="nearest")
    layout.heading(figure, path.stem, f"slice {number} across {_AXES[axis]}")
    there = [c for c in range(1, len(class_names) + 1) if (a == c).any() or (b == c).any()]
    entries = [(COLOURS[(c - 1) % len(COLOURS)], class_names[c - 1]) for c in there]
    entries += [(TRUTH, "truth only"), (FOUND, "prediction only"), (BOTH, "both")]
    entries += [(CLASS_ERROR, "another class")]
    handles = [Patch(color=style.hex_colour(colour), label=text) for colour, text in entries]
    figure.legend(handles=handles, loc="lower center", ncols=7, frameon=False, fontsize=9)
    return style.save_figure(figure, path)


def _coloured(labels: Labels) -> npt.NDArray[np.uint8]:
    palette = np.full((256, 3), _DARK, np.uint8)
    for c in range(1, 256):
        palette[c] = COLOURS[(c - 1) % len(COLOURS)]
    image: npt.NDArray[np.uint8] = palette[labels]
    return image


def _overlay(a: Labels, b: Labels) -> npt.NDArray[np.uint8]:
    image = np.full((*a.shape, 3), _DARK, np.uint8)
    image[(a > 0) & (b == 0)] = TRUTH
    image[(a == 0) & (b > 0)] = FOUND
    image[(a > 0) & (b > 0)] = BOTH
    return image


def _difference(a: Labels, b: Labels) -> npt.NDArray[np.uint8]:
    image = _overlay(a, b)
    both = (a > 0) & (b > 0)
    image[both] = _DARK
    image[both & (a != b)] = CLASS_ERROR
    return image
