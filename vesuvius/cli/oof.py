"""`vesuvius oof`: out-of-fold predictions of all volumes over the runs of a cross-validation."""

import argparse
from pathlib import Path

HELP = "predict each volume with the fold's run that did not see it; refuse any leak"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Overrides of infer.py: --set tta=flips postprocess=threshold. An "
        "interrupted call goes on where it was when run again."
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or the folder of a sweep")
    add("--volumes", type=Path, required=True, metavar="DATA", help="prepared volumes")
    add("--out", type=Path, required=True, help="folder of all predictions, masks and oof.json")
    add("--splits", type=Path, metavar="FILE", help="folds the runs must follow")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of infer.py")


def run(args: argparse.Namespace) -> int:
    """Predict and say who predicted what."""
    from vesuvius.data.folds import load_folds
    from vesuvius.runtime.oof import mean_scores, predict_out_of_fold
    from vesuvius.runtime.quiet import quiet

    quiet()
    facts = predict_out_of_fold(
        args.runs,
        args.volumes,
        args.out,
        folds=None if args.splits is None else load_folds(args.splits),
        overrides=args.set,
    )
    score, count = mean_scores(facts), len(facts["volumes"])
    text = "" if score is None else f"; mean score {score:.4f}"
    print(
        f"{args.out}: {count} volumes, each by the one of {len(facts['runs'])} runs that did not "
        f"see it{text}"
    )
    return 0
