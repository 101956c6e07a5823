"""`vesuvius kit`: a folder that predicts test volumes without network."""

import argparse
from pathlib import Path

HELP = "build the offline kit: wheels, models, settings and a notebook"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  vesuvius kit logs/train/runs/a nnunet_run --weights 2 1 --postprocess winding \\\n"
        "    --python-version 3.12 --out kit\n"
        "  vesuvius kit-run kit --test test_images --out submission.zip --hours 8.5"
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN_DIR", help="runs, exports, imported nnU-Nets")
    add("--out", type=Path, required=True, help="new folder")
    add("--weights", type=float, nargs="+", help="of the runs' probabilities (default: equal)")
    add("--postprocess", default="threshold", help="option of conf/postprocess, or a YAML file")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. postprocess.threshold=0.3")
    add("--checkpoint", default="best", help="of training runs: best (default) or last")
    add("--hours", type=float, default=8.5, help="budget in the notebook (default 8.5 of 9)")
    add("--no-wheels", action="store_true", help="models and notebook only")
    add("--wheel", type=Path, metavar="FILE", help="this package's wheel, ready made")
    add("--with-torch", action="store_true", help="torch's wheel too (Kaggle has torch)")
    add("--python-version", metavar="3.X", help="Python of the place of use (default: this one)")


def run(args: argparse.Namespace) -> int:
    """Build the kit and say what it holds."""
    from vesuvius.runtime.kit_build import NOTEBOOK, build_kit
    from vesuvius.runtime.quiet import quiet

    quiet()
    facts = build_kit(
        args.runs,
        args.out,
        weights=args.weights,
        postprocess=args.postprocess,
        overrides=args.set,
        checkpoint=args.checkpoint,
        hours=args.hours,
        wheels=not args.no_wheels,
        own_wheel=args.wheel,
        with_torch=args.with_torch,
        python_version=args.python_version,
    )
    models = ", ".join(f"{name} ({weight:.2f})" for name, weight in facts["models"].items())
    print(
        f"{args.out}: {models}; {len(facts['wheels'])} wheels, {facts['bytes'] / 2**20:.0f} MiB. "
        f"Upload it as a data set and run {NOTEBOOK}"
    )
    return 0
