"""Windings per voxel: distances from ridge to ridge, averaged where they agree."""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks, block_shape
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import BLOCK, normal_at
from vesuvius.postprocess.winding.slabs import RIDGE_LEVEL, RIDGE_OFFSET
from vesuvius.types import ByteVolume, FloatVolume

REACH = 40.0
STEP = 0.5
LEAVE = 0.3
"""The march has left its slab where p is below this."""


@compiled
def _march(
    p: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks,
    z: float, y: float, x: float, az: float, ay: float, ax: float,
) -> tuple[float, int]:  # fmt: skip
    """Return distance to the next slab's centroid and that slab's sheet count (0: none)."""
    nz, ny, nx = p.shape
    inside = True
    for i in range(1, int(REACH / STEP)):
        s = i * STEP
        iz, iy, ix = (
            math.floor(z + s * az + 0.5),
            math.floor(y + s * ay + 0.5),
            math.floor(x + s * ax + 0.5),
        )
        if iz < 0 or iy < 0 or ix < 0 or iz >= nz or iy >= ny or ix >= nx:
            return 0.0, 0
        value = p[iz, iy, ix]
        if inside:
            inside = value >= LEAVE
        elif value > RIDGE_LEVEL:
            bz, by, bx = normal_at(axis, iz, iy, ix)
            turn = bz * az + by * ay + bx * ax
            along = (iz - z) * az + (iy - y) * ay + (ix - x) * ax
            far = along + offset[iz, iy, ix] * (1.0 if turn >= 0 else -1.0)
            return far, counts[iz, iy, ix] if abs(turn) > 0.7 else 0
    return 0.0, 0


@compiled
def _gaps(
    p: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks, stride: int,
    where: npt.NDArray[np.int32], log_gap: npt.NDArray[np.float32], start: int, stop: int,
) -> None:  # fmt: skip
    """Write block index and log distance per winding of marches from slab-centre voxels.

    Rows of the outputs are 2 per voxel of the strided grid (start and stop count strided rows);
    where = -1: nothing found.
    """
    nz, ny, nx = p.shape
    by, bx = -(-ny // BLOCK), -(-nx // BLOCK)
    my, mx = -(-ny // stride), -(-nx // stride)
    for row in range(start, stop):
        z = row * stride
        for j in range(my):
            y = j * stride
            for i in range(mx):
                # the offset within the stride cell changes, so that no lattice is favoured
                x = min(i * stride + (row + j) % stride, nx - 1)
                slot = 2 * ((row * my + j) * mx + i)
                where[slot] = where[slot + 1] = -1
                if p[z, y, x] <= RIDGE_LEVEL or abs(offset[z, y, x]) >= RIDGE_OFFSET:
                    continue
                az, ay, ax = normal_at(axis, z, y, x)
                o = offset[z, y, x]
                rz, ry, rx = z + o * az, y + o * ay, x + o * ax
                for side in range(2):
                    t = 1.0 - 2.0 * side
                    far, other = _march(p, offset, counts, axis, rz, ry, rx, t * az, t * ay, t * ax)
                    if other == 0 or far <= 1.0:
                        continue
                    half = 0.5 * far * t
                    cz = min(max(int(rz + half * az + 0.5), 0), nz - 1) // BLOCK
                    cy = min(max(int(ry + half * ay + 0.5), 0), ny - 1) // BLOCK
                    cx = min(max(int(rx + half * ax + 0.5), 0), nx - 1) // BLOCK
                    where[slot + side] = (cz * by + cy) * bx + cx
                    windings = 0.5 * (counts[z, y, x] + other)
                    log_gap[slot + side] = math.log(far / windings)


def gap_samples(
    probability: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks,
    *, stride: int, threads: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:  # fmt: skip
    """Return the flat block index and log(distance per winding) of every ridge-to-ridge march.

    A march between slabs of K_i and K_j sheets spans (K_i + K_j) / 2 windings.
    """
    rows = [-(-n // stride) for n in probability.shape]
    where = np.empty(2 * rows[0] * rows[1] * rows[2], np.int32)
    log_gap = np.zeros(where.size, np.float32)
    over_slabs(
        lambda a, b: _gaps(probability, offset, counts, axis, stride, where, log_gap, a, b),
        rows[0],
        threads,
    )
    kept = where >= 0
    return where[kept], log_gap[kept]


def _mode(log_gap: npt.NDArray[np.float32], width: float = 0.2) -> float:
    """Return the most frequent log distance, from a histogram smoothed by `width`."""
    bins = 200
    low, high = math.log(1.5), math.log(2 * REACH)
    counts, edges = np.histogram(log_gap, bins, (low, high))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), width * bins / (high - low))
    best = int(np.argmax(smooth))
    return float(0.5 * (edges[best] + edges[best + 1]))


def _local_mean(
    where: npt.NDArray[np.int32], values: npt.NDArray[np.float32], centre: Blocks, sigma: float,
    strength: float,
) -> Blocks:  # fmt: skip
    """Return Gaussian-weighted local means on the block grid, `centre` where samples are few."""
    count = np.bincount(where, minlength=centre.size).reshape(centre.shape).astype(np.float32)
    total = np.bincount(where, values, minlength=centre.size).astype(np.float32)
    c = ndimage.gaussian_filter(count, sigma, mode="nearest", truncate=3.0)
    t = ndimage.gaussian_filter(total.reshape(centre.shape), sigma, mode="nearest", truncate=3.0)
    out: Blocks = (t + strength * centre) / (c + strength)
    return out


def local_density(
    where: npt.NDArray[np.int32], log_gap: npt.NDArray[np.float32],
    shape_zyx: tuple[int, ...], *, sigma_voxels: float,
    passes: tuple[tuple[float, float], ...] = (
        (6.0, 0.5), (6.0, 0.5), (3.0, 0.45), (3.0, 0.45), (1.7, 0.4), (1.0, 0.37), (1.0, 0.37)
    ),
) -> Blocks:  # fmt: skip
    """Return windings per voxel on the block grid: exp(-local mode of the log distance).

    Mean shift from the whole volume's mode to local ones: a window in log distance around the
    current value rejects missing sheets (log 2) and spurious ones (-log 2) without ever taking
    their mean into account.

    Args:
        where: flat block index of each sample.
        log_gap: log(voxels per winding) of each sample.
        shape_zyx: shape of the volume.
        sigma_voxels: Gaussian width of the last average.
        passes: (factor on sigma, half width of the window in log distance), one per pass.
    """
    blocks = block_shape(shape_zyx)
    if where.size == 0:
        return np.full(blocks, 1.0 / max(shape_zyx), np.float32)  # one sheet at most
    mean = np.full(blocks, _mode(log_gap), np.float32)
    for factor, window in passes:
        kept = np.abs(log_gap - mean.reshape(-1)[where]) < window
        sigma = factor * sigma_voxels / BLOCK
        mean = _local_mean(where[kept], log_gap[kept], mean, sigma, 0.3)
    return np.exp(-mean).astype(np.float32)
