"""Training curves of a run: loss terms, validation metrics, learning rate, speed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from vesuvius.pictures import history, style

Series = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Positions in epochs and values."""

_STYLES = ("-", "--", ":")
_LEGEND_COLUMNS = 4
_LOG_RATIO = 30.0
"""An axis of positive values that spans more than this is logarithmic."""


def training_curves(csv_path: Path, png_path: Path, *, title: str = "") -> Path:
    """Draw the curves of a metrics CSV and write history.csv and history.json beside the PNG.

    Args:
        csv_path: metrics.csv of Lightning's CSVLogger, or a history.csv.
        png_path: PNG to write; its folder is made.
        title: heading, e.g. the run's name.

    Returns:
        The PNG's path.

    Raises:
        RunFileError: if the CSV is missing or empty.
        StorageError: if a file cannot be written.
    """
    rows = history.read_metrics(csv_path)
    history.write_history(history.epoch_history(rows), Path(png_path).parent)
    return draw_curves(rows, png_path, title=title)


def draw_curves(rows: Sequence[history.Row], png_path: Path, *, title: str = "") -> Path:
    """Draw the four panels of rows with "step" and "epoch"; return the PNG's path.

    Raises:
        StorageError: if the file cannot be written.
    """
    series = _series(rows)
    figure = style.new_figure(13.0, 8.2)
    num_epochs = int(max(row["epoch"] for row in rows)) + 1
    figure.text(
        0.06, 0.957, _heading(rows, num_epochs, title), fontsize=14, color=style.INK,
        weight="bold", va="center",
    )  # fmt: skip
    panels: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("Loss terms, unweighted (line: training, dashed: validation)", _is_loss),
        (
            "Validation metrics (dashed: crops, squares: post-processed)",
            lambda n: n.startswith("val/") and not _is_loss(n),
        ),
        ("Learning rate", lambda n: n == "lr" or n.startswith("lr-") or n.endswith("/lr")),
        ("Training samples per second", lambda n: "samples" in n),
    )
    for number, (name, belongs) in enumerate(panels):
        left, bottom = 0.06 + 0.49 * (number % 2), 0.555 - 0.475 * (number // 2)
        axes = figure.add_axes((left, bottom, 0.43, 0.345))
        _draw_panel(axes, {key: value for key, value in series.items() if belongs(key)}, name)
        axes.set_xlim(0, num_epochs)
    return style.save_figure(figure, png_path)


def _heading(rows: Sequence[history.Row], num_epochs: int, title: str) -> str:
    parts = [title] if title else []
    parts.append(f"{num_epochs} epoch{'s' if num_epochs > 1 else ''}")
    scored = [row for row in rows if np.isfinite(row.get("val/score", np.nan))]
    if scored:
        best = max(scored, key=lambda row: row["val/score"])
        parts.append(f"best val/score {best['val/score']:.3f} in epoch {int(best['epoch'])}")
    return "   |   ".join(parts)


def _is_loss(name: str) -> bool:
    return "loss" in name.split("/")


def _series(rows: Sequence[history.Row]) -> dict[str, Series]:
    """Return name -> (position in epochs, value); the end of epoch 0 lies at 1."""
    steps_per_epoch = (max(r["step"] for r in rows) + 1) / (max(r["epoch"] for r in rows) + 1)
    names = {name for row in rows for name in row} - {"step", "epoch"}
    series: dict[str, Series] = {}
    for name in sorted(names):
        points = [(row["step"] + 1, row[name]) for row in rows if name in row]
        steps, values = np.asarray(points, dtype=np.float64).T
        series[name] = steps / steps_per_epoch, values
    return series


def _draw_panel(axes: Axes, series: dict[str, Series], title: str) -> None:
    if len(series) == 1:
        title = f"{title.partition(' (')[0]}: {next(iter(series.values()))[1][-1]:.3g} at the end"
    axes.set_title(title, fontsize=11.5, color=style.INK, loc="left", pad=6)
    style.epoch_axes(axes)
    if not series:
        axes.text(
            0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", va="center",
            fontsize=11, color=style.MUTED,
        )  # fmt: skip
        axes.set_yticks([])
        return
    rank = {name: number for number, name in enumerate(_FIRST)}
    names = sorted({_short(n) for n in series}, key=lambda n: (rank.get(n, len(rank)), n))
    colours = {name: style.SERIES[i % len(style.SERIES)] for i, name in enumerate(names)}
    labelled: set[str] = set()
    # solid lines first: the legend shows the first of a name
    for key in sorted(
        series, key=lambda k: (names.index(_short(k)), _STYLES.index(_line_style(k)))
    ):
        positions, values = series[key]
        name = _short(key)
        if key.endswith("_step"):
            axes.plot(positions, values, color=colours[name], linewidth=0.8, alpha=0.35)
            if f"{key.removesuffix('_step')}_epoch" in series:
                continue
        axes.plot(
            positions, values, color=colours[name], linewidth=1.7,
            linestyle=_line_style(key), marker=_marker(key) if len(values) < 40 else None,
            markersize=5.0, label=None if name in labelled else name,
        )  # fmt: skip
        labelled.add(name)
    bounded = all(name.startswith("val/") for name in series)
    _scale(
        axes,
        np.concatenate([values for _, values in series.values()]),
        num_names=len(names),
        may_be_log=not bounded,
    )
    if len(names) > 1:
        axes.legend(
            fontsize=9.5, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=style.INK,
            ncols=_LEGEND_COLUMNS, loc="upper right", borderaxespad=0.1, columnspacing=1.2,
        )  # fmt: skip


_PREFIXES = (
    "train/loss/", "val/loss/", "val/proxy/", "val/post/", "val/", "train/", "throughput/", "lr-",
)  # fmt: skip
_FIRST = ("total", "score", "dice")
"""Drawn first, in the first colours."""


def _line_style(name: str) -> str:
    """Return one style per stage, so that a measure keeps its colour in all of them."""
    if name.startswith("val/post/"):
        return ":"
    return "--" if name.startswith(("val/proxy/", "val/loss/")) else "-"


def _marker(name: str) -> str:
    return "s" if name.startswith("val/post/") else "."


def _short(name: str) -> str:
    """Return the legend's name: without stage, area and the logger's suffix."""
    bare = name.removesuffix("_step").removesuffix("_epoch")
    for prefix in _PREFIXES:
        if bare.startswith(prefix):
            return bare.removeprefix(prefix)
    return bare


def _scale(
    axes: Axes, values: npt.NDArray[np.float64], *, num_names: int, may_be_log: bool
) -> None:
    """Choose the axis and leave room for the legend above the lines."""
    room = 0.08 + (0.08 * -(-num_names // _LEGEND_COLUMNS) if num_names > 1 else 0.0)
    finite = values[np.isfinite(values)]
    positive = finite.size and finite.min() > 0
    if may_be_log and positive and finite.max() / finite.min() > _LOG_RATIO:
        axes.set_yscale("log")
        span = finite.max() / finite.min()
        axes.set_ylim(finite.min() / span**0.05, finite.max() * span ** (room * 1.1))
        axes.yaxis.set_minor_locator(NullLocator())
        if span < 1000:  # a decade or two: label within it as well
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif finite.size and finite.min() >= 0:
        axes.set_ylim(0, finite.max() * (1 + room) or 1.0)
