"""Windings per voxel: distances from ridge to ridge, averaged where they agree."""

import math
from dataclasses import dataclass

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
    home: npt.NDArray[np.int32], where: npt.NDArray[np.int32], gap: npt.NDArray[np.float32],
    windings: npt.NDArray[np.float32], start: int, stop: int,
) -> None:  # fmt: skip
    """Write the gaps to both sides of every second slab-centre voxel of layers start..stop.

    One row per pair of voxels along x: block of the ridge (-1: no ridge), blocks at 1/6, 1/2, 5/6
    of each gap, length of each gap and its windings (0: none found).
    """
    nz, ny, nx = p.shape
    by, bx = -(-ny // BLOCK), -(-nx // BLOCK)
    pairs = -(-nx // 2)
    for z in range(start, stop):
        for y in range(ny):
            for i in range(pairs):
                x = min(2 * i + (z + y) % 2, nx - 1)  # a checkerboard: half of the voxels
                row = (z * ny + y) * pairs + i
                home[row] = -1
                o = offset[z, y, x]
                if p[z, y, x] <= RIDGE_LEVEL or abs(o) >= RIDGE_OFFSET:
                    continue
                az, ay, ax = normal_at(axis, z, y, x)
                ridge = (z + o * az, y + o * ay, x + o * ax)
                for side in range(2):
                    t = 1.0 - 2.0 * side
                    along = (t * az, t * ay, t * ax)
                    far, other = _march(p, offset, counts, axis, dip, ridge, along)
                    gap[row, side] = windings[row, side] = 0.0
                    if other == 0 or far <= 1.0:
                        continue
                    home[row] = ((z // BLOCK) * by + y // BLOCK) * bx + x // BLOCK
                    gap[row, side] = far
                    windings[row, side] = 0.5 * (counts[z, y, x] + other)
                    for point in range(3):
                        s = far * (1.0 + 2.0 * point) / 6.0
                        cz = min(max(int(ridge[0] + s * along[0] + 0.5), 0), nz - 1) // BLOCK
                        cy = min(max(int(ridge[1] + s * along[1] + 0.5), 0), ny - 1) // BLOCK
                        cx = min(max(int(ridge[2] + s * along[2] + 0.5), 0), nx - 1) // BLOCK
                        where[row, side, point] = (cz * by + cy) * bx + cx


@dataclass(frozen=True)
class Gaps:
    """Ridge-to-ridge distances, one row per ridge voxel, both sides.

    Attributes:
        home: (n,) flat block index of the ridge.
        where: (n, 2, 3) flat block indices of points along each gap.
        gap: (n, 2) length in voxels, 0 where none was found.
        windings: (n, 2) windings it spans: slabs of K_i and K_j sheets are (K_i + K_j) / 2 apart.
    """

    home: npt.NDArray[np.int32]
    where: npt.NDArray[np.int32]
    gap: npt.NDArray[np.float32]
    windings: npt.NDArray[np.float32]

    def log_pitch(self) -> npt.NDArray[np.float32]:
        """Return the log of voxels per winding over both sides together.

        Both together, because beside a touching pair a short gap is followed by a long one.
        """
        out: npt.NDArray[np.float32] = np.log(self.gap.sum(1) / self.windings.sum(1))
        return out


def find_gaps(
    probability: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks,
    *, dip: float, threads: int,
) -> Gaps:  # fmt: skip
    """Return the gaps beside half of the ridge voxels; `dip` separates slabs, in probability."""
    nz, ny, nx = probability.shape
    rows = nz * ny * -(-nx // 2)
    home = np.empty(rows, np.int32)
    where = np.empty((rows, 2, 3), np.int32)
    gap, windings = np.empty((rows, 2), np.float32), np.empty((rows, 2), np.float32)
    over_slabs(
        lambda a, b: _gaps(
            probability, offset, counts, axis, dip, home, where, gap, windings, a, b
        ),
        nz,
        threads,
    )
    kept = np.flatnonzero(home >= 0)
    return Gaps(home[kept], where[kept], gap[kept], windings[kept])


def _mode(log_gap: npt.NDArray[np.float32], width: float = 0.2) -> float:
    """Return the most frequent log distance, from a histogram smoothed by `width`."""
    bins = 200
    low, high = math.log(1.5), math.log(2 * REACH)
    counts, edges = np.histogram(log_gap, bins, (low, high))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), width * bins / (high - low))
    best = int(np.argmax(smooth))
    return float(0.5 * (edges[best] + edges[best + 1]))


def _local_density(
    gaps: Gaps, log_pitch: npt.NDArray[np.float32], centre: Blocks, sigma: float,
    window: float, strength: float,
) -> Blocks:  # fmt: skip
    """Return the log pitch: windings per length of the ridges within a window around `centre`.

    Weighted by a Gaussian of distance; `centre` itself counts as `strength` voxels of gap.
    """
    here = centre.reshape(-1)[gaps.home]
    both = np.abs(log_pitch - here) < PAIR * window
    length, count = np.zeros(centre.size), np.zeros(centre.size)
    for side in range(2):
        with np.errstate(divide="ignore", invalid="ignore"):
            single = np.log(gaps.gap[:, side] / gaps.windings[:, side])
        near = np.abs(single - here) < window
        rows = np.flatnonzero((both | near) & (gaps.windings[:, side] > 0))
        gap, windings = gaps.gap[rows, side], gaps.windings[rows, side]
        for point in range(3):
            at = gaps.where[rows, side, point]
            length += np.bincount(at, gap, minlength=centre.size)
            count += np.bincount(at, windings, minlength=centre.size)
    smooth = [
        ndimage.gaussian_filter(
            v.astype(np.float32).reshape(centre.shape), sigma, mode="nearest", truncate=3.0
        )
        for v in (length, count)
    ]
    pitch = (smooth[0] + strength) / (smooth[1] + strength * np.exp(-centre))
    out: Blocks = np.log(pitch)
    return out


PASSES = ((6.0, 0.5), (6.0, 0.5), (3.0, 0.45), (3.0, 0.45), (1.7, 0.4), (1.0, 0.35), (1.0, 0.35))
"""Factor on the Gaussian width and half width of the window in log pitch, pass by pass."""
PAIR = 0.6
"""Window for both gaps of a ridge together, relative to that for one: one missing sheet of three
changes the pair's mean by a factor 1.5 only."""


def local_density(
    gaps: Gaps, shape_zyx: tuple[int, ...], *, sigma_voxels: float,
    passes: tuple[tuple[float, float], ...] = PASSES, strength: float = 3.0,
) -> Blocks:  # fmt: skip
    """Return windings per voxel on the block grid.

    Mean shift from the whole volume's most frequent pitch to local ones: a window in log pitch
    around the current value rejects missing sheets (log 2) and spurious ones (-log 2) without
    ever taking their mean into account.

    Args:
        gaps: from `find_gaps`.
        shape_zyx: shape of the volume.
        sigma_voxels: Gaussian width of the last average.
        passes: (factor on sigma, half width of the window in log pitch), one per pass.
        strength: weight of the previous pass where samples are few, in voxels of gap.
    """
    blocks = block_shape(shape_zyx)
    if len(gaps.home) == 0:
        return np.full(blocks, 1.0 / max(shape_zyx), np.float32)  # one sheet at most
    log_pitch = gaps.log_pitch()
    mean = np.full(blocks, _mode(log_pitch), np.float32)
    for factor, window in passes:
        sigma = factor * sigma_voxels / BLOCK
        mean = _local_density(gaps, log_pitch, mean, sigma, window, strength)
    return np.exp(-mean).astype(np.float32)
