"""`vesuvius view`: a volume and its layers as one HTML page with three linked planes."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vesuvius.cli.view_layers import Source
    from vesuvius.pictures.view import Scene

HELP = "write a volume, prediction, mask, label and sheets as one HTML page to look through"

_MB = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Write one self-contained HTML page: axial, coronal and sagittal plane with a common\n"
        "crosshair, contrast, and the layers given. It loads nothing and opens from a file.\n"
        "Layers have the shape of the volume or of the region. Grey values of uint8 stay exact;\n"
        "others are cut to the percentiles 0.1 and 99.9 and put in 256 steps."
    )
    parser.epilog = (
        "examples:\n"
        "  vesuvius view scan.tif --label label.tif --out scan.html\n"
        "  vesuvius view prepared/1.zarr --prediction out/1.zarr --mask out/1_mask.tif \\\n"
        "      --sheets sheets.zarr --out 1.html\n"
        "  vesuvius view https://host/scroll.zarr --level 2 \\\n"
        "      --region-zyx '[[1000,1200],[500,800],[500,800]]' --out part.html"
    )
    add = parser.add_argument
    add(
        "volume", metavar="VOLUME", help="TIFF, folder of slices, .npy, Zarr, OME-Zarr; path or URL"
    )
    add("--out", type=Path, required=True, metavar="FILE", help="HTML file to write")
    add("--prediction", metavar="PATH", help="probability: Zarr of infer.py, or a volume")
    add("--mask", metavar="PATH", help="mask: volume, or a Zarr with the array `mask`")
    add("--label", metavar="PATH", help="label of 0, 1, 2: volume, or a Zarr with `label`")
    add("--sheets", metavar="PATH", help="sheet numbers: Zarr of `vesuvius winding`, or a volume")
    add("--level", type=int, default=0, help="resolution level of an OME-Zarr, 0 = full")
    add("--region-zyx", metavar="BOX", help="'[[z0,z1],[y0,y1],[x0,x1]]' in voxels of that level")
    add("--voxel-size-um", type=float, help="edge of a voxel (default: what the volume says)")
    add("--title", help="heading (default: the volume's name)")
    add(
        "--max-mb", type=float, default=60.0,
        help="largest page in MB; above it cells of 2^3, 3^3, ... voxels are shown (default 60)",
    )  # fmt: skip
    add(
        "--max-voxels", type=float, default=6e7,
        help="most voxels in the page: the browser holds up to 6 bytes for each (default 6e7)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the page; return 0."""
    from vesuvius.cli.view_layers import open_source, smallest_factor
    from vesuvius.errors import ConfigError
    from vesuvius.pictures.view import view_page, write_view

    if not args.max_mb > 0:
        raise ConfigError(f"--max-mb must be above 0, got {args.max_mb}")
    if not args.max_voxels >= 1:
        raise ConfigError(f"--max-voxels must be 1 or more, got {args.max_voxels}")
    if args.voxel_size_um is not None and not 0 < args.voxel_size_um < float("inf"):
        raise ConfigError(f"--voxel-size-um must be above 0 micrometres, got {args.voxel_size_um}")
    source = open_source(
        args.volume, level=args.level, region=args.region_zyx,
        layers={name: getattr(args, name) for name in ("prediction", "mask", "label", "sheets")},
    )  # fmt: skip
    factor = smallest_factor(source.image.shape, args.max_voxels)
    while True:
        if factor > 1:
            print(f"showing cells of {factor}^3 voxels; --region-zyx or --level shows a part, or "
                  "a coarser level, voxel by voxel", file=sys.stderr)  # fmt: skip
        content = view_page(_scene(args, source, factor))
        too_large = len(content) / (args.max_mb * _MB)
        if too_large <= 1 or factor >= max(source.image.shape):
            break
        print(f"{len(content) / _MB:.0f} MB is above --max-mb {args.max_mb:g}", file=sys.stderr)
        factor = max(factor + 1, round(factor * too_large ** (1 / 3)))
    write_view(args.out, content)
    print(f"{args.out}: {len(content) / _MB:.2f} MB")
    return 0


def _scene(args: argparse.Namespace, source: "Source", factor: int) -> "Scene":
    """Return what the page shows."""
    from vesuvius.cli.view_layers import read_layers
    from vesuvius.pictures.view import Scene

    arrays, grey_range, notes = read_layers(source, factor)
    image = source.image
    size = image.volume.voxel_size_zyx_um
    if args.voxel_size_um is not None:
        size = (args.voxel_size_um,) * 3
    shape = " x ".join(map(str, image.shape))
    parts = [f"{shape} voxels (z, y, x), {image.dtype}"]
    if args.level:
        parts.append(f"level {args.level}")
    if not image.whole:
        parts.append(f"region from {', '.join(map(str, image.origin_zyx))}")
    parts.append("voxel size unknown" if size is None else _size_text(size))
    return Scene(
        title=args.title or image.volume.name,
        grey_range=grey_range,
        origin_zyx=image.origin_zyx,
        factor=factor,
        voxel_size_zyx_um=size,
        line="  \u00b7  ".join(parts),
        notes=notes,
        **arrays,
    )


def _size_text(size: tuple[float, float, float]) -> str:
    text = " x ".join(f"{n:g}" for n in (size if len(set(size)) > 1 else size[:1]))
    return f"{text} \u00b5m a voxel"
