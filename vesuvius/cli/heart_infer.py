"""`vesuvius heart infer`: dense labels and meshes of hearts from a trained run."""

import argparse
from pathlib import Path

HELP = "dense label map, class meshes and picture of hearts, by a trained run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("run_dir", type=Path, help="folder of a heart training run")
    add(
        "inputs",
        type=Path,
        nargs="+",
        metavar="HEART",
        help="cases (.npz), label maps (.nii, .nii.gz), or folders of either",
    )
    add("--out", type=Path, required=True, help="folder for labels, meshes, pictures, reports")
    add("--checkpoint", default="best", help="best (default), last, or a path")
    add(
        "--keep",
        nargs="+",
        metavar="CLASS",
        help="classes the network sees: numbers, or left_heart, right_heart, four_chambers, "
        "great_vessels (default: all there are)",
    )
    add("--only-given", action="store_true", help="complete nothing: predict seen classes only")
    add(
        "--resolution",
        type=int,
        help="cells of the cube an axis (default: the voxels of the label map)",
    )
    add("--mesh", choices=("ply", "obj", "none"), default="ply", help="format (default ply)")
    add("--no-picture", action="store_true", help="no PNG")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    add("--seed", type=int, default=0, help="of the surface points (0)")


def run(args: argparse.Namespace) -> int:
    """Predict all hearts; print a table of the scores; return 0."""
    from vesuvius.runtime.heart_infer import HeartInferOptions, infer_hearts
    from vesuvius.runtime.heart_inputs import find_inputs
    from vesuvius.runtime.quiet import quiet

    quiet()
    options = HeartInferOptions(
        checkpoint=args.checkpoint,
        input_classes=_kept(args.keep),
        only_given=args.only_given,
        resolution=args.resolution,
        mesh_format=None if args.mesh == "none" else args.mesh,
        picture=not args.no_picture,
        device=args.device,
        seed=args.seed,
    )
    reports = infer_hearts(args.run_dir, find_inputs(args.inputs), args.out, options)
    for report in reports:
        scores = [f"{name} {report[name]}" for name in ("iou_3d", "class_dice") if name in report]
        print(f"{report['case']}  {report['seconds']} s  " + "  ".join(scores))
    print(f"results in {args.out}")
    return 0


def _kept(classes: list[str] | None) -> str | tuple[int, ...] | None:
    """Return numbers, or the name of a subset, as given."""
    from vesuvius.errors import ConfigError

    if classes is None:
        return None
    if all(name.isdigit() for name in classes):
        return tuple(int(name) for name in classes)
    if len(classes) == 1:
        return classes[0]
    raise ConfigError(f"--keep {' '.join(classes)}; expected class numbers, or one name of a part")
