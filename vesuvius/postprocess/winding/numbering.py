"""From the field on cells to the field and the sheet numbers on voxels."""

import math

import numpy as np

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import normal_at, trilinear
from vesuvius.postprocess.winding.targets import CELL
from vesuvius.types import FloatVolume, LabelVolume

NO_LEVEL = np.iinfo(np.int32).min
"""Level of a voxel without surface."""


@compiled
def _upsample(w: FloatVolume, out: FloatVolume, start: int, stop: int) -> None:
    """Write the cell-centred trilinear interpolation of w; the slope goes on beyond the rim."""
    nz, ny, nx = w.shape
    for z in range(start, stop):
        cz = (z + 0.5) / CELL - 0.5
        iz = min(max(math.floor(cz), 0), max(nz - 2, 0))
        fz = np.float32(cz - iz) if nz > 1 else np.float32(0)
        jz = min(iz + 1, nz - 1)
        for y in range(out.shape[1]):
            cy = (y + 0.5) / CELL - 0.5
            iy = min(max(math.floor(cy), 0), max(ny - 2, 0))
            fy = np.float32(cy - iy) if ny > 1 else np.float32(0)
            jy = min(iy + 1, ny - 1)
            for x in range(out.shape[2]):
                cx = (x + 0.5) / CELL - 0.5
                ix = min(max(math.floor(cx), 0), max(nx - 2, 0))
                fx = np.float32(cx - ix) if nx > 1 else np.float32(0)
                jx = min(ix + 1, nx - 1)
                a = w[iz, iy, ix] + fx * (w[iz, iy, jx] - w[iz, iy, ix])
                b = w[iz, jy, ix] + fx * (w[iz, jy, jx] - w[iz, jy, ix])
                c = w[jz, iy, ix] + fx * (w[jz, iy, jx] - w[jz, iy, ix])
                d = w[jz, jy, ix] + fx * (w[jz, jy, jx] - w[jz, jy, ix])
                low, high = a + fy * (b - a), c + fy * (d - c)
                out[z, y, x] = low + fz * (high - low)


@compiled
def _levels(
    p: FloatVolume, offset: FloatVolume, axis: Blocks, field: FloatVolume, threshold: float,
    half_way: float, out: LabelVolume, start: int, stop: int,
) -> None:  # fmt: skip
    """Write floor(w) sampled part of the way to the ridge, for voxels above the threshold."""
    _, ny, nx = p.shape
    for z in range(start, stop):
        for y in range(ny):
            for x in range(nx):
                if p[z, y, x] <= threshold:
                    out[z, y, x] = NO_LEVEL
                    continue
                az, ay, ax = normal_at(axis, z, y, x)
                t = half_way * offset[z, y, x]
                out[z, y, x] = math.floor(trilinear(field, z + t * az, y + t * ay, x + t * ax))


def upsample(w: FloatVolume, shape_zyx: tuple[int, ...], *, threads: int) -> FloatVolume:
    """Return the (z, y, x) field of a cell-grid field."""
    out = np.empty(shape_zyx, np.float32)
    over_slabs(lambda a, b: _upsample(w, out, a, b), shape_zyx[0], threads)
    return out


def data_levels(
    probability: FloatVolume, offset: FloatVolume, axis: Blocks, field: FloatVolume, *,
    threshold: float, threads: int, half_way: float = 0.5,
) -> LabelVolume:  # fmt: skip
    """Return floor(w) at voxels above the threshold, sampled half-way to their ridge.

    The sample point counts: at a slab's edge the field may already be on the next level.
    Voxels at or below the threshold get NO_LEVEL.
    """
    out = np.empty(probability.shape, np.int32)
    over_slabs(
        lambda a, b: _levels(probability, offset, axis, field, threshold, half_way, out, a, b),
        probability.shape[0],
        threads,
    )
    return out
