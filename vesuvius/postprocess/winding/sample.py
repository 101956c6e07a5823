"""Compiled helpers shared by the stages: trilinear sampling of volumes and of block normals."""

import math

import numpy as np

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.types import FloatVolume

BLOCK = 4
"""Edge of an orientation block in voxels."""


@compiled
def trilinear(volume: FloatVolume, z: float, y: float, x: float) -> float:
    """Return `volume` at a point given in voxel indices, clamped to the outermost centres."""
    nz, ny, nx = volume.shape
    z = min(max(z, 0.0), nz - 1.0)
    y = min(max(y, 0.0), ny - 1.0)
    x = min(max(x, 0.0), nx - 1.0)
    iz, iy, ix = int(z), int(y), int(x)
    jz, jy, jx = min(iz + 1, nz - 1), min(iy + 1, ny - 1), min(ix + 1, nx - 1)
    fz, fy, fx = np.float32(z - iz), np.float32(y - iy), np.float32(x - ix)
    one = np.float32(1.0)
    low = (volume[iz, iy, ix] * (one - fx) + volume[iz, iy, jx] * fx) * (one - fy) + (
        volume[iz, jy, ix] * (one - fx) + volume[iz, jy, jx] * fx
    ) * fy
    high = (volume[jz, iy, ix] * (one - fx) + volume[jz, iy, jx] * fx) * (one - fy) + (
        volume[jz, jy, ix] * (one - fx) + volume[jz, jy, jx] * fx
    ) * fy
    return float(low * (one - fz) + high * fz)


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
