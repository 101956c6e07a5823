"""The Poisson solver and the phase lock on whole arrays of `xp`: NumPy's or CuPy's.

The same equations, cycle and order of operations as `poisson.PoissonSolver` and `lock.grow_lock`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vesuvius.postprocess.winding.arrays import Array, trilinear
from vesuvius.postprocess.winding.lock import Ridges


def _part(dim: int, start: int | None, stop: int | None, step: int | None = None) -> Any:
    """Return the index of a range along one axis."""
    index = [slice(None)] * 3
    index[dim] = slice(start, stop, step)
    return tuple(index)


def _edges(xp: Any, w: Array) -> Array:
    """Return for every cell the sum over its neighbours of (w here - w there)."""
    out = xp.zeros_like(w)
    for dim in range(3):
        step = w[_part(dim, 1, None)] - w[_part(dim, None, -1)]
        out[_part(dim, 1, None)] += step
        out[_part(dim, None, -1)] -= step
    return out


def _neighbours(xp: Any, w: Array) -> Array:
    """Return for every cell the sum of its neighbours."""
    out = xp.zeros_like(w)
    for dim in range(3):
        out[_part(dim, 1, None)] += w[_part(dim, None, -1)]
        out[_part(dim, None, -1)] += w[_part(dim, 1, None)]
    return out


def _central(xp: Any, w: Array, dim: int) -> Array:
    """Return twice the central difference along an axis, clamped at the rim."""
    index = xp.arange(w.shape[dim])
    up, down = xp.minimum(index + 1, w.shape[dim] - 1), xp.maximum(index - 1, 0)
    return xp.take(w, up, axis=dim) - xp.take(w, down, axis=dim)


def _central_transposed(xp: Any, f: Array, dim: int) -> Array:
    """Return the transpose of `_central` applied to f."""
    total = -_central(xp, f, dim)
    total[_part(dim, None, 1)] -= 2 * f[_part(dim, None, 1)]
    total[_part(dim, -1, None)] += 2 * f[_part(dim, -1, None)]
    return total


def _restrict(xp: Any, r: Array) -> Array:
    """Return the transpose of `_prolong` applied to r."""
    for dim in range(3):
        even, odd = r[_part(dim, 0, None, 2)], r[_part(dim, 1, None, 2)]
        if odd.shape[dim] < even.shape[dim]:
            odd = xp.concatenate([odd, xp.zeros_like(even[_part(dim, -1, None)])], dim)
        out = 0.75 * (even + odd)
        out[_part(dim, None, -1)] += 0.25 * even[_part(dim, 1, None)]
        out[_part(dim, 1, None)] += 0.25 * odd[_part(dim, None, -1)]
        out[_part(dim, None, 1)] += 0.25 * even[_part(dim, None, 1)]
        out[_part(dim, -1, None)] += 0.25 * odd[_part(dim, -1, None)]
        r = out
    return r


def _prolong(xp: Any, coarse: Array, shape: tuple[int, ...]) -> Array:
    """Return the trilinear interpolation of coarse cell centres on the fine cells."""
    for dim, length in enumerate(shape):
        fine = xp.arange(length)
        own = fine // 2
        other = xp.clip(own + xp.where(fine % 2 == 1, 1, -1), 0, coarse.shape[dim] - 1)
        coarse = 0.75 * xp.take(coarse, own, axis=dim) + 0.25 * xp.take(coarse, other, axis=dim)
    return coarse


def _sum_children(xp: Any, screen: Array) -> Array:
    """Return the screening weight of each coarse cell: the sum over its children."""
    padded = xp.pad(screen, [(0, n % 2) for n in screen.shape])
    z, y, x = (n // 2 for n in padded.shape)
    return padded.reshape(z, 2, y, 2, x, 2).sum((1, 3, 5))


class _Level:
    """One grid: its colours, the number of every cell's neighbours, its screening weights."""

    def __init__(self, xp: Any, shape: tuple[int, ...], scale: float) -> None:
        self.shape, self.scale = shape, scale
        self.degree = _neighbours(xp, xp.ones(shape, xp.float32))
        index = xp.arange(shape[0])[:, None, None] + xp.arange(shape[1])[:, None]
        self.red = (index + xp.arange(shape[2])) % 2 == 0
        self.set_screen(xp, xp.zeros(shape, xp.float32))

    def set_screen(self, xp: Any, screen: Array) -> None:
        self.screen = screen
        diagonal = self.scale * self.degree + screen
        self.inverse = xp.where(diagonal > 0, 1 / xp.maximum(diagonal, 1e-30), 0)


class ArrayPoisson:
    """`poisson.PoissonSolver` on arrays of `xp`; the arguments are the same.

    Args:
        xp: numpy or cupy.
        shape: (cz, cy, cx) number of cells.
        normals: (3, cz, cy, cx) unit normals, array of `xp`.
        stiffness: weight of slopes along the sheets relative to slopes across them, at least 1.
    """

    def __init__(
        self, xp: Any, shape: tuple[int, ...], *, normals: Array | None, stiffness: float
    ) -> None:
        self.xp, self._normals = xp, normals if stiffness > 1.0 else None
        self._excess = stiffness - 1.0
        self._levels = [_Level(xp, shape, stiffness if normals is not None else 1.0)]
        while max(shape) > 2:
            shape = tuple(-(-n // 2) for n in shape)
            self._levels.append(_Level(xp, shape, 2.0 * self._levels[-1].scale))
        self._screened = False

    def set_screen(self, screen: Array) -> None:
        """Set lambda >= 0 per cell."""
        self._screened = bool(screen.any())
        for level in self._levels:
            level.set_screen(self.xp, screen)
            screen = _sum_children(self.xp, screen)

    def _sweep(self, level: _Level, w: Array, b: Array, *, red: bool) -> Array:
        value = (b + level.scale * _neighbours(self.xp, w)) * level.inverse
        return self.xp.where(level.red == red, value, w)

    def _cycle(self, depth: int, b: Array) -> Array:
        level, xp = self._levels[depth], self.xp
        w = xp.zeros_like(b)
        if depth == len(self._levels) - 1:
            for red in (True, False, False, True) * 8:
                w = self._sweep(level, w, b, red=red)
            return w
        for red in (True, False):
            w = self._sweep(level, w, b, red=red)
        rest = b - (level.scale * _edges(xp, w) + level.screen * w)
        w = w + _prolong(xp, self._cycle(depth + 1, _restrict(xp, rest)), level.shape)
        for red in (False, True):
            w = self._sweep(level, w, b, red=red)
        return w

    def apply(self, w: Array) -> Array:
        """Return the equations' left-hand side for w."""
        top, xp = self._levels[0], self.xp
        out = top.scale * _edges(xp, w) + top.screen * w
        if self._normals is None:
            return out
        slope = xp.zeros_like(w)
        for dim in range(3):
            slope += 0.5 * self._normals[dim] * _central(xp, w, dim)
        for dim in range(3):
            turned = _central_transposed(xp, self._normals[dim] * slope, dim)
            out -= turned * (0.5 * self._excess)
        return out

    def _dot(self, a: Array, b: Array) -> float:
        return float(self.xp.sum(a * b, dtype=self.xp.float64))

    def solve(
        self, rhs: Array, start: Array, *, tolerance: float, iterations: int
    ) -> tuple[Array, float, int]:
        """Return the solution, its relative residual and the iterations used."""
        xp = self.xp
        if not self._screened:
            rhs = rhs - float(rhs.mean(dtype=xp.float64))
        norm = math.sqrt(self._dot(rhs, rhs))
        if norm == 0.0:
            return xp.zeros_like(start), 0.0, 0
        w = start.copy()
        residual = rhs - self.apply(w)
        error = math.sqrt(self._dot(residual, residual)) / norm
        direction, old, used = xp.zeros_like(w), 1.0, 0
        while error > tolerance and used < iterations:
            better = self._cycle(0, residual)
            new = self._dot(residual, better)
            direction = better + direction * (new / old if used else 0.0)
            old = new
            product = self.apply(direction)
            curvature = self._dot(direction, product)
            if curvature <= 0.0:
                break
            w += direction * (new / curvature)
            residual -= product * (new / curvature)
            error = math.sqrt(self._dot(residual, residual)) / norm
            used += 1
        return w, error, used


def grow_lock(
    solver: ArrayPoisson, w: Array, rhs: Array, ridges: Ridges, *, radii: Sequence[float],
    weight: float, window: float, iterations: int, tolerance: float,
) -> Array:  # fmt: skip
    """Return the field after locking the ridges within growing radii; see `lock.grow_lock`.

    `w` and `rhs` are arrays of the solver's module, the ridges are NumPy's.
    """
    xp = solver.xp
    cell, share, phase = (xp.asarray(a) for a in (ridges.cell, ridges.share, ridges.phase))
    z, y, x = (xp.asarray(np.ascontiguousarray(ridges.point[:, i])) for i in range(3))
    for radius in radii:
        n = int(np.searchsorted(ridges.distance, radius))
        here = trilinear(xp, w, (z[:n], y[:n], x[:n]))
        error = xp.floor(here - phase[:n] + 0.5) + phase[:n] - here
        near = xp.abs(error) < window
        cells, strength = cell[:n][near], share[:n][near] * weight
        screen, pulled = xp.zeros_like(rhs), rhs.copy()
        screen.reshape(-1)[cells] = strength
        pulled.reshape(-1)[cells] += strength * (w.reshape(-1)[cells] + error[near])
        solver.set_screen(screen)
        w, _, _ = solver.solve(pulled, w, tolerance=tolerance, iterations=iterations)
    return w
