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
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.types import FloatVolume

SMALL = 32**3
"""Levels below this many cells are not worth a thread."""


@compiled
def _sweep(  # noqa: C901 - six faces, six branches
    w: FloatVolume, b: FloatVolume, screen: FloatVolume, scale: float, colour: int,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Gauss-Seidel on one colour of the checkerboard."""
    nz, ny, nx = w.shape
    for i in range(start, stop):
        for j in range(ny):
            for k in range((i + j + colour) & 1, nx, 2):
                total, degree = np.float32(0.0), np.float32(0.0)
                if i > 0:
                    total += w[i - 1, j, k]
                    degree += 1
                if i + 1 < nz:
                    total += w[i + 1, j, k]
                    degree += 1
                if j > 0:
                    total += w[i, j - 1, k]
                    degree += 1
                if j + 1 < ny:
                    total += w[i, j + 1, k]
                    degree += 1
                if k > 0:
                    total += w[i, j, k - 1]
                    degree += 1
                if k + 1 < nx:
                    total += w[i, j, k + 1]
                    degree += 1
                diagonal = scale * degree + screen[i, j, k]
                if diagonal > 0:
                    w[i, j, k] = (b[i, j, k] + scale * total) / diagonal


@compiled
def _apply(
    w: FloatVolume, screen: FloatVolume, scale: float, out: FloatVolume, start: int, stop: int
) -> None:
    """Write A w."""
    nz, ny, nx = w.shape
    for i in range(start, stop):
        for j in range(ny):
            for k in range(nx):
                here = w[i, j, k]
                total = np.float32(0.0)
                if i > 0:
                    total += here - w[i - 1, j, k]
                if i + 1 < nz:
                    total += here - w[i + 1, j, k]
                if j > 0:
                    total += here - w[i, j - 1, k]
                if j + 1 < ny:
                    total += here - w[i, j + 1, k]
                if k > 0:
                    total += here - w[i, j, k - 1]
                if k + 1 < nx:
                    total += here - w[i, j, k + 1]
                out[i, j, k] = scale * total + screen[i, j, k] * here


@compiled
def _subtract_from(b: FloatVolume, product: FloatVolume, start: int, stop: int) -> None:
    """Write b - product into product."""
    for i in range(start, stop):
        for j in range(b.shape[1]):
            for k in range(b.shape[2]):
                product[i, j, k] = b[i, j, k] - product[i, j, k]


@compiled
def _normal_slope(
    w: FloatVolume, normals: FloatVolume, out: FloatVolume, start: int, stop: int
) -> None:
    """Write n . G w: the normal component of the cells' central differences (half at the rim)."""
    nz, ny, nx = w.shape
    for i in range(start, stop):
        a, b = max(i - 1, 0), min(i + 1, nz - 1)
        for j in range(ny):
            c, d = max(j - 1, 0), min(j + 1, ny - 1)
            for k in range(nx):
                e, f = max(k - 1, 0), min(k + 1, nx - 1)
                out[i, j, k] = 0.5 * (
                    normals[0, i, j, k] * (w[b, j, k] - w[a, j, k])
                    + normals[1, i, j, k] * (w[i, d, k] - w[i, c, k])
                    + normals[2, i, j, k] * (w[i, j, f] - w[i, j, e])
                )


@compiled
def _subtract_normal(
    slope: FloatVolume, normals: FloatVolume, factor: float, out: FloatVolume,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Subtract factor G^T (n slope) from out; G^T is the transpose of the central differences."""
    nz, ny, nx = slope.shape
    half = np.float32(0.5 * factor)
    for i in range(start, stop):
        a, b = max(i - 1, 0), min(i + 1, nz - 1)
        for j in range(ny):
            c, d = max(j - 1, 0), min(j + 1, ny - 1)
            for k in range(nx):
                e, f = max(k - 1, 0), min(k + 1, nx - 1)
                total = normals[0, a, j, k] * slope[a, j, k] - normals[0, b, j, k] * slope[b, j, k]
                total += normals[1, i, c, k] * slope[i, c, k] - normals[1, i, d, k] * slope[i, d, k]
                total += normals[2, i, j, e] * slope[i, j, e] - normals[2, i, j, f] * slope[i, j, f]
                here = slope[i, j, k]
                if i == 0:  # at the rim the clamped difference also holds the cell itself
                    total -= 2 * normals[0, i, j, k] * here
                if i == nz - 1:
                    total += 2 * normals[0, i, j, k] * here
                if j == 0:
                    total -= 2 * normals[1, i, j, k] * here
                if j == ny - 1:
                    total += 2 * normals[1, i, j, k] * here
                if k == 0:
                    total -= 2 * normals[2, i, j, k] * here
                if k == nx - 1:
                    total += 2 * normals[2, i, j, k] * here
                out[i, j, k] -= half * total


@compiled
def _tap(fine: int, coarse: int, length: int) -> float:
    """Return how much of a fine cell's value one of `length` coarse cells gets, along one axis."""
    if fine == 0 or fine == 2 * length - 1:  # its other coarse neighbour does not exist
        return 1.0
    return 0.75 if fine // 2 == coarse else 0.25


@compiled
def _restrict(r: FloatVolume, out: FloatVolume, start: int, stop: int) -> None:
    """Write the transpose of the trilinear prolongation applied to r."""
    nz, ny, nx = r.shape
    cz, cy, cx = out.shape
    line = np.empty(nx, np.float32)
    for i in range(start, stop):
        for j in range(cy):
            line[:] = 0
            for a in range(max(2 * i - 1, 0), min(2 * i + 3, nz)):
                for b in range(max(2 * j - 1, 0), min(2 * j + 3, ny)):
                    weight = np.float32(_tap(a, i, cz) * _tap(b, j, cy))
                    for c in range(nx):
                        line[c] += weight * r[a, b, c]
            for k in range(cx):
                total = np.float32(0.0)
                for c in range(max(2 * k - 1, 0), min(2 * k + 3, nx)):
                    total += np.float32(_tap(c, k, cx)) * line[c]
                out[i, j, k] = total


@compiled
def _prolong_add(coarse: FloatVolume, w: FloatVolume, start: int, stop: int) -> None:
    """Add the trilinear interpolation of coarse cell centres to w."""
    _, ny, nx = w.shape
    cz, cy, cx = coarse.shape
    quarter, most = np.float32(0.25), np.float32(0.75)
    for i in range(start, stop):
        a = i // 2
        a2 = min(max(a + (1 if i & 1 else -1), 0), cz - 1)
        for j in range(ny):
            b = j // 2
            b2 = min(max(b + (1 if j & 1 else -1), 0), cy - 1)
            for k in range(nx):
                c = k // 2
                c2 = min(max(c + (1 if k & 1 else -1), 0), cx - 1)
                near = most * (most * coarse[a, b, c] + quarter * coarse[a, b, c2]) + quarter * (
                    most * coarse[a, b2, c] + quarter * coarse[a, b2, c2]
                )
                far = most * (most * coarse[a2, b, c] + quarter * coarse[a2, b, c2]) + quarter * (
                    most * coarse[a2, b2, c] + quarter * coarse[a2, b2, c2]
                )
                w[i, j, k] += most * near + quarter * far


@compiled
def _sum_children(screen: FloatVolume, out: FloatVolume, start: int, stop: int) -> None:
    """Write the screening weight of coarse layers: the sum over the children of each cell."""
    out[start:stop] = 0
    nz, ny, nx = screen.shape
    for i in range(2 * start, min(2 * stop, nz)):
        for j in range(ny):
            for k in range(nx):
                out[i // 2, j // 2, k // 2] += screen[i, j, k]


@compiled
def _layer_dots(
    a: FloatVolume, b: FloatVolume, out: npt.NDArray[np.float64], start: int, stop: int
) -> None:
    """Write the inner product of every layer, in double precision."""
    for i in range(start, stop):
        total = 0.0
        for j in range(a.shape[1]):
            for k in range(a.shape[2]):
                total += a[i, j, k] * b[i, j, k]
        out[i] = total


@compiled
def _turn(direction: FloatVolume, better: FloatVolume, keep: float, start: int, stop: int) -> None:
    """Replace the search direction by better + keep * direction."""
    share = np.float32(keep)
    for i in range(start, stop):
        for j in range(better.shape[1]):
            for k in range(better.shape[2]):
                direction[i, j, k] = better[i, j, k] + share * direction[i, j, k]


@compiled
def _step(
    w: FloatVolume, residual: FloatVolume, direction: FloatVolume, product: FloatVolume,
    length: float, squares: npt.NDArray[np.float64], start: int, stop: int,
) -> None:  # fmt: skip
    """Go `length` along the direction; write every layer's sum of squared residuals."""
    share = np.float32(length)
    for i in range(start, stop):
        total = 0.0
        for j in range(w.shape[1]):
            for k in range(w.shape[2]):
                w[i, j, k] += share * direction[i, j, k]
                rest = residual[i, j, k] - share * product[i, j, k]
                residual[i, j, k] = rest
                total += rest * rest
        squares[i] = total


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
                lambda a, b, f=fine.screen, c=coarse.screen: _sum_children(  # type: ignore[misc]
                    f, c, a, b
                ),
                len(coarse.screen),
                fine.threads,
            )

    def _smooth(self, level: _Level, colours: tuple[int, int]) -> None:
        for colour in colours:
            over_slabs(
                lambda a, b, c=colour: _sweep(  # type: ignore[misc]
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
            lambda a, b: _apply(level.w, level.screen, level.scale, level.r, a, b),
            length,
            level.threads,
        )
        over_slabs(lambda a, b: _subtract_from(level.b, level.r, a, b), length, level.threads)
        below = self._levels[depth + 1]
        over_slabs(lambda a, b: _restrict(level.r, below.b, a, b), below.b.shape[0], level.threads)
        self._cycle(depth + 1)
        over_slabs(lambda a, b: _prolong_add(below.w, level.w, a, b), length, level.threads)
        self._smooth(level, (1, 0))

    def apply(self, w: FloatVolume) -> FloatVolume:
        """Return the equations' left-hand side for w, (cz, cy, cx)."""
        out = np.empty_like(w)
        self._matrix(w, out)
        return out

    def _matrix(self, w: FloatVolume, out: FloatVolume) -> None:
        top, normals, slope = self._levels[0], self._normals, self._slope
        length, threads = w.shape[0], top.threads
        over_slabs(lambda a, b: _apply(w, top.screen, top.scale, out, a, b), length, threads)
        if normals is None or slope is None:
            return
        over_slabs(lambda a, b: _normal_slope(w, normals, slope, a, b), length, threads)
        excess = self._stiffness - 1.0
        over_slabs(
            lambda a, b: _subtract_normal(slope, normals, excess, out, a, b), length, threads
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
        over_slabs(lambda a, b: _subtract_from(rhs, residual, a, b), length, top.threads)
        error = math.sqrt(self._dot(residual, residual)) / norm
        squares = np.empty(length)
        old, used = 1.0, 0
        while error > tolerance and used < iterations:
            top.b = residual
            self._cycle(0)
            new = self._dot(residual, top.w)
            keep = new / old if used else 0.0
            over_slabs(
                lambda a, b, k=keep: _turn(direction, top.w, k, a, b),  # type: ignore[misc]
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
                lambda a, b, r=reach: _step(  # type: ignore[misc]
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
        over_slabs(lambda i, j: _layer_dots(a, b, sums, i, j), len(a), self._levels[0].threads)
        return float(sums.sum())
