"""Training points of a heart over its labels: the check that no number replaces."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from vesuvius.errors import ConfigError
from vesuvius.pictures import layout, style
from vesuvius.pictures.hearts import COLOURS

Floats = npt.NDArray[np.floating]
SURFACE, INSIDE, OUTSIDE = "white", "magenta", "#4aa3ff"
_AXES = ("x", "y", "z")


def draw_heart_points(
    labels: npt.NDArray[np.uint8],
    surface: Floats,
    volume: Floats,
    inside: npt.NDArray[np.bool_],
    path: Path,
    *,
    axis: int = 2,
    position: float = 0.0,
    class_names: Sequence[str],
    title: str,
) -> Path:
    """Write a PNG: a slice of the labels, and the same with the points near it.

    Args:
        labels: (r, r) true labels of the slice at `position`, first the lower of the other axes.
        surface: (n, 3) surface points in the cube (white).
        volume: (m, 3) volume points.
        inside: (m,) which of them lie inside (magenta, else blue).
        path: PNG.
        axis: across the slice, 0, 1 or 2.
        position: of the slice along it, -1 to 1.
        class_names: of labels 1..K.
        title: heading.

    Raises:
        ConfigError: an axis other than 0, 1, 2, a position outside the cube.
        StorageError: the picture cannot be written.
    """
    if axis not in (0, 1, 2) or not -1 <= position <= 1:
        raise ConfigError(f"axis is {axis}, position {position}; expected 0, 1 or 2, -1 to 1")
    others = [a for a in range(3) if a != axis]
    edge_in = 5.0
    figure, cells = layout.cell_grid([edge_in], edge_in, ["label map", "with training points"])
    colours = [style.hex_colour(COLOURS[(c - 1) % len(COLOURS)]) for c in range(1, 128)]
    image = np.zeros((*labels.shape, 3), np.uint8) + np.uint8(24)
    for c in range(1, len(class_names) + 1):
        image[labels == c] = COLOURS[(c - 1) % len(COLOURS)]
    for axes in cells[0]:
        axes.imshow(image.transpose(1, 0, 2), origin="lower", extent=(-1, 1, -1, 1))
    thickness = 0.012  # of the layer whose points are drawn, cube units
    for points, colour in (
        (volume[~inside], OUTSIDE),
        (volume[inside], INSIDE),
        (surface, SURFACE),
    ):
        _scatter(
            cells[0][1], points[np.abs(points[:, axis] - position) < thickness], others, colour
        )
    layout.heading(figure, title, f"slice at {_AXES[axis]} = {position:+.2f} of the cube")
    there = [c for c in range(1, len(class_names) + 1) if (labels == c).any()]
    handles = [Patch(color=colours[c - 1], label=class_names[c - 1]) for c in there]
    handles.append(Patch(facecolor=SURFACE, edgecolor="grey", label="surface point"))
    handles += [Patch(color=INSIDE, label="inside"), Patch(color=OUTSIDE, label="outside")]
    figure.legend(handles=handles, loc="lower center", ncols=7, frameon=False, fontsize=9)
    return style.save_figure(figure, path)


def _scatter(axes: Axes, points: Floats, others: Sequence[int], colour: str) -> None:
    axes.scatter(points[:, others[0]], points[:, others[1]], s=2.0, c=colour, linewidths=0)
