"""A scored volume that went wrong: three planes of label, prediction and where they disagree."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.patches import Patch

from vesuvius.pictures import layout, style
from vesuvius.types import IGNORE

_CELL_PX = 380
_COLUMNS = ("Label", "Prediction", "Disagreement")


def worst_panel(
    path: Path,
    mask: npt.NDArray[np.generic],
    label: npt.NDArray[np.generic],
    *,
    title: str = "",
    facts: str = "",
) -> Path:
    """Write the three planes with most disagreement, one along each axis, as a PNG.

    Args:
        path: PNG to write; its folder is made.
        mask: (z, y, x) prediction; non-zero is surface, NaN is background.
        label: (z, y, x) of 0 background, 1 surface, 2 ignore.
        title: heading, e.g. the volume's name.
        facts: line below the heading, e.g. the scores.

    Returns:
        The PNG's path.

    Raises:
        ShapeMismatchError: if the volumes differ in shape or are not 3-D.
        StorageError: if the file cannot be written.
    """
    style.check_same_shape("label", label=label, mask=mask)
    predicted = np.nan_to_num(mask) != 0
    wrong = (predicted != (label != 0)) & (label != IGNORE)
    planes = [_worst_plane(wrong, axis) for axis in range(3)]
    side = max(label.shape)
    scale = layout.inches_per_voxel(side, target_px=_CELL_PX)
    heights = [max(np.take(label, 0, axis=axis).shape[0] * scale, 1.0) for axis in range(3)]
    figure, cells = layout.cell_grid(heights, side * scale, _COLUMNS)
    for axis, index in enumerate(planes):
        truth, own = np.take(label, index, axis=axis), np.take(predicted, index, axis=axis)
        grey = np.full((*truth.shape, 3), style.LABEL_BACKGROUND, np.uint8)
        verdict = style.verdict_rgb(np.full_like(grey, 48), truth, own)
        own_rgb = style.paint(grey, own, style.LABEL, alpha=1.0)
        for cell, rgb in zip(cells[axis], (style.label_rgb(truth), own_rgb, verdict), strict=True):
            cell.imshow(rgb, interpolation="auto")
        cells[axis][0].set_ylabel(f"{'zyx'[axis]} = {index}", fontsize=11, color=style.INK)
    layout.heading(figure, title or "Worst planes", facts)
    layout.legend(figure, _legend(with_ignore=bool((label == IGNORE).any())))
    return style.save_figure(figure, path)


def _worst_plane(wrong: npt.NDArray[np.bool_], axis: int) -> int:
    """Return the index along `axis` with most disagreement; the middle if there is none."""
    others = tuple(other for other in range(3) if other != axis)
    counts = wrong.sum(axis=others)
    return int(counts.argmax()) if counts.any() else wrong.shape[axis] // 2


def _legend(*, with_ignore: bool) -> list[Patch]:
    surface = Patch(color=style.hex_colour(style.LABEL), label="surface")
    entries = [surface, *style.verdict_legend(with_ignore=with_ignore)]
    if with_ignore:
        entries.insert(1, Patch(color=style.hex_colour(style.LABEL_IGNORE), label="ignored"))
    return entries
