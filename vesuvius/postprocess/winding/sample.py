"""Compiled helpers shared by the stages: trilinear sampling of volumes and of block normals."""

import math

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.types import FloatVolume

BLOCK = 4
"""Edge of an orientation block in voxels."""


@compiled
def inner_trilinear(volume: FloatVolume, z: float, y: float, x: float) -> float:
    """Return `volume` at a point between its outermost voxel centres, the last ones excluded."""
    kz, ky, kx = np.int32(z), np.int32(y), np.int32(x)
    fz, fy, fx = np.float32(z - kz), np.float32(y - ky), np.float32(x - kx)
    # unsigned: a signed index costs a test for negative ones at each of the eight reads
    iz, iy, ix, one = np.uint64(kz), np.uint64(ky), np.uint64(kx), np.uint64(1)
    a, b = volume[iz, iy, ix], volume[iz, iy + one, ix]
    c, d = volume[iz + one, iy, ix], volume[iz + one, iy + one, ix]
    a += fx * (volume[iz, iy, ix + one] - a)
    b += fx * (volume[iz, iy + one, ix + one] - b)
    c += fx * (volume[iz + one, iy, ix + one] - c)
    d += fx * (volume[iz + one, iy + one, ix + one] - d)
    a += fy * (b - a)
    c += fy * (d - c)
    return float(a + fz * (c - a))


@compiled
def trilinear(volume: FloatVolume, z: float, y: float, x: float) -> float:
    """Return `volume` at a point given in voxel indices, clamped to the outermost centres."""
    nz, ny, nx = volume.shape
    z = min(max(z, 0.0), nz - 1.0)
    y = min(max(y, 0.0), ny - 1.0)
    x = min(max(x, 0.0), nx - 1.0)
    kz, ky, kx = np.int32(z), np.int32(y), np.int32(x)
    fz, fy, fx = np.float32(z - kz), np.float32(y - ky), np.float32(x - kx)
    jz = np.uint64(min(kz + 1, nz - 1))
    jy = np.uint64(min(ky + 1, ny - 1))
    jx = np.uint64(min(kx + 1, nx - 1))
    iz, iy, ix = np.uint64(kz), np.uint64(ky), np.uint64(kx)
    a, b, c, d = volume[iz, iy, ix], volume[iz, jy, ix], volume[jz, iy, ix], volume[jz, jy, ix]
    a += fx * (volume[iz, iy, jx] - a)
    b += fx * (volume[iz, jy, jx] - b)
    c += fx * (volume[jz, iy, jx] - c)
    d += fx * (volume[jz, jy, jx] - d)
    a += fy * (b - a)
    c += fy * (d - c)
    return float(a + fz * (c - a))


@compiled
def normal_at(normals: FloatVolume, z: float, y: float, x: float) -> tuple[float, float, float]:
    """Return the unit normal at a voxel position: trilinear from blocks, signs made to agree.

    Args:
        normals: (bz, by, bx, 3) unit vectors of blocks of 4 voxels, order (nz, ny, nx).
        z: voxel index along z (y and x alike).
        y: see z.
        x: see z.
    """
    bz, by, bx, _ = normals.shape
    z = min(max((z + 0.5) / BLOCK - 0.5, 0.0), bz - 1.0)
    y = min(max((y + 0.5) / BLOCK - 0.5, 0.0), by - 1.0)
    x = min(max((x + 0.5) / BLOCK - 0.5, 0.0), bx - 1.0)
    iz, iy, ix = int(z), int(y), int(x)
    fz, fy, fx = z - iz, y - iy, x - ix
    kz, ky, kx = int(z + 0.5), int(y + 0.5), int(x + 0.5)  # nearest block decides the sign
    rz, ry, rx = normals[kz, ky, kx, 0], normals[kz, ky, kx, 1], normals[kz, ky, kx, 2]
    sz, sy, sx = 0.0, 0.0, 0.0
    for dz in range(2):
        cz = min(iz + dz, bz - 1)
        wz = fz if dz else 1.0 - fz
        for dy in range(2):
            cy = min(iy + dy, by - 1)
            wy = wz * (fy if dy else 1.0 - fy)
            for dx in range(2):
                cx = min(ix + dx, bx - 1)
                w = wy * (fx if dx else 1.0 - fx)
                az, ay, ax = normals[cz, cy, cx, 0], normals[cz, cy, cx, 1], normals[cz, cy, cx, 2]
                if az * rz + ay * ry + ax * rx < 0.0:
                    w = -w
                sz += w * az
                sy += w * ay
                sx += w * ax
    length = math.sqrt(sz * sz + sy * sy + sx * sx)
    if length < 1e-6:
        return rz, ry, rx
    return sz / length, sy / length, sx / length


@compiled
def normal_row(normals: FloatVolume, z: int, y: int, out: npt.NDArray[np.float32]) -> None:
    """Write `normal_at(normals, z, y, x)` of a whole row of voxels to `out` (nx, 3).

    Pairs of voxels share their blocks and the signs, so that a row costs half of its voxels.
    """
    bz, by, bx, _ = normals.shape
    vz = min(max((z + 0.5) / BLOCK - 0.5, 0.0), bz - 1.0)
    vy = min(max((y + 0.5) / BLOCK - 0.5, 0.0), by - 1.0)
    iz, iy, kz, ky = int(vz), int(vy), int(vz + 0.5), int(vy + 0.5)
    fz, fy = vz - iz, vy - iy
    for pair in range((len(out) + 1) // 2):
        vx = min(max((2 * pair + 0.5) / BLOCK - 0.5, 0.0), bx - 1.0)
        ix, kx = int(vx), int(vx + 0.5)
        rz, ry, rx = normals[kz, ky, kx, 0], normals[kz, ky, kx, 1], normals[kz, ky, kx, 2]
        z0, y0, x0, z1, y1, x1 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for corner in range(8):  # z0 y0 x0: blended over the blocks at ix; z1 y1 x1: at ix + 1
            dz, dy, dx = corner >> 2, (corner >> 1) & 1, corner & 1
            cz, cy, cx = min(iz + dz, bz - 1), min(iy + dy, by - 1), min(ix + dx, bx - 1)
            w = (fz if dz else 1.0 - fz) * (fy if dy else 1.0 - fy)
            az, ay, ax = normals[cz, cy, cx, 0], normals[cz, cy, cx, 1], normals[cz, cy, cx, 2]
            if az * rz + ay * ry + ax * rx < 0.0:
                w = -w
            if dx:
                z1, y1, x1 = z1 + w * az, y1 + w * ay, x1 + w * ax
            else:
                z0, y0, x0 = z0 + w * az, y0 + w * ay, x0 + w * ax
        for x in range(2 * pair, min(2 * pair + 2, len(out))):
            f = min(max((x + 0.5) / BLOCK - 0.5, 0.0), bx - 1.0) - ix
            sz, sy, sx = z0 + f * (z1 - z0), y0 + f * (y1 - y0), x0 + f * (x1 - x0)
            length = math.sqrt(sz * sz + sy * sy + sx * sx)
            if length < 1e-6:
                out[x, 0], out[x, 1], out[x, 2] = rz, ry, rx
            else:
                out[x, 0], out[x, 1], out[x, 2] = sz / length, sy / length, sx / length


@compiled
def tangents(
    normal: tuple[float, float, float],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return two unit vectors that span the plane across a unit normal."""
    az, ay, ax = normal
    if abs(az) < 0.6:  # the axis furthest from the normal, made orthogonal
        tz, ty, tx = 1.0 - az * az, -az * ay, -az * ax
    else:
        tz, ty, tx = -ax * az, -ax * ay, 1.0 - ax * ax
    length = math.sqrt(tz * tz + ty * ty + tx * tx)
    tz, ty, tx = tz / length, ty / length, tx / length
    return (tz, ty, tx), (ay * tx - ax * ty, ax * tz - az * tx, az * ty - ay * tz)
