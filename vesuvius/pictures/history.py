"""Metrics of a training run: read from a logger's CSV, merged to one row per epoch, written."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from vesuvius.errors import RunFileError
from vesuvius.storage.files import write_text

Row = dict[str, float]
"""Metric name to value, with "step" and, where the logger knew it, "epoch"."""


def read_metrics(csv_path: Path) -> list[Row]:
    """Return the rows of a metrics.csv (Lightning's CSVLogger) or history.csv without empty cells.

    A row without an epoch (the learning rate's) gets that of the next row that has one.

    Raises:
        RunFileError: if the file is missing or has no row with a step.
    """
    csv_path = Path(csv_path)
    if not csv_path.is_file():
        raise RunFileError(
            f"no metrics file '{csv_path}'; expected the metrics.csv that logger=csv writes into "
            "the run's folder, or a history.csv"
        )
    with csv_path.open(newline="") as lines:
        rows = [_numbers(row) for row in csv.DictReader(lines)]
    rows = [row for row in rows if "step" in row]
    if not rows:
        raise RunFileError(f"'{csv_path}' holds no row with a 'step'; the run has logged nothing")
    return fill_epochs(rows)


def _numbers(row: Mapping[str, str | None]) -> Row:
    numbers = {}
    for name, text in row.items():
        if text:
            try:
                numbers[name] = float(text)
            except ValueError:
                continue  # a text column is nothing to draw
    return numbers


def fill_epochs(rows: list[Row]) -> list[Row]:
    """Return the rows with every epoch filled in: the next one known, else the last."""
    filled: list[Row] = []
    epoch = max((row["epoch"] for row in rows if "epoch" in row), default=0.0)
    for row in reversed(rows):
        epoch = row.get("epoch", epoch)
        filled.append({**row, "epoch": epoch})
    return filled[::-1]


def epoch_history(rows: Iterable[Row]) -> list[Row]:
    """Return one row per epoch with its last step and every metric logged in it.

    `train/...` values are means over the epoch, others the last. Where a metric was logged per step
    and per epoch (`name_step`, `name_epoch`), the epoch's value is kept as `name`.
    """
    values: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        columns = values.setdefault(int(row["epoch"]), {})
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    history: list[Row] = []
    for epoch in sorted(values):
        columns = values[epoch]
        merged: Row = {"epoch": epoch, "step": int(max(columns.pop("step")))}
        del columns["epoch"]
        for name in sorted(columns):
            key = name.removesuffix("_epoch")
            if name.endswith("_step"):
                key = name.removesuffix("_step")
                if key in columns or f"{key}_epoch" in columns:
                    continue
            series = columns[name]
            mean = key.startswith("train/")
            merged[key] = math.fsum(series) / len(series) if mean else series[-1]
        history.append(merged)
    return history


def write_history(history: list[Row], folder: Path) -> None:
    """Write history.csv and history.json into the folder, atomically; NaN becomes null in JSON."""
    names = ["epoch", "step", *sorted({n for row in history for n in row} - {"epoch", "step"})]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(Path(folder) / "history.csv", text.getvalue())
    finite = [
        {name: value if math.isfinite(value) else None for name, value in row.items()}
        for row in history
    ]
    write_text(Path(folder) / "history.json", json.dumps(finite, indent=1) + "\n")
