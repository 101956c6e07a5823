"""`vesuvius score`: the competition's score of a folder of predictions."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesuvius.cli.score_files import pair_up, read_volume, write_csv
from vesuvius.cli.score_groups import check_groups, group_means, print_groups

if TYPE_CHECKING:
    from rich.progress import Progress

HELP = "score predicted masks against labels with the competition's metric"

_WORST = 3
_PARTS = ("score", "topo", "surface_dice", "voi_score", "voi_split", "voi_merge", "dice")
_FEATURES = ("components", "tunnels", "cavities")

Row = dict[str, Any]
"""Figures of one volume: `volume`, the parts, and <feature>_<matched|prediction|label>."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Score = 0.30 TopoScore + 0.35 surface Dice at 2 voxels + 0.35 VOI score, per volume and\n"
        "mean, worst volumes first. Volumes pair up by name: <id>.tif, <id>.npy or <id>.zarr (a\n"
        "group with the array `mask` or `label`); <id>_mask, <id>_prediction, <id>_pred and\n"
        "<id>_label are read as <id>. Label value 2 is ignored; NaN in a prediction is background."
    )
    parser.epilog = (
        "examples:\n"
        "  vesuvius score runs/x/predictions data/train_labels --csv scores.csv --pictures worst\n"
        "  vesuvius score runs/x/predictions data/train_labels --explain lost\n"
        "  vesuvius score 42_mask.tif train_labels/42.tif --json\n"
        "exit status: 0 scored, 2 names or shapes do not match or a file cannot be read"
    )
    add = parser.add_argument
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder of masks, or one mask")
    add("labels", type=Path, metavar="LABELS", help="folder of labels, or one label")
    add("--csv", type=Path, metavar="FILE", help="write one row per volume and the mean")
    add("--pictures", type=Path, metavar="DIR", help=f"draw the worst {_WORST} volumes")
    add(
        "--explain",
        type=Path,
        metavar="DIR",
        help="write where every volume loses its score: index.html, pictures, events.csv, JSON",
    )
    add("--jobs", type=int, metavar="N", help="volumes at a time (default: number of cores)")
    add("--json", action="store_true", help="print the result as JSON instead of a table")
    add("--splits", type=Path, metavar="FILE", help="folds: means by fold and by scroll as well")
    add("--allow-missing", action="store_true", help="score the labels that have a prediction")


def run(args: argparse.Namespace) -> int:
    """Score all pairs; return 0."""
    from vesuvius.errors import ConfigError

    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {args.jobs}")
    pairs = pair_up(args.predictions, args.labels, allow_missing=args.allow_missing)
    if args.splits is not None:
        check_groups(pairs, args.splits)
    rows = sorted(score_pairs(pairs, jobs=args.jobs), key=lambda row: float(row["score"]))
    mean: Row = {"volume": "mean"}
    mean |= {part: sum(row[part] for row in rows) / len(rows) for part in _PARTS}
    groups = {} if args.splits is None else group_means(rows, args.splits, _PARTS)
    if args.json:
        import json

        content = {"mean": {p: mean[p] for p in _PARTS}, "volumes": rows, **groups}
        print(json.dumps(content, indent=1))
    else:
        print_table(rows, mean)
        print_groups(groups, _PARTS)
    if args.csv is not None:  # after the table: a disk that refuses must not cost the scores
        write_csv(args.csv, [*rows, mean])
    if args.pictures is not None:
        draw_worst(args.pictures, rows[:_WORST], pairs)
    if args.explain is not None:
        import sys

        from vesuvius.cli.score_explain import explain_pairs

        print(f"report: {explain_pairs(args.explain, rows, pairs)}", file=sys.stderr)
    return 0


def score_volume(name: str, prediction: Path, label: Path, *, threads: int | None = None) -> Row:
    """Return the figures of one volume.

    Raises:
        ShapeMismatchError: names the volume and both shapes.
        LabelValueError: the label holds values other than 0, 1, 2.
    """
    from vesuvius.errors import LabelValueError, ShapeMismatchError
    from vesuvius.metrics import competition_score, dice

    mask, truth = read_volume(prediction, "prediction"), read_volume(label, "label")
    if mask.shape != truth.shape:
        raise ShapeMismatchError(
            f"volume {name}: prediction '{prediction}' has shape {mask.shape}, label '{label}' "
            f"{truth.shape}; expected the same (z, y, x)"
        )
    if truth.max() > 2 or truth.min() < 0:
        raise LabelValueError(
            f"volume {name}: label '{label}' holds values other than 0 (background), 1 (surface) "
            "and 2 (ignore); are PREDICTIONS and LABELS swapped?"
        )
    result = competition_score(mask, truth, threads=threads)
    row: Row = {"volume": name}
    row |= {part: getattr(result, part) for part in _PARTS[:-1]}
    row["dice"] = dice(mask, truth)
    for k, feature in enumerate(_FEATURES):
        for side, count in zip(("matched", "prediction", "label"), result.counts[k], strict=True):
            row[f"{feature}_{side}"] = count
    return row


def score_pairs(pairs: dict[str, tuple[Path, Path]], *, jobs: int | None = None) -> list[Row]:
    """Return the figures of all pairs; progress goes to stderr.

    Volumes run side by side in threads: the metric's compiled code leaves the interpreter free.
    """
    import sys
    from concurrent.futures import ThreadPoolExecutor

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from vesuvius.metrics.workers import usable_cpus

    jobs = min(jobs or usable_cpus(), len(pairs))
    threads = max(usable_cpus() // jobs, 1)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(_announce(bar), total=len(pairs))

        def score(name: str) -> Row:
            row = score_volume(name, *pairs[name], threads=threads)
            bar.update(task, advance=1, description="score")
            return row

        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(score, name) for name in pairs]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _announce(bar: "Progress") -> str:
    """Return the bar's first text; say so if the metric has to be compiled first."""
    from vesuvius.metrics.compiled import is_cached
    from vesuvius.metrics.reduction import reduce_columns

    if is_cached(reduce_columns):  # every score needs it
        return "score"
    bar.console.print("compiling the metric once (some ten seconds); later runs start at once")
    return "compiling once"


def print_table(rows: list[Row], mean: Row) -> None:
    """Print the volumes, worst first, and the mean."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="worst volumes first; features: matched / prediction / label")
    for name in ("volume", "score", "topo", "surface", "VOI", "split", "merge", "Dice"):
        table.add_column(name, justify="left" if name == "volume" else "right", no_wrap=True)
    for feature in _FEATURES:
        table.add_column(feature, justify="right")
    for row in rows:
        counts = [
            "/".join(str(row[f"{feature}_{side}"]) for side in ("matched", "prediction", "label"))
            for feature in _FEATURES
        ]
        table.add_row(row["volume"], *(f"{row[part]:.4f}" for part in _PARTS), *counts)
    table.add_section()
    table.add_row(f"mean of {len(rows)}", *(f"{mean[part]:.4f}" for part in _PARTS), style="bold")
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)


def draw_worst(folder: Path, rows: list[Row], pairs: dict[str, tuple[Path, Path]]) -> None:
    """Draw one picture for each row into the folder, numbered from the worst."""
    import sys

    from vesuvius.pictures.worst import worst_panel

    for place, row in enumerate(rows, start=1):
        name = row["volume"]
        facts = "   ".join(f"{part} {row[part]:.3f}" for part in _PARTS)
        prediction, label = pairs[name]
        path = worst_panel(
            folder / f"worst_{place}_{name}.png",
            read_volume(prediction, "prediction"),
            read_volume(label, "label"),
            title=f"Volume {name}",
            facts=facts,
        )
        print(f"picture: {path}", file=sys.stderr)
