"""`vesuvius phantom`: synthetic scroll CT with truth, in the competition's layout."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from vesuvius.data.phantom_settings import PRESETS, PhantomSettings, setting_names
from vesuvius.errors import ConfigError

HELP = "make synthetic scroll CT with labels and truth, in the Kaggle layout"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Make synthetic scroll CT: TIFF images and labels (0 background, 1 recto surface,\n"
        "2 ignore) in the Kaggle layout, and the truth (complete surface, wrap numbers, winding\n"
        "field, normals) under train_truth and test_truth. Finished volumes are kept: the same\n"
        "command goes on where it was stopped, more volumes can be asked for later, other\n"
        "settings in the same folder are refused."
    )
    parser.epilog = (
        "examples:\n"
        "  vesuvius phantom data/phantom --train 10 --test 2 --shape 128 128 128\n"
        "  vesuvius phantom data/hard --preset touching --set noise=10 --set pitch=8,14"
    )
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder to write into")
    add("--train", type=int, default=10, help="volumes with labels (default 10)")
    add("--test", type=int, default=2, help="volumes without labels (default 2)")
    add(
        "--shape",
        type=int,
        nargs=3,
        default=(128, 128, 128),
        metavar=("Z", "Y", "X"),
        help="size of each volume in voxels (default 128 128 128)",
    )
    add("--seed", type=int, default=0, help="the same seed gives the same files (default 0)")
    add("--preset", choices=tuple(PRESETS), default="default", help="difficulty (default: default)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change one setting of the preset, e.g. noise=10 or pitch=8,14; repeatable; names: "
        "fields of vesuvius.data.phantom.PhantomSettings",
    )
    add("--scrolls", type=int, default=3, help="scrolls the volumes are cut from (default 3)")
    add("--jobs", type=int, help="processes (default: the number of cores)")


def run(args: argparse.Namespace) -> int:
    """Write the folder; return 0."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from vesuvius.data.phantom_files import WriteOutcome, write_kaggle_phantom
    from vesuvius.data.process_pool import default_jobs

    settings = parse_settings(args.preset, args.set)
    num_jobs = default_jobs() if args.jobs is None else args.jobs
    written = 0
    columns = (TextColumn("phantom"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("", total=args.train + args.test)

        def advance(outcome: WriteOutcome) -> None:
            nonlocal written
            written += outcome.written
            bar.update(task, advance=1)

        volumes = write_kaggle_phantom(
            args.out,
            num_train=args.train,
            num_test=args.test,
            shape_zyx=tuple(args.shape),
            seed=args.seed,
            settings=settings,
            num_scrolls=args.scrolls,
            num_jobs=num_jobs,
            progress=advance,
        )
    print(f"{args.out}: {written} written, {len(volumes) - written} already finished")
    return 0


def parse_settings(preset: str, changes: list[str]) -> PhantomSettings:
    """Return a preset's settings with `NAME=VALUE` changes.

    Raises:
        ConfigError: a name is unknown or a value is no number (or pair of numbers).
    """
    settings = PhantomSettings.preset(preset)
    values: dict[str, float | int | tuple[float, ...]] = {}
    for change in changes:
        name, sign, text = change.partition("=")
        if not sign or name not in setting_names():
            raise ConfigError(
                f"--set {change}: expected NAME=VALUE with one of the names "
                f"{', '.join(setting_names())}"
            )
        old = getattr(settings, name)
        wanted = 2 if isinstance(old, tuple) else 1
        numbers = _numbers(text)
        if len(numbers) != wanted or (isinstance(old, int) and numbers[0] % 1):
            kind = {2: "two numbers, smallest,largest", 1: "one number"}[wanted]
            raise ConfigError(f"--set {change}: {name} takes {kind}, got {text!r}")
        value = int(numbers[0]) if isinstance(old, int) else numbers[0]
        values[name] = numbers if isinstance(old, tuple) else value
    return replace(settings, **values)  # type: ignore[arg-type]


def _numbers(text: str) -> tuple[float, ...]:
    """Return comma-separated numbers, none if one of them is no number."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()
