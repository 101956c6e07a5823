"""`vesuvius tune`: the best chain of post-processing for saved predictions."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vesuvius.tuning.cases import Case, CaseData
    from vesuvius.tuning.report import Summary
    from vesuvius.tuning.study import Scorer

HELP = "search post-processing chains on saved predictions against the official score"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Try chains of post-processing steps and their arguments on saved predictions (out of\n"
        "fold, or they flatter) and keep the best by the official score. Volumes that had no part\n"
        "in the choice judge it, and each of its steps: one that hurts more than it helps is\n"
        "dropped.\n"
        "Run the same command again to go on; a higher --trials adds to the search."
    )
    parser.epilog = (
        "examples:\n"
        "  vesuvius tune oof prepared/train --out tuned --space winners --trials 100\n"
        "  vesuvius tune oof train_labels --out tuned --scrolls train.csv --leave-scroll-out\n"
        "  python infer.py --config-dir tuned postprocess=tuned run_dir=... volume=...\n"
        "writes OUT/postprocess/tuned.yaml (the chain), report.md, report.json, trials.log (the\n"
        "search) and cache/. docs/tuning.md explains spaces and figures.\n"
        "exit status: 0 done, 2 an input that does not fit"
    )
    add = parser.add_argument
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder of <id>.zarr of infer.py")
    add("labels", type=Path, metavar="LABELS", help="folder of labels: <id>.tif, .npy or .zarr")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    add("--space", action="append", metavar="NAME|FILE",
        help="quick, winners, winding, or a YAML file; repeatable (default quick)")  # fmt: skip
    add("--trials", type=int, default=40, help="trials in all (default 40)")
    add("--minutes", type=float, metavar="M", help="start no trial after so many minutes")
    add("--folds", type=int, default=5, metavar="K",
        help="held-out folds of volumes; 0 for none (default 5, at most the volumes)")  # fmt: skip
    add("--scrolls", type=Path, metavar="CSV", help="table with columns id and scroll_id")
    add("--splits", type=Path, metavar="FILE", help="folds (and scrolls) of `vesuvius splits`")
    add("--leave-scroll-out", action="store_true",
        help="one fold a scroll (needs --scrolls or --splits)")  # fmt: skip
    add("--keep-harmful", action="store_true", help="keep steps that hurt more than they help")
    add("--name", default="tuned", help="name of the written option (default tuned)")
    add("--jobs", type=int, metavar="N", help="volumes at a time (default: number of cores)")
    add("--seed", type=int, default=0, help="of search and folds (default 0)")
    add("--cache", type=Path, metavar="DIR", help="where steps are kept (default OUT/cache)")
    add("--cache-gb", type=float, default=10.0, help="bound of the cache (default 10; 0: none)")
    add("--allow-missing", action="store_true", help="use the labels that have a prediction")


def run(args: argparse.Namespace) -> int:
    """Search, choose, write; return 0."""
    from concurrent.futures import ProcessPoolExecutor
    from contextlib import nullcontext
    from multiprocessing import get_context

    from vesuvius.metrics.workers import usable_cpus
    from vesuvius.runtime.chain_steps import build_step
    from vesuvius.tuning.cache import StepCache
    from vesuvius.tuning.evaluate import Evaluator
    from vesuvius.tuning.study import Scorer

    check_arguments(args)
    cases = find_cases(args)
    jobs = min(args.jobs or usable_cpus(), len(cases))
    cache = StepCache(args.cache or args.out / "cache", int(args.cache_gb * 1e9))
    evaluator = Evaluator(load_case, build_step, cache, threads=max(usable_cpus() // jobs, 1))
    pool: Any = nullcontext()
    if jobs > 1:  # spawn: compiled code and its threads do not survive a fork
        pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    with pool as executor:
        summary = tune(args, Scorer(evaluator, cases, executor))
    write_result(args.out, args.name, summary)
    return 0


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse arguments that cannot work before anything is read.

    Raises:
        ConfigError: names the argument.
    """
    from vesuvius.data.splits import check_id
    from vesuvius.errors import ConfigError

    check_id(args.name)
    for name, low in (("trials", 1), ("jobs", 1), ("folds", 0), ("cache_gb", 0), ("minutes", 0)):
        value = getattr(args, name)
        if value is not None and not value >= low:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {low}, got {value}")
    if args.leave_scroll_out and args.scrolls is None and args.splits is None:
        raise ConfigError(
            "--leave-scroll-out needs --scrolls (a table with id and scroll_id) or --splits"
        )


def find_cases(args: argparse.Namespace) -> list["Case"]:
    """Return the volumes that have a prediction and a label, by name.

    Raises:
        VolumeNotFoundError: a folder is missing or holds none.
        PairingError: names on one side have no partner.
        ConfigError: the table of scrolls lacks a volume.
    """
    from vesuvius.cli.score_files import find_volumes, listed
    from vesuvius.errors import ConfigError, PairingError
    from vesuvius.tuning.cases import Case

    predictions = find_predictions(args.predictions)
    labels = find_volumes(args.labels, "label")
    missing, extra = sorted(labels.keys() - predictions), sorted(predictions.keys() - labels)
    if extra or (missing and not args.allow_missing):
        raise PairingError(
            f"'{args.predictions}' and '{args.labels}' do not match: predictions without a label: "
            f"{listed(extra) or 'none'}; labels without a prediction: {listed(missing) or 'none'} "
            "(--allow-missing uses the others)"
        )
    scrolls = read_scrolls(args.scrolls) if args.scrolls is not None else {}
    if args.scrolls is None and args.splits is not None:
        from vesuvius.data.folds import load_folds

        facts = load_folds(args.splits).facts
        scrolls = {name: fact.scroll for name, fact in facts.items()}
    bare = sorted(predictions.keys() - scrolls) if scrolls else []
    if bare:
        source = args.scrolls or args.splits
        raise ConfigError(f"{source}: volumes {listed(bare)} are not in it (--scrolls, --splits)")
    return [
        Case(name, str(predictions[name]), str(labels[name]), scrolls.get(name, ""))
        for name in sorted(predictions)
    ]


def find_predictions(folder: Path) -> dict[str, Path]:
    """Return {id: path} of the stored probabilities in a folder.

    Raises:
        VolumeNotFoundError: no such folder, or no prediction in it.
    """
    from vesuvius.errors import VolumeNotFoundError

    if not folder.is_dir():
        raise VolumeNotFoundError(f"predictions: '{folder}' is no folder")
    found = {p.stem: p for p in sorted(folder.glob("*.zarr")) if (p / "probability").is_dir()}
    if not found:
        raise VolumeNotFoundError(
            f"predictions: '{folder}' holds no <id>.zarr with a probability; run infer.py with "
            "save_probability=true, or take a run's predictions/ folder"
        )
    return found


def read_scrolls(path: Path) -> dict[str, str]:
    """Return {id: scroll_id} of a table such as the competition's train.csv.

    Raises:
        VolumeNotFoundError: no such file.
        ConfigError: no columns id and scroll_id.
    """
    import csv

    from vesuvius.errors import ConfigError, VolumeNotFoundError

    if not path.is_file():
        raise VolumeNotFoundError(f"{path}: no such file (--scrolls)")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"id", "scroll_id"} <= set(rows[0]):
        raise ConfigError(f"{path}: expected a table with columns id and scroll_id (--scrolls)")
    return {row["id"]: row["scroll_id"] for row in rows}


def load_case(case: "Case") -> "CaseData":
    """Return the arrays of a case.

    Raises:
        VolumeFormatError: a file is not what it should be.
        ShapeMismatchError: prediction and label differ in shape.
    """
    from vesuvius.cli.score_files import read_volume
    from vesuvius.errors import ShapeMismatchError
    from vesuvius.inference.store import load_prediction
    from vesuvius.tuning.cases import CaseData

    probability, normals = load_prediction(case.prediction)
    label = read_volume(Path(case.label), "label")
    if label.shape != probability.shape:
        raise ShapeMismatchError(
            f"volume {case.name}: prediction '{case.prediction}' has shape {probability.shape}, "
            f"label '{case.label}' {label.shape}; expected the same (z, y, x)"
        )
    return CaseData(probability, normals, label)


def tune(args: argparse.Namespace, scorer: "Scorer") -> "Summary":
    """Return what the search found; progress goes to stderr."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from vesuvius.tuning.report import BASELINE, summarise
    from vesuvius.tuning.selection import select
    from vesuvius.tuning.space import merged, read_space
    from vesuvius.tuning.study import search

    space = merged([read_space(name) for name in args.space or ["quick"]])
    folds, by = chosen_folds(args, scorer.cases)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("threshold 0.5", total=args.trials)
        baseline = scorer.scores(BASELINE)

        def show(number: int, score: float, best: float) -> None:
            text = f"trial {number}: {score:.4f}, best {best:.4f}"
            bar.update(task, completed=number + 1, description=text)

        tried = search(
            space, scorer, args.out / "trials.log", trials=args.trials, seed=args.seed,
            timeout_s=None if args.minutes is None else 60 * args.minutes, progress=show,
        )  # fmt: skip
        bar.update(task, completed=args.trials, description="each step left out")
        selection = select(tried, scorer, folds, keep_harmful=args.keep_harmful)
    return summarise(scorer.cases, selection, baseline, trials=len(tried), folds_by=by)


def chosen_folds(args: argparse.Namespace, cases: Sequence["Case"]) -> tuple[list[list[int]], str]:
    """Return the places of the volumes each fold holds out, and what is held out together.

    Raises:
        ConfigError: folds that the volumes do not allow, or a volume that is in no fold.
    """
    from vesuvius.data.folds import load_folds
    from vesuvius.errors import ConfigError
    from vesuvius.tuning.statistics import make_folds, scroll_folds

    if args.leave_scroll_out:
        return scroll_folds([case.scroll for case in cases]), "scroll"
    if args.splits is not None:
        saved = load_folds(args.splits)
        bare = [case.name for case in cases if case.name not in saved.fold_of]
        if bare:
            raise ConfigError(f"{args.splits}: volume {bare[0]} is in no fold (--splits)")
        places: list[list[int]] = [[] for _ in range(saved.num_folds)]
        for place, case in enumerate(cases):
            places[saved.fold_of[case.name]].append(place)
        held = [fold for fold in places if fold]
        if len(held) < 2:
            raise ConfigError(f"{args.splits}: all volumes are of one fold (--splits)")
        return held, saved.by
    if args.folds < 2 or len(cases) < 2:
        return [], ""
    count = min(args.folds, len(cases))
    return make_folds(len(cases), num_folds=count, seed=args.seed), "volume"


def write_result(folder: Path, name: str, summary: "Summary") -> None:
    """Write the chain and the reports; print the figures and how to use them."""
    from rich.console import Console
    from rich.markdown import Markdown

    from vesuvius.inference.store import write_json
    from vesuvius.storage.files import write_text
    from vesuvius.tuning.report import as_json, as_markdown, as_yaml

    chain = write_text(folder / "postprocess" / f"{name}.yaml", as_yaml(summary))
    text = as_markdown(summary)
    write_text(folder / "report.md", text)
    write_json(folder / "report.json", as_json(summary))
    console = Console()
    Console(width=None if console.is_terminal else 140).print(Markdown(text))
    print(f"wrote {chain}; use it: python infer.py --config-dir {folder} postprocess={name} ...")
