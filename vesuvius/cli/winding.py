"""`vesuvius winding`: sheet numbers and mask of a saved prediction."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vesuvius.postprocess.winding import MaskSettings

HELP = "number the wraps of a prediction and write field, labels and mask"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = "Killed in the middle of a volume in blocks, the same command goes on."
    parser.add_argument("prediction", type=Path, help="Zarr with `probability` (and `normals`)")
    parser.add_argument("--out", type=Path, required=True, help="Zarr folder to write")
    parser.add_argument(
        "--block", type=int, default=384, help="volumes with a longer edge are solved in blocks"
    )
    parser.add_argument("--overlap", type=int, default=64, help="voxels that blocks share")
    parser.add_argument(
        "--workers", type=int, default=1,
        help="processes of this machine for blocks; more than 1 need vesuvius[dask]",
    )  # fmt: skip
    parser.add_argument(
        "--dask", metavar="ADDRESS", default=None,
        help="instead: a Dask scheduler, tcp://host:8786, whose workers see the same folders",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=None,
        help="threads a worker (default: all cores of its machine, shared by --workers)",
    )  # fmt: skip
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
    from vesuvius.errors import ConfigError
    from vesuvius.postprocess.winding import MaskSettings
    from vesuvius.postprocess.winding.store import open_probability, refuse_existing

    if args.workers < 1:
        raise ConfigError(f"--workers is {args.workers}; expected 1 or more")
    mask_settings = MaskSettings(threshold=args.threshold, thickness=args.thickness)
    shape = open_probability(args.prediction)[0].shape
    refuse_existing(args.out)  # before the work
    report = (
        _in_blocks(args, mask_settings)
        if max(shape) > args.block
        else _at_once(args, mask_settings)
    )
    print(json.dumps(report, indent=1))
    return 0


def _at_once(args: argparse.Namespace, mask_settings: "MaskSettings") -> dict[str, object]:
    from vesuvius.postprocess.winding import FieldSettings, winding_field
    from vesuvius.postprocess.winding.device import resolve_device
    from vesuvius.postprocess.winding.store import (
        SheetStore,
        decisive_settings,
        open_probability,
        read_box,
    )

    everything = (slice(None), slice(None), slice(None))
    device, settings = resolve_device(args.device), FieldSettings()
    volume, normals = read_box(*open_probability(args.prediction), everything)
    result = winding_field(
        volume, normals, umbilicus_yx=args.umbilicus_yx, device=device,
        threads=args.threads, settings=settings, mask_settings=mask_settings,
    )  # fmt: skip
    decisive = decisive_settings(args.prediction.resolve(), device, settings, mask_settings)
    decisive["umbilicus_yx"] = args.umbilicus_yx
    store = SheetStore(args.out, args.prediction, settings=decisive, provenance=_facts(args))
    store.write_whole(result)
    return dict(result.report)


def _in_blocks(args: argparse.Namespace, mask_settings: "MaskSettings") -> dict[str, object]:
    from vesuvius.cli.stage_bar import stage_bar
    from vesuvius.errors import ConfigError
    from vesuvius.postprocess.winding.blocks import solve_blocks
    from vesuvius.postprocess.winding.parallel import resolve_threads

    if args.umbilicus_yx is not None:
        raise ConfigError(
            f"--umbilicus-yx is given, but the volume is solved in blocks of {args.block}, which "
            "do not use it; leave it away, or raise --block to the longest edge"
        )
    threads = args.threads
    if args.dask is None:
        threads = max(resolve_threads(args.threads) // max(args.workers, 1), 1)
    with stage_bar() as show:
        report = solve_blocks(
            args.prediction, args.out, block=args.block, overlap=args.overlap,
            workers=args.workers, dask=args.dask, threads=threads, device=args.device,
            mask_settings=mask_settings, provenance=_facts(args), progress=show,
        )  # fmt: skip
    return {
        "blocks": report.blocks,
        "blocks_before": report.before,
        "blocks_empty": report.empty,
        "coherence_least": min(report.coherence),
        "coherence_mean": sum(report.coherence) / report.blocks,
        "fallback": report.fallback,
        "links": len(report.links),
        "broken_links": [f"{k.a}-{k.b}" for k in report.broken],
        "seconds": round(report.seconds, 1),
        "voxels_per_s": round(report.voxels_per_s),
    }


def _facts(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `vesuvius info` prints of the result; without what does not change a byte."""
    from vesuvius import __version__
    from vesuvius.errors import VolumeFormatError
    from vesuvius.inference.facts import read_provenance
    from vesuvius.postprocess.winding.store import open_probability
    from vesuvius.runtime.versions import git_commit, package_versions

    try:
        before = read_provenance(args.prediction)
    except VolumeFormatError:  # a prediction of another program
        before = {}
    found = open_probability(args.prediction)[0]
    settings = {
        name: getattr(args, name)
        for name in ("block", "overlap", "threshold", "thickness", "umbilicus_yx", "device")
        if getattr(args, name) is not None
    }
    words = ["vesuvius", "winding", str(args.prediction), "--out", str(args.out)]
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return {
        "command": shlex.join(words),
        "vesuvius": __version__,
        "git_commit": git_commit(),
        "packages": package_versions(("numpy", "scipy", "numba", "zarr")),
        "models": before.get("models", []),
        "settings": settings,
        "input": {
            "source": str(args.prediction),
            "level": 0,
            "region_zyx": [[0, n] for n in found.shape],
            "shape_zyx": list(found.shape),
            "dtype": str(found.dtype),
            "voxel_size_zyx_um": before.get("input", {}).get("voxel_size_zyx_um"),
        },
        "prediction": before,
    }
