"""The voxel graph of the harmonic solver: compiled loops over a volume, no per-edge Python.

Nodes are the voxels of a mask, edges join 6-neighbours, the weight is max(n_i . n_j, 0). Only
edges of positive weight connect anything.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import sparse

from vesuvius.types import FloatVolume

Flags = npt.NDArray[np.uint8]
OUTSIDE, FREE, RIM, CENTRE = 0, 1, 2, 3
"""Kind of a voxel: no node, unknown, seed of value 0, seed of value 1."""


class Components(NamedTuple):
    """Connected components of the graph (edges of positive weight).

    Attributes:
        total: components, single nodes included.
        without_seed: components that hold neither a rim node nor the centre.
        nodes_without_seed: nodes in them.
    """

    total: int
    without_seed: int
    nodes_without_seed: int


class ReducedSystem(NamedTuple):
    """The unknowns that can differ from 0, and their equations.

    Attributes:
        voxels: (n,) flat indices of the unknowns.
        matrix: (n, n) rows of the Laplacian with the seeds eliminated, symmetric, CSR.
        rhs: (n,) weight to the centre seed.
        touches_rim: whether any unknown (or the centre) neighbours a rim seed; if not, u = 1.
    """

    voxels: npt.NDArray[np.int64]
    matrix: sparse.csr_matrix
    rhs: npt.NDArray[np.float64]
    touches_rim: bool


def classify(mask: npt.NDArray[np.bool_], *, rim: int) -> tuple[Flags, int]:
    """Return the kind of each voxel and the flat index of the centre seed (-1: none).

    Nodes fewer than `rim` voxels away from a face are rim seeds. The centre seed is the other node
    nearest to voxel shape // 2, the first in z, y, x order among equals.
    """
    kind = mask.astype(np.uint8)
    inner = tuple(slice(rim, max(rim, n - rim)) for n in mask.shape)
    border = np.ones(mask.shape, np.bool_)
    border[inner] = False
    kind[border & mask] = RIM
    centre = int(_nearest(kind, mask.shape[0] // 2, mask.shape[1] // 2, mask.shape[2] // 2))
    if centre >= 0:
        kind.ravel()[centre] = CENTRE
    return kind, centre


def count_components(kind: Flags, normals: FloatVolume, *, axial: bool) -> Components:
    """Return the components of the whole graph."""
    return Components(*(int(n) for n in _count_components(kind, normals, axial)))


def reduce_system(kind: Flags, normals: FloatVolume, centre: int, *, axial: bool) -> ReducedSystem:
    """Return the equations of the unknowns reached from the centre without crossing a rim seed.

    Everywhere else the solution is 0: such a part sees only seeds of value 0, or none.
    """
    reached, count, touches_rim = _reach(kind, normals, centre, axial)
    voxels, indptr, indices, data, rhs = _equations(kind, normals, reached, count, axial)
    matrix = sparse.csr_matrix((data, indices, indptr), shape=(count, count))
    return ReducedSystem(voxels, matrix, rhs, bool(touches_rim))


@njit(cache=True)
def _nearest(kind, cz, cy, cx):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    best, where = np.int64(2) ** 62, np.int64(-1)
    nz, ny, nx = kind.shape
    for z in range(nz):
        for y in range(ny):
            plane = (z - cz) ** 2 + (y - cy) ** 2
            if plane >= best:
                continue
            for x in range(nx):
                if kind[z, y, x] == FREE:
                    distance = plane + (x - cx) ** 2
                    if distance < best:
                        best, where = distance, (np.int64(z) * ny + y) * nx + x
    return where


@njit(cache=True, inline="always")
def _weight(normals, z, y, x, z2, y2, x2, axial):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    dot = 0.0
    for c in range(3):
        dot += np.float64(normals[c, z, y, x]) * np.float64(normals[c, z2, y2, x2])
    if axial:
        return abs(dot)
    return max(dot, 0.0)


@njit(cache=True)
def _root(parent, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True)
def _count_components(kind, normals, axial):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, C901
    nz, ny, nx = kind.shape
    number = np.empty((2, ny, nx), np.int32)  # node numbers of this plane and the one before
    total = 0
    for value in kind.ravel():
        total += value != OUTSIDE
    parent = np.empty(total, np.int32)
    seeded = np.zeros(total, np.bool_)
    node = 0
    for z in range(nz):
        here, before = z % 2, 1 - z % 2
        for y in range(ny):
            for x in range(nx):
                if kind[z, y, x] == OUTSIDE:
                    continue
                parent[node] = node
                seeded[node] = kind[z, y, x] != FREE
                number[here, y, x] = node
                for side in range(3):
                    z2, y2, x2 = z - (side == 0), y - (side == 1), x - (side == 2)
                    if z2 < 0 or y2 < 0 or x2 < 0 or kind[z2, y2, x2] == OUTSIDE:
                        continue
                    if _weight(normals, z, y, x, z2, y2, x2, axial) > 0:
                        a = _root(parent, node)
                        b = _root(parent, number[before if side == 0 else here, y2, x2])
                        if a != b:
                            parent[max(a, b)] = min(a, b)
                node += 1
    size = np.zeros(total, np.int32)
    for i in range(total):
        root = _root(parent, i)
        size[root] += 1
        if seeded[i]:
            seeded[root] = True
    count, without, lost = 0, 0, 0
    for i in range(total):
        if size[i] > 0:
            count += 1
            if not seeded[i]:
                without += 1
                lost += size[i]
    return count, without, lost


@njit(cache=True)
def _reach(kind, normals, centre, axial):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    nz, ny, nx = kind.shape
    reached = np.zeros(kind.shape, np.bool_)
    stack = np.empty(1024, np.int64)
    stack[0], top = centre, 1
    count, touches_rim = 0, False
    while top > 0:
        top -= 1
        voxel = stack[top]
        z, y, x = voxel // (ny * nx), voxel // nx % ny, voxel % nx
        if top + 6 > stack.size:
            grown = np.empty(2 * stack.size, np.int64)
            grown[:top] = stack[:top]
            stack = grown
        for side in range(6):
            step = 1 if side % 2 else -1
            z2 = z + (step if side // 2 == 0 else 0)
            y2 = y + (step if side // 2 == 1 else 0)
            x2 = x + (step if side // 2 == 2 else 0)
            if not (0 <= z2 < nz and 0 <= y2 < ny and 0 <= x2 < nx):
                continue
            other = kind[z2, y2, x2]
            if other in (OUTSIDE, CENTRE) or reached[z2, y2, x2]:
                continue
            if _weight(normals, z, y, x, z2, y2, x2, axial) > 0:
                if other == RIM:
                    touches_rim = True
                else:
                    reached[z2, y2, x2] = True
                    stack[top] = (z2 * ny + y2) * nx + x2
                    top += 1
                    count += 1
    return reached, count, touches_rim


@njit(cache=True)
def _equations(kind, normals, reached, count, axial):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, C901
    nz, ny, nx = kind.shape
    row = np.empty(kind.shape, np.int32)
    voxels = np.empty(count, np.int64)
    node = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if reached[z, y, x]:
                    row[z, y, x] = node
                    voxels[node] = (np.int64(z) * ny + y) * nx + x
                    node += 1
    indptr = np.zeros(count + 1, np.int32)
    indices = np.empty(7 * count, np.int32)
    data = np.empty(7 * count, np.float64)
    rhs = np.zeros(count, np.float64)
    used = 0
    for i in range(count):
        z, y, x = voxels[i] // (ny * nx), voxels[i] // nx % ny, voxels[i] % nx
        diagonal, place = 0.0, -1
        for side in range(7):  # ascending columns: -z, -y, -x, itself, +x, +y, +z
            if side == 3:
                place, indices[used] = used, i
                used += 1
                continue
            step = -1 if side < 3 else 1
            axis = side if side < 3 else 6 - side
            z2, y2, x2 = z + step * (axis == 0), y + step * (axis == 1), x + step * (axis == 2)
            if not (0 <= z2 < nz and 0 <= y2 < ny and 0 <= x2 < nx):
                continue
            other = kind[z2, y2, x2]
            if other == OUTSIDE:
                continue
            weight = _weight(normals, z, y, x, z2, y2, x2, axial)
            if weight <= 0:
                continue
            diagonal += weight
            if other == FREE:
                indices[used], data[used] = row[z2, y2, x2], -weight
                used += 1
            elif other == CENTRE:
                rhs[i] = weight
        data[place] = diagonal
        indptr[i + 1] = used
    return voxels, indptr, indices[:used].copy(), data[:used].copy(), rhs
