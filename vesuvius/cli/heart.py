"""`vesuvius heart`: label maps to training points, checks of them, phantoms, inference."""

import argparse
from collections.abc import Callable
from pathlib import Path

from vesuvius.cli import heart_infer

HELP = "hearts: phantom, prepare, check, inspect, missing, classes, csv, view, infer"

Parser = argparse.ArgumentParser


def add_arguments(parser: Parser) -> None:
    """Declare the command's actions and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _phantom_arguments(actions.add_parser("phantom", help="make ten-class label maps"))
    _prepare_arguments(actions.add_parser("prepare", help="label maps (.nii.gz) to cases (.npz)"))
    _check_arguments(actions.add_parser("check", help="quality of cases; status 1 if critical"))
    _inspect_arguments(actions.add_parser("inspect", help="one case in detail, contradictions"))
    _missing_arguments(actions.add_parser("missing", help="classes and cases that are missing"))
    _classes_arguments(actions.add_parser("classes", help="labels present in the label maps"))
    _csv_arguments(actions.add_parser("csv", help="train.csv and val.csv of one or more folders"))
    _view_arguments(actions.add_parser("view", help="training points over the label map, PNG"))
    heart_infer.add_arguments(actions.add_parser("infer", help=heart_infer.HELP))


def _phantom_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("out", type=Path, help="folder to write heart_<number>.nii.gz into")
    add("--count", type=int, default=8, help="hearts (default 8)")
    add("--size", type=int, nargs="+", default=[96], metavar="N",
        help="voxels along x y z, or one number for all (default 96)")  # fmt: skip
    add("--spacing", type=float, nargs="+", metavar="MM",
        help="along x y z, or one number (default 120 mm / size)")  # fmt: skip
    add("--missing", type=int, nargs="*", default=[], metavar="CLASS", help="classes left out")
    add("--border", action="store_true", help="the volume's edge cuts the heart")
    add("--wall-mm", type=float, help="myocardial thickness (default 8.5 +- 15 %%)")
    add("--seed", type=int, default=0, help="the same seed gives the same files (default 0)")


def _prepare_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("input_dir", type=Path, metavar="LABELS", help="folder of label maps")
    add("output_dir", type=Path, metavar="OUT", help="folder for <id>.npz")
    add("--num-surface-points", type=int, default=50_000, help="as many near points (50000)")
    add("--num-vol-points", type=int, default=50_000, help="half inside, half uniform (50000)")
    add("--min-surface-per-class", type=int, default=2000, help="the rest by area (2000)")
    add("--vol-per-class", type=int, default=2500, help="the rest by volume (2500)")
    add("--near-std", type=float, default=0.01, help="cube units (0.01)")
    add("--sdf-mode", default="min_of_classes",
        help="min_of_classes (default), union_mask, per_class")  # fmt: skip
    add("--min-class-voxels", type=int, default=8, help="fewer is an error: stray voxels (8)")
    _class_arguments(parser)
    add("--pattern", default="*.nii.gz", help="of file names (*.nii.gz)")
    add("--start-idx", type=int, default=0, help="first file by name (0)")
    add("--end-idx", type=int, help="file to stop before (all)")
    add("--batch-size", type=int, default=100_000, help="points interpolated at a time (100000)")
    add("--workers", type=int, default=1, help="threads within a file (1)")
    add("--file-workers", type=int, default=1, help="files at a time, one thread each (1)")
    add("--seed", type=int, default=0, help="of all points (0)")
    add("--overwrite", action="store_true", help="redo finished cases")


def _class_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--classes", type=int, help="number of classes K (10)")
    add("--class-names", nargs="+", metavar="NAME", help="names of classes 1..K")


def _check_arguments(parser: Parser) -> None:
    parser.add_argument("path", type=Path, help="case or folder of cases")
    parser.add_argument("-v", "--verbose", action="store_true", help="every figure of every case")


def _inspect_arguments(parser: Parser) -> None:
    parser.add_argument("file", type=Path, help="case (.npz)")
    parser.add_argument("--show", type=int, default=5, help="contradicting points to list (5)")


def _missing_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("cases", type=Path, help="folder of cases")
    add("--labels", type=Path, help="folder of label maps: also list those without a case")
    add("--pattern", default="*.nii.gz", help="of the label maps' names (*.nii.gz)")
    add("--link", type=Path, help="fill this folder with links to those label maps")


def _classes_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("labels", type=Path, help="folder of label maps")
    add("--pattern", default="*.nii.gz", help="of file names (*.nii.gz)")
    _class_arguments(parser)


def _csv_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="FOLDER", help="folders of cases")
    add("--out", type=Path, required=True, help="folder for train.csv and val.csv")
    add("--train-share", type=float, default=0.8, help="of the patients (0.8)")
    add("--seed", type=int, default=42, help="of the shuffle (42)")
    add("--patient-pattern", help="regular expression that finds the patient in a case's name")
    add("--category", default="heart", help="third column (heart)")


def _view_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("path", type=Path, help="case, folder of cases, or CSV")
    add("--index", type=int, default=0, help="which case of a folder or CSV (0)")
    add("--out", type=Path, required=True, help="PNG to write")
    add("--axis", type=int, default=2, choices=(0, 1, 2), help="across the slice (2)")
    add("--position", type=float, default=0.0, help="of the slice in the cube, -1 to 1 (0)")
    add("--resolution", type=int, default=256, help="pixels of the slice (256)")


def run(args: argparse.Namespace) -> int:
    """Run one action; return its status."""
    import importlib.util

    from vesuvius.errors import ConfigError

    missing = [name for name in ("nibabel", "trimesh") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"vesuvius heart needs {' and '.join(missing)}: pip install 'vesuvius[heart]'"
        )
    from vesuvius.cli import heart_tools

    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "phantom": heart_tools.phantom,
        "prepare": heart_tools.prepare,
        "check": heart_tools.check,
        "inspect": heart_tools.inspect,
        "missing": heart_tools.missing,
        "classes": heart_tools.classes,
        "csv": heart_tools.csv,
        "view": heart_tools.view,
        "infer": heart_infer.run,
    }
    return actions[args.action](args)
