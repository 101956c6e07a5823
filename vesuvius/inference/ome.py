"""OME-Zarr 0.5 metadata of predictions, and the arithmetic of their pyramids."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.inference.accumulate import NORMALS


def num_levels(shape_zyx: Sequence[int], smallest: int) -> int:
    """Return how many levels halve the longest edge down to at most `smallest` voxels."""
    levels, edge = 1, max(shape_zyx)
    while edge > smallest:
        edge = -(-edge // 2)
        levels += 1
    return levels


def multiscale(
    names: Sequence[str],
    levels: int,
    *,
    voxel_size_zyx_um: Sequence[float] | None,
    origin_zyx: Sequence[int],
    name: str,
) -> dict[str, Any]:
    """Return the `ome` attribute: one multiscale image an output, the first one is shown.

    Args:
        names: outputs; level k of output `n` is the array `n` (k = 0) or `n_k`.
        levels: number of levels.
        voxel_size_zyx_um: micrometres, None leaves the axes without unit at scale 1.
        origin_zyx: voxel of the source at which the arrays begin.
        name: of the volume.

    Source: OME-NGFF 0.5; the centre of a voxel averaged over 2^k lies (2^k - 1) / 2 further in.
    """
    size = [1.0] * 3 if voxel_size_zyx_um is None else [float(n) for n in voxel_size_zyx_um]
    unit = {} if voxel_size_zyx_um is None else {"unit": "micrometer"}
    images = []
    for output in names:
        lead = output == NORMALS
        axes = [{"name": "c", "type": "channel"}] if lead else []
        axes += [{"name": axis, "type": "space", **unit} for axis in "zyx"]
        datasets = []
        for level in range(levels):
            shift = 0.0 if lead else (2**level - 1) / 2  # normals are picked, not averaged
            scale = [2**level * s for s in size]
            move = [(o + shift) * s for o, s in zip(origin_zyx, size, strict=True)]
            datasets.append(
                {
                    "path": output if level == 0 else f"{output}_{level}",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [1.0] * lead + scale},
                        {"type": "translation", "translation": [0.0] * lead + move},
                    ],
                }
            )
        images.append({"name": f"{name} {output}", "axes": axes, "datasets": datasets})
    return {"version": "0.5", "multiscales": images}


def halved(fine: npt.NDArray[Any], *, pick: bool) -> npt.NDArray[Any]:
    """Return every other voxel, or the rounded mean of 2 x 2 x 2, of the last three axes.

    At an odd edge the last voxel stands for the missing one.

    Args:
        fine: (..., z, y, x) integers.
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
