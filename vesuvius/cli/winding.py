"""`vesuvius winding`: sheet numbers and mask of a saved prediction."""

import argparse
import json
from pathlib import Path

HELP = "number the wraps of a prediction and write field, labels and mask"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("prediction", type=Path, help="Zarr with `probability` (and `normals`)")
    parser.add_argument("--out", type=Path, required=True, help="Zarr folder to write")
    parser.add_argument(
        "--block", type=int, default=384, help="volumes with a longer edge are solved in blocks"
    )
    parser.add_argument("--overlap", type=int, default=64, help="voxels that blocks share")
    parser.add_argument("--workers", type=int, default=1, help="processes for blocks")
    parser.add_argument("--threads", type=int, default=None, help="threads (default: all cores)")
    parser.add_argument("--threshold", type=float, default=0.5, help="surface from here on")
    parser.add_argument(
        "--thickness", type=float, default=None, help="of the mask, voxels (default: the data's)"
    )
    parser.add_argument(
        "--umbilicus-yx", type=float, nargs=2, metavar=("Y", "X"), default=None,
        help="scroll axis in voxels: numbers rise outward, and by one a turn if it lies inside "
        "(one block only)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def run(args: argparse.Namespace) -> int:
    """Solve, write the Zarr folder, print the report as JSON."""
    from vesuvius.postprocess.winding import MaskSettings
    from vesuvius.postprocess.winding.store import open_probability

    mask_settings = MaskSettings(threshold=args.threshold, thickness=args.thickness)
    shape = open_probability(args.prediction)[0].shape
    report = (
        _in_blocks(args, mask_settings)
        if max(shape) > args.block
        else _at_once(args, mask_settings)
    )
    print(json.dumps(report, indent=1))
    return 0


def _at_once(args: argparse.Namespace, mask_settings: object) -> dict[str, object]:
    from vesuvius.postprocess.winding import winding_field
    from vesuvius.postprocess.winding.store import (
        create_outputs,
        new_folder,
        open_probability,
        read_box,
    )

    everything = (slice(None), slice(None), slice(None))
    with new_folder(args.out) as folder:  # an existing --out is refused before the work
        volume, normals = read_box(*open_probability(args.prediction), everything)
        result = winding_field(
            volume, normals, umbilicus_yx=args.umbilicus_yx, device=args.device,
            threads=args.threads, mask_settings=mask_settings,  # type: ignore[arg-type]
        )  # fmt: skip
        arrays = create_outputs(folder, volume.shape)
        arrays["field"][:] = result.field
        arrays["labels"][:] = result.labels
        arrays["mask"][:] = result.mask
    return dict(result.report)


def _in_blocks(args: argparse.Namespace, mask_settings: object) -> dict[str, object]:
    from vesuvius.errors import ConfigError
    from vesuvius.postprocess.winding.blocks import solve_blocks
    from vesuvius.postprocess.winding.parallel import resolve_threads

    if args.umbilicus_yx is not None:
        raise ConfigError(
            f"--umbilicus-yx is given, but the volume is solved in blocks of {args.block}, which "
            "do not use it; leave it away, or raise --block to the longest edge"
        )
    threads = max(resolve_threads(args.threads) // args.workers, 1)
    report = solve_blocks(
        args.prediction, args.out, block=args.block, overlap=args.overlap, workers=args.workers,
        threads=threads, device=args.device,
        mask_settings=mask_settings,  # type: ignore[arg-type]
    )  # fmt: skip
    return {
        "blocks": report.blocks,
        "coherence": report.coherence,
        "fallback": report.fallback,
        "links": len(report.links),
        "broken_links": [f"{k.a}-{k.b}" for k in report.broken],
    }
