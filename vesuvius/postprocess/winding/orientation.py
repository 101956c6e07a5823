"""Sheet orientation on blocks of 4 voxels: the structure tensor's major axis.

Source: structure tensor (Bigun and Granlund 1987), planarity as in Westin's measures; network
normals enter as their own tensor, because the sign of a thin sheet's normal means nothing.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import BLOCK
from vesuvius.types import FloatVolume

Blocks = npt.NDArray[np.float32]
"""(bz, by, bx) or (bz, by, bx, channels) float32, one value per block of 4^3 voxels."""


@compiled
def _gradient_tensor(p: FloatVolume, out: Blocks, start: int, stop: int) -> None:
    """Add the outer products of central differences of block rows start..stop to `out`."""
    nz, ny, nx = p.shape
    for z in range(start * BLOCK, min(stop * BLOCK, nz)):
        za, zb = max(z - 1, 0), min(z + 1, nz - 1)
        for y in range(ny):
            ya, yb = max(y - 1, 0), min(y + 1, ny - 1)
            for x in range(nx):
                xa, xb = max(x - 1, 0), min(x + 1, nx - 1)
                gz = p[zb, y, x] - p[za, y, x]
                gy = p[z, yb, x] - p[z, ya, x]
                gx = p[z, y, xb] - p[z, y, xa]
                cell = out[z // BLOCK, y // BLOCK, x // BLOCK]
                cell[0] += gz * gz
                cell[1] += gy * gy
                cell[2] += gx * gx
                cell[3] += gz * gy
                cell[4] += gz * gx
                cell[5] += gy * gx


@compiled
def _normal_tensor(p: FloatVolume, n: FloatVolume, out: Blocks, start: int, stop: int) -> None:
    """Add p n n^T of block rows start..stop to `out`."""
    nz, ny, nx = p.shape
    for z in range(start * BLOCK, min(stop * BLOCK, nz)):
        for y in range(ny):
            for x in range(nx):
                w = p[z, y, x]
                az, ay, ax = n[0, z, y, x], n[1, z, y, x], n[2, z, y, x]
                cell = out[z // BLOCK, y // BLOCK, x // BLOCK]
                cell[0] += w * az * az
                cell[1] += w * ay * ay
                cell[2] += w * ax * ax
                cell[3] += w * az * ay
                cell[4] += w * az * ax
                cell[5] += w * ay * ax


@compiled
def _top_eigenvalue(a: float, b: float, c: float, off: tuple[float, float, float]) -> float:
    """Return the largest eigenvalue of a unit-trace symmetric matrix, 1/3 if all are equal.

    Trigonometric formula. `a b c` is the diagonal, `off` the entries zy, zx, yx.
    """
    d, e, f = off
    mean = 1.0 / 3.0
    square = (a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2
    spread = math.sqrt((square + 2.0 * (d * d + e * e + f * f)) / 6.0)
    if spread < 1e-9:
        return mean
    a, b, c = (a - mean) / spread, (b - mean) / spread, (c - mean) / spread
    d, e, f = d / spread, e / spread, f / spread
    det = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
    phi = math.acos(min(max(0.5 * det, -1.0), 1.0)) / 3.0
    return mean + 2.0 * spread * math.cos(phi)


@compiled
def _eigenvector(
    a: float, b: float, c: float, off: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return a unit null vector of a symmetric singular matrix: the largest row cross product."""
    d, e, f = off
    rows = (
        (d * f - e * b, e * d - a * f, a * b - d * d),
        (d * c - e * f, e * e - a * c, a * f - d * e),
        (b * c - f * f, f * e - d * c, d * f - b * e),
    )
    best, out = 1e-20, (1.0, 0.0, 0.0)
    for v in rows:
        size = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
        if size > best:
            best = size
            length = math.sqrt(size)
            out = (v[0] / length, v[1] / length, v[2] / length)
    return out


@compiled
def _major_axis(tensor: Blocks, axis: Blocks, planarity: Blocks, start: int, stop: int) -> None:
    """Write the unit major eigenvector and max(1.5 lambda_1 - 0.5, 0) of unit-trace tensors."""
    for i in range(start, stop):
        for j in range(tensor.shape[1]):
            for k in range(tensor.shape[2]):
                t = tensor[i, j, k]
                trace = t[0] + t[1] + t[2]
                planarity[i, j, k] = 0.0
                axis[i, j, k, 0] = 1.0
                axis[i, j, k, 1] = axis[i, j, k, 2] = 0.0
                if trace < 1e-12:
                    continue
                a, b, c = t[0] / trace, t[1] / trace, t[2] / trace
                off = (t[3] / trace, t[4] / trace, t[5] / trace)
                top = _top_eigenvalue(a, b, c, off)
                v = _eigenvector(a - top, b - top, c - top, off)
                axis[i, j, k, 0] = v[0]
                axis[i, j, k, 1] = v[1]
                axis[i, j, k, 2] = v[2]
                planarity[i, j, k] = max(1.5 * top - 0.5, 0.0)


def block_shape(shape_zyx: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the number of blocks per axis, the last one possibly partial."""
    z, y, x = (-(-n // BLOCK) for n in shape_zyx)
    return z, y, x


def block_tensor(
    probability: FloatVolume, normals: FloatVolume | None, *, normal_weight: float, threads: int
) -> Blocks:
    """Return (bz, by, bx, 6) tensors summed over blocks: zz, yy, xx, zy, zx, yx.

    The normals' tensor is scaled to `normal_weight` times the gradient tensor's total trace, so
    that neither source depends on its units.
    """
    blocks = block_shape(probability.shape)
    gradient = np.zeros((*blocks, 6), np.float32)
    over_slabs(lambda a, b: _gradient_tensor(probability, gradient, a, b), blocks[0], threads)
    if normals is None or normal_weight == 0:
        return gradient
    other = np.zeros_like(gradient)
    over_slabs(lambda a, b: _normal_tensor(probability, normals, other, a, b), blocks[0], threads)
    total = float(other[..., :3].sum())
    if total > 0:
        gradient += other * np.float32(normal_weight * float(gradient[..., :3].sum()) / total)
    return gradient


def orientation(tensor: Blocks, *, sigma_blocks: float, threads: int) -> tuple[Blocks, Blocks]:
    """Return unit normals (bz, by, bx, 3), sign free, and planarity (bz, by, bx) in [0, 1].

    Args:
        tensor: (bz, by, bx, 6) from `block_tensor`.
        sigma_blocks: Gaussian smoothing of the tensor, in blocks.
        threads: number of threads.
    """
    smooth = np.empty_like(tensor)
    for channel in range(6):
        smooth[..., channel] = ndimage.gaussian_filter(
            tensor[..., channel], sigma_blocks, mode="nearest"
        )
    axis = np.empty((*tensor.shape[:3], 3), np.float32)
    planarity = np.empty(tensor.shape[:3], np.float32)
    over_slabs(lambda a, b: _major_axis(smooth, axis, planarity, a, b), tensor.shape[0], threads)
    return axis, planarity
