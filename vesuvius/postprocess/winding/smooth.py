"""Averaging along the sheets: noise goes, the valleys between touching sheets stay."""

import math

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import normal_at, tangents, trilinear
from vesuvius.types import FloatVolume

EMPTY = 0.04
"""Voxels below are left alone: half of a volume, and no slab reaches down there."""


@compiled
def _average(
    p: FloatVolume, axis: Blocks, points: npt.NDArray[np.float32], out: FloatVolume,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Write weighted means over tangent discs; rows of `points` are (along t, along u, weight)."""
    nz, ny, nx = p.shape
    for z in range(start, stop):
        for y in range(ny):
            for x in range(nx):
                if p[z, y, x] < EMPTY:
                    out[z, y, x] = p[z, y, x]
                    continue
                normal = normal_at(axis, z, y, x)
                t, u = tangents(normal)
                total, weights = 0.0, 0.0
                for i in range(len(points)):
                    a, b, weight = points[i, 0], points[i, 1], points[i, 2]
                    sz = z + a * t[0] + b * u[0]
                    sy = y + a * t[1] + b * u[1]
                    sx = x + a * t[2] + b * u[2]
                    if sz < 0.0 or sy < 0.0 or sx < 0.0:
                        continue
                    if sz > nz - 1.0 or sy > ny - 1.0 or sx > nx - 1.0:
                        continue
                    total += weight * trilinear(p, sz, sy, sx)
                    weights += weight
                out[z, y, x] = total / weights


def smooth_along_sheets(
    probability: FloatVolume, axis: Blocks, *, sigma: float, threads: int
) -> FloatVolume:
    """Return the probability averaged over a Gaussian disc in the tangent plane.

    Args:
        probability: (z, y, x) in [0, 1].
        axis: (bz, by, bx, 3) unit normals.
        sigma: of the Gaussian in voxels; 13 samples reach 1.7 sigma.
        threads: number of threads.
    """
    rows = [(0.0, 0.0, 1.0)]
    for radius, number in ((0.9 * sigma, 5), (1.7 * sigma, 7)):
        weight = math.exp(-0.5 * (radius / sigma) ** 2)
        rows += [
            (radius * math.cos(turn), radius * math.sin(turn), weight)
            for turn in 2 * math.pi * (np.arange(number) + 0.25) / number
        ]
    points = np.asarray(rows, np.float32)
    out = np.empty_like(probability)
    over_slabs(
        lambda a, b: _average(probability, axis, points, out, a, b), probability.shape[0], threads
    )
    return out
