"""`vesuvius splits`: cross-validation folds in one file that training and scoring share."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vesuvius.data.folds import Folds

HELP = "make or check the file of cross-validation folds, by volume or by scroll"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  vesuvius splits prepared/train --folds 5 --out splits.json\n"
        "  vesuvius splits prepared/train --folds 6 --by scroll --out scrolls.json\n"
        "  vesuvius splits prepared/train --check splits.json\n"
        "  python train.py -m data.split_file=splits.json data.fold=0,1,2,3,4\n"
        "  vesuvius oof logs/train/multiruns/<time> --volumes prepared/train --out oof\n"
        "  vesuvius score oof prepared/train --splits splits.json"
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of prepared volumes")
    add("--folds", type=int, default=5, help="number of folds (default 5)")
    add("--by", default="volume", help="what stays together: volume (default) or scroll")
    add("--seed", type=int, default=42, help="of the ties (default 42)")
    add("--out", type=Path, metavar="FILE", help="file to write; an existing one is kept")
    add("--overwrite", action="store_true", help="replace an existing file")
    add("--check", type=Path, metavar="FILE", help="check a file against DATA instead")
    add("--jobs", type=int, help="volumes read at a time (default: number of cores)")


def run(args: argparse.Namespace) -> int:
    """Make or check the folds and print them."""
    from vesuvius.data.folds import load_folds, save_folds
    from vesuvius.data.make_folds import make_folds, read_facts
    from vesuvius.data.process_pool import default_jobs
    from vesuvius.data.store import list_prepared
    from vesuvius.errors import ConfigError

    if (args.out is None) == (args.check is None):
        raise ConfigError("give either --out FILE to make folds or --check FILE to check them")
    if args.out is not None and args.out.exists() and not args.overwrite:
        raise ConfigError(
            f"{args.out} exists; runs may have been trained by it. Check it with --check, give "
            "another --out, or --overwrite"
        )
    paths = list_prepared(args.data)
    facts = list(read_facts(paths, jobs=default_jobs() if args.jobs is None else args.jobs))
    if args.check is not None:
        folds = load_folds(args.check)
        folds.check_covers([f.volume_id for f in facts])
        changed = [
            f.volume_id
            for f in facts
            if folds.facts[f.volume_id].content not in ("", f.content)
            or folds.facts[f.volume_id].scroll != f.scroll
        ]
        if changed:
            raise ConfigError(
                f"{args.check}: {len(changed)} volumes have other voxels or another scroll than "
                f"when the folds were made, e.g. {changed[0]}"
            )
        print(f"{args.check}: {len(facts)} volumes, {folds.num_folds} folds, no leak")
    else:
        folds = make_folds(facts, num_folds=args.folds, by=args.by, seed=args.seed)
        save_folds(args.out, folds)
        print(f"{args.out}: {len(facts)} volumes in {folds.num_folds} folds by {folds.by}")
    print_table(folds)
    return 0


def print_table(folds: "Folds") -> None:
    """Print one row a fold; warn where folds by scroll are far from equal."""
    from rich.console import Console
    from rich.table import Table

    from vesuvius.data.folds import summary

    rows = summary(folds)
    table = Table()
    for name in ("fold", "volumes", "surface %", "volumes of each scroll"):
        table.add_column(name, justify="left" if "scroll" in name else "right", no_wrap=True)
    for row in rows:
        scrolls = ", ".join(f"{name}: {count}" for name, count in row["scrolls"].items())
        table.add_row(str(row["fold"]), str(row["volumes"]), f"{100 * row['density']:.2f}", scrolls)
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)
    sizes = [row["volumes"] for row in rows]
    if max(sizes) > 2 * min(sizes):
        print(
            f"note: folds hold {min(sizes)} to {max(sizes)} volumes, because scrolls are kept "
            "whole; compare folds by their means, not by sums",
            file=sys.stderr,
        )
