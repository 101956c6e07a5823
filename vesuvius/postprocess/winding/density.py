"""Windings per voxel: distances from ridge to ridge, averaged where they agree."""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import BLOCK, normal_at, tangents
from vesuvius.postprocess.winding.slabs import RIDGE_LEVEL, RIDGE_OFFSET
from vesuvius.types import ByteVolume, FloatVolume

REACH = 40.0
STEP = 0.5
SHORTEST, LONGEST, BINS = 2.0, 50.0, 24
"""Range of the histograms of gap lengths in voxels, logarithmic bins."""
LEAVE = 0.3
"""The march has left its slab where p is below this."""


@compiled
def _march(
    p: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks, dip: float,
    start: tuple[float, float, float], along: tuple[float, float, float],
) -> tuple[float, int]:  # fmt: skip
    """Return distance to the next slab's centroid and that slab's sheet count (0: none).

    The own slab ends below LEAVE or in a valley `dip` deep; the next begins above RIDGE_LEVEL, or
    with a rise of `dip` out of the valley.
    """
    nz, ny, nx = p.shape
    z, y, x = start
    az, ay, ax = along
    top, low = 0.0, 2.0
    for i in range(1, int(REACH / STEP)):
        s = i * STEP
        iz = math.floor(z + s * az + 0.5)
        iy = math.floor(y + s * ay + 0.5)
        ix = math.floor(x + s * ax + 0.5)
        if iz < 0 or iy < 0 or ix < 0 or iz >= nz or iy >= ny or ix >= nx:
            return 0.0, 0
        value = p[iz, iy, ix]
        if low == 2.0:  # still on the own slab's rise
            top = max(top, value)
            if value < LEAVE or value < top - dip:
                low = value
            continue
        low = min(low, value)
        risen = value > low + dip and value > LEAVE
        if (low < LEAVE and value > RIDGE_LEVEL) or (low >= LEAVE and risen):
            bz, by, bx = normal_at(axis, iz, iy, ix)
            turn = bz * az + by * ay + bx * ax
            reached = (iz - z) * az + (iy - y) * ay + (ix - x) * ax
            far = reached + offset[iz, iy, ix] * (1.0 if turn >= 0 else -1.0)
            return far, counts[iz, iy, ix] if abs(turn) > 0.7 else 0
    return 0.0, 0


@compiled
def _gaps(
    p: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks, dip: float,
    first: npt.NDArray[np.int64], rows: npt.NDArray[np.float32], start: int, stop: int,
) -> None:  # fmt: skip
    """Write the gaps to both sides of every second slab-centre voxel of layers start..stop.

    Given no `rows`, count each layer's into `first`; else fill from first[z] on. Rows: ridge z y x,
    normal z y x, length per winding of the gap along the normal and against it (0: none found),
    the length of each.
    """
    _, ny, nx = p.shape
    for z in range(start, stop):
        at = first[z] if len(rows) else 0
        for y in range(ny):
            for i in range(-(-nx // 2)):
                x = min(2 * i + (z + y) % 2, nx - 1)  # a checkerboard: half of the voxels
                o = offset[z, y, x]
                if p[z, y, x] <= RIDGE_LEVEL or abs(o) >= RIDGE_OFFSET:
                    continue
                at += 1
                if len(rows) == 0:
                    continue
                row = rows[at - 1]
                row[6] = row[7] = 0.0
                az, ay, ax = normal_at(axis, z, y, x)
                ridge = (z + o * az, y + o * ay, x + o * ax)
                row[0], row[1], row[2] = ridge
                row[3], row[4], row[5] = az, ay, ax
                for side in range(2):
                    t = 1.0 - 2.0 * side
                    along = (t * az, t * ay, t * ax)
                    far, other = _march(p, offset, counts, axis, dip, ridge, along)
                    if other > 0 and far > 1.0:
                        row[6 + side] = 2.0 * far / (counts[z, y, x] + other)
                        row[8 + side] = far
        if len(rows) == 0:
            first[z] = at


@compiled
def _deposit(rows: npt.NDArray[np.float32], histogram: Blocks) -> None:
    """Count each gap's log length per winding in every block it crosses, once per block length."""
    bz, by, bx, bins = histogram.shape
    low, width = math.log(SHORTEST), math.log(LONGEST / SHORTEST) / bins
    for i in range(len(rows)):
        row = rows[i]
        for side in range(2):
            if row[6 + side] <= 0.0:
                continue
            t = 1.0 - 2.0 * side
            far = row[8 + side]
            place = min(max((math.log(row[6 + side]) - low) / width - 0.5, 0.0), bins - 1.001)
            b = int(place)
            share = place - b
            points = max(int(far / BLOCK + 0.5), 1)
            weight = far / points
            for k in range(points):
                s = t * far * (k + 0.5) / points
                z = min(max(int(row[0] + s * row[3] + 0.5) // BLOCK, 0), bz - 1)
                y = min(max(int(row[1] + s * row[4] + 0.5) // BLOCK, 0), by - 1)
                x = min(max(int(row[2] + s * row[5] + 0.5) // BLOCK, 0), bx - 1)
                histogram[z, y, x, b] += weight * (1.0 - share)
                histogram[z, y, x, b + 1] += weight * share


@compiled
def _spread(
    histogram: Blocks, axis: Blocks, points: npt.NDArray[np.float32], out: Blocks,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Add up histograms over tangent discs: `points` rows are (along t, along u, weight)."""
    nz, ny, nx, bins = histogram.shape
    for z in range(start, stop):
        for y in range(ny):
            for x in range(nx):
                n = axis[z, y, x]
                t, u = tangents((float(n[0]), float(n[1]), float(n[2])))
                for i in range(len(points)):
                    a, b, weight = points[i, 0], points[i, 1], points[i, 2]
                    cz = math.floor(z + a * t[0] + b * u[0] + 0.5)
                    cy = math.floor(y + a * t[1] + b * u[1] + 0.5)
                    cx = math.floor(x + a * t[2] + b * u[2] + 0.5)
                    if cz < 0 or cy < 0 or cx < 0 or cz >= nz or cy >= ny or cx >= nx:
                        continue
                    for k in range(bins):
                        out[z, y, x, k] += weight * histogram[cz, cy, cx, k]


@compiled
def _first_mode(histogram: Blocks, share: float, out: Blocks, start: int, stop: int) -> None:
    """Write the log length at the first peak that reaches `share` of the highest one."""
    _, ny, nx, bins = histogram.shape
    low, width = math.log(SHORTEST), math.log(LONGEST / SHORTEST) / bins
    for z in range(start, stop):
        for y in range(ny):
            for x in range(nx):
                h = histogram[z, y, x]
                top = 0.0
                for k in range(bins):
                    top = max(top, h[k])
                peak = 0
                for k in range(bins):
                    left = h[k - 1] if k > 0 else 0.0
                    right = h[k + 1] if k + 1 < bins else 0.0
                    if h[k] >= share * top and h[k] >= left and h[k] >= right:
                        peak = k
                        break
                total, moment = 1e-12, 0.0
                for k in range(max(peak - 2, 0), min(peak + 3, bins)):
                    total += h[k]
                    moment += h[k] * (k + 0.5)
                out[z, y, x] = low + width * (moment / total)


def find_gaps(
    probability: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks,
    *, dip: float, threads: int,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """Return (n, 10) rows of the gaps beside half of the ridge voxels, see `_gaps`.

    Slabs of K_i and K_j sheets are (K_i + K_j) / 2 windings apart. `dip` separates slabs.
    """
    first = np.zeros(len(probability), np.int64)
    rows = np.empty((0, 10), np.float32)

    def run() -> None:
        over_slabs(
            lambda a, b: _gaps(probability, offset, counts, axis, dip, first, rows, a, b),
            len(probability),
            threads,
        )

    run()
    total = int(first.sum())
    first = np.cumsum(first) - first
    if total:
        rows = np.empty((total, 10), np.float32)
        run()
    return rows[(rows[:, 6] > 0) | (rows[:, 7] > 0)]


def _disc(sigma: float) -> npt.NDArray[np.float32]:
    """Return points and Gaussian weights of a disc of two sigma, one block apart."""
    reach = math.ceil(2 * sigma)
    return np.asarray(
        [
            (a, b, math.exp(-0.5 * (a * a + b * b) / sigma**2))
            for a in range(-reach, reach + 1)
            for b in range(-reach, reach + 1)
            if a * a + b * b <= reach * reach
        ],
        np.float32,
    )


def local_density(
    rows: npt.NDArray[np.float32], axis: Blocks, *, sigma_along: float, sigma_across: float,
    peak_share: float, prior_share: float, threads: int,
) -> Blocks:  # fmt: skip
    """Return windings per voxel on the block grid, from gaps seen along the same sheets.

    Every block gets a histogram of the lengths of the gaps that cross it, gathered along the
    sheets. A missing sheet makes gaps longer, never shorter: so the first high peak counts,
    not the mean.

    Args:
        rows: from `find_gaps`.
        axis: (bz, by, bx, 3) unit normals.
        sigma_along: Gaussian width along the sheets, voxels.
        sigma_across: Gaussian width across the sheets, voxels.
        peak_share: a peak counts from this share of the highest one.
        prior_share: weight of the histogram three times wider around.
        threads: number of threads.
    """
    blocks = axis.shape[:3]
    if len(rows) == 0:
        return np.full(blocks, 1.0 / (BLOCK * max(blocks)), np.float32)  # one sheet at most
    histogram = np.zeros((*blocks, BINS), np.float32)
    _deposit(rows, histogram)
    narrow = sigma_across / BLOCK
    ndimage.gaussian_filter(
        histogram, (narrow, narrow, narrow, 1.0), mode="nearest", truncate=3.0, output=histogram
    )
    gathered = np.zeros_like(histogram)
    points = _disc(sigma_along / BLOCK)
    over_slabs(lambda a, b: _spread(histogram, axis, points, gathered, a, b), blocks[0], threads)
    wide = 3 * sigma_along / BLOCK  # where no gap is near: a faint prior from further away
    prior = np.stack(
        [
            ndimage.gaussian_filter(gathered[..., k], wide, mode="nearest", truncate=2.0)
            for k in range(BINS)
        ],
        -1,
    )
    gathered /= gathered.sum(-1, keepdims=True) + np.float32(1.0)  # few voxels of gap: trust less
    prior += np.float32(1e-3) * prior.mean((0, 1, 2))
    prior /= prior.sum(-1, keepdims=True)
    gathered += np.float32(prior_share) * prior
    log_pitch = np.empty(blocks, np.float32)
    over_slabs(lambda a, b: _first_mode(gathered, peak_share, log_pitch, a, b), blocks[0], threads)
    smooth = ndimage.gaussian_filter(np.exp(-log_pitch), narrow, mode="nearest", truncate=3.0)
    return np.asarray(smooth, np.float32)
