"""Winding field of the phantom: a deformed spiral whose level sets are the papyrus wraps.

Source: own. In the scroll's frame, with polar coordinates (r, theta) around the umbilicus of the
DISPLACED position (y + uy, x + ux):

    v = r / P + slow(r)             P = mean pitch, slow = radial change of the pitch
    b = v - theta / 2 pi            an Archimedean spiral; b = k is the k-th wrap's unpressed line
    knots b_k = k + e(T_k, z)       each wrap shifted by its own smooth noise on the unrolled sheet
    w = monotone interpolation with w(b_k) = k

so w rises by exactly 1 from wrap to wrap, its level sets cannot cross, and gaps differ from
neighbour to neighbour as in pressed scrolls. T = k + theta / 2 pi counts turns along the sheet and
does not care where the branch cut of theta lies; s = pi P T^2 is its length in voxels.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.data.phantom_noise import Array, compiled, spline1, spline2, spline3, streams
from vesuvius.data.phantom_settings import PhantomSettings
from vesuvius.types import FloatVolume

_COARSE = 4  # voxels between the points where the displacement is evaluated
_TWO_PI = 2.0 * math.pi
_SCALES = (150.0, 64.0, 30.0)  # voxels per lattice step of the displacement
_STRENGTHS = (0.9, 0.7, 0.45)  # of a lattice step at deformation 1: the Jacobian stays above 0
_STRIP_LENGTH = 70.0  # voxels per lattice step of a wrap's own shift, along the sheet
_STRIP_HEIGHT = 90.0  # the same along z
_MAX_SHIFT = 0.34  # of a pitch; with the fine part (0.12) below 1/2, so knots keep their order


@dataclass(frozen=True, slots=True)
class Geometry:
    """Winding field of a chunk and what is derived from it.

    Attributes:
        winding: (z, y, x) float32.
        turn: (z, y, x) float32, theta / 2 pi; floor(winding) + turn counts turns on the sheet.
        pitch: (z, y, x) float32 voxels, 1 / |grad winding|.
        normals: (3, z, y, x) float32 unit gradient of the winding.
        mean_pitch: voxels; pi * mean_pitch * turns^2 is the length along the sheet.
    """

    winding: FloatVolume
    turn: FloatVolume
    pitch: FloatVolume
    normals: npt.NDArray[np.float32]
    mean_pitch: float


def make_geometry(
    shape_zyx: tuple[int, int, int],
    *,
    seed: int,
    settings: PhantomSettings,
    umbilicus_yx: tuple[float, float],
    origin_zyx: tuple[int, int, int] = (0, 0, 0),
) -> Geometry:
    """Return the winding field of the chunk that starts at `origin_zyx` of the scroll.

    Args:
        shape_zyx: chunk size in voxels.
        seed: of the scroll; chunks of one seed and umbilicus fit together.
        settings: pitch, deformation and gap_variation are used here.
        umbilicus_yx: the spiral's centre in the scroll's frame, voxels.
        origin_zyx: the chunk's first voxel in the scroll's frame.
    """
    seeds = streams(seed, 16)
    low, high = settings.pitch
    mean_pitch = 0.25 * (low + high) + 0.5 * math.sqrt(low * high)
    grids = [_coarse_axis(o - 1, n + 2) for o, n in zip(origin_zyx, shape_zyx, strict=True)]
    centre_y = origin_zyx[1] + shape_zyx[1] / 2 - umbilicus_yx[0]
    centre_x = origin_zyx[2] + shape_zyx[2] / 2 - umbilicus_yx[1]
    cut = math.atan2(centre_y, centre_x)
    amplitudes = np.array(
        [settings.deformation * scale * f for scale, f in zip(_SCALES, _STRENGTHS, strict=True)]
    )
    py, px = _displaced(
        grids[0],
        grids[1],
        grids[2],
        seeds,
        np.array(_SCALES),
        amplitudes,
        umbilicus_yx[0],
        umbilicus_yx[1],
    )
    py, px = _double(py), _double(px)
    z_half = np.arange(py.shape[0]) * (_COARSE / 2) + grids[0][1]
    radial = 0.35 * math.log(high / low)
    shift = _MAX_SHIFT * settings.gap_variation
    v = _wound(py, px, z_half, seeds[8:], mean_pitch, radial, shift, cut)
    crop = tuple(
        slice(start, start + n + 2)
        for start, n in zip(
            (o - 1 - int(g[1]) - _COARSE // 2 for o, g in zip(origin_zyx, grids, strict=True)),
            shape_zyx,
            strict=True,
        )
    )
    v, py, px = (_double(field)[crop] for field in (v, py, px))
    winding, turn = _unroll(v, py, px, cut)
    normals, pitch = _gradient(winding)
    inner = (slice(1, -1),) * 3
    return Geometry(
        np.ascontiguousarray(winding[inner]),
        np.ascontiguousarray(turn[inner]),
        pitch,
        normals,
        mean_pitch,
    )


def default_umbilicus(
    shape_zyx: tuple[int, int, int], rng: np.random.Generator
) -> tuple[float, float]:
    """Return a random centre outside the chunk, 0.8 to 2.5 chunk sizes from its middle."""
    size = max(shape_zyx[1], shape_zyx[2])
    angle = rng.uniform(0.0, _TWO_PI)
    distance = size * rng.uniform(0.8, 2.5)
    return (
        shape_zyx[1] / 2 + distance * math.sin(angle),
        shape_zyx[2] / 2 + distance * math.cos(angle),
    )


def _coarse_axis(start: int, count: int) -> npt.NDArray[np.float64]:
    """Return multiples of the coarse step that leave two points of margin on both sides.

    Two doublings eat one coarse and one half step of margin at each end.
    """
    first = start // _COARSE * _COARSE - 2 * _COARSE
    last = -(-(start + count) // _COARSE) * _COARSE + 2 * _COARSE
    return np.arange(first, last + 1, _COARSE, dtype=np.float64)


def _double(field: FloatVolume) -> FloatVolume:
    """Return the field on a grid twice as fine (cubic midpoints); one point lost at each end."""
    for axis in range(3):
        f = np.moveaxis(field, axis, 0)
        middle = (f[1:-2] + f[2:-1]) * np.float32(0.5625) - (f[:-3] + f[3:]) * np.float32(0.0625)
        out = np.empty((2 * (f.shape[0] - 2) - 1, *f.shape[1:]), np.float32)
        out[0::2] = f[1:-1]
        out[1::2] = middle
        field = np.moveaxis(out, 0, axis)
    return np.ascontiguousarray(field)


@compiled
def _displaced(
    zs: Array,
    ys: Array,
    xs: Array,
    seeds: Array,
    scales: Array,
    amplitudes: Array,
    cy: float,
    cx: float,
) -> tuple[Array, Array]:
    """Displace each point scale by scale (a composition of small maps stays invertible)."""
    py = np.empty((zs.size, ys.size, xs.size), np.float32)
    px = np.empty_like(py)
    for i in range(zs.size):
        for j in range(ys.size):
            for k in range(xs.size):
                y, x = ys[j], xs[k]
                for m in range(scales.size):
                    c = scales[m]
                    # slower along z: real sheets bend less along the scroll's axis
                    dy = spline3(seeds[2 * m], zs[i] / (1.6 * c), y / c, x / c)
                    dx = spline3(seeds[2 * m + 1], zs[i] / (1.6 * c), y / c, x / c)
                    y += amplitudes[m] * dy
                    x += amplitudes[m] * dx
                py[i, j, k] = y - cy
                px[i, j, k] = x - cx
    return py, px


@compiled
def _knot(seed: np.uint64, k: int, turn: float, z: float, mean_pitch: float, shift: float) -> float:
    turns = k + turn
    s = math.pi * mean_pitch * turns * abs(turns)
    n = spline2(seed, s / _STRIP_LENGTH, z / _STRIP_HEIGHT)
    fine = spline2(seed + np.uint64(1), s / 24.0, z / 34.0)
    return k + shift * math.tanh(5.0 * n) + 0.12 * fine


@compiled
def _wound(
    py: Array,
    px: Array,
    zs: Array,
    seeds: Array,
    mean_pitch: float,
    radial: float,
    shift: float,
    cut: float,
) -> Array:
    """Return v with every wrap shifted: winding + theta / 2 pi, free of the branch cut."""
    out = np.empty_like(py)
    for i in range(py.shape[0]):
        for j in range(py.shape[1]):
            for k in range(py.shape[2]):
                y, x = float(py[i, j, k]), float(px[i, j, k])
                r = math.sqrt(y * y + x * x)
                turn = _turn(y, x, cut)
                step = 4.0 * mean_pitch
                b = r / mean_pitch + radial * 4.0 * spline1(seeds[0], r / step) - turn
                n = math.floor(b)
                here = _knot(seeds[1], n, turn, zs[i], mean_pitch, shift)
                if b < here:
                    n -= 1
                    above = here
                    here = _knot(seeds[1], n, turn, zs[i], mean_pitch, shift)
                else:
                    above = _knot(seeds[1], n + 1, turn, zs[i], mean_pitch, shift)
                    if b >= above:
                        n += 1
                        here = above
                        above = _knot(seeds[1], n + 1, turn, zs[i], mean_pitch, shift)
                below = _knot(seeds[1], n - 1, turn, zs[i], mean_pitch, shift)
                beyond = _knot(seeds[1], n + 2, turn, zs[i], mean_pitch, shift)
                out[i, j, k] = n + _hermite(b, below, here, above, beyond) + turn
    return out


@compiled
def _hermite(b: float, below: float, here: float, above: float, beyond: float) -> float:
    """Rise from 0 at `here` to 1 at `above`; slope * gap < 2 at the knots keeps it monotone."""
    gap = above - here
    t = (b - here) / gap
    m0 = 2.0 * gap / (above - below)
    m1 = 2.0 * gap / (beyond - here)
    return t * (m0 * (1.0 - t) ** 2 + t * (3.0 - 2.0 * t) - m1 * t * (1.0 - t))


@compiled
def _turn(y: float, x: float, cut: float) -> float:
    """Return theta / 2 pi with its branch cut opposite to the direction `cut`."""
    c, s = math.cos(cut), math.sin(cut)
    return (cut + math.atan2(y * c - x * s, x * c + y * s)) / _TWO_PI


@compiled
def _unroll(v: Array, py: Array, px: Array, cut: float) -> tuple[Array, Array]:
    winding = np.empty(v.shape, np.float32)
    turn = np.empty(v.shape, np.float32)
    for i in range(v.shape[0]):
        for j in range(v.shape[1]):
            for k in range(v.shape[2]):
                t = _turn(float(py[i, j, k]), float(px[i, j, k]), cut)
                turn[i, j, k] = t
                winding[i, j, k] = v[i, j, k] - t
    return winding, turn


@compiled
def _gradient(w: Array) -> tuple[Array, Array]:
    """Return unit gradient and 1 / |gradient| inside a field with one voxel of margin.

    Differences are taken modulo 1, so the jump of the branch cut leaves no trace.
    """
    shape = (w.shape[0] - 2, w.shape[1] - 2, w.shape[2] - 2)
    normals = np.empty((3, *shape), np.float32)
    pitch = np.empty(shape, np.float32)
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                a = w[i + 2, j + 1, k + 1] - w[i, j + 1, k + 1]
                b = w[i + 1, j + 2, k + 1] - w[i + 1, j, k + 1]
                c = w[i + 1, j + 1, k + 2] - w[i + 1, j + 1, k]
                a = 0.5 * (a - round(a))
                b = 0.5 * (b - round(b))
                c = 0.5 * (c - round(c))
                length = math.sqrt(a * a + b * b + c * c) + 1e-9
                normals[0, i, j, k] = a / length
                normals[1, i, j, k] = b / length
                normals[2, i, j, k] = c / length
                pitch[i, j, k] = 1.0 / length
    return normals, pitch
