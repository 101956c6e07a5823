"""`vesuvius sheets`: one mesh per sheet."""

import argparse
from pathlib import Path

HELP = "write one mesh per sheet (PLY or OBJ) of a Zarr that `vesuvius winding` wrote"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("labels", type=Path, help="Zarr of `vesuvius winding`")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the meshes; refused if it holds some"
    )
    parser.add_argument("--format", choices=("ply", "obj"), default="ply")
    parser.add_argument("--smallest", type=int, default=200, help="skip sheets below, voxels")
    parser.add_argument("--voxel-size-um", type=float, default=1.0, help="scale of the meshes")
    parser.add_argument("--picture", action="store_true", help="also write sheets.png")


def run(args: argparse.Namespace) -> int:
    """Write the meshes and say how many."""
    import numpy as np

    from vesuvius.errors import ConfigError
    from vesuvius.pictures.sheets import draw_sheets
    from vesuvius.postprocess.winding.meshes import sheet_mesh, write_mesh
    from vesuvius.postprocess.winding.store import open_solved
    from vesuvius.storage.files import storage_errors

    if not 0 < args.voxel_size_um < float("inf"):
        raise ConfigError(f"--voxel-size-um is {args.voxel_size_um}; expected a number above 0")
    field, labels = open_solved(args.labels)
    _refuse_meshes(args.out)
    with storage_errors(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    sizes = np.bincount(labels.ravel())
    written = faces = 0
    for number in range(1, len(sizes)):
        if sizes[number] < max(args.smallest, 1):
            continue
        mesh = sheet_mesh(field, labels, number)
        if mesh is None:
            continue
        path = args.out / f"sheet_{number:04d}.{args.format}"
        write_mesh(mesh, path, voxel_size_um=args.voxel_size_um)
        written, faces = written + 1, faces + len(mesh.faces)
    if args.picture:
        draw_sheets(args.out / "sheets.png", labels=labels, field=field)
    print(f"{written} sheets, {faces} triangles -> {args.out}")
    return 0


def _refuse_meshes(out: Path) -> None:
    """Raise StorageError if the folder holds meshes: of another solve, they name other sheets."""
    from vesuvius.errors import StorageError

    found = sorted(p.name for kind in ("ply", "obj") for p in out.glob(f"sheet_*.{kind}"))
    if found:
        raise StorageError(
            f"{out} holds meshes already ({len(found)}, {found[0]} the first), whose numbers would "
            "mix with the new ones; remove them or choose another --out"
        )
