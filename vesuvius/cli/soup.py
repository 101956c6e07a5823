"""`vesuvius soup`: one checkpoint from several."""

import argparse
from pathlib import Path

HELP = "average the weights of several checkpoints of one network into one checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "example:\n"
        "  vesuvius soup RUN/checkpoints/epoch029.ckpt RUN/checkpoints/last.ckpt "
        "--out RUN/checkpoints/soup.ckpt\n"
        "  python infer.py run_dir=RUN checkpoint=RUN/checkpoints/soup.ckpt volume=...\n"
        "Networks trained from different random weights do not average: make an ensemble\n"
        "(python infer.py run_dir=[RUN_A,RUN_B])."
    )
    add = parser.add_argument
    add("checkpoints", type=Path, nargs="+", metavar="CKPT", help="two or more checkpoints")
    add("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    add("--weights", type=float, nargs="+", help="one for each checkpoint (default: equal)")


def run(args: argparse.Namespace) -> int:
    """Write the mean."""
    from vesuvius.runtime.soup import make_soup

    path = make_soup(args.checkpoints, args.out, weights=args.weights)
    print(f"{path}: mean of {len(args.checkpoints)} checkpoints")
    return 0
