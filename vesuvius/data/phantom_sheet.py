"""Papyrus along the winding field: two fibre layers, splits, holes, loose fibres.

Source: own. Everything is written in the sheet's own coordinates: s (voxels along the spiral), z,
and d (voxels outward from the recto face, the level winding = whole number). The recto layer is
dense, its fibres run along s and its face is sharp; the verso layer is looser, its fibres run
along z and its outer side is ragged.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.data.phantom_geometry import Geometry
from vesuvius.data.phantom_noise import (
    Array,
    compiled,
    smooth_field,
    spline2,
    spline3,
    streams,
    value2,
    value3,
)
from vesuvius.data.phantom_settings import PhantomSettings
from vesuvius.types import ByteVolume, FloatVolume

_HOLE, _TOUCH, _SPLIT, _BREAK, _DEBRIS = range(5)
_CRUMPLED_SCALE = 42.0  # voxels: size of the regions where the sheet structure is lost
_CRUMPLED_DEPTH = 17.0  # voxels times spline noise (sigma 0.19): how far papyrus is shifted there


@dataclass(frozen=True, slots=True)
class Papyrus:
    """What lies where before the scan.

    Attributes:
        density: (z, y, x) float32 grey levels of a perfect scanner.
        wrap: (z, y, x) int16 wrap number from 1, 0 = no papyrus.
        line: (z, y, x) uint8: 1 = recto line, 2 = the part of it that labels lack, 0 = none.
        crumpled: (z, y, x) float32 in [0, 1], 1 = sheet structure lost.
    """

    density: FloatVolume
    wrap: npt.NDArray[np.int16]
    line: ByteVolume
    crumpled: FloatVolume


def make_papyrus(
    geometry: Geometry,
    *,
    seed: int,
    settings: PhantomSettings,
    origin_zyx: tuple[int, int, int] = (0, 0, 0),
) -> Papyrus:
    """Return papyrus with fibres, splits, holes and debris along the winding field.

    Args:
        geometry: the chunk's winding field.
        seed: of the scroll.
        settings: thickness, shares, densities and line_thickness are used here.
        origin_zyx: the chunk's first voxel in the scroll's frame.
    """
    seeds = streams(seed, 48)[16:]
    shares = (
        settings.hole_share,
        settings.touching_share,
        settings.split_share,
        settings.label_break_share,
        settings.debris_share,
    )
    cuts = np.array([_cut(kind, share) for kind, share in enumerate(shares)])
    crumpled = _crumpled(geometry.winding.shape, seed, settings, origin_zyx)
    density, wrap, line = _fill(
        geometry.winding,
        geometry.turn,
        geometry.pitch,
        crumpled,
        np.array(origin_zyx, np.float64),
        seeds,
        cuts,
        np.array([settings.air, settings.recto, settings.verso, settings.fibre_contrast]),
        np.array(settings.thickness),
        settings.line_thickness / 2,
        geometry.mean_pitch,
    )
    return Papyrus(density, wrap, line, crumpled)


def _crumpled(
    shape: tuple[int, ...], seed: int, settings: PhantomSettings, origin_zyx: tuple[int, int, int]
) -> FloatVolume:
    if settings.crumpled_share <= 0:
        return np.zeros(shape, np.float32)
    field = smooth_field(shape, seed + 211, origin_zyx=origin_zyx, scale=_CRUMPLED_SCALE)
    # the field is nearly normal: one global level keeps neighbouring chunks consistent
    reference = smooth_field((96, 96, 96), 5, origin_zyx=(0, 0, 0), scale=4.3)
    level = float(np.quantile(reference, 1.0 - settings.crumpled_share))
    field -= np.float32(level)
    field *= np.float32(12.0)
    return np.clip(field + np.float32(0.5), 0.0, 1.0, out=field)


def _cut(kind: int, share: float) -> float:
    """Return the level that a field of this kind exceeds on the given share of its area."""
    if share <= 0.0:
        return np.inf
    if share >= 1.0:
        return -np.inf
    points = np.random.default_rng(0).uniform(0, 4000, (20_000, 3))
    return float(np.quantile(_sample(kind, points), 1.0 - share))


@compiled
def _sample(kind: int, points: Array) -> Array:
    out = np.empty(points.shape[0])
    for i in range(points.shape[0]):
        s, z, d = points[i]
        if kind == _DEBRIS:
            out[i] = _debris(np.uint64(7), s, z, d)
        else:
            out[i] = _patch(np.uint64(7), kind, s, z)
    return out


@compiled
def _patch(seed: np.uint64, kind: int, s: float, z: float) -> float:
    """Return the field on the sheet whose high places are holes, contacts, splits or breaks."""
    a = 0.83 * s + 0.56 * z  # turned, or the lattice shows as rows of holes
    b = 0.83 * z - 0.56 * s
    fine = seed + np.uint64(1)
    if kind == _HOLE:  # large losses with ragged edges
        return value2(seed, a / 31.0, b / 31.0) + 0.4 * value2(fine, a / 8.0, b / 8.0)
    if kind == _TOUCH:
        return value2(seed, a / 60.0, b / 60.0)
    if kind == _SPLIT:
        return value2(seed, a / 38.0, b / 30.0) + 0.25 * value2(fine, s / 12.0, z / 9.0)
    return value2(seed, a / 22.0, b / 22.0) + 0.3 * value2(fine, a / 6.0, b / 6.0)


@compiled
def _debris(seed: np.uint64, s: float, z: float, d: float) -> float:
    """Loose fibres along s and along z, and crumbs."""
    a = value3(seed, s / 26.0, z / 4.0, d / 3.5)
    b = value3(seed + np.uint64(1), s / 4.0, z / 26.0, d / 3.5)
    c = value3(seed + np.uint64(2), s / 5.0, z / 5.0, d / 5.0)
    return max(a, b, c)


@compiled
def _step(x: float) -> float:
    """Return the share of a voxel that lies beyond a face x voxels away."""
    return min(max(x + 0.5, 0.0), 1.0)


@compiled
def _recto(seeds: Array, s: float, z: float, d: float) -> float:
    """Fibre texture of the recto layer, about -1..1: strands along s."""
    a = value3(seeds[5], s / 40.0, z / 5.0, d / 4.0)
    b = value3(seeds[6], s / 16.0, z / 2.4, d / 2.4)
    return 0.8 * a + 0.7 * b


@compiled
def _verso(seeds: Array, s: float, z: float, d: float) -> float:
    """Fibre texture of the verso layer: strands along z, open cells, slits between laminae."""
    a = value3(seeds[7], s / 5.0, z / 40.0, d / 4.0)
    b = value3(seeds[8], s / 2.4, z / 14.0, d / 2.4)
    cells = value3(seeds[9], s / 5.0, z / 9.0, d / 4.5)
    slits = value3(seeds[13], s / 24.0, z / 30.0, d / 2.2)
    return 0.8 * a + 0.7 * b - 1.8 * max(cells - 0.25, 0.0) - 2.2 * max(slits - 0.3, 0.0)


@compiled
def _length(mean_pitch: float, turns: float) -> float:
    return np.pi * mean_pitch * turns * abs(turns)


@compiled
def _fill(
    winding: Array,
    turn: Array,
    pitch: Array,
    crumpled: Array,
    origin: Array,
    seeds: Array,
    cuts: Array,
    greys: Array,
    thickness: Array,
    half_line: float,
    mean_pitch: float,
) -> tuple[Array, Array, Array]:
    density = np.empty(winding.shape, np.float32)
    wrap = np.zeros(winding.shape, np.int16)
    line = np.zeros(winding.shape, np.uint8)
    for i in range(winding.shape[0]):
        z = i + origin[0]
        for j in range(winding.shape[1]):
            for k in range(winding.shape[2]):
                w, p, t = float(winding[i, j, k]), float(pitch[i, j, k]), float(turn[i, j, k])
                n = np.floor(w)
                s = _length(mean_pitch, n + t)
                d = (w - n) * p
                cover, grey = _layers(seeds, s, z, d, p, thickness, cuts, greys)
                if n >= 1 and cover >= 0.5:
                    wrap[i, j, k] = n
                near = np.floor(w + 0.5)
                if near >= 1 and abs(w - near) * p <= half_line:
                    line[i, j, k] = _line(seeds, _length(mean_pitch, near + t), z, cuts)
                mess = float(crumpled[i, j, k])
                if mess > 0.0:  # what is seen there comes from somewhere near
                    y, x = j + origin[1], k + origin[2]
                    fold = spline3(seeds[14], z / 13.0, y / 10.0, x / 10.0)
                    w += mess * _CRUMPLED_DEPTH / p * fold
                    n = np.floor(w)
                    s = _length(mean_pitch, n + t)
                    d = (w - n) * p
                    cover, grey = _layers(seeds, s, z, d, p, thickness, cuts, greys)
                value = _debris_grey(seeds, s, z, d, cuts, greys)
                if n >= 1:
                    value += cover * (grey - value)
                if n >= 0 and p - d < 0.5:  # the next wrap's face covers part of this voxel
                    s = _length(mean_pitch, n + 1 + t)
                    cover, grey = _layers(seeds, s, z, d - p, p, thickness, cuts, greys)
                    value += cover * (grey - value)
                if mess > 0.0:
                    pulp = 0.55 + 0.7 * value3(seeds[20], z / 6.0, y / 4.5, x / 4.5)
                    value += 0.6 * mess * (greys[0] + (greys[2] - greys[0]) * pulp - value)
                density[i, j, k] = value
    return density, wrap, line


@compiled
def _line(seeds: Array, s: float, z: float, cuts: Array) -> int:
    """Return 1 on the recto line, 2 where labels lack it, 0 where the papyrus is torn away."""
    if _patch(seeds[0], _HOLE, s, z) >= cuts[_HOLE]:
        return 0
    return 2 if _patch(seeds[3], _BREAK, s, z) >= cuts[_BREAK] else 1


@compiled
def _debris_grey(seeds: Array, s: float, z: float, d: float, cuts: Array, greys: Array) -> float:
    if cuts[_DEBRIS] == np.inf:
        return float(greys[0])
    over = float(_debris(seeds[4], s, z, d) - cuts[_DEBRIS])
    return float(greys[0]) + min(max(5.0 * over, 0.0), 1.0) * 0.8 * float(greys[2] - greys[0])


@compiled
def _layers(
    seeds: Array,
    s: float,
    z: float,
    d: float,
    p: float,
    thickness: Array,
    cuts: Array,
    greys: Array,
) -> tuple[float, float]:
    """Return how much of the voxel at depth d is papyrus, and its grey level."""
    left = cuts[_HOLE] - _patch(seeds[0], _HOLE, s, z)  # below 0 in holes
    if left < -0.35:
        return 0.0, float(greys[0])
    t, inner, split = _section(seeds, s, z, p, thickness, cuts)
    if left < 0.3:  # worn thin towards the edge of a hole
        t *= 0.6 + 1.33 * max(left, 0.0)
    outer = min(t + split, p)
    if d < inner + 0.5 * split:
        fray = 0.16 * value2(seeds[15], s / 16.0, z / 2.2)
        cover = _step(d) * _step(inner - d)
        shade = 0.12 * np.exp(-((d / 1.8) ** 2)) - 0.14 * np.exp(-(((inner - d) / 1.4) ** 2))
        grey = greys[1] * (1.0 + shade + 0.2 * greys[3] * _recto(seeds, s, z, d))
    else:
        fray = 0.16 * value2(seeds[16], s / 2.2, z / 16.0) + 0.12 * value2(
            seeds[17], s / 14.0, z / 14.0
        )
        cover = _step(d - inner - split) * _step(outer - d)
        shade = 0.09 * np.exp(-(((outer - d) / 1.5) ** 2))
        grey = greys[2] * (1.0 + shade + 0.25 * greys[3] * _verso(seeds, s, z, d))
    if left < fray:
        return 0.0, float(greys[0])
    patchy = 0.14 * value2(seeds[12], s / 48.0, z / 48.0)
    patchy += 0.1 * value2(seeds[18], s / 13.0, z / 13.0)
    return cover, float(grey) * (1.0 + patchy)


@compiled
def _section(
    seeds: Array, s: float, z: float, p: float, thickness: Array, cuts: Array
) -> tuple[float, float, float]:
    """Return the sheet's material thickness, that of its recto layer, and the split's width."""
    form = 0.62 + 0.5 * np.tanh(3.5 * spline2(seeds[19], s / 55.0, z / 55.0))
    form += 0.12 * value2(seeds[10], s / 7.0, z / 11.0)
    t = thickness[0] + (thickness[1] - thickness[0]) * min(max(form, 0.0), 1.0)
    if p < 1.7 * t and _patch(seeds[1], _TOUCH, s, z) >= cuts[_TOUCH]:
        t = p  # pressed against the next wrap
    t = min(t, p)
    share = 0.5 + 0.14 * value2(seeds[11], s / 40.0, z / 40.0)
    over = _patch(seeds[2], _SPLIT, s, z) - cuts[_SPLIT]
    if over <= 0.0:
        return t, share * t, 0.0
    room = p - t
    if room < 1.0:  # no room to open: a slit that costs material
        split = min(3.0 * over, 1.5)
        return t - split, share * (t - split), split
    return t, share * t, min(12.0 * over, 7.0, room)
