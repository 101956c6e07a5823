"""The mask: a band of constant thickness around every level that the data supports, with cuts."""

import math

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.numbering import NO_LEVEL
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import normal_row, tangents, trilinear
from vesuvius.types import ByteVolume, FloatVolume, LabelVolume


@compiled
def _to_level(
    w: FloatVolume, level: float, z: int, y: int, x: int, normal: tuple[float, float, float],
    reach: float,
) -> float:  # fmt: skip
    """Return the signed distance along the normal to w = level + 1/2; inf beyond `reach`.

    Marched and not (w - level) / |grad w|: the field is steep on the sheets and flat between.
    """
    target = level + 0.5
    before = float(w[z, y, x])
    if before == target:
        return 0.0
    side = 1.0 if before < target else -1.0
    step = 0.5
    for i in range(1, int(reach / step) + 2):
        s = side * i * step
        value = trilinear(w, z + s * normal[0], y + s * normal[1], x + s * normal[2])
        if (value - target) * side >= 0.0:
            return s - side * step * (value - target) / (value - before)
        before = value
    return np.inf


def disc(radius: float) -> npt.NDArray[np.float32]:
    """Return (n, 2) points that cover a disc: rings 2 voxels apart, about 2 voxels along each."""
    points = [(0.0, 0.0)]
    for ring in np.arange(2.0, radius + 1e-6, 2.0):
        number = max(round(math.pi * ring), 4)
        turns = 2 * math.pi * (np.arange(number) + 0.5 * (ring % 4 == 0)) / number
        points += [(ring * math.cos(t), ring * math.sin(t)) for t in turns]
    return np.asarray(points, np.float32)


@compiled
def _supported(
    p: FloatVolume, w: FloatVolume, level: float, threshold: float, least: float,
    points: npt.NDArray[np.float32], centre: tuple[float, float, float],
    normal: tuple[float, float, float],
) -> bool:  # fmt: skip
    """Return whether a share `least` of a tangent disc, within the volume, has data on the level.

    False where the whole disc lies outside, unless `least` is 0. Stops as soon as the points left
    cannot change the answer.
    """
    nz, ny, nx = p.shape
    t, u = tangents(normal)
    seen, hits, left = 0, 0, len(points)
    for i in range(len(points)):
        if hits >= least * (seen + left) or hits + left < least * (seen + left):
            break
        left -= 1
        a, b = points[i, 0], points[i, 1]
        z = math.floor(centre[0] + a * t[0] + b * u[0] + 0.5)
        y = math.floor(centre[1] + a * t[1] + b * u[1] + 0.5)
        x = math.floor(centre[2] + a * t[2] + b * u[2] + 0.5)
        if z < 0 or y < 0 or x < 0 or z >= nz or y >= ny or x >= nx:
            continue
        seen += 1
        if p[z, y, x] > threshold and math.floor(w[z, y, x]) == level:
            hits += 1
    return hits >= least * (seen + left) and (seen > 0 or least <= 0.0)


@compiled
def _seen(
    p: FloatVolume, centre: tuple[float, float, float], normal: tuple[float, float, float]
) -> float:  # fmt: skip
    """Return the highest probability within a voxel of a point of the level, along the normal."""
    best = 0.0
    for i in range(-1, 2):
        value = trilinear(
            p, centre[0] + i * normal[0], centre[1] + i * normal[1], centre[2] + i * normal[2]
        )
        best = max(best, value)
    return best


@compiled
def _band(
    p: FloatVolume, w: FloatVolume, axis: Blocks, half: float, threshold: float, support: float,
    hole: float, hole_support: float, points: npt.NDArray[np.float32], out: LabelVolume,
    depth: FloatVolume, start: int, stop: int,
) -> None:  # fmt: skip
    """Write the level of band voxels (NO_LEVEL elsewhere) and their distance to the level."""
    _, ny, nx = w.shape
    normals = np.empty((nx, 3), np.float32)
    for z in range(start, stop):
        for y in range(ny):
            normal_row(axis, z, y, normals)
            for x in range(nx):
                out[z, y, x] = NO_LEVEL
                depth[z, y, x] = 0.0
                level = math.floor(w[z, y, x])
                normal = (float(normals[x, 0]), float(normals[x, 1]), float(normals[x, 2]))
                t = _to_level(w, level, z, y, x, normal, half)
                if abs(t) > half:
                    continue
                centre = (z + t * normal[0], y + t * normal[1], x + t * normal[2])
                least = hole_support if _seen(p, centre, normal) < hole else support
                if not _supported(p, w, level, threshold, least, points, centre, normal):
                    continue
                out[z, y, x] = level
                depth[z, y, x] = abs(t)


@compiled
def _yields(level: LabelVolume, depth: FloatVolume, z: int, y: int, x: int) -> bool:
    """Return whether a voxel touches another level and is the one of the two to go.

    The one further from its own ridge goes; between equals the higher level.
    """
    nz, ny, nx = level.shape
    here, far = level[z, y, x], depth[z, y, x]
    for a in range(max(z - 1, 0), min(z + 2, nz)):
        for b in range(max(y - 1, 0), min(y + 2, ny)):
            for c in range(max(x - 1, 0), min(x + 2, nx)):
                other, near = level[a, b, c], depth[a, b, c]
                if other == NO_LEVEL:
                    continue
                if other != here and (far > near or (far == near and here > other)):
                    return True
    return False


@compiled
def _cut(
    level: LabelVolume, depth: FloatVolume, keep: npt.NDArray[np.bool_], start: int, stop: int
) -> None:
    """Write which voxels stay when every contact of two levels is cut."""
    _, ny, nx = level.shape
    for z in range(start, stop):
        for y in range(ny):
            for x in range(nx):
                present = level[z, y, x] != NO_LEVEL
                keep[z, y, x] = present and not _yields(level, depth, z, y, x)


def band_levels(
    probability: FloatVolume, field: FloatVolume, axis: Blocks, *, thickness: float,
    threshold: float, support: float, support_radius: float, hole_probability: float,
    hole_support: float, threads: int,
) -> tuple[LabelVolume, FloatVolume]:  # fmt: skip
    """Return the level of every voxel of the supported bands and its distance to the level.

    Args:
        probability: (z, y, x) in [0, 1].
        field: (z, y, x) winding field.
        axis: (bz, by, bx, 3) unit normals along which the field rises.
        thickness: of the band, in voxels.
        threshold: probability above which a voxel counts as data.
        support: least share of a disc on the level, around the voxel, that has data. 0 keeps
            every level everywhere; 1 keeps only what the data covers.
        support_radius: of the disc in voxels.
        hole_probability: a place of the level whose probability is below this is a hole for sure.
        hole_support: least share there instead of `support`.
        threads: number of threads.
    """
    level = np.empty(field.shape, np.int32)
    depth = np.empty(field.shape, np.float32)
    points = disc(support_radius)
    over_slabs(
        lambda a, b: _band(
            probability,
            field,
            axis,
            thickness / 2,
            threshold,
            support,
            hole_probability,
            hole_support,
            points,
            level,
            depth,
            a,
            b,
        ),
        field.shape[0],
        threads,
    )
    return level, depth


def cut_levels(level: LabelVolume, depth: FloatVolume, *, threads: int) -> LabelVolume:
    """Return the levels with one-voxel cuts: no two 26-neighbours on different levels remain."""
    keep = np.empty(level.shape, np.bool_)
    over_slabs(lambda a, b: _cut(level, depth, keep, a, b), level.shape[0], threads)
    level = level.copy()
    level[~keep] = NO_LEVEL
    return level


@compiled
def _count(pieces: npt.NDArray[np.integer], sizes: npt.NDArray[np.int64]) -> None:
    """Add up the voxels of every piece; unlike np.bincount without a copy in 64 bits."""
    flat = pieces.reshape(-1)
    for i in range(len(flat)):
        sizes[flat[i]] += 1


@compiled
def _drop(
    pieces: npt.NDArray[np.integer], sizes: npt.NDArray[np.int64], smallest: int, out: LabelVolume
) -> None:
    """Write NO_LEVEL on the pieces below `smallest` voxels."""
    flat, level = pieces.reshape(-1), out.reshape(-1)
    for i in range(len(flat)):
        if sizes[flat[i]] < smallest:
            level[i] = NO_LEVEL


def drop_dust(level: LabelVolume, smallest: int) -> LabelVolume:
    """Return the levels without 6-connected pieces (of one level) below `smallest` voxels."""
    if smallest <= 1:
        return level
    import cc3d  # slow to import

    numbers = number_sheets(level).view(np.uint32)
    pieces, count = cc3d.connected_components(numbers, connectivity=6, return_N=True)
    sizes = np.zeros(count + 1, np.int64)
    _count(pieces, sizes)
    out = level.copy()
    _drop(pieces, sizes, smallest, out)
    return out


def number_sheets(level: LabelVolume) -> LabelVolume:
    """Return sheet numbers from 1 in the order of the levels, 0 where there is none."""
    present = level != NO_LEVEL
    if not present.any():
        return np.zeros(level.shape, np.int32)
    low = int(level[present].min())
    out: LabelVolume = np.where(present, level - np.int32(low - 1), 0).astype(np.int32)
    return out


def mask_of(labels: LabelVolume) -> ByteVolume:
    """Return the uint8 mask of the labelled voxels."""
    return (labels > 0).astype(np.uint8)
