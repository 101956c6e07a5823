"""`vesuvius submit`: the competition's zip from a folder of masks, validated by re-reading."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

HELP = "write and validate submission.zip from predicted masks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = "Masks are <id>.tif, <id>_mask.tif or <id>.npy: what infer.py leaves."
    add = parser.add_argument
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder of masks of {0, 1}")
    add("--test", type=Path, required=True, metavar="DATA", help="folder of the test volumes")
    add("--out", type=Path, default=Path("submission.zip"), help="zip (default submission.zip)")


def run(args: argparse.Namespace) -> int:
    """Write the zip, read it again, say what it holds."""
    from rich.console import Console
    from rich.progress import Progress

    from vesuvius.cli.score_files import find_volumes
    from vesuvius.data.sources import list_volumes
    from vesuvius.data.volume import Volume
    from vesuvius.errors import PairingError
    from vesuvius.inference.submission import write_submission

    tests = {name: Volume(path).shape_zyx for name, path in list_volumes(args.test).items()}
    masks = find_volumes(args.predictions, "prediction")
    missing = sorted(tests.keys() - masks.keys())
    if missing:
        raise PairingError(
            f"{args.predictions}: {len(missing)} of {len(tests)} test volumes have no mask, e.g. "
            f"{missing[0]}"
        )
    extra = sorted(masks.keys() - tests.keys())
    if extra:
        print(f"note: {len(extra)} masks are of no test volume, e.g. {extra[0]}", file=sys.stderr)
    with Progress(console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("zipping", total=len(tests))

        def read_mask(name: str) -> "npt.NDArray[np.uint8]":
            bar.update(task, advance=1)
            mask: npt.NDArray[np.uint8] = Volume(masks[name]).read_all()
            return mask

        found = write_submission(args.out, tests, read_mask)
    shares = found.mask_share
    empty = [name for name, share in shares.items() if share == 0]
    if empty:
        print(f"warning: {len(empty)} masks are empty, e.g. {empty[0]}", file=sys.stderr)
    print(
        f"{args.out}: {len(shares)} volumes, {found.num_bytes / 2**20:.1f} MiB, surface "
        f"{100 * min(shares.values()):.2f} to {100 * max(shares.values()):.2f} % of the voxels; "
        "names, shapes, dtype and values checked"
    )
    return 0
