"""How runs differ: configuration, curves, scores of every volume."""

import csv
import html
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vesuvius.errors import RunFileError
from vesuvius.pictures.history import Row, read_metrics
from vesuvius.pictures.overlay import overlay_curves
from vesuvius.runtime.run_table import flatten, read_json
from vesuvius.storage.files import write_text

Cell = str | float | None
Table = tuple[list[str], list[list[Cell]]]
"""Header and rows."""

_REPEATED = tuple(
    f"module.{group}." for group in ("model", "loss", "optimizer", "scheduler", "metrics")
)
"""Keys that only repeat a group of their own."""
_NAMES = ("logger.wandb.id", "logger.wandb.name", "logger.wandb.group")
"""What a dashboard calls a run, not what it is."""


def compare_runs(folders: Sequence[Path], out: Path) -> dict[str, Table]:
    """Write `curves.png` and `compare.html`; return the tables by title.

    Args:
        folders: at least two runs; the first is what the others are compared with.
        out: folder for the two files.

    Raises:
        RunFileError: fewer than two, or one is no run or has logged nothing.
    """
    if len(folders) < 2:
        raise RunFileError(f"{len(folders)} run given; comparing needs two or more.")
    names = short_names(folders)
    facts = dict(zip(names, (read_json(folder / "run.json") for folder in folders), strict=True))
    rows = dict(
        zip(names, (read_metrics(folder / "metrics.csv") for folder in folders), strict=True)
    )
    tables = {
        "Configuration": config_difference(facts),
        "Best of every score": best_scores(rows),
    }
    volumes = dict(zip(names, (volume_scores(folder) for folder in folders), strict=True))
    if sum(bool(scores) for scores in volumes.values()) > 1:
        tables["Score of every volume"] = volume_difference(volumes)
    out.mkdir(parents=True, exist_ok=True)
    picture = overlay_curves(rows, out / "curves.png")
    write_text(out / "compare.html", page(tables, picture))
    return tables


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ from each other."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise RunFileError(f"the same run twice: {', '.join(map(str, folders))}")
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def config_difference(facts: Mapping[str, dict[str, Any]]) -> Table:
    """Return the keys whose values differ; '-' where a run has no such key."""
    flat = {name: own_settings(run) for name, run in facts.items()}
    keys = sorted({key for values in flat.values() for key in values})
    rows: list[list[Cell]] = []
    for key in keys:
        values = [settings.get(key, "-") for settings in flat.values()]
        if len(set(values)) > 1:
            rows.append([key, *values])
    return ["key", *flat], rows


def own_settings(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's flat configuration as text, its own folder written as <run>."""
    config = facts.get("config", {})
    folder = str(config.get("paths", {}).get("output_dir") or "<run>")
    flat = {**flatten(config), **{k: facts.get(k) for k in ("num_parameters", "git_commit")}}
    return {
        key: str(value).replace(folder, "<run>")
        for key, value in flat.items()
        if not key.startswith((*_REPEATED, *_NAMES))
    }


def best_scores(rows: Mapping[str, Sequence[Row]]) -> Table:
    """Return the highest value of every validation score (the lowest of losses and angles)."""
    names = sorted({n for table in rows.values() for row in table for n in row if "val/" in n})
    body: list[list[Cell]] = []
    for name in names:
        choose = min if "loss" in name.split("/") or name.endswith(("_deg", "_s")) else max
        cells: list[Cell] = []
        for table in rows.values():
            values = [row[name] for row in table if name in row]
            cells.append(choose(values) if values else None)
        body.append([name, *cells])
    return ["score", *rows], body


def volume_scores(folder: Path) -> dict[str, float]:
    """Return the score of every validation volume; empty if the run kept none."""
    path = next((p for p in (folder / "predictions" / "scores.csv", folder / "scores.csv")
                 if p.is_file()), None)  # fmt: skip
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            f"{row['volume']} {row.get('mask', '')}".strip(): float(row["score"])
            for row in csv.DictReader(file)
        }


def volume_difference(volumes: Mapping[str, Mapping[str, float]]) -> Table:
    """Return every volume's scores and the last run's gain over the first, worst gain first."""
    first, last = next(iter(volumes.values())), list(volumes.values())[-1]
    rows: list[list[Cell]] = []
    for name in sorted({name for scores in volumes.values() for name in scores}):
        gain = last[name] - first[name] if name in first and name in last else None
        rows.append([name, *(scores.get(name) for scores in volumes.values()), gain])
    rows.sort(key=lambda row: row[-1] if isinstance(row[-1], float) else 0.0)
    return ["volume", *volumes, "gain of the last over the first"], rows


def cell_text(cell: Cell) -> str:
    """Return a table cell's text."""
    if cell is None:
        return "-"
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def page(tables: Mapping[str, Table], picture: Path) -> str:
    """Return a page that needs no other file."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>runs compared</title><style>",
        "body{font:15px system-ui,sans-serif;margin:2rem;max-width:80rem}",
        "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;text-align:left;",
        "border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}img{max-width:100%}",
        "</style><h1>Runs compared</h1>",
    ]
    for title, (header, rows) in tables.items():
        parts.append(f"<h2>{html.escape(title)}</h2><table><tr>")
        parts += [f"<th>{html.escape(name)}</th>" for name in header]
        for row in rows:
            parts.append("</tr><tr>")
            parts += [f"<td>{html.escape(cell_text(cell))}</td>" for cell in row]
        parts.append("</tr></table>" + ("" if rows else "<p>no difference</p>"))
    data = b64encode(picture.read_bytes()).decode()
    parts.append(f'<h2>Curves</h2><img alt="curves" src="data:image/png;base64,{data}"></html>')
    return "".join(parts)
