"""What the field's gradient should be: jumps on slabs, equalised to the local density."""

import numpy as np
from scipy import ndimage

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import BLOCK, normal_at, trilinear
from vesuvius.postprocess.winding.slabs import FLOOR
from vesuvius.types import ByteVolume, FloatVolume

CELL = 2
"""Edge of a solver cell in voxels."""


@compiled
def _jumps(
    p: FloatVolume, mass: FloatVolume, counts: ByteVolume, out: FloatVolume, start: int, stop: int
) -> None:
    """Write K q / m averaged over the voxels of each cell (windings per voxel)."""
    nz, ny, nx = p.shape
    for i in range(start, stop):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                total, inside = 0.0, 0
                for z in range(i * CELL, min(i * CELL + CELL, nz)):
                    for y in range(j * CELL, min(j * CELL + CELL, ny)):
                        for x in range(k * CELL, min(k * CELL + CELL, nx)):
                            inside += 1
                            if mass[z, y, x] > 0.0:
                                q = p[z, y, x] - FLOOR
                                total += counts[z, y, x] * q / mass[z, y, x]
                out[i, j, k] = total / inside


@compiled
def _cell_normals(axis: Blocks, out: FloatVolume, start: int, stop: int) -> None:
    """Write the unit normals at the cells' centres."""
    middle = 0.5 * (CELL - 1)
    for i in range(start, stop):
        for j in range(out.shape[2]):
            for k in range(out.shape[3]):
                z, y, x = normal_at(axis, CELL * i + middle, CELL * j + middle, CELL * k + middle)
                out[0, i, j, k] = z
                out[1, i, j, k] = y
                out[2, i, j, k] = x


@compiled
def _to_vectors(
    jumps: FloatVolume, normals: FloatVolume, supplied: Blocks, density: Blocks, out: FloatVolume,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Write n (v min(1, rho / g) + max(0, rho - g)) in windings per cell."""
    ratio = CELL / BLOCK
    for i in range(start, stop):
        for j in range(jumps.shape[1]):
            for k in range(jumps.shape[2]):
                bz, by, bx = (
                    (i + 0.5) * ratio - 0.5,
                    (j + 0.5) * ratio - 0.5,
                    (k + 0.5) * ratio - 0.5,
                )
                g = trilinear(supplied, bz, by, bx)
                rho = trilinear(density, bz, by, bx)
                value = jumps[i, j, k]
                if g > rho:
                    value *= rho / g
                else:
                    value += rho - g
                value *= CELL
                for c in range(3):
                    out[c, i, j, k] = value * normals[c, i, j, k]


@compiled
def _divergence(v: FloatVolume, out: FloatVolume, start: int, stop: int) -> None:
    """Write the right-hand side: sum over a cell's edges of minus the target that leaves it."""
    _, nz, ny, nx = v.shape
    for i in range(start, stop):
        for j in range(ny):
            for k in range(nx):
                total = 0.0
                if i + 1 < nz:
                    total -= v[0, i, j, k] + v[0, i + 1, j, k]
                if i > 0:
                    total += v[0, i, j, k] + v[0, i - 1, j, k]
                if j + 1 < ny:
                    total -= v[1, i, j, k] + v[1, i, j + 1, k]
                if j > 0:
                    total += v[1, i, j, k] + v[1, i, j - 1, k]
                if k + 1 < nx:
                    total -= v[2, i, j, k] + v[2, i, j, k + 1]
                if k > 0:
                    total += v[2, i, j, k] + v[2, i, j, k - 1]
                out[i, j, k] = 0.5 * total


def cell_shape(shape_zyx: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the number of solver cells per axis."""
    z, y, x = (-(-n // CELL) for n in shape_zyx)
    return z, y, x


def jump_density(
    probability: FloatVolume, mass: FloatVolume, counts: ByteVolume, *, threads: int
) -> FloatVolume:
    """Return windings per voxel that the visible slabs supply, on the cell grid."""
    out = np.empty(cell_shape(probability.shape), np.float32)
    over_slabs(lambda a, b: _jumps(probability, mass, counts, out, a, b), out.shape[0], threads)
    return out


def supplied_density(jumps: FloatVolume, blocks: tuple[int, ...], *, sigma_voxels: float) -> Blocks:
    """Return the jumps averaged over blocks and smoothed: g, windings per voxel."""
    padded = np.pad(
        jumps,
        [(0, 2 * b - n) for b, n in zip(blocks, jumps.shape, strict=True)],
        mode="edge",
    )
    mean = padded.reshape(blocks[0], 2, blocks[1], 2, blocks[2], 2).mean((1, 3, 5))
    out: Blocks = ndimage.gaussian_filter(mean, sigma_voxels / BLOCK, mode="nearest", truncate=3.0)
    return out


def cell_normals(axis: Blocks, shape_zyx: tuple[int, ...], *, threads: int) -> FloatVolume:
    """Return the (3, cz, cy, cx) unit normals of the cells."""
    out = np.empty((3, *cell_shape(shape_zyx)), np.float32)
    over_slabs(lambda a, b: _cell_normals(axis, out, a, b), out.shape[1], threads)
    return out


def right_hand_side(
    jumps: FloatVolume, normals: FloatVolume, supplied: Blocks, density: Blocks, *, threads: int
) -> FloatVolume:
    """Return b of the normal equations of sum over edges (w_j - w_i - v_e)^2, cell grid.

    Args:
        jumps: (cz, cy, cx) windings per voxel seen in each cell.
        normals: (3, cz, cy, cx) unit normals.
        supplied: (bz, by, bx) smoothed jumps g.
        density: (bz, by, bx) windings per voxel rho.
        threads: number of threads.
    """
    vectors = np.empty((3, *jumps.shape), np.float32)
    over_slabs(
        lambda a, b: _to_vectors(jumps, normals, supplied, density, vectors, a, b),
        jumps.shape[0],
        threads,
    )
    out = np.empty_like(jumps)
    over_slabs(lambda a, b: _divergence(vectors, out, a, b), jumps.shape[0], threads)
    return out
