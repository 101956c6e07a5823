"""Compiled loops of the screened Poisson solver, each over a slab of layers.

Every function works on the layers `start` to `stop` of its output, so that threads can share one
array. Sweeps of one colour and all that only read their neighbours may run side by side.
"""

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.types import FloatVolume


@compiled
def sweep(  # noqa: C901 - six faces, six branches
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
def apply(
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
def subtract_from(b: FloatVolume, product: FloatVolume, start: int, stop: int) -> None:
    """Write b - product into product."""
    for i in range(start, stop):
        for j in range(b.shape[1]):
            for k in range(b.shape[2]):
                product[i, j, k] = b[i, j, k] - product[i, j, k]


@compiled
def normal_slope(
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
def subtract_normal(
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
def restrict(r: FloatVolume, out: FloatVolume, start: int, stop: int) -> None:
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
def prolong_add(coarse: FloatVolume, w: FloatVolume, start: int, stop: int) -> None:
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
def sum_children(screen: FloatVolume, out: FloatVolume, start: int, stop: int) -> None:
    """Write the screening weight of coarse layers: the sum over the children of each cell."""
    out[start:stop] = 0
    nz, ny, nx = screen.shape
    for i in range(2 * start, min(2 * stop, nz)):
        for j in range(ny):
            for k in range(nx):
                out[i // 2, j // 2, k // 2] += screen[i, j, k]


@compiled
def layer_dots(
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
def turn(direction: FloatVolume, better: FloatVolume, keep: float, start: int, stop: int) -> None:
    """Replace the search direction by better + keep * direction."""
    share = np.float32(keep)
    for i in range(start, stop):
        for j in range(better.shape[1]):
            for k in range(better.shape[2]):
                direction[i, j, k] = better[i, j, k] + share * direction[i, j, k]


@compiled
def step(
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
