"""Averaging along the sheets: noise goes, the valleys between touching sheets stay."""

import math

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import (
    inner_trilinear,
    normal_row,
    tangents,
    trilinear,
)
from vesuvius.types import FloatVolume

EMPTY = 0.04
"""Voxels below are left alone: half of a volume, and no slab reaches down there."""
SLACK = 1e-3
"""Samples this far outside of the volume still count: rounding must not decide at its rim."""


@compiled
def _disc_mean(
    p: FloatVolume, points: npt.NDArray[np.float32], centre: tuple[int, int, int],
    normal: tuple[float, float, float], rim: bool,  # noqa: FBT001
) -> float:  # fmt: skip
    """Return the weighted mean over a tangent disc; rows of `points` are (along t, u, weight).

    Near the `rim` of the volume, samples outside do not count.
    """
    nz, ny, nx = p.shape
    t, u = tangents(normal)
    single = np.float32  # half the time of double precision
    tz, ty, tx = single(t[0]), single(t[1]), single(t[2])
    uz, uy, ux = single(u[0]), single(u[1]), single(u[2])
    cz, cy, cx = single(centre[0]), single(centre[1]), single(centre[2])
    total, weights = single(0.0), single(0.0)
    for i in range(len(points)):
        a, b, weight = points[i, 0], points[i, 1], points[i, 2]
        z, y, x = cz + a * tz + b * uz, cy + a * ty + b * uy, cx + a * tx + b * ux
        if not rim:
            total += weight * inner_trilinear(p, z, y, x)
        elif min(z, y, x) < -SLACK or max(z - nz, y - ny, x - nx) > SLACK - 1.0:
            continue
        else:
            total += weight * trilinear(p, z, y, x)
        weights += weight
    return float(total / weights)


@compiled
def _average(
    p: FloatVolume, axis: Blocks, points: npt.NDArray[np.float32], reach: int, out: FloatVolume,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Write the disc means of layers start..stop; no point lies further out than `reach`."""
    nz, ny, nx = p.shape
    normals = np.empty((nx, 3), np.float32)
    for z in range(start, stop):
        for y in range(ny):
            normal_row(axis, z, y, normals)
            inside = reach <= z < nz - reach and reach <= y < ny - reach
            for x in range(nx):
                if p[z, y, x] < EMPTY:
                    out[z, y, x] = p[z, y, x]
                    continue
                normal = (float(normals[x, 0]), float(normals[x, 1]), float(normals[x, 2]))
                rim = not (inside and reach <= x < nx - reach)
                out[z, y, x] = _disc_mean(p, points, (z, y, x), normal, rim)


def disc_points(sigma: float) -> npt.NDArray[np.float32]:
    """Return the rows (along t, along u, weight) of 13 samples that reach 1.7 sigma."""
    rows = [(0.0, 0.0, 1.0)]
    for radius, number in ((0.9 * sigma, 5), (1.7 * sigma, 7)):
        weight = math.exp(-0.5 * (radius / sigma) ** 2)
        rows += [
            (radius * math.cos(turn), radius * math.sin(turn), weight)
            for turn in 2 * math.pi * (np.arange(number) + 0.25) / number
        ]
    return np.asarray(rows, np.float32)


def smooth_along_sheets(
    probability: FloatVolume, axis: Blocks, *, sigma: float, threads: int
) -> FloatVolume:
    """Return the probability averaged over a Gaussian disc in the tangent plane.

    Args:
        probability: (z, y, x) in [0, 1].
        axis: (bz, by, bx, 3) unit normals.
        sigma: of the Gaussian in voxels.
        threads: number of threads.
    """
    points = disc_points(sigma)
    out = np.empty_like(probability)
    reach = math.ceil(1.7 * sigma) + 1
    over_slabs(
        lambda a, b: _average(probability, axis, points, reach, out, a, b),
        probability.shape[0],
        threads,
    )
    return out
