"""From winding field to papyrus, and from papyrus to micro-CT grey levels.

Source: own. Papyrus is written in the sheet's own coordinates: s (voxels along the spiral), z, and
d (voxels outward from the recto face, which is the level winding = whole number). The recto layer
has its fibres along s, the verso layer along z.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.data.phantom_geometry import Geometry
from vesuvius.data.phantom_noise import Array, compiled, spline2, streams, value2, value3
from vesuvius.data.phantom_settings import PhantomSettings
from vesuvius.types import ByteVolume, FloatVolume

_HOLE, _TOUCH, _SPLIT, _BREAK, _DEBRIS = range(5)


@dataclass(frozen=True, slots=True)
class Papyrus:
    """What lies where before the scan.

    Attributes:
        density: (z, y, x) float32 grey levels of a perfect scanner.
        wrap: (z, y, x) int16 wrap number from 1, 0 = no papyrus.
        line: (z, y, x) uint8: 1 = complete recto line, 2 = the part that labels lack, 0 = none.
    """

    density: FloatVolume
    wrap: npt.NDArray[np.int16]
    line: ByteVolume


def make_papyrus(
    geometry: Geometry, *, seed: int, settings: PhantomSettings, origin_z: int = 0
) -> Papyrus:
    """Return papyrus with fibres, splits, holes and debris along the winding field.

    Args:
        geometry: the chunk's winding field.
        seed: of the scroll.
        settings: thickness, shares, densities and line_thickness are used here.
        origin_z: the chunk's first slice in the scroll's frame.
    """
    seeds = streams(seed, 32)[16:]
    shares = (
        settings.hole_share,
        settings.touching_share,
        settings.split_share,
        settings.label_break_share,
        settings.debris_share,
    )
    cuts = np.array([_cut(kind, share) for kind, share in enumerate(shares)])
    greys = np.array([settings.air, settings.recto, settings.verso, settings.fibre_contrast])
    density, wrap, line = _fill(
        geometry.winding,
        geometry.turn,
        geometry.pitch,
        origin_z,
        seeds,
        cuts,
        greys,
        np.array(settings.thickness),
        settings.line_thickness / 2,
        geometry.mean_pitch,
    )
    return Papyrus(density, wrap, line)


def scan(
    papyrus: Papyrus,
    *,
    rng: np.random.Generator,
    settings: PhantomSettings,
    axis_yx: tuple[float, float],
) -> ByteVolume:
    """Return the (z, y, x) uint8 picture a micro-CT scanner would make.

    Args:
        papyrus: what lies where.
        rng: source of noise, rings and inclusions.
        settings: everything about the scanner.
        axis_yx: rotation axis in the chunk's frame, centre of the rings and of beam hardening.
    """
    volume = papyrus.density.copy()
    _add_inclusions(volume, papyrus.wrap, rng, settings.inclusions)
    if settings.blur > 0:
        volume = ndimage.gaussian_filter(volume, settings.blur, mode="nearest")
    if settings.phase_contrast > 0:
        wide = ndimage.gaussian_filter(volume, 2.0 + settings.blur, mode="nearest")
        volume += settings.phase_contrast * (volume - wide)
        del wide
    _add_axis_artefacts(volume, rng, settings, axis_yx)
    _add_noise(volume, rng, settings.noise)
    np.rint(volume, out=volume)
    return np.clip(volume, 0, 255, out=volume).astype(np.uint8)


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
        out[i] = (
            _debris(np.uint64(7), s, z, d) if kind == _DEBRIS else _patch(np.uint64(7), kind, s, z)
        )
    return out


@compiled
def _patch(seed: np.uint64, kind: int, s: float, z: float) -> float:
    """Return the field on the sheet whose high places are holes, contacts, splits or breaks."""
    if kind == _HOLE:  # large losses with ragged edges
        return value2(seed, s / 34.0, z / 34.0) + 0.35 * value2(
            seed + np.uint64(1), s / 8.0, z / 8.0
        )
    if kind == _TOUCH:
        return value2(seed, s / 60.0, z / 60.0)
    if kind == _SPLIT:  # longer along the recto fibres
        return value2(seed, s / 45.0, z / 28.0) + 0.25 * value2(
            seed + np.uint64(1), s / 12.0, z / 9.0
        )
    return value2(seed, s / 22.0, z / 22.0) + 0.3 * value2(seed + np.uint64(1), s / 6.0, z / 6.0)


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
    a = value3(seeds[5], s / 36.0, z / 3.2, d / 2.6)
    b = value3(seeds[6], s / 14.0, z / 1.7, d / 1.7)
    return 0.9 * a + 0.6 * b


@compiled
def _verso(seeds: Array, s: float, z: float, d: float) -> float:
    """Fibre texture of the verso layer: strands along z, with open cells between them."""
    a = value3(seeds[7], s / 3.4, z / 36.0, d / 2.8)
    b = value3(seeds[8], s / 1.9, z / 12.0, d / 1.9)
    cells = value3(seeds[9], s / 4.5, z / 7.0, d / 4.0)
    return 0.9 * a + 0.6 * b - 1.6 * max(cells - 0.25, 0.0)


@compiled
def _fill(
    winding: Array,
    turn: Array,
    pitch: Array,
    z0: int,
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
        z = float(i + z0)
        for j in range(winding.shape[1]):
            for k in range(winding.shape[2]):
                w = float(winding[i, j, k])
                p = float(pitch[i, j, k])
                t = float(turn[i, j, k])
                n = np.floor(w)
                turns = n + t
                s = np.pi * mean_pitch * turns * abs(turns)
                d = (w - n) * p
                value = _debris_grey(seeds, s, z, d, cuts, greys)
                if n >= 1 and _patch(seeds[0], _HOLE, s, z) < cuts[_HOLE]:
                    cover, grey = _layers(seeds, s, z, d, p, thickness, cuts, greys)
                    value += cover * (grey - value)
                    if cover >= 0.5:
                        wrap[i, j, k] = n
                near = np.floor(w + 0.5)
                if near >= 1 and abs(w - near) * p <= half_line + 0.5:
                    turns = near + t
                    s = np.pi * mean_pitch * turns * abs(turns)
                    if _patch(seeds[0], _HOLE, s, z) < cuts[_HOLE]:
                        if near > n:  # the next wrap's recto face covers part of this voxel
                            cover = _step((w - near) * p)
                            value += cover * (greys[1] - value)
                        if abs(w - near) * p <= half_line:
                            broken = _patch(seeds[3], _BREAK, s, z) >= cuts[_BREAK]
                            line[i, j, k] = 2 if broken else 1
                density[i, j, k] = value
    return density, wrap, line


@compiled
def _debris_grey(seeds: Array, s: float, z: float, d: float, cuts: Array, greys: Array) -> float:
    if cuts[_DEBRIS] == np.inf:
        return float(greys[0])
    over = _debris(seeds[4], s, z, d) - cuts[_DEBRIS]
    return float(greys[0]) + min(max(6.0 * over, 0.0), 1.0) * 0.75 * float(greys[2] - greys[0])


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
    low, high = thickness[0], thickness[1]
    form = 0.5 + 0.5 * np.tanh(2.5 * spline2(seeds[1], s / 55.0, z / 55.0) * 1.4)
    ragged = 0.1 * value2(seeds[10], s / 7.0, z / 11.0)
    t = low + (high - low) * min(max(form + ragged, 0.0), 1.0)
    if p < 1.7 * t and _patch(seeds[1], _TOUCH, s, z) >= cuts[_TOUCH]:
        t = p  # pressed against the next wrap
    t = min(t, p)
    share = 0.5 + 0.12 * value2(seeds[11], s / 40.0, z / 40.0)
    split = 0.0
    over = _patch(seeds[2], _SPLIT, s, z) - cuts[_SPLIT]
    if over > 0.0:
        split = max(min(min(12.0 * over, 6.0), p - t), 0.0)
        if p - t < 1.0:
            split = min(4.0 * over, 1.5)
    inner = share * (t - max(split - (p - t), 0.0))
    if d < inner + 0.5 * split:
        cover = _step(d) * _step(inner - d)
        grey = greys[1] * (1.0 + 0.17 * greys[3] * _recto(seeds, s, z, d))
    else:
        cover = _step(d - inner - split) * _step(t + min(split, p - t) - d)
        grey = greys[2] * (1.0 + 0.22 * greys[3] * _verso(seeds, s, z, d))
    patchy = value2(seeds[12], s / 48.0, z / 48.0)
    return cover, grey * (1.0 + 0.1 * patchy)


def _add_inclusions(
    volume: FloatVolume, wrap: npt.NDArray[np.int16], rng: np.random.Generator, per_million: float
) -> None:
    """Put bright grains (radius 0.8 to 2.2 voxels) into papyrus, in place."""
    count = rng.poisson(per_million * volume.size / 1e6)
    shape = np.array(volume.shape)
    for centre in rng.integers(0, shape, (count, 3)):
        radius = rng.uniform(0.8, 2.2)
        peak = rng.uniform(40.0, 140.0)
        if wrap[tuple(centre)] == 0:
            continue
        low = np.maximum(centre - 4, 0)
        high = np.minimum(centre + 5, shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = [np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True)]
        square = sum(a**2 for a in np.ix_(*axes))
        volume[box] += (peak * np.exp(-square / (2 * (0.6 * radius) ** 2))).astype(np.float32)


def _add_axis_artefacts(
    volume: FloatVolume,
    rng: np.random.Generator,
    settings: PhantomSettings,
    axis_yx: tuple[float, float],
) -> None:
    """Multiply with the cupping of beam hardening and add rings around the axis, in place."""
    y = np.arange(volume.shape[1], dtype=np.float32)[:, None] - np.float32(axis_yx[0])
    x = np.arange(volume.shape[2], dtype=np.float32)[None, :] - np.float32(axis_yx[1])
    radius = np.hypot(y, x)
    middle = radius[volume.shape[1] // 2, volume.shape[2] // 2]
    volume *= 1.0 + np.float32(settings.beam_hardening) * (radius - middle) / np.float32(1000.0)
    if settings.ring_strength > 0:
        bins = int(radius.max()) + 3
        profile = ndimage.gaussian_filter1d(rng.standard_normal(bins), 0.7)
        profile *= settings.ring_strength / max(float(profile.std()), 1e-6)
        rings = np.interp(radius.ravel(), np.arange(bins), profile).reshape(radius.shape)
        volume += rings.astype(np.float32)


def _add_noise(volume: FloatVolume, rng: np.random.Generator, sigma: float) -> None:
    """Add detector noise with the short correlation of a reconstruction, in place."""
    if sigma <= 0:
        return
    noise = rng.standard_normal(volume.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (0.5, 0.5, 0.8), mode="wrap", truncate=2.5)
    noise *= np.float32(sigma / max(float(noise.std()), 1e-6))
    volume += noise
