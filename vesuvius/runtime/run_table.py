"""What local runs were and how they ended, read from their folders alone."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from vesuvius.errors import RunFileError

RUNNING_MINUTES = 15
"""A run without a result whose files changed this recently counts as running."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run.

    Attributes:
        path: its folder.
        status: finished, running, failed (left an emergency checkpoint, or never began) or stopped.
        started: when its configuration was written.
        minutes: from then to the last thing written.
        choices: option of every configuration group.
        overrides: what its command line said.
        metric: name of the score it was to raise.
        best: best value of it, None before the first validation.
        epochs: epochs begun.
        num_parameters: of the network.
        git_commit: of the code, '+' = changed.
    """

    path: Path
    status: str
    started: datetime
    minutes: float
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    metric: str
    best: float | None
    epochs: int
    num_parameters: int
    git_commit: str


def find_runs(root: Path) -> list[RunSummary]:
    """Return the runs below a folder (or in it), oldest first.

    Raises:
        RunFileError: the folder is missing or holds no run.
    """
    if not root.is_dir():
        raise RunFileError(f"{root} is no folder; give paths.log_dir (default logs) or a run.")
    runs = [read_run(path.parent) for path in sorted(root.rglob("run.json"))]
    runs += [run for path in root.rglob(".hydra/config.yaml") if (run := read_failed_start(path))]
    if not runs:
        raise RunFileError(f"{root} holds no run: no run.json in it or below; train.py writes one.")
    return sorted(runs, key=lambda run: run.started)


def read_run(folder: Path) -> RunSummary:
    """Return the summary of one run's folder.

    Raises:
        RunFileError: no run there, or a file of it is damaged.
    """
    facts = read_json(folder / "run.json")
    config = facts.get("config", {})
    metric = str(config.get("optimized_metric"))
    result_path = folder / "result.json"
    result = read_json(result_path) if result_path.is_file() else None
    values, epochs = read_column(folder / "metrics.csv", metric)
    best = max(values) if values else None
    if result is not None and result.get("objective") is not None:
        best = float(result["objective"])
    config_file = folder / ".hydra" / "config.yaml"
    begin = (config_file if config_file.is_file() else folder / "run.json").stat().st_mtime
    end = max(path.stat().st_mtime for path in own_files(folder))
    return RunSummary(
        path=folder,
        status=status(folder, finished=result is not None, end=end),
        started=datetime.fromtimestamp(begin).astimezone(),
        minutes=max(0.0, end - begin) / 60,
        choices=facts.get("choices", {}),
        overrides=tuple(facts.get("overrides", ())),
        metric=metric,
        best=best,
        epochs=epochs,
        num_parameters=int(facts.get("num_parameters", 0)),
        git_commit=str(facts.get("git_commit", "")),
    )


def read_failed_start(config_file: Path) -> RunSummary | None:
    """Return the summary of a training that Hydra composed and that ended before `run.json`.

    None for a run that began, and for what is no training (infer.py composes too).
    """
    folder = config_file.parent.parent
    hydra_file = config_file.with_name("hydra.yaml")
    if (folder / "run.json").is_file() or not hydra_file.is_file():
        return None
    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
        hydra = yaml.safe_load(hydra_file.read_text(encoding="utf-8"))["hydra"]
        metric = config["optimized_metric"]
        overrides, choices = hydra["overrides"]["task"], hydra["runtime"]["choices"]
    except (KeyError, TypeError, yaml.YAMLError):
        return None
    begin = config_file.stat().st_mtime
    recent = datetime.now().timestamp() - begin < 60 * RUNNING_MINUTES
    return RunSummary(
        path=folder,
        status="running" if recent else "failed",
        started=datetime.fromtimestamp(begin).astimezone(),
        minutes=0.0,
        choices=dict(choices),
        overrides=tuple(overrides),
        metric=str(metric),
        best=None,
        epochs=0,
        num_parameters=0,
        git_commit="",
    )


def own_files(folder: Path) -> Iterator[Path]:
    """Yield the files that a run itself writes; the newest tells when it was last alive."""
    yield folder / "run.json"
    for name in ("metrics.csv", "result.json"):
        if (folder / name).is_file():
            yield folder / name
    yield from folder.glob("checkpoints/*.ckpt")


def status(folder: Path, *, finished: bool, end: float) -> str:
    """Return finished, failed, running or stopped."""
    if finished:
        return "finished"
    if (folder / "checkpoints" / "emergency.ckpt").is_file():
        return "failed"
    recent = datetime.now().timestamp() - end < 60 * RUNNING_MINUTES
    return "running" if recent else "stopped"


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        RunFileError: missing, or no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFileError(
            f"{path.parent} is no run: it has no {path.name}. Give the folder that train.py "
            "printed as its run folder; `vesuvius runs` lists them."
        ) from error
    except ValueError as error:
        raise RunFileError(f"{path} is damaged: {error}. Delete the run or train again.") from error
    if not isinstance(found, dict):
        raise RunFileError(f"{path} holds a {type(found).__name__}; expected a JSON object.")
    return found


def read_column(path: Path, name: str) -> tuple[list[float], int]:
    """Return the values of a column of metrics.csv and the number of epochs in the file."""
    if not path.is_file():
        return [], 0
    values, epochs = [], 0
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("epoch"):
                epochs = max(epochs, int(float(row["epoch"])) + 1)
            if row.get(name):
                values.append(float(row[name]))
    return values, epochs


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as {"a.b.c": value}; lists are values."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
