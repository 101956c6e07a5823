"""Screened Poisson on a cell grid: conjugate gradients preconditioned by geometric multigrid.

Energy: sum over edges k (w_j - w_i - v_e)^2 - sum over cells (k - 1) (n . (grad w - v))^2
+ sum over cells lambda_i (w_i - t_i)^2, natural boundary: slopes along the sheets weigh k times as
much as slopes across them. k = 1 is the plain Poisson equation. The multigrid cycle ignores the
second term, which costs about sqrt(k) times the iterations.

Source: Trottenberg, Oosterlee, Schueller 2001 (cell-centred multigrid); trilinear prolongation,
its transpose as restriction, rediscretised coarse operators, red-black smoothing in mirrored order
so that the cycle is symmetric. The second term is our own.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from vesuvius.postprocess.winding import poisson_loops as loops
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.types import FloatVolume

SMALL = 32**3
"""Levels below this many cells are not worth a thread."""


@dataclass
class _Level:
    screen: FloatVolume
    scale: float
    threads: int
    w: FloatVolume = field(init=False)
    b: FloatVolume = field(init=False)
    r: FloatVolume = field(init=False)

    def __post_init__(self) -> None:
        self.w, self.b, self.r = (np.zeros_like(self.screen) for _ in range(3))


class PoissonSolver:
    """Multigrid-preconditioned conjugate gradients for one cell grid.

    Args:
        shape: (cz, cy, cx) number of cells.
        normals: (3, cz, cy, cx) unit normals, needed for a stiffness above 1.
        stiffness: weight of slopes along the sheets relative to slopes across them, at least 1.
        threads: number of threads for the fine levels.

    Source: own arrangement of the textbook parts named at the top of the file.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, normals: FloatVolume | None = None,
        stiffness: float = 1.0, threads: int = 1,
    ) -> None:  # fmt: skip
        self.shape, self.threads = shape, threads
        self._normals = normals
        self._stiffness = stiffness if normals is not None else 1.0
        self._slope = np.empty(shape, np.float32) if self._stiffness > 1.0 else None
        self._levels: list[_Level] = []
        scale = self._stiffness
        while True:
            busy = threads if int(np.prod(shape)) >= SMALL else 1
            self._levels.append(_Level(np.zeros(shape, np.float32), scale, busy))
            if max(shape) <= 2:
                break
            shape = tuple(-(-n // 2) for n in shape)  # type: ignore[assignment]
            scale *= 2.0
        self._screened = False

    def set_screen(self, screen: FloatVolume) -> None:
        """Set lambda >= 0 per cell, (cz, cy, cx); kept, not copied."""
        self._levels[0].screen = screen
        self._screened = bool(screen.any())
        for fine, coarse in zip(self._levels[:-1], self._levels[1:], strict=True):
            over_slabs(
                lambda a, b, f=fine.screen, c=coarse.screen: loops.sum_children(  # type: ignore[misc]
                    f, c, a, b
                ),
                len(coarse.screen),
                fine.threads,
            )

    def _smooth(self, level: _Level, colours: tuple[int, int]) -> None:
        for colour in colours:
            over_slabs(
                lambda a, b, c=colour: loops.sweep(  # type: ignore[misc]
                    level.w, level.b, level.screen, level.scale, c, a, b
                ),
                level.w.shape[0],
                level.threads,
            )

    def _cycle(self, depth: int) -> None:
        level = self._levels[depth]
        level.w[:] = 0
        if depth == len(self._levels) - 1:
            for _ in range(8):
                self._smooth(level, (0, 1))
                self._smooth(level, (1, 0))
            return
        self._smooth(level, (0, 1))
        length = level.w.shape[0]
        over_slabs(
            lambda a, b: loops.apply(level.w, level.screen, level.scale, level.r, a, b),
            length,
            level.threads,
        )
        over_slabs(lambda a, b: loops.subtract_from(level.b, level.r, a, b), length, level.threads)
        below = self._levels[depth + 1]
        over_slabs(
            lambda a, b: loops.restrict(level.r, below.b, a, b), below.b.shape[0], level.threads
        )
        self._cycle(depth + 1)
        over_slabs(lambda a, b: loops.prolong_add(below.w, level.w, a, b), length, level.threads)
        self._smooth(level, (1, 0))

    def apply(self, w: FloatVolume) -> FloatVolume:
        """Return the equations' left-hand side for w, (cz, cy, cx)."""
        out = np.empty_like(w)
        self._matrix(w, out)
        return out

    def _matrix(self, w: FloatVolume, out: FloatVolume) -> None:
        top, normals, slope = self._levels[0], self._normals, self._slope
        length, threads = w.shape[0], top.threads
        over_slabs(lambda a, b: loops.apply(w, top.screen, top.scale, out, a, b), length, threads)
        if normals is None or slope is None:
            return
        over_slabs(lambda a, b: loops.normal_slope(w, normals, slope, a, b), length, threads)
        excess = self._stiffness - 1.0
        over_slabs(
            lambda a, b: loops.subtract_normal(slope, normals, excess, out, a, b), length, threads
        )

    def solve(
        self, rhs: FloatVolume, start: FloatVolume, *, tolerance: float, iterations: int
    ) -> tuple[FloatVolume, float, int]:
        """Return the solution, its relative residual and the iterations used.

        Args:
            rhs: (cz, cy, cx) right-hand side; its mean is dropped when nothing is screened.
            start: (cz, cy, cx) first guess (not changed).
            tolerance: stop at this residual relative to the right-hand side.
            iterations: stop after this many.
        """
        w = start.copy()
        if not self._screened:
            rhs = rhs - np.float32(rhs.mean(dtype=np.float64))
        norm = math.sqrt(self._dot(rhs, rhs))
        if norm == 0.0:
            return np.zeros_like(w), 0.0, 0
        top, length = self._levels[0], w.shape[0]
        residual, product, direction = np.empty_like(w), np.empty_like(w), np.zeros_like(w)
        self._matrix(w, residual)
        over_slabs(lambda a, b: loops.subtract_from(rhs, residual, a, b), length, top.threads)
        error = math.sqrt(self._dot(residual, residual)) / norm
        squares = np.empty(length)
        old, used = 1.0, 0
        while error > tolerance and used < iterations:
            top.b = residual
            self._cycle(0)
            new = self._dot(residual, top.w)
            keep = new / old if used else 0.0
            over_slabs(
                lambda a, b, k=keep: loops.turn(direction, top.w, k, a, b),  # type: ignore[misc]
                length,
                top.threads,
            )
            old = new
            self._matrix(direction, product)
            curvature = self._dot(direction, product)
            if curvature <= 0.0:
                break
            reach = new / curvature
            over_slabs(
                lambda a, b, r=reach: loops.step(  # type: ignore[misc]
                    w, residual, direction, product, r, squares, a, b
                ),
                length,
                top.threads,
            )
            error = math.sqrt(float(squares.sum())) / norm
            used += 1
        return w, error, used

    def _dot(self, a: FloatVolume, b: FloatVolume) -> float:
        sums = np.empty(len(a))  # per layer: the same total whatever the number of threads
        over_slabs(lambda i, j: loops.layer_dots(a, b, sums, i, j), len(a), self._levels[0].threads)
        return float(sums.sum())
