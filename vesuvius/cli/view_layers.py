"""Reads what `vesuvius view` shows: the volume, its layers, by region, reduced to cells."""

import contextlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vesuvius.data.region import RegionView
from vesuvius.data.volume import Volume, open_volume
from vesuvius.errors import (
    ConfigError,
    LabelValueError,
    ShapeMismatchError,
    VolumeFormatError,
)

Array = npt.NDArray[Any]
_SLAB_BYTES = 64 * 2**20
_GREY_PERCENTILES = (0.1, 99.9)
_ARRAYS = {
    "prediction": ("probability",),
    "mask": ("mask",),
    "label": ("label",),
    "sheets": ("labels/sheets", "labels", "wrap"),
}
"""Where a layer lies inside of a Zarr group; the first one that is there."""
_RANK = np.array([0, 2, 1], np.uint8)
"""Of label values: a cell with any surface is surface, else with any ignore is ignore."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is shown, opened but not read.

    Attributes:
        image: the volume, or the region of it.
        layers: by name, of the image's shape.
    """

    image: RegionView
    layers: Mapping[str, RegionView]


def open_source(
    volume: str, *, level: int, region: str | None, layers: Mapping[str, str | None]
) -> Source:
    """Open the volume and the layers that are given.

    Raises:
        VolumeNotFoundError, VolumeFormatError: something cannot be read.
        ConfigError: no such level, region or array; a prediction of another region.
        ShapeMismatchError: a layer has neither the volume's shape nor the region's.
    """
    image = RegionView(open_volume(volume, level=level), parse_region(region))
    return Source(
        image,
        {name: _layer(name, path, image) for name, path in layers.items() if path is not None},
    )


def parse_region(text: str | None) -> list[list[int]] | None:
    """Return the box of `[[z0,z1],[y0,y1],[x0,x1]]`; None stays None.

    Raises:
        ConfigError: not of that form.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    good = isinstance(found, list) and all(
        isinstance(pair, list) and all(type(n) is int for n in pair) for pair in found
    )
    if not good:
        raise ConfigError(
            f"--region-zyx {text!r} is no box; expected '[[z0,z1],[y0,y1],[x0,x1]]' in whole voxels"
        )
    return cast("list[list[int]]", found)


def smallest_factor(shape_zyx: Sequence[int], most: float) -> int:
    """Return the smallest whole number whose cells are at most `most`."""
    factor = 1
    while np.prod([-(-n // factor) for n in shape_zyx], dtype=float) > most:
        factor += 1
    return factor


def read_layers(
    source: Source, factor: int
) -> tuple[dict[str, Array], tuple[float, float], list[str]]:
    """Return the arrays of a `Scene`, the grey values of its 0 and 255, and notes.

    Cells of factor^3 voxels get the mean of grey value and probability, 1 of a mask if any voxel
    has it, the largest sheet number, and surface before ignore of a label.

    Raises:
        LabelValueError: a label with values other than 0, 1, 2.
        VolumeFormatError: a layer of a data type it cannot have, or a damaged file.
    """
    notes = []
    if factor > 1:
        notes.append(f"cells of {factor} x {factor} x {factor} voxels")
    image, grey_range, note = grey_bytes(read_cells(source.image, factor, "mean"))
    notes += note
    arrays: dict[str, Array] = {"image": image}
    for name, view in source.layers.items():
        if name == "prediction":
            arrays["probability"], note = _probability(read_cells(view, factor, "mean"))
            notes += note
        elif name == "mask":
            arrays[name] = read_cells(view, factor, "any")
        elif name == "label":
            arrays[name] = read_cells(view, factor, "label")
        else:
            if view.dtype.kind not in "iub":
                raise VolumeFormatError(
                    f"--sheets {view.volume.source}: dtype {view.dtype}; expected whole numbers"
                )
            arrays[name] = read_cells(view, factor, "max")
    return arrays, grey_range, notes


def read_cells(view: RegionView, factor: int, how: str) -> Array:
    """Return a region reduced to cells of factor^3 voxels; never more than a slab is read at once.

    Args:
        view: region.
        factor: edge of a cell; at the far edge cells hold what there is.
        how: "mean", "max", "any" (uint8 0, 1) or "label" (uint8).
    """
    depth, height, width = view.shape
    per_slice = height * width * view.dtype.itemsize * factor
    step = factor * max(1, _SLAB_BYTES // per_slice)
    slabs = []
    for z in _shown(range(0, depth, step), f"reading {view.volume.name}"):
        slab = view[z : min(z + step, depth), 0:height, 0:width]
        if how == "any":
            slab = (np.nan_to_num(slab) > 0).astype(np.uint8)
        elif how == "label":
            slab = _label_rank(slab, view)
        slabs.append(_reduced(slab, factor, np.mean if how == "mean" else np.max))
    cells = np.concatenate(slabs)
    return _RANK[cells] if how == "label" else cells


def _shown(starts: range, text: str) -> Iterable[int]:
    """Return the starts, with a progress bar where there are several."""
    if len(starts) < 2:
        return starts
    from rich.console import Console
    from rich.progress import track

    return track(starts, text, console=Console(file=sys.stderr), transient=True)


def _label_rank(slab: Array, view: RegionView) -> Array:
    if slab.size and (slab.min() < 0 or slab.max() > 2 or (slab != np.floor(slab)).any()):
        raise LabelValueError(
            f"--label {view.volume.source}: values other than 0 (background), 1 (surface) and "
            f"2 (ignore), from {slab.min()} to {slab.max()}; numbers of sheets go to --sheets"
        )
    return _RANK[slab.astype(np.uint8)]


def _reduced(slab: Array, factor: int, reduce: Any) -> Array:
    if factor == 1:
        return slab
    padded = np.pad(slab, [(0, -n % factor) for n in slab.shape], mode="edge")
    z, y, x = (n // factor for n in padded.shape)
    cells = reduce(padded.reshape(z, factor, y, factor, x, factor), axis=(1, 3, 5))
    whole = slab.dtype.kind in "iub"
    return cast("Array", np.rint(cells).astype(slab.dtype) if whole else cells)


def grey_bytes(image: Array) -> tuple[Array, tuple[float, float], list[str]]:
    """Return uint8 grey values, the values that 0 and 255 stand for, and notes.

    uint8 stays; anything else is cut to percentiles, NaN becomes the lowest.
    """
    if image.dtype == np.uint8:
        return image, (0.0, 255.0), []
    values = image.astype(np.float32)
    known = np.isfinite(values)
    notes = []
    if not known.all():
        notes.append(f"{np.count_nonzero(~known)} grey values are not finite, shown as lowest")
    low, high = np.percentile(values[known], _GREY_PERCENTILES) if known.any() else (0.0, 1.0)
    high = max(high, low + 1e-6 * max(abs(low), 1.0))
    notes.append(f"{image.dtype} grey cut to {low:.4g} ... {high:.4g} (percentiles 0.1, 99.9)")
    values[~known] = low
    scaled = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.rint(255 * scaled).astype(np.uint8), (float(low), float(high)), notes


def _probability(values: Array) -> tuple[Array, list[str]]:
    """Return probability as uint8, 255 = 1; integers are scaled by their type."""
    if values.dtype == np.uint8:
        return values, []
    notes = []
    probability = values.astype(np.float32)
    if values.dtype.kind in "iu":
        probability /= np.float32(np.iinfo(values.dtype).max)
    unknown = ~np.isfinite(probability)
    if unknown.any():
        notes.append(f"{np.count_nonzero(unknown)} probabilities are not finite, shown as 0")
        probability[unknown] = 0
    low, high = float(probability.min()), float(probability.max())
    if low < 0 or high > 1:
        raise VolumeFormatError(
            f"--prediction holds values from {low:g} to {high:g}; expected probabilities in [0, 1] "
            "or uint8 with 255 = 1"
        )
    return np.rint(255 * probability).astype(np.uint8), notes


def _layer(name: str, path: str, image: RegionView) -> RegionView:
    """Open a layer and fit it to the image's region; of a pyramid also at the image's level."""
    whole, level = image.volume.shape_zyx, image.volume.level
    volume = _open_layer(name, path, 0)
    made_of = _region_of(volume) if volume.shape_zyx == image.shape else None
    if level and volume.shape_zyx not in (whole, image.shape):
        with contextlib.suppress(ConfigError):  # it has no such level
            coarse = _open_layer(name, path, level)
            volume = coarse if coarse.shape_zyx == whole else volume
    shape = volume.shape_zyx
    own = [[part.start, part.stop] for part in image.slices]
    if made_of is not None and made_of != own:
        raise ConfigError(
            f"--{name} {path} is of region_zyx={made_of}, but the page shows {own}; give that "
            f"region: --region-zyx '{json.dumps(made_of)}'"
        )
    if shape == image.shape:
        return RegionView(volume)
    if shape == whole:
        return RegionView(volume, own)
    raise ShapeMismatchError(
        f"--{name} {path} has shape {shape}; expected {whole}, that of the volume"
        + ("" if image.whole else f", or {image.shape}, that of the region")
        + ". A prediction of a region needs the same --region-zyx and --level"
    )


def _open_layer(name: str, path: str, level: int) -> Volume:
    """Open the array of a layer: in a Zarr group by its usual names, else the volume itself."""
    folder = Path(path)
    if (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file():
        for array in _ARRAYS[name]:
            if (folder / array).is_dir():
                if "/" in array:
                    return open_volume(folder / array, level=level)
                return open_volume(folder, array=f"{array}_{level}" if level else array)
        if not _is_image(folder):
            there = sorted(p.name for p in folder.iterdir() if p.is_dir())
            raise VolumeFormatError(
                f"--{name} {path}: a Zarr group without the array "
                f"{' or '.join(repr(array) for array in _ARRAYS[name])}; it holds {there}"
            )
    return open_volume(path, level=level)


def _is_image(folder: Path) -> bool:
    """Tell whether a Zarr folder is one array, or an OME-Zarr image."""
    meta = folder / "zarr.json"
    if not meta.is_file():
        return True  # version 2: open_volume tells
    content = json.loads(meta.read_text("utf-8"))
    return content.get("node_type") == "array" or "ome" in content.get("attributes", {})


def _region_of(volume: Volume) -> list[list[int]] | None:
    """Return the region that infer.py recorded with a prediction."""
    meta = volume.path / "zarr.json"
    if not isinstance(volume.source, Path) or not meta.is_file():
        return None
    found = json.loads(meta.read_text("utf-8")).get("attributes", {}).get("vesuvius", {})
    region = found.get("provenance", {}).get("input", {}).get("region_zyx")
    return cast("list[list[int]] | None", region)
