"""`vesuvius lr-find`: a learning rate to start from."""

import argparse
from pathlib import Path

HELP = "train a few steps at rising learning rates and suggest one to start from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "example:\n"
        "  vesuvius lr-find data=surface_zarr data.root=prepared/train model.n_filters=32\n"
        "Takes the overrides of train.py; nothing is kept but the table."
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    add("--steps", type=int, default=100, help="steps of the test (default 100)")
    add("--low", type=float, default=1e-6, help="first rate (default 1e-6)")
    add("--high", type=float, default=0.3, help="last rate (default 0.3)")
    add("--out", type=Path, metavar="FILE", help="CSV of rate and smoothed loss")


def run(args: argparse.Namespace) -> int:
    """Run the test and print a few rows of it."""
    import tempfile

    from vesuvius.runtime.compose_config import compose_config
    from vesuvius.runtime.lr_find import find_rate, write_table
    from vesuvius.runtime.quiet import quiet

    quiet()
    with tempfile.TemporaryDirectory() as folder:
        cfg = compose_config("train", [*args.overrides, f"paths.output_dir={folder}"])
        result = find_rate(cfg, low=args.low, high=args.high, num_steps=args.steps)
    print(f"{'learning rate':>14} {'loss':>8}")
    for n in range(0, len(result.rates), max(1, len(result.rates) // 12)):
        print(f"{result.rates[n]:14.2e} {result.losses[n]:8.4f}")
    if args.out is not None:
        write_table(result, args.out)
        print(f"table in {args.out}")
    if result.suggestion is None:
        print("the loss never fell: try a smaller --low, or check the data with `vesuvius verify`")
        return 1
    print(f"suggestion: optimizer.lr={result.suggestion:.1e} (the peak, with warm-up)")
    return 0
