"""Seeded noise without state: the value at a lattice point is a hash of its coordinates.

Any chunk of the same scroll sees the same noise at the same place, whatever the chunk's size and
position, and nothing is stored. Source: own; the mixing steps are those of SplitMix64 (Steele,
Lea, Flood 2014).
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]
_F = TypeVar("_F", bound=Callable[..., Any])

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_STEP_I = np.uint64(0xD1342543DE82EF95)
_STEP_J = np.uint64(0xAF251AF3B0F025B5)
_30 = np.uint64(30)
_27 = np.uint64(27)
_40 = np.uint64(40)


def compiled(function: _F) -> _F:
    """Return the function compiled by numba, with its signature kept for type checkers."""
    return cast(_F, njit(cache=True)(function))


@compiled
def lattice(seed: np.uint64, i: int, j: int, k: int) -> float:
    """Return the lattice value at (i, j, k), uniform in [-1, 1)."""
    h = seed + np.uint64(i) * _GOLDEN + np.uint64(j) * _STEP_I + np.uint64(k) * _STEP_J
    h = (h ^ (h >> _30)) * _MIX_A
    h = (h ^ (h >> _27)) * _MIX_B
    return float(h >> _40) * (2.0 / 16777216.0) - 1.0


@compiled
def fade(t: float) -> float:
    """Return the quintic step 0..1 with two zero derivatives at both ends (Perlin 2002)."""
    return t * t * t * (t * (t * 6.0 - 15.0) + 10.0)


@compiled
def value2(seed: np.uint64, a: float, b: float) -> float:
    """Return smooth 2-D value noise in [-1, 1) at lattice coordinates (a, b)."""
    i = math.floor(a)
    j = math.floor(b)
    u = fade(a - i)
    v = fade(b - j)
    low = lattice(seed, i, j, 0) * (1.0 - v) + lattice(seed, i, j + 1, 0) * v
    high = lattice(seed, i + 1, j, 0) * (1.0 - v) + lattice(seed, i + 1, j + 1, 0) * v
    return low * (1.0 - u) + high * u


@compiled
def value3(seed: np.uint64, a: float, b: float, c: float) -> float:
    """Return smooth 3-D value noise in [-1, 1) at lattice coordinates (a, b, c)."""
    i = math.floor(a)
    j = math.floor(b)
    k = math.floor(c)
    u = fade(a - i)
    v = fade(b - j)
    t = c - k
    total = 0.0
    for di in range(2):
        wi = u if di else 1.0 - u
        for dj in range(2):
            wj = v if dj else 1.0 - v
            near = lattice(seed, i + di, j + dj, k)
            far = lattice(seed, i + di, j + dj, k + 1)
            total += wi * wj * (near * (1.0 - t) + far * t)
    return total


@compiled
def _bspline(t: float, tap: int) -> float:
    if tap == 0:
        return (1.0 - t) ** 3 / 6.0
    if tap == 1:
        return (3.0 * t**3 - 6.0 * t**2 + 4.0) / 6.0
    if tap == 2:
        return (-3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0) / 6.0
    return t**3 / 6.0


@compiled
def spline1(seed: np.uint64, a: float) -> float:
    """Return 1-D cubic B-spline noise (twice differentiable) in (-1, 1)."""
    i = math.floor(a)
    total = 0.0
    for di in range(4):
        total += _bspline(a - i, di) * lattice(seed, i + di, 0, 0)
    return total


@compiled
def spline2(seed: np.uint64, a: float, b: float) -> float:
    """Return 2-D cubic B-spline noise (twice differentiable) in (-1, 1), sigma 0.28."""
    i = math.floor(a)
    j = math.floor(b)
    total = 0.0
    for di in range(4):
        wi = _bspline(a - i, di)
        for dj in range(4):
            total += wi * _bspline(b - j, dj) * lattice(seed, i + di, j + dj, 0)
    return total


@compiled
def spline3(seed: np.uint64, a: float, b: float, c: float) -> float:
    """Return 3-D cubic B-spline noise (twice differentiable) in (-1, 1), sigma 0.19."""
    i = math.floor(a)
    j = math.floor(b)
    k = math.floor(c)
    total = 0.0
    for di in range(4):
        wi = _bspline(a - i, di)
        for dj in range(4):
            wij = wi * _bspline(b - j, dj)
            for dk in range(4):
                total += wij * _bspline(c - k, dk) * lattice(seed, i + di, j + dj, k + dk)
    return total


def streams(seed: int, count: int) -> Array:
    """Return `count` independent 64-bit seeds drawn from one seed."""
    return np.random.SeedSequence(seed).generate_state(count, np.uint64)


def smooth_field(
    shape_zyx: tuple[int, ...], seed: int, *, origin_zyx: tuple[int, int, int], scale: float
) -> Array:
    """Return (z, y, x) float32 spline noise whose regions measure about `scale` voxels."""
    return _smooth_field(
        np.array(shape_zyx), np.array(origin_zyx, np.float64), scale, streams(seed, 1)[0]
    )


@compiled
def _smooth_field(shape: Array, origin: Array, scale: float, seed: np.uint64) -> Array:
    """Separable: in-plane sums are shared by the voxels of a line along x."""
    out = np.empty((shape[0], shape[1], shape[2]), np.float32)
    x_low = math.floor(origin[2] / scale)
    count = math.floor((origin[2] + shape[2]) / scale) - x_low + 5
    columns = np.empty(count)
    for i in range(shape[0]):
        a = (i + origin[0]) / scale
        ia = math.floor(a)
        for j in range(shape[1]):
            b = (j + origin[1]) / scale
            jb = math.floor(b)
            for k in range(count):
                total = 0.0
                for di in range(4):
                    for dj in range(4):
                        weight = _bspline(a - ia, di) * _bspline(b - jb, dj)
                        total += weight * lattice(seed, ia + di, jb + dj, x_low + k)
                columns[k] = total
            for k in range(shape[2]):
                c = (k + origin[2]) / scale
                kc = math.floor(c)
                total = 0.0
                for dk in range(4):
                    total += _bspline(c - kc, dk) * columns[kc - x_low + dk]
                out[i, j, k] = total
    return out
