"""Frangi's sheetness: how much a place looks like a bright plate."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from vesuvius.errors import ConfigError
from vesuvius.postprocess.steps.state import ChainState, check_between
from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.types import FloatVolume

_TWO_THIRDS_PI = 2 * math.pi / 3


@compiled
def symmetric_eigenvalues(
    a: float, b: float, c: float, off: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return the eigenvalues, largest first, of a symmetric 3 x 3 matrix.

    `a b c` is the diagonal zz, yy, xx; `off` holds zy, zx, yx. Trigonometric formula.
    """
    d, e, f = off
    mean = (a + b + c) / 3
    square = (a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2 + 2 * (d * d + e * e + f * f)
    if square < 1e-20:
        return mean, mean, mean
    spread = math.sqrt(square / 6)
    a, b, c = (a - mean) / spread, (b - mean) / spread, (c - mean) / spread
    d, e, f = d / spread, e / spread, f / spread
    half = 0.5 * (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e))
    angle = math.acos(min(max(half, -1.0), 1.0)) / 3
    top = mean + 2 * spread * math.cos(angle)
    bottom = mean + 2 * spread * math.cos(angle + _TWO_THIRDS_PI)
    return top, 3 * mean - top - bottom, bottom


@compiled
def _plate(values: tuple[float, float, float], scale: float) -> float:
    """Return the plate measure in [0, 1) of Hessian eigenvalues; `scale` is a strong curvature."""
    first, second, third = values[0], values[1], values[2]
    if abs(first) > abs(second):
        first, second = second, first
    if abs(second) > abs(third):
        second, third = third, second
    if abs(first) > abs(second):
        first, second = second, first
    if third >= 0:
        return 0.0
    strong = abs(third)
    line = abs(second) / strong
    blob = abs(2 * strong - abs(second) - abs(first)) / strong
    size = (first * first + second * second + third * third) / (scale * scale)
    return float(
        math.exp(-2 * line * line) * (1 - math.exp(-2 * blob * blob)) * (1 - math.exp(-size / 2))
    )


@compiled
def _add_sheetness(p: FloatVolume, out: FloatVolume, scale: float, start: int, stop: int) -> None:
    """Raise `out` to the plate measure of second differences of p, rows start..stop."""
    depth, height, width = p.shape
    for z in range(start, stop):
        zb, za = max(z - 1, 0), min(z + 1, depth - 1)
        for y in range(height):
            yb, ya = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                here = 2.0 * p[z, y, x]
                xb, xa = max(x - 1, 0), min(x + 1, width - 1)
                zz = p[zb, y, x] + p[za, y, x] - here
                yy = p[z, yb, x] + p[z, ya, x] - here
                xx = p[z, y, xb] + p[z, y, xa] - here
                if min(zz, yy, xx) > -1e-3 * scale:  # no bright plate bends up along every axis
                    continue
                zy = 0.25 * (p[zb, yb, x] + p[za, ya, x] - p[zb, ya, x] - p[za, yb, x])
                zx = 0.25 * (p[zb, y, xb] + p[za, y, xa] - p[zb, y, xa] - p[za, y, xb])
                yx = 0.25 * (p[z, yb, xb] + p[z, ya, xa] - p[z, yb, xa] - p[z, ya, xb])
                plate = _plate(symmetric_eigenvalues(zz, yy, xx, (zy, zx, yx)), scale)
                out[z, y, x] = max(out[z, y, x], plate)


def sheetness(
    probability: FloatVolume, *, sigmas: Sequence[float], contrast: float = 0.5, threads: int = 1
) -> FloatVolume:
    """Return the sheetness in [0, 1), the largest over the scales.

    exp(-Rs^2 / 0.5) (1 - exp(-Rb^2 / 0.5)) (1 - exp(-S^2 / 2 c^2)) of the Hessian's eigenvalues
    |l1| <= |l2| <= |l3|, Rs = |l2 / l3|, Rb = |2 |l3| - |l2| - |l1|| / |l3|, S their norm; 0 where
    l3 > 0.

    Args:
        probability: (z, y, x) in [0, 1].
        sigmas: Gaussian scales in voxels; about half the sheets' thickness.
        contrast: c as a share of the strongest curvature a plate of height 1 has at that scale.
        threads: CPU threads.

    Source: Frangi et al., 1998; the plate ratios are Descoteaux et al., 2005, equation 5.
    """
    out = np.zeros(probability.shape, np.float32)
    for sigma in sigmas:
        smooth = ndimage.gaussian_filter(probability, sigma, mode="nearest", truncate=3)
        # The middle of a plate 2 sigma thick and 1 high bends by 2 / (sqrt(2 pi e) sigma^2).
        scale = contrast * 2 / (math.sqrt(2 * math.pi * math.e) * sigma**2)

        def part(a: int, b: int, smooth: FloatVolume = smooth, scale: float = scale) -> None:
            _add_sheetness(smooth, out, scale, a, b)

        over_slabs(part, len(out), threads)
    return out


class Sheetness:
    """Mixes Frangi's sheetness into the probability: (1 - weight) p + weight sheetness.

    Args:
        sigmas: Gaussian scales in voxels.
        weight: in [0, 1].
        contrast: curvature that counts as strong, as a share of a perfect plate's.

    Raises:
        ConfigError: no or non-positive sigma, weight outside [0, 1], contrast not positive.
    """

    reads_mask = False
    makes_mask = False

    def __init__(
        self, *, sigmas: Sequence[float] = (1.0, 2.0), weight: float = 0.5, contrast: float = 0.25
    ) -> None:
        if not sigmas or not min(sigmas) > 0 or not contrast > 0:
            raise ConfigError(
                "sigmas must be positive numbers of voxels and contrast above 0, got "
                f"sigmas={list(sigmas)}, contrast={contrast}"
            )
        check_between("weight", weight, 0, 1)
        self.sigmas, self.weight, self.contrast = tuple(sigmas), weight, contrast

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with a probability that favours plates."""
        plates = sheetness(
            state.probability, sigmas=self.sigmas, contrast=self.contrast, threads=state.threads
        )
        weight = np.float32(self.weight)
        return state.with_probability((1 - weight) * state.probability + weight * plates)
