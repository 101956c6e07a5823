"""The page of a panel: a grid of image cells under a heading, above a legend and a colour bar."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vesuvius.pictures import style

GAP_IN = 0.12
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN = 0.62, 0.25, 0.95, 0.75
_MIN_WIDTH_IN = 10.2
"""Room for heading and legend above and below narrow volumes."""


def inches_per_voxel(largest_side: int, *, target_px: int) -> float:
    """Return the drawn size of a voxel: a whole number of pixels, so that edges stay crisp.

    Planes larger than twice the target are shrunk to it and smoothed by matplotlib.
    """
    if largest_side > 2 * target_px:
        return 2 * target_px / largest_side / style.DPI
    return max(1, round(target_px / largest_side)) / style.DPI


def cell_grid(
    row_heights_in: Sequence[float], column_width_in: float, columns: Sequence[str]
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure and its axes[row][column] of the given sizes in inches, columns titled."""
    width = _LEFT_IN + len(columns) * (column_width_in + GAP_IN) - GAP_IN + _RIGHT_IN
    width = max(width, _MIN_WIDTH_IN)
    height = _TOP_IN + sum(row_heights_in) + (len(row_heights_in) - 1) * GAP_IN + _BOTTOM_IN
    figure = style.new_figure(width, height)
    cells: list[list[Axes]] = []
    bottom = height - _TOP_IN + GAP_IN
    for row, row_height in enumerate(row_heights_in):
        bottom -= row_height + GAP_IN
        cells.append([])
        for column, name in enumerate(columns):
            left = _LEFT_IN + column * (column_width_in + GAP_IN)
            axes = figure.add_axes(
                (left / width, bottom / height, column_width_in / width, row_height / height)
            )
            if row == 0:
                axes.set_title(name, fontsize=12, color=style.INK, pad=6)
            style.bare(axes)
            cells[row].append(axes)
    return figure, cells


def heading(figure: Figure, title: str, facts: str) -> None:
    """Write a bold title and a grey line of facts above the cells."""
    width, height = figure.get_size_inches()
    left = _LEFT_IN / width
    figure.text(
        left, 1 - 0.33 / height, title, fontsize=14, color=style.INK, weight="bold", va="center"
    )
    figure.text(left, 1 - 0.6 / height, facts, fontsize=10, color=style.MUTED, va="center")


def legend(figure: Figure, handles: list[Patch]) -> None:
    """Place a one-line legend below the cells, at the left."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=handles, loc="center left", ncols=len(handles), frameon=False,
        bbox_to_anchor=(_LEFT_IN / width - 0.006, 0.34 / height),
        fontsize=10, handlelength=1.1, handleheight=1.1, columnspacing=1.4, labelcolor=style.INK,
    )  # fmt: skip


def probability_bar(figure: Figure, *, threshold: float) -> None:
    """Place the colour bar of probabilities below the cells, at the right."""
    width, height = figure.get_size_inches()
    left = 1 - (_RIGHT_IN + 2.0) / width
    bar = figure.add_axes((left, 0.36 / height, 2.0 / width, 0.13 / height))
    mappable = ScalarMappable(cmap=style.HEAT)
    mappable.set_clim(0.0, 1.0)
    figure.colorbar(mappable, cax=bar, orientation="horizontal", ticks=[0, threshold, 1])
    bar.tick_params(labelsize=9, colors=style.INK, length=2, pad=2)
    bar.set_ylabel("probability", rotation=0, ha="right", va="center", fontsize=10, labelpad=6)
