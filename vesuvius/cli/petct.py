"""`vesuvius petct`: phantom, patient-wise split, evaluation and prediction of CT-PET runs."""

import argparse
from collections.abc import Callable
from pathlib import Path

HELP = "CT-PET lesion segmentation: phantom, split, evaluate, predict, strip-vgg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _phantom_arguments(actions.add_parser("phantom", help="draw synthetic CT, PET and masks"))
    _split_arguments(actions.add_parser("split", help="split a data set by patient"))
    _evaluate_arguments(actions.add_parser("evaluate", help="score a run, write its predictions"))
    _predict_arguments(actions.add_parser("predict", help="masks of slices without truth"))
    strip = actions.add_parser("strip-vgg", help="keep the eight convolutions of a VGG19 file")
    strip.add_argument("source", type=Path, help="vgg19-dcbb9e9d.pth (checked by its name's hash)")
    strip.add_argument("target", type=Path, help="file to write: .safetensors or .pth, 9.3 MB")


def _phantom_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("out", type=Path, help="folder to write CT, PET and masks into")
    add("--patients", type=int, default=20, help="patients (default 20)")
    add("--slices", type=int, default=10, help="slices of each (default 10)")
    add("--size", type=int, default=512, help="edge in pixels (default 512)")
    add("--radius", type=float, nargs=2, default=(5.0, 26.0), metavar=("MIN", "MAX"),
        help="of lesions, pixels of a 512 grid (default 5 26)")  # fmt: skip
    add("--seed", type=int, default=0, help="the same seed gives the same files (default 0)")


def _split_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("root", type=Path, help="{CT,PET,masks} or PCLT20K's patient folders")
    add("out", type=Path, help="new folder: {train,val,test}/{CT,PET,masks}, split_info.json")
    add("--val-ratio", type=float, default=0.2, help="share of the patients (default 0.2)")
    add("--test-ratio", type=float, default=0.0, help="share of the patients (default 0)")
    add("--seed", type=int, default=42, help="of the shuffle (default 42)")
    add("--copy", action="store_true", help="copy files instead of linking them")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_dir", type=Path, metavar="RUN_DIR", help="folder of a training run")
    add("--out", type=Path, required=True, help="folder to write into")
    add("--checkpoint", default="best", help="best, last or a path (default best)")
    add("--device", default="auto", help="auto, cpu, cuda (default auto)")


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    _run_arguments(parser)
    add = parser.add_argument
    add("--data", type=Path, help="other data than the run's own")
    add("--split", default="val", choices=("train", "val", "test", "all"), help="default val")
    add("--threshold", type=float, help="default: the best on the run's validation slices")
    add("--batch-size", type=int, default=8, help="slices a forward (default 8)")
    add("--no-predictions", action="store_true", help="write no PNG masks")


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    _run_arguments(parser)
    add = parser.add_argument
    add("--ct", type=Path, required=True, help="PNG file, or folder of them")
    add("--pet", type=Path, required=True, help="PNG file, or folder with the same names")
    add("--threshold", type=float, default=0.5, help="default 0.5; see results.json of evaluate")


def run(args: argparse.Namespace) -> int:
    """Run one action; return 0."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "phantom": _phantom,
        "split": _split,
        "evaluate": _evaluate,
        "predict": _predict,
        "strip-vgg": _strip,
    }
    actions[args.action](args)
    return 0


def _phantom(args: argparse.Namespace) -> None:
    from rich.progress import track

    from vesuvius.data.petct.phantom import PhantomSettings
    from vesuvius.data.petct.phantom_files import write_phantom

    settings = PhantomSettings(size=args.size, lesion_radius=tuple(args.radius))
    total = args.patients * args.slices
    steps = iter(track(range(total), description="slices", transient=True))
    written = write_phantom(
        args.out,
        num_patients=args.patients,
        slices_per_patient=args.slices,
        settings=settings,
        seed=args.seed,
        progress=lambda: next(steps, None),
    )
    print(f"{args.out}: {written} slices written, {total - written} were there")


def _split(args: argparse.Namespace) -> None:
    from vesuvius.data.petct.split import split_folder

    sides = split_folder(
        args.root,
        args.out,
        val_ratio=args.val_ratio,
        test_ratio=args.test_ratio,
        seed=args.seed,
        copy=args.copy,
    )
    for side, triples in sides.items():
        print(f"{side}: {len(triples)} slices of {len({t.patient for t in triples})} patients")


def _evaluate(args: argparse.Namespace) -> None:
    from vesuvius.runtime.petct import evaluate, load_trained

    trained = load_trained(args.run_dir, checkpoint=args.checkpoint, device=args.device)
    results = evaluate(
        trained,
        args.out,
        split=args.split,
        root=args.data,
        threshold=args.threshold,
        batch_size=args.batch_size,
        save_predictions=not args.no_predictions,
    )
    print(f"{results['num_slices']} slices of {results['num_patients']} patients ({args.split}),")
    print(f"threshold {results['threshold']} ({results['threshold_chosen_on']})")
    for name, value in results["overall"].items():
        print(f"  {name:<14} {value:.4f}")
    print(f"results.json and predictions in {args.out}")


def _predict(args: argparse.Namespace) -> None:
    from vesuvius.runtime.petct import load_trained, predict_files

    trained = load_trained(args.run_dir, checkpoint=args.checkpoint, device=args.device)
    written = predict_files(trained, args.ct, args.pet, args.out, threshold=args.threshold)
    print(f"{len(written)} masks in {args.out}")


def _strip(args: argparse.Namespace) -> None:
    from vesuvius.models.petct.vgg_weights import strip_vgg19

    digest = strip_vgg19(args.source, args.target)
    print(f"{args.target}: sha256 {digest}; use it as model.vgg.weights={args.target}")
