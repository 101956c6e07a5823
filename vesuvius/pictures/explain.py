"""Where a volume lost its score, drawn: an overview and a close-up of the costliest places."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vesuvius.pictures import layout, style
from vesuvius.types import IGNORE

Triple = tuple[int, int, int]
COLOURS = {
    "component": "#e69f00",
    "tunnel": "#cc79a7",
    "cavity": "#56b4e9",
    "merge": "#f0e442",
    "split": "#ffffff",
}
"""Colour of the marker of each kind of event."""
_CLOSE_UPS = 8
_HALF = 24
"""Half the side of a close-up in voxels."""
_GREY = 48


class Place(Protocol):
    """What is drawn of an event (`vesuvius.metrics.explain_events.Event`)."""

    @property
    def kind(self) -> str:
        """Key of COLOURS."""
        ...

    @property
    def side(self) -> str:
        """Whose feature it is."""
        ...

    @property
    def centre_zyx(self) -> Triple:
        """Voxel in its middle."""
        ...

    @property
    def low_zyx(self) -> Triple:
        """First voxel of its box."""
        ...

    @property
    def high_zyx(self) -> Triple:
        """Last voxel of its box."""
        ...

    @property
    def voxels(self) -> int:
        """Its size."""
        ...

    @property
    def bits(self) -> float:
        """VOI it costs."""
        ...


def worst_places(events: Sequence[Place], count: int = _CLOSE_UPS) -> list[Place]:
    """Return the events to look at: kinds in turn, the costliest (bits, then voxels) first."""
    queues = {
        kind: sorted(
            (event for event in events if event.kind == kind),
            key=lambda event: (-event.bits, -event.voxels),
        )
        for kind in ("merge", "split", "component", "tunnel", "cavity")
    }
    chosen: list[Place] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


def explain_panel(
    path: Path,
    mask: npt.NDArray[np.generic],
    label: npt.NDArray[np.generic],
    events: Sequence[Place],
    *,
    title: str = "",
    facts: str = "",
) -> Path:
    """Write a PNG: three planes with all events marked, then close-ups of the costliest.

    Args:
        path: PNG to write; its folder is made.
        mask: (z, y, x) prediction; non-zero is surface, NaN is background.
        label: (z, y, x) of 0 background, 1 surface, 2 ignore.
        events: what `vesuvius.metrics.explain.explain` found.
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
    chosen = worst_places(events)
    rows = 1 + -(-max(len(chosen), 1) // 4) if chosen else 1
    figure, cells = layout.cell_grid([3.4, *[3.0] * (rows - 1)], 3.4, ("", "", "", ""))
    for axis, axes in enumerate(cells[0][:3]):
        _draw_overview(axes, predicted, label, events, axis)
    _draw_counts(cells[0][3], events)
    for number in range(4 * (rows - 1)):
        axes = cells[1 + number // 4][number % 4]
        if number < len(chosen):
            _draw_close_up(axes, predicted, label, chosen[number], number + 1)
        else:
            axes.set_axis_off()
    layout.heading(figure, title or "Where the score is lost", facts)
    layout.legend(figure, style.verdict_legend(with_ignore=bool((label == IGNORE).any())))
    return style.save_figure(figure, path)


def _verdict(
    predicted: npt.NDArray[np.bool_], label: npt.NDArray[np.generic], axis: int, index: int
) -> style.RgbImage:
    truth, own = np.take(label, index, axis=axis), np.take(predicted, index, axis=axis)
    return style.verdict_rgb(np.full((*truth.shape, 3), _GREY, np.uint8), truth, own)


def _draw_overview(
    axes: Axes,
    predicted: npt.NDArray[np.bool_],
    label: npt.NDArray[np.generic],
    events: Sequence[Place],
    axis: int,
) -> None:
    """Draw the plane that most events are near, all events of the volume as dots, the blocks."""
    size = label.shape[axis]
    near = np.bincount([event.centre_zyx[axis] for event in events] or [size // 2], minlength=size)
    index = int(np.convolve(near, np.ones(9), "same").argmax())
    axes.imshow(_verdict(predicted, label, axis, index), interpolation="nearest")
    shape = [n for other, n in enumerate(label.shape) if other != axis]
    axes.axhline((shape[0] + 1) // 2 - 0.5, color=style.FRAME, linewidth=0.6)
    axes.axvline((shape[1] + 1) // 2 - 0.5, color=style.FRAME, linewidth=0.6)
    for kind, colour in COLOURS.items():
        places = np.array([e.centre_zyx for e in events if e.kind == kind])
        if not len(places):
            continue
        places = places[np.abs(places[:, axis] - index) <= max(size // 16, 4)]
        row, column = (places[:, other] for other in range(3) if other != axis)
        axes.scatter(column, row, s=14, c=colour, edgecolors=style.INK, linewidths=0.5)
    axes.set_title(f"{'zyx'[axis]} = {index}, events nearby", fontsize=10, color=style.INK)


def _draw_counts(axes: Axes, events: Sequence[Place]) -> None:
    """Write the number of events of each kind, in the marker's colour."""
    axes.set_axis_off()
    handles = []
    for kind, colour in COLOURS.items():
        own = sum(event.kind == kind and event.side == "prediction" for event in events)
        true = sum(event.kind == kind and event.side == "label" for event in events)
        text = {
            "component": f"pieces: {own} extra, {true} lost",
            "tunnel": f"tunnels: {own} extra, {true} lost",
            "cavity": f"cavities: {own} extra, {true} lost",
            "merge": f"merges (VOI): {own} contacts",
            "split": f"splits (VOI): {true} breaks",
        }[kind]
        handles.append(
            Line2D([], [], marker="o", linestyle="", color=colour, markeredgecolor=style.INK,
                   markersize=7, label=text)
        )  # fmt: skip
    axes.legend(handles=handles, loc="center left", frameon=False, fontsize=10, labelspacing=1.0,
                handletextpad=0.3, borderpad=0)  # fmt: skip


def _draw_close_up(
    axes: Axes,
    predicted: npt.NDArray[np.bool_],
    label: npt.NDArray[np.generic],
    event: Place,
    number: int,
) -> None:
    """Draw the plane through an event that shows most of both masks' borders, around it."""
    centre = event.centre_zyx
    axis = _telling_axis(predicted, label, centre)
    rgb = _verdict(predicted, label, axis, centre[axis])
    kept = [other for other in range(3) if other != axis]
    row, column = centre[kept[0]], centre[kept[1]]
    axes.imshow(rgb, interpolation="nearest")
    axes.set_xlim(*_window(column, label.shape[kept[1]]))
    axes.set_ylim(*reversed(_window(row, label.shape[kept[0]])))
    axes.scatter([column], [row], s=170, facecolors="none", edgecolors=COLOURS[event.kind],
                 linewidths=2.0)  # fmt: skip
    z, y, x = centre
    cost = f"{event.bits:.3f} bit" if event.bits else f"{event.voxels} voxels"
    axes.text(
        0.02, 0.98, f"{number}  {event.kind} of {event.side}, {cost}\nz {z}  y {y}  x {x}, plane "
        f"{'zyx'[axis]}",
        transform=axes.transAxes, fontsize=9, color=style.PAPER, va="top",
        bbox={"facecolor": style.INK, "edgecolor": "none", "alpha": 0.75, "pad": 2.0},
    )  # fmt: skip


def _window(at: int, size: int) -> tuple[float, float]:
    """Return the limits of a close-up along one axis: full width inside the volume."""
    width = min(2 * _HALF, size)
    low = min(max(at - width // 2, 0), size - width)
    return low - 0.5, low + width - 0.5


def _telling_axis(
    predicted: npt.NDArray[np.bool_], label: npt.NDArray[np.generic], centre: Triple
) -> int:
    """Return the axis whose plane cuts the sheets most crosswise: with most borders in it."""
    best = []
    for axis in range(3):
        kept = [other for other in range(3) if other != axis]
        window = tuple(slice(max(centre[k] - 8, 0), centre[k] + 9) for k in kept)
        both = np.take(predicted | (label == 1), centre[axis], axis=axis)[window]
        best.append(int(np.abs(np.diff(both.astype(np.int8), axis=0)).sum())
                    + int(np.abs(np.diff(both.astype(np.int8), axis=1)).sum()))  # fmt: skip
    return int(np.argmax(best))
