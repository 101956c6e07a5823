"""`vesuvius prepare`: volumes of any format to Zarr stores that train."""

import argparse
import sys
from collections import Counter
from pathlib import Path

HELP = "convert TIFF, .npy, Zarr, OME-Zarr or TFRecord volumes into Zarr stores for training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add(
        "source",
        type=Path,
        metavar="SOURCE",
        help="Kaggle-layout root (train_images, train_labels, test_images), a folder of volumes, "
        "a folder of 2-D slices, one .tif, .npy, Zarr or OME-Zarr, or one or a folder of .tfrec",
    )
    add("out", type=Path, metavar="OUT", help="gets train/<id>.zarr, test/<id>.zarr or <id>.zarr")
    add("--jobs", type=int, help="processes (default: the number of cores)")
    add("--chunk", type=int, default=64, help="edge of a chunk in voxels (default 64)")
    add("--codec", default="lz4", help="lz4 (default), zstd (smaller, slower) or none")
    add("--images", type=Path, help="image folder or file, where SOURCE has another layout")
    add("--labels", type=Path, help="label folder or file, paired with the images by name")
    add("--ignore-zero", action="store_true", help="partial labels: 0 becomes 2 (ignore)")
    add("--voxel-size-um", type=float, help="edge of a voxel, where the files do not tell")
    add("--overwrite", action="store_true", help="redo finished volumes")


def run(args: argparse.Namespace) -> int:
    """Prepare all volumes; return 0, or 1 if one or more failed."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from vesuvius.data.prepare import PrepareOptions, prepare_all
    from vesuvius.data.process_pool import default_jobs
    from vesuvius.data.sources import find_items

    options = PrepareOptions(
        chunk=args.chunk,
        codec=args.codec,
        ignore_zero=args.ignore_zero,
        voxel_size_um=args.voxel_size_um,
        overwrite=args.overwrite,
    )
    items = find_items(args.source, images=args.images, labels=args.labels)
    num_jobs = default_jobs() if args.jobs is None else args.jobs
    counts: Counter[str] = Counter()
    failures = []
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(items))
        for outcome in prepare_all(items, args.out, options, num_jobs=num_jobs):
            counts[outcome.status] += 1
            progress.update(task, advance=1, description=outcome.item.volume_id)
            if outcome.status == "failed":
                failures.append(outcome)
    print(
        f"{args.out}: {counts['done']} prepared, {counts['skipped']} already finished, "
        f"{counts['failed']} failed, of {len(items)}"
    )
    for outcome in failures:
        print(f"error: {outcome.item.volume_id}: {outcome.error}", file=sys.stderr)
    if any(outcome.fatal for outcome in failures):
        print("stopped: no further volume can be written", file=sys.stderr)
    return 1 if failures else 0
