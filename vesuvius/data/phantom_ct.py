"""From perfect density to micro-CT grey levels: grains, blur, rims, rings, shading, noise.

Source: own; noise level and correlation follow the air of the real sample (see docs/phantom.md).
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.data.phantom_noise import smooth_field
from vesuvius.data.phantom_settings import PhantomSettings
from vesuvius.data.phantom_sheet import Papyrus
from vesuvius.types import ByteVolume, FloatVolume

_NOISE_SIGMA_ZYX = (0.55, 0.9, 1.1)  # voxels: smoothing of white noise, as measured in real air
_SHADE_SCALE = 40.0  # voxels: size of the darker and brighter regions of beam hardening


def scan(
    papyrus: Papyrus,
    normals: npt.NDArray[np.float32],
    *,
    rng: np.random.Generator,
    settings: PhantomSettings,
    axis_yx: tuple[float, float],
) -> ByteVolume:
    """Return the (z, y, x) uint8 picture a micro-CT scanner would make.

    Args:
        papyrus: what lies where.
        normals: (3, z, y, x) unit vectors across the sheets.
        rng: source of noise, rings and inclusions.
        settings: everything about the scanner.
        axis_yx: rotation axis in the chunk's frame, centre of the rings and of beam hardening.
    """
    volume = papyrus.density.copy()
    _add_inclusions(volume, papyrus, normals, rng, settings.inclusions)
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


def _add_inclusions(
    volume: FloatVolume,
    papyrus: Papyrus,
    normals: npt.NDArray[np.float32],
    rng: np.random.Generator,
    per_million: float,
) -> None:
    """Put bright grains, flattened along the sheet, on and into papyrus, in place."""
    count = rng.poisson(per_million * volume.size / 1e6)
    shape = np.array(volume.shape)
    for centre in rng.integers(0, shape, (count, 3)):
        across, along = rng.uniform(0.7, 1.4), rng.uniform(0.8, 3.0)
        peak = rng.uniform(30.0, 130.0)
        if papyrus.wrap[tuple(centre)] == 0:
            continue
        low = np.maximum(centre - 8, 0)
        high = np.minimum(centre + 9, shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = np.ix_(*[np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True)])
        square = axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2
        normal = normals[(slice(None), *centre)]
        depth = (normal[0] * axes[0] + normal[1] * axes[1] + normal[2] * axes[2]) ** 2
        exponent = depth / (2 * across**2) + (square - depth) / (2 * along**2)
        volume[box] += (peak * np.exp(-exponent)).astype(np.float32)


def _add_axis_artefacts(
    volume: FloatVolume,
    rng: np.random.Generator,
    settings: PhantomSettings,
    axis_yx: tuple[float, float],
) -> None:
    """Multiply with cupping and uneven shading, then add rings around the axis, in place."""
    y = np.arange(volume.shape[1], dtype=np.float32)[:, None] - np.float32(axis_yx[0])
    x = np.arange(volume.shape[2], dtype=np.float32)[None, :] - np.float32(axis_yx[1])
    radius = np.hypot(y, x)
    middle = radius[volume.shape[1] // 2, volume.shape[2] // 2]
    if settings.beam_hardening > 0:
        uneven = smooth_field(
            volume.shape, int(rng.integers(1 << 31)), origin_zyx=(0, 0, 0), scale=_SHADE_SCALE
        )
        uneven *= np.float32(2.0)
        uneven += (radius - middle) / np.float32(1000.0)
        uneven *= np.float32(settings.beam_hardening)
        uneven += np.float32(1.0)
        volume *= uneven
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
    noise = ndimage.gaussian_filter(noise, _NOISE_SIGMA_ZYX, mode="wrap", truncate=2.5)
    noise *= np.float32(sigma / max(float(noise.std()), 1e-6))
    volume += noise
