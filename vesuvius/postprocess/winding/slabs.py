"""Profiles across the sheets: mass, ridge offset and sheet count of the slab at each voxel."""

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import normal_row, trilinear
from vesuvius.types import ByteVolume, FloatVolume

FLOOR = 0.2
"""Probability that counts as nothing: q = max(p - FLOOR, 0)."""
REACH = 6.0
"""How far a slab is followed to each side, in voxels."""
STEP = 0.5
RIDGE_LEVEL = 0.5
RIDGE_OFFSET = 0.6
"""A ridge voxel has p above the one and its slab's centroid nearer than the other."""


@compiled
def _walk(
    p: FloatVolume, z: int, y: int, x: int, nz: float, ny: float, nx: float, dip: float
) -> tuple[float, float]:
    """Return mass and first moment of q from a point along a direction, to the slab's end.

    The slab ends where q = 0, or in a valley: a rise of `dip` after a fall of `dip`.
    """
    mass, moment = 0.0, 0.0
    top = float(p[z, y, x])
    low = top
    mass_low, moment_low = 0.0, 0.0
    for i in range(1, int(REACH / STEP) + 1):
        s = i * STEP
        value = trilinear(p, z + s * nz, y + s * ny, x + s * nx)
        if value <= FLOOR:
            break
        mass += (value - FLOOR) * STEP
        moment += (value - FLOOR) * STEP * s
        if value < low:
            low = value
            mass_low, moment_low = mass, moment
        elif value > low + dip and top > low + dip:
            return mass_low, moment_low
        elif value > top and low > top - dip:
            top = value
            low = value
    return mass, moment


@compiled
def _profile(
    p: FloatVolume, axis: Blocks, dip: float, mass: FloatVolume, offset: FloatVolume,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Write mass and signed centroid offset of every voxel with p above the floor."""
    _, ny, nx = p.shape
    normals = np.empty((nx, 3), np.float32)
    for z in range(start, stop):
        for y in range(ny):
            normal_row(axis, z, y, normals)
            for x in range(nx):
                if p[z, y, x] <= FLOOR:
                    mass[z, y, x] = 0.0
                    offset[z, y, x] = 0.0
                    continue
                az, ay, ax = normals[x, 0], normals[x, 1], normals[x, 2]
                up, up_moment = _walk(p, z, y, x, az, ay, ax, dip)
                down, down_moment = _walk(p, z, y, x, -az, -ay, -ax, dip)
                total = up + down + (p[z, y, x] - FLOOR) * STEP
                mass[z, y, x] = total
                offset[z, y, x] = (up_moment - down_moment) / total


@compiled
def _count(
    p: FloatVolume, mass: FloatVolume, unit: float, most: int, out: ByteVolume,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Write the number of sheets per slab: 1, or k where the mass exceeds (k - 1/2) units."""
    _, ny, nx = p.shape
    for z in range(start, stop):
        for y in range(ny):
            for x in range(nx):
                m = mass[z, y, x]
                out[z, y, x] = 0 if m <= 0 else min(max(int(m / unit + 0.5), 1), most)


def ridge_voxels(probability: FloatVolume, offset: FloatVolume) -> npt.NDArray[np.bool_]:
    """Return the (z, y, x) mask of voxels that a ridge passes through."""
    return (probability > RIDGE_LEVEL) & (np.abs(offset) < RIDGE_OFFSET)


def slab_profile(
    probability: FloatVolume, axis: Blocks, *, dip: float, threads: int
) -> tuple[FloatVolume, FloatVolume]:
    """Return the mass m (probability x voxels) and centroid offset o (voxels) along +n.

    Args:
        probability: (z, y, x) in [0, 1].
        axis: (bz, by, bx, 3) unit normals.
        dip: depth of a valley that separates two slabs, in probability.
        threads: number of threads.
    """
    mass, offset = np.empty_like(probability), np.empty_like(probability)
    over_slabs(
        lambda a, b: _profile(probability, axis, dip, mass, offset, a, b),
        probability.shape[0],
        threads,
    )
    return mass, offset


def sheet_counts(
    probability: FloatVolume, mass: FloatVolume, offset: FloatVolume, *, most: int, threads: int
) -> tuple[ByteVolume, float]:
    """Return the number of sheets in each voxel's slab (0: no slab) and one sheet's mass m0.

    m0 is the median mass over ridge voxels; 0 when there is none.
    """
    ridge = ridge_voxels(probability, offset)
    sample = mass[ridge]
    counts = np.zeros(probability.shape, np.uint8)
    if sample.size == 0:
        return counts, 0.0
    unit = float(np.median(sample))
    over_slabs(
        lambda a, b: _count(probability, mass, unit, most, counts, a, b),
        probability.shape[0],
        threads,
    )
    return counts, unit
