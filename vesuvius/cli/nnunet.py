"""`vesuvius nnunet`: models from nnU-Net, data to nnU-Net."""

import argparse
from pathlib import Path

HELP = "import an nnU-Net v2 model for infer.py, or export prepared volumes to nnU-Net's raw format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the two actions and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "write a folder that infer.py takes as run_dir, with nnU-Net's own outputs"
    add = actions.add_parser("import", help=text, description=text).add_argument
    add("folder", type=Path, metavar="FOLDER", help="plans.json, dataset.json, fold_<k>/")
    add("--out", type=Path, required=True, help="new folder; infer.py run_dir=OUT runs from it")
    add("--folds", nargs="+", help="0 1 ... or all; logits are averaged (default: all there)")
    add(
        "--checkpoint",
        default="checkpoint_final.pth",
        help="file in each fold (default %(default)s)",
    )
    add("--label", help="name of the surface in dataset.json (default: surface, or the only one)")
    add(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="voxel size of the volumes to predict, to be compared with the model's",
    )
    text = "write nnUNet_raw/DatasetXXX_<name> with TIFF images and labels"
    add = actions.add_parser("export-raw", help=text, description=text).add_argument
    add("prepared", type=Path, metavar="PREPARED", help="folder of prepared, labelled volumes")
    add("--out", type=Path, required=True, help="e.g. nnUNet_raw/Dataset001_scroll")
    add("--test", type=Path, metavar="PREPARED", help="prepared volumes for imagesTs")
    add("--splits", type=Path, metavar="FILE", help="folds of `vesuvius splits`, for nnU-Net too")
    add("--channel", default="CT", help="CT (default), zscore, rescale_to_0_1 or noNorm")
    add("--jobs", type=int, help="volumes at a time (default: number of cores)")


def run(args: argparse.Namespace) -> int:
    """Do what was asked and say what was written."""
    return run_import(args) if args.action == "import" else run_export(args)


def run_import(args: argparse.Namespace) -> int:
    """Import a model."""
    from vesuvius.runtime.nnunet_import import import_nnunet
    from vesuvius.runtime.quiet import quiet

    quiet()
    facts = import_nnunet(
        args.folder,
        args.out,
        folds=args.folds,
        checkpoint=args.checkpoint,
        label=args.label,
        spacing_zyx=args.spacing,
    )
    print(
        f"{args.out}: {facts['configuration']} of {facts['dataset']}, folds "
        f"{', '.join(facts['folds'])}, window {facts['patch_size']}, "
        f"{facts['normalisation']['scheme']}, mirroring over axes {facts['mirror_axes']}"
    )
    print(f"run it: python infer.py run_dir={args.out} volume=<file or folder> tta=flips")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Export volumes."""
    import sys

    from rich.console import Console
    from rich.progress import track

    from vesuvius.data.folds import load_folds
    from vesuvius.data.nnunet_raw import export_raw
    from vesuvius.data.process_pool import default_jobs
    from vesuvius.data.store import list_prepared

    total = sum(len(list_prepared(path)) for path in (args.prepared, args.test) if path is not None)
    ids = export_raw(
        args.prepared,
        args.out,
        test=args.test,
        channel=args.channel,
        folds=None if args.splits is None else load_folds(args.splits),
        jobs=default_jobs() if args.jobs is None else args.jobs,
    )
    console = Console(file=sys.stderr)
    count = sum(1 for _ in track(ids, "exporting", total=total, console=console))
    print(f"{args.out}: {count} volumes")
    if args.splits is not None:
        print(
            f"copy {args.out / 'splits_final.json'} to nnUNet_preprocessed/{args.out.name}/ after "
            "nnUNetv2_plan_and_preprocess: nnU-Net then trains on the same folds"
        )
    return 0
