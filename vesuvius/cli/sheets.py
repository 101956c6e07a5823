"""`vesuvius sheets`: one mesh per sheet."""

import argparse
from pathlib import Path

HELP = "write one mesh per sheet (PLY or OBJ) of a Zarr that `vesuvius winding` wrote"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("labels", type=Path, help="Zarr with `field` and `labels`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the meshes")
    parser.add_argument("--format", choices=("ply", "obj"), default="ply")
    parser.add_argument("--smallest", type=int, default=200, help="skip sheets below, voxels")
    parser.add_argument("--voxel-size-um", type=float, default=1.0, help="scale of the meshes")
    parser.add_argument("--picture", action="store_true", help="also write sheets.png")


def run(args: argparse.Namespace) -> int:
    """Write the meshes and say how many."""
    import numpy as np

    from vesuvius.postprocess.winding.meshes import SheetMesh, sheet_mesh, write_mesh
    from vesuvius.postprocess.winding.store import open_solved

    field, labels = open_solved(args.labels)
    args.out.mkdir(parents=True, exist_ok=True)
    sizes = np.bincount(labels.ravel())
    meshes: list[SheetMesh] = []
    for number in range(1, len(sizes)):
        if sizes[number] < max(args.smallest, 1):
            continue
        mesh = sheet_mesh(field, labels, number)
        if mesh is None:
            continue
        path = args.out / f"sheet_{number:04d}.{args.format}"
        write_mesh(mesh, path, voxel_size_um=args.voxel_size_um)
        meshes.append(mesh)
    if args.picture and meshes:
        draw_sheets(meshes, labels.shape, args.out / "sheets.png")
    faces = sum(len(m.faces) for m in meshes)
    print(f"{len(meshes)} sheets, {faces} triangles -> {args.out}")
    return 0


def draw_sheets(meshes: list, shape_zyx: tuple[int, ...], path: Path) -> None:  # type: ignore[type-arg]
    """Save a picture of all sheets, coloured by number, seen from above one corner."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LightSource
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

    figure = Figure(figsize=(9, 8), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(projection="3d")
    colours = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, max(len(meshes), 2)))
    triangles, shades = [], []
    light = LightSource(azdeg=225, altdeg=45)
    for index, mesh in enumerate(meshes):
        step = max(len(mesh.faces) // 6000, 1)
        faces = mesh.faces[::step] if step > 1 else mesh.faces
        corners = mesh.vertices[faces][:, :, ::-1]
        if step > 1:  # fewer, larger triangles keep the sheet closed to the eye
            middle = corners.mean(1, keepdims=True)
            corners = middle + (corners - middle) * 1.2 * step**0.5
        normal = mesh.normals[faces[:, 0]][:, ::-1]
        bright = 0.55 + 0.45 * np.abs(normal @ light.direction)
        triangles.append(corners)
        colour = np.tile(colours[index], (len(faces), 1))
        colour[:, :3] *= bright[:, None]
        shades.append(colour)
    axes.add_collection3d(
        Poly3DCollection(np.concatenate(triangles), facecolors=np.concatenate(shades), shade=False)
    )
    nz, ny, nx = shape_zyx
    axes.set(xlim=(0, nx), ylim=(0, ny), zlim=(0, nz), xlabel="x", ylabel="y", zlabel="z")
    axes.set_box_aspect((nx, ny, nz))
    axes.view_init(elev=50, azim=-60)
    axes.set_title(f"{len(meshes)} sheets, coloured by number")
    partial = path.with_name(path.stem + ".partial.png")
    figure.savefig(partial, bbox_inches="tight")
    partial.replace(path)
