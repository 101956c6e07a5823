"""Arrays of a block store, their OME-Zarr 0.5 metadata and the arithmetic of their pyramids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = "0.5"
"""Of OME-NGFF."""


@dataclass(frozen=True, slots=True)
class BlockArray:
    """One array of a store.

    Attributes:
        name: level k of it is the array `name` (k = 0) or `name_k`.
        dtype: of its voxels.
        components: length of the leading axis `c`, 0 without one.
        pick: coarser levels take every other voxel (numbers, axes); False: the rounded mean.
        label: name of a label image; its levels are then `labels/<label>/<level>`, where viewers
            look for segmentations. Empty: an image of the group itself.
        window: values that viewers show as black and white at first, of the first image.
    """

    name: str
    dtype: str
    components: int = 0
    pick: bool = False
    label: str = ""
    window: tuple[float, float] | None = None

    @property
    def lead(self) -> tuple[int, ...]:
        """Return the shape in front of z, y, x."""
        return (self.components,) if self.components else ()

    def at(self, level: int) -> str:
        """Return the path of one level: level 0 of an image keeps the array's own name."""
        if self.label:
            return f"labels/{self.label}/{level}"
        return self.name if level == 0 else f"{self.name}_{level}"


def num_levels(shape_zyx: Sequence[int], smallest: int) -> int:
    """Return how many levels halve the longest edge down to at most `smallest` voxels."""
    levels, edge = 1, max(shape_zyx)
    while edge > smallest:
        edge = -(-edge // 2)
        levels += 1
    return levels


def multiscale(
    arrays: Sequence[BlockArray],
    levels: int,
    *,
    voxel_size_zyx_um: Sequence[float] | None,
    origin_zyx: Sequence[int],
    name: str,
) -> dict[str, Any]:
    """Return the `ome` attribute: one multiscale image an array, the first one is shown.

    Label images are left out: they have groups of their own, `label_groups`.

    Args:
        arrays: of the group.
        levels: number of levels.
        voxel_size_zyx_um: micrometres, None leaves the axes without unit at scale 1.
        origin_zyx: voxel of the source at which the arrays begin.
        name: of the volume.

    Source: OME-NGFF 0.5; the centre of a voxel averaged over 2^k lies (2^k - 1) / 2 further in.
    """
    shown = [array for array in arrays if not array.label]
    images = [
        _image(array, array.at, levels, voxel_size_zyx_um, origin_zyx, f"{name} {array.name}")
        for array in shown
    ]
    ome: dict[str, Any] = {"version": VERSION, "multiscales": images}
    if shown[0].window is not None:
        low, high = shown[0].window
        window = {"min": low, "max": high, "start": low, "end": high}
        channel = {"label": shown[0].name, "color": "FFFFFF", "active": True, "window": window}
        ome["omero"] = {"channels": [channel]}
    return ome


def label_groups(
    arrays: Sequence[BlockArray],
    levels: int,
    *,
    voxel_size_zyx_um: Sequence[float] | None,
    origin_zyx: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Return the `ome` attribute of the groups `labels` and `labels/<label>`, outer ones first.

    Arguments as `multiscale`. No colours are listed: they are optional, and napari hides the
    numbers that a list leaves out.
    """
    labels = [array for array in arrays if array.label]
    if not labels:
        return {}
    groups: dict[str, dict[str, Any]] = {
        "labels": {"version": VERSION, "labels": [array.label for array in labels]}
    }
    for array in labels:
        image = _image(array, str, levels, voxel_size_zyx_um, origin_zyx, array.label)
        groups[f"labels/{array.label}"] = {
            "version": VERSION,
            "multiscales": [image],
            "image-label": {"source": {"image": "../../"}},
        }
    return groups


def _image(
    array: BlockArray,
    path: Callable[[int], str],
    levels: int,
    voxel_size_zyx_um: Sequence[float] | None,
    origin_zyx: Sequence[int],
    name: str,
) -> dict[str, Any]:
    """Return one multiscale image; `path` gives the array of a level within the group."""
    size = [1.0] * 3 if voxel_size_zyx_um is None else [float(n) for n in voxel_size_zyx_um]
    unit = {} if voxel_size_zyx_um is None else {"unit": "micrometer"}
    lead = bool(array.components)
    axes = [{"name": "c", "type": "channel"}] if lead else []
    axes += [{"name": axis, "type": "space", **unit} for axis in "zyx"]
    datasets = []
    for level in range(levels):
        shift = 0.0 if array.pick else (2**level - 1) / 2
        scale = [2**level * s for s in size]
        move = [(o + shift) * s for o, s in zip(origin_zyx, size, strict=True)]
        datasets.append(
            {
                "path": path(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0] * lead + scale},
                    {"type": "translation", "translation": [0.0] * lead + move},
                ],
            }
        )
    method = "every other voxel" if array.pick else "mean of 2 x 2 x 2 voxels"
    return {
        "name": name,
        "axes": axes,
        "datasets": datasets,
        "type": "nearest" if array.pick else "mean",
        "metadata": {"description": f"{method} of the level before"},
    }


def halved(fine: npt.NDArray[Any], *, pick: bool) -> npt.NDArray[Any]:
    """Return every other voxel, or the rounded mean of 2 x 2 x 2, of the last three axes.

    At an odd edge the last voxel stands for the missing one.

    Args:
        fine: (..., z, y, x) integers; with `pick` anything.
        pick: take the first voxel of each cell: the mean of n and -n is no normal.
    """
    if pick:
        return np.ascontiguousarray(fine[..., ::2, ::2, ::2])
    pad = [(0, 0)] * (fine.ndim - 3) + [(0, n % 2) for n in fine.shape[-3:]]
    even = np.pad(fine, pad, mode="edge")
    total = np.zeros([*fine.shape[:-3], *(n // 2 for n in even.shape[-3:])], np.uint32)
    for z, y, x in np.ndindex(2, 2, 2):
        total += even[..., z::2, y::2, x::2]
    return ((total + 4) // 8).astype(fine.dtype)
