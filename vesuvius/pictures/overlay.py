"""The curves of several runs in one picture, one panel a metric."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vesuvius.pictures import style
from vesuvius.pictures.history import Row, epoch_history

_FIRST = ("val/score", "val/post/score", "train/loss/total", "val/loss/total")
_COLUMNS = 3
_MAX_PANELS = 12


def overlay_curves(runs: Mapping[str, Sequence[Row]], png_path: Path) -> Path:
    """Draw one panel for every loss total and validation score; return the PNG's path.

    Args:
        runs: rows of each run's metrics (`history.read_metrics`), by the name in the legend.
        png_path: PNG to write.

    Raises:
        StorageError: if the file cannot be written.
    """
    histories = {name: epoch_history(rows) for name, rows in runs.items()}
    names = panel_names(histories)
    num_rows = -(-max(1, len(names)) // _COLUMNS)
    height = 2.9 * num_rows + 0.9
    figure = style.new_figure(13.0, height)
    handles = {}
    last = max((row["epoch"] + 1 for rows in histories.values() for row in rows), default=1)
    for number, metric in enumerate(names):
        row, column = divmod(number, _COLUMNS)
        bottom = (height - 0.9 - 2.9 * (row + 1) + 0.55) / height
        axes = figure.add_axes((0.05 + 0.32 * column, bottom, 0.27, 1.85 / height))
        axes.set_title(metric, fontsize=11, color=style.INK, loc="left")
        style.epoch_axes(axes)
        axes.set_xlim(0.97 - 0.03 * last, last + 0.03 + 0.03 * last)  # the same in every panel
        for index, (name, history) in enumerate(histories.items()):
            points = [(row["epoch"] + 1, row[metric]) for row in history if metric in row]
            if points:
                (handles[name],) = axes.plot(
                    *zip(*points, strict=True),
                    color=style.SERIES[index % len(style.SERIES)],
                    marker="." if len(points) < 40 else None,
                    linewidth=1.7,
                )
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="upper left", fontsize=10, frameon=False,
            ncols=min(4, len(handles)), bbox_to_anchor=(0.04, 1.0),
        )  # fmt: skip
    return style.save_figure(figure, png_path)


def panel_names(histories: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the metrics to draw, the most asked for first."""
    logged = {name for history in histories.values() for row in history for name in row}
    wanted = {n for n in logged if n.startswith("val/") and "/loss/" not in n} | set(_FIRST)
    rank = {name: number for number, name in enumerate(_FIRST)}
    ordered = sorted(wanted & logged, key=lambda n: (rank.get(n, len(rank)), n.count("/"), n))
    return ordered[:_MAX_PANELS]
