"""`vesuvius kit-run`: what the kit's notebook calls."""

import argparse
import sys
from pathlib import Path

HELP = "predict test volumes with an offline kit within a time budget; write submission.zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("kit", type=Path, metavar="KIT", help="folder of `vesuvius kit`")
    add("--test", type=Path, required=True, metavar="DATA", help="folder of test volumes")
    add("--out", type=Path, default=Path("submission.zip"), help="zip (default submission.zip)")
    add("--work", type=Path, metavar="DIR", help="masks and reports (default: kit_work beside it)")
    add("--hours", type=float, default=8.5, help="for everything (default 8.5)")
    add("--devices", nargs="+", default=[], help="one process each (default: all GPUs, else cpu)")
    add(
        "--ladder",
        nargs="+",
        default=[],
        metavar="OVERLAP:TTA",
        help="settings from best to fastest (default 0.5:flips_rot90 0.5:flips 0.5:none 0.25:none "
        "0.1:none)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the kit and say what was written; a problem with a volume is no reason to stop."""
    from vesuvius.inference.budget import LADDER, parse_ladder
    from vesuvius.runtime.kit_run import run_kit
    from vesuvius.runtime.quiet import quiet

    quiet()
    result = run_kit(
        args.kit,
        args.test,
        args.out,
        work_dir=args.work or args.out.parent / "kit_work",
        hours=args.hours,
        devices=args.devices,
        ladder=parse_ladder(args.ladder) if args.ladder else LADDER,
    )
    for name, problem in result.problems.items():
        print(f"problem: {name}: {problem}", file=sys.stderr)
    size = result.submission.num_bytes / 2**20
    print(
        f"{args.out}: {len(result.submission.shapes)} volumes in {result.seconds:.0f} s, "
        f"{size:.1f} MiB; names, shapes, dtype and values checked; {len(result.problems)} problems"
    )
    return 0
