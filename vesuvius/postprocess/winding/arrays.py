"""The voxel stages on whole arrays: NumPy's or CuPy's, whichever module comes in as `xp`.

The same formulas as the compiled loops, which remain the reference: tests compare the two.
Every function takes and returns arrays of `xp`; work goes in portions of CHUNK voxels.
"""

import math
from collections.abc import Iterator
from typing import Any

from vesuvius.postprocess.winding import slabs, smooth
from vesuvius.postprocess.winding.sample import BLOCK

Array = Any
"""An array of `xp`."""
CHUNK = 2**21
"""Voxels at a time: bounds the temporary arrays to about 0.3 GB."""
Points = tuple[Array, Array, Array]


def trilinear(xp: Any, volume: Array, at: Points) -> Array:
    """Return `volume` at float32 points (z, y, x), clamped to the outermost centres."""
    corners, shares = [], []
    for position, length in zip(at, volume.shape, strict=True):
        position = xp.clip(position, 0, length - 1)
        low = position.astype(xp.int32)
        corners.append((low, xp.minimum(low + 1, length - 1)))
        shares.append(position - low.astype(xp.float32))
    flat, (_, ny, nx) = volume.reshape(-1), volume.shape
    (z0, z1), (y0, y1), (x0, x1) = corners
    fz, fy, fx = shares

    def line(z: Array, y: Array) -> Array:
        row = (z * ny + y) * nx
        left = flat[row + x0]
        return left + fx * (flat[row + x1] - left)

    def plane(z: Array) -> Array:
        low = line(z, y0)
        return low + fy * (line(z, y1) - low)

    low = plane(z0)
    return low + fz * (plane(z1) - low)


def normals_at(xp: Any, axis: Array, at: Points) -> Points:
    """Return unit normals at voxels: trilinear from blocks (bz, by, bx, 3), signs made to agree."""
    flat, blocks = axis.reshape(-1, 3), axis.shape[:3]
    corners, shares, nearest = [], [], []
    for position, count in zip(at, blocks, strict=True):
        place = xp.clip((position.astype(xp.float32) + 0.5) / BLOCK - 0.5, 0, count - 1)
        low = place.astype(xp.int32)
        corners.append((low, xp.minimum(low + 1, count - 1)))
        shares.append(place - low.astype(xp.float32))
        nearest.append((place + 0.5).astype(xp.int32))
    _, by, bx = blocks
    reference = flat[(nearest[0] * by + nearest[1]) * bx + nearest[2]]
    total = xp.zeros_like(reference)
    for corner in range(8):
        sides = (corner >> 2, corner >> 1 & 1, corner & 1)
        z, y, x = (c[side] for c, side in zip(corners, sides, strict=True))
        weight = 1
        for share, side in zip(shares, sides, strict=True):
            weight = weight * (share if side else 1 - share)
        vector = flat[(z * by + y) * bx + x]
        weight = xp.where((vector * reference).sum(-1) < 0, -weight, weight)
        total += weight[:, None] * vector
    length = xp.sqrt((total * total).sum(-1, keepdims=True))
    unit = xp.where(length < 1e-6, reference, total / xp.maximum(length, 1e-6))
    return unit[:, 0], unit[:, 1], unit[:, 2]


def tangents(xp: Any, normal: Points) -> tuple[Points, Points]:
    """Return two unit vectors that span the plane across unit normals."""
    az, ay, ax = normal
    upright = xp.abs(az) < 0.6
    tz = xp.where(upright, 1 - az * az, -ax * az)
    ty = xp.where(upright, -az * ay, -ax * ay)
    tx = xp.where(upright, -az * ax, 1 - ax * ax)
    length = xp.sqrt(tz * tz + ty * ty + tx * tx)
    tz, ty, tx = tz / length, ty / length, tx / length
    return (tz, ty, tx), (ay * tx - ax * ty, ax * tz - az * tx, az * ty - ay * tz)


def moved(at: Points, *steps: tuple[Array | float, Points]) -> Points:
    """Return the points plus the sum of step times direction."""
    z, y, x = at
    for size, direction in steps:
        z, y, x = z + size * direction[0], y + size * direction[1], x + size * direction[2]
    return z, y, x


def portions(xp: Any, chosen: Array) -> Iterator[tuple[Array, Points]]:
    """Yield flat indices and float32 coordinates of the chosen voxels, CHUNK at most at a time."""
    layers = max(CHUNK // (chosen.shape[1] * chosen.shape[2]), 1)
    for start in range(0, chosen.shape[0], layers):
        z, y, x = xp.nonzero(chosen[start : start + layers])
        z = z + start
        if len(z):
            flat = (z * chosen.shape[1] + y) * chosen.shape[2] + x
            yield flat, (z.astype(xp.float32), y.astype(xp.float32), x.astype(xp.float32))


def inside(volume: Array, at: Points, slack: float = 0.0) -> Array:
    """Return which points lie between the outermost voxel centres, or `slack` further out."""
    z, y, x = at
    nz, ny, nx = volume.shape
    low = (z >= -slack) & (y >= -slack) & (x >= -slack)
    return low & (z <= nz - 1 + slack) & (y <= ny - 1 + slack) & (x <= nx - 1 + slack)


def smooth_along_sheets(xp: Any, probability: Array, axis: Array, *, sigma: float) -> Array:
    """Return the probability averaged over tangent discs; see `smooth.smooth_along_sheets`."""
    out = probability.copy()
    for flat, at in portions(xp, probability >= smooth.EMPTY):
        t, u = tangents(xp, normals_at(xp, axis, at))
        total, weights = xp.zeros_like(at[0]), xp.zeros_like(at[0])
        for a, b, weight in smooth.disc_points(sigma).tolist():
            there = moved(at, (a, t), (b, u))
            share = inside(probability, there, smooth.SLACK).astype(xp.float32) * weight
            total += share * trilinear(xp, probability, there)
            weights += share
        out.reshape(-1)[flat] = total / weights
    return out


def _walk(
    xp: Any, p: Array, at: Points, along: Points, here: Array, dip: float
) -> tuple[Array, Array]:
    """Return mass and first moment of every slab from its voxel along a direction."""
    mass, moment = xp.zeros_like(here), xp.zeros_like(here)
    mass_low, moment_low = xp.zeros_like(here), xp.zeros_like(here)
    top, low = here, here
    alive = xp.ones(here.shape, bool)
    for i in range(1, int(slabs.REACH / slabs.STEP) + 1):
        reach = i * slabs.STEP
        value = trilinear(xp, p, moved(at, (reach, along)))
        alive &= value > slabs.FLOOR
        gain = xp.where(alive, (value - slabs.FLOOR) * slabs.STEP, 0)
        mass, moment = mass + gain, moment + gain * reach
        falls = alive & (value < low)
        low = xp.where(falls, value, low)
        mass_low = xp.where(falls, mass, mass_low)
        moment_low = xp.where(falls, moment, moment_low)
        ends = alive & ~falls & (value > low + dip) & (top > low + dip)  # the slab's valley
        mass, moment = xp.where(ends, mass_low, mass), xp.where(ends, moment_low, moment)
        alive &= ~ends
        climbs = alive & ~falls & (value > top) & (low > top - dip)
        top, low = xp.where(climbs, value, top), xp.where(climbs, value, low)
    return mass, moment


def slab_profile(xp: Any, probability: Array, axis: Array, *, dip: float) -> tuple[Array, Array]:
    """Return slab mass and centroid offset; see `slabs.slab_profile`."""
    mass, offset = xp.zeros_like(probability), xp.zeros_like(probability)
    for flat, at in portions(xp, probability > slabs.FLOOR):
        normal = normals_at(xp, axis, at)
        here = probability.reshape(-1)[flat]
        up, up_moment = _walk(xp, probability, at, normal, here, dip)
        back = (-normal[0], -normal[1], -normal[2])
        down, down_moment = _walk(xp, probability, at, back, here, dip)
        total = up + down + (here - slabs.FLOOR) * slabs.STEP
        mass.reshape(-1)[flat] = total
        offset.reshape(-1)[flat] = (up_moment - down_moment) / total
    return mass, offset


def upsample(xp: Any, w: Array, shape_zyx: tuple[int, ...], cell: int) -> Array:
    """Return the cell-centred trilinear interpolation of w; see `numbering.upsample`."""
    for dim, length in enumerate(shape_zyx):
        cells = w.shape[dim]
        place = (xp.arange(length, dtype=xp.float32) + 0.5) / cell - 0.5
        low = xp.clip(xp.floor(place), 0, max(cells - 2, 0)).astype(xp.int32)
        share = place - low.astype(xp.float32) if cells > 1 else xp.zeros_like(place)
        ends = [1, 1, 1]
        ends[dim] = length
        first = xp.take(w, low, axis=dim)
        second = xp.take(w, xp.minimum(low + 1, cells - 1), axis=dim)
        w = first + share.reshape(ends) * (second - first)
    return w


def _level_distance(
    xp: Any, w: Array, here: Array, at: Points, normal: Points, reach: float
) -> Array:
    """Return the signed distance along the normal to floor(w) + 1/2; inf beyond `reach`."""
    target = xp.floor(here) + 0.5
    side = xp.where(here < target, xp.ones_like(here), -xp.ones_like(here))
    found = xp.where(here == target, xp.zeros_like(here), xp.full_like(here, math.inf))
    before, step = here, 0.5
    for i in range(1, int(reach / step) + 2):
        s = side * (i * step)
        value = trilinear(xp, w, moved(at, (s, normal)))
        crossed = xp.isinf(found) & ((value - target) * side >= 0)
        rise = xp.where(crossed, value - before, 1)
        found = xp.where(crossed, s - side * step * (value - target) / rise, found)
        before = value
    return found


def _disc_support(
    xp: Any, p: Array, w: Array, level: Array, threshold: float, disc: list[list[float]],
    centre: Points, normal: Points,
) -> tuple[Array, Array]:  # fmt: skip
    """Return how many points of every disc lie in the volume, and on how many of them is data."""
    t, u = tangents(xp, normal)
    _, ny, nx = p.shape
    seen, hits = xp.zeros(level.shape, xp.int32), xp.zeros(level.shape, xp.int32)
    for a, b in disc:
        near = [xp.floor(c + 0.5).astype(xp.int32) for c in moved(centre, (a, t), (b, u))]
        within = inside(p, (near[0], near[1], near[2]))
        flat = xp.where(within, (near[0] * ny + near[1]) * nx + near[2], 0)
        data = (p.reshape(-1)[flat] > threshold) & (xp.floor(w.reshape(-1)[flat]) == level)
        seen += within
        hits += within & data
    return seen, hits


def band_levels(
    xp: Any, probability: Array, field: Array, axis: Array, *, thickness: float, threshold: float,
    support: float, hole_probability: float, hole_support: float, disc: list[list[float]],
    nothing: int,
) -> tuple[Array, Array]:  # fmt: skip
    """Return level and distance of the band's voxels, `nothing` and 0 elsewhere.

    See `mask.band_levels`; `disc` holds the (n, 2) points of the disc that needs support.
    """
    half = thickness / 2
    out = xp.full(field.shape, nothing, xp.int32)
    depth = xp.zeros(field.shape, xp.float32)
    for flat, at in portions(xp, xp.ones(field.shape, bool)):
        normal = normals_at(xp, axis, at)
        here = field.reshape(-1)[flat]
        t = _level_distance(xp, field, here, at, normal, half)
        near = xp.abs(t) <= half
        flat, t, level = flat[near], t[near], xp.floor(here[near])
        normal = (normal[0][near], normal[1][near], normal[2][near])
        centre = moved((at[0][near], at[1][near], at[2][near]), (t, normal))
        best = xp.zeros_like(t)
        for i in (-1, 0, 1):
            value = trilinear(xp, probability, moved(centre, (float(i), normal)))
            best = xp.maximum(best, value)
        least = xp.where(best < hole_probability, hole_support, support)
        seen, hits = _disc_support(
            xp, probability, field, level, threshold, disc, centre, normal
        )  # fmt: skip
        kept = (hits >= least * seen) & ((seen > 0) | (least <= 0))
        out.reshape(-1)[flat[kept]] = level[kept].astype(xp.int32)
        depth.reshape(-1)[flat[kept]] = xp.abs(t[kept])
    return out, depth
