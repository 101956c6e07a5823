"""`vesuvius runs`: the local runs as a table."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vesuvius.runtime.run_table import RunSummary

HELP = "list local runs: choices, overrides, best score, time, status"
SORTS = ("started", "best", "minutes", "status", "model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("folder", type=Path, nargs="?", default=Path("logs"), help="paths.log_dir (default logs)")
    add("--sort", choices=SORTS, default="started", help="column (default started, oldest first)")
    add("--where", default="", help="only runs whose folder or overrides contain this text")
    add("--json", action="store_true", help="print one JSON object a line instead")


def run(args: argparse.Namespace) -> int:
    """Print the table, best or newest last."""
    import json

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from vesuvius.runtime.run_table import find_runs

    runs = find_runs(args.folder)
    runs = [r for r in runs if args.where in str(r.path) or args.where in " ".join(r.overrides)]
    runs.sort(key=lambda r: sort_key(r, args.sort))
    if args.json:
        for one in runs:
            print(json.dumps(as_json(one)))
        return 0
    common = shared_overrides(runs)
    caption = f"in all of them: {escape(' '.join(common))}" if common else None
    table = Table(
        title=f"{len(runs)} runs in {args.folder}", caption=caption, caption_justify="left"
    )
    for name in ("run", "status", "started", "minutes", "epochs", "model", "M", "best", "metric"):
        table.add_column(name, justify="right" if name in ("minutes", "epochs", "M") else "left")
    table.add_column("overrides", overflow="fold")
    for one in runs:
        inside = one.path != args.folder and one.path.is_relative_to(args.folder)
        table.add_row(
            str(one.path.relative_to(args.folder) if inside else one.path),
            one.status,
            f"{one.started:%Y-%m-%d %H:%M}",
            f"{one.minutes:.1f}",
            str(one.epochs),
            one.choices.get("model", "?"),
            f"{one.num_parameters / 1e6:.2f}",
            "-" if one.best is None else f"{one.best:.4f}",
            one.metric,
            escape(" ".join(word for word in one.overrides if word not in common)),
        )
    console = Console()
    # A pipe or a file has no width: nothing may be cut off there.
    Console(width=console.width if console.is_terminal else 200).print(table)
    return 0


def shared_overrides(runs: "Sequence[RunSummary]") -> list[str]:
    """Return the overrides that all of several runs have; a table says them once."""
    if len(runs) < 2:
        return []
    return [word for word in runs[0].overrides if all(word in one.overrides for one in runs)]


def sort_key(one: "RunSummary", name: str) -> Any:
    """Return what a run is sorted by; runs without a score come first."""
    if name == "best":
        return float("-inf") if one.best is None else one.best
    return one.choices.get("model", "") if name == "model" else getattr(one, name)


def as_json(one: "RunSummary") -> dict[str, Any]:
    """Return a run's summary as plain values."""
    return {
        "run": str(one.path),
        "status": one.status,
        "started": one.started.isoformat(timespec="seconds"),
        "minutes": round(one.minutes, 2),
        "epochs": one.epochs,
        "choices": dict(one.choices),
        "overrides": list(one.overrides),
        "metric": one.metric,
        "best": one.best,
        "num_parameters": one.num_parameters,
        "git_commit": one.git_commit,
    }
