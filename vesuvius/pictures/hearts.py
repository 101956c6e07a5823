"""Pictures of labelled hearts: the surfaces of all classes together and one by one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.errors import ShapeMismatchError
from vesuvius.pictures import raycast, style

LabelGrid = npt.NDArray[np.uint8]

COLOURS = (
    (196, 78, 62), (232, 152, 86), (214, 40, 70), (86, 140, 196), (52, 92, 168),
    (230, 90, 120), (72, 170, 190), (240, 196, 92), (250, 230, 70), (150, 118, 190),
)  # fmt: skip
"""Of classes 1, 2, ...: arterial side warm, venous side cold."""
_ISO = 0.45
_BLUR_VOXELS = 0.6
_VIEW = (-70.0, 15.0)
"""Azimuth and elevation in degrees: from the front, a little aside and above."""


def draw_hearts(
    rows: Sequence[tuple[str, LabelGrid]],
    class_names: Sequence[str],
    path: Path,
    *,
    size: int = 260,
) -> Path:
    """Write a PNG: a row per heart, its classes together in front, then each by itself.

    Args:
        rows: name and (x, y, z) labels 0..K, x to the right, y to the front, z up; equal shapes.
        class_names: of classes 1..K.
        path: PNG.
        size: pixels of a panel.

    Raises:
        ShapeMismatchError: the grids differ in shape or are not three-dimensional.
        StorageError: the file cannot be written.
    """
    shapes = {grid.shape for _, grid in rows}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise ShapeMismatchError(
            f"label grids have shapes {sorted(shapes)}; expected one of 3 axes"
        )
    box = _foreground([grid for _, grid in rows])
    columns = len(class_names) + 1
    side = size / style.DPI
    figure = style.new_figure(columns * side + 0.1, len(rows) * (side + 0.25) + 0.3)
    width, height = figure.get_size_inches()
    for line, (name, grid) in enumerate(rows):
        scene = _Scene(grid[box])
        for column in range(columns):
            chosen = range(1, columns) if column == 0 else (column,)
            axes = figure.add_axes(
                (
                    (column * side + 0.05) / width,
                    1 - (0.3 + (line + 1) * (side + 0.25) - 0.25) / height,
                    side / width,
                    side / height,
                )
            )
            axes.axis("off")
            axes.imshow(scene.render(chosen, size=size))
            title = name if column == 0 else class_names[column - 1]
            axes.set_title(title, fontsize=9, color=style.INK, pad=2)
    return style.save_figure(figure, path)


def _foreground(grids: Sequence[LabelGrid]) -> tuple[slice, slice, slice]:
    """Return the box that holds every class of every heart; everything if there is none."""
    found = ndimage.find_objects(np.any([grid > 0 for grid in grids], 0).astype(np.uint8))
    if not found:
        return (slice(None), slice(None), slice(None))
    x, y, z = found[0]
    return (x, y, z)


class _Scene:
    """One heart seen by one camera; axes are turned to (z, y, x) for the ray caster."""

    def __init__(self, grid: LabelGrid) -> None:
        self.labels = np.ascontiguousarray(np.pad(grid, 1).transpose(2, 1, 0))
        azimuth, elevation = _VIEW
        self.camera = raycast.look_at(
            self.labels.shape, azimuth_deg=azimuth, elevation_deg=elevation
        )
        palette = np.zeros((256, 3), np.uint8)
        for number in range(1, 256):
            palette[number] = COLOURS[(number - 1) % len(COLOURS)]
        self.palette = palette

    def render(self, classes: Sequence[int], *, size: int) -> npt.NDArray[np.uint8]:
        mask = np.isin(self.labels, list(classes))
        if not mask.any():
            return np.zeros((size, size, 4), np.uint8)
        field = ndimage.gaussian_filter(mask.astype(np.float32), _BLUR_VOXELS, mode="constant")
        index = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
        colours = self.palette[self.labels[tuple(index)]]
        return raycast.render(field, colours, self.camera, iso=_ISO, size=size)
