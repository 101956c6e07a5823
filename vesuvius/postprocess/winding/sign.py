"""One sign for all normals: a minimum spanning tree over neighbouring blocks.

Source: Hoppe et al. 1992 (consistent tangent plane orientation), costs weighted by planarity.
Kruskal with bucketed costs and a union-find that carries parity: no tree traversal afterwards.
"""

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks

OFFSETS = np.array(
    [
        [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1], [0, 1, -1], [1, 0, 1], [1, 0, -1], [1, 1, 0],
        [1, -1, 0],
    ],
    np.int64,
)  # fmt: skip
"""Three faces and six edges of the block grid."""
LEVELS = 4096
"""Cost buckets: finer than the noise of the normals."""

Ints = npt.NDArray[np.int64]


@compiled
def _edge_costs(
    axis: Blocks, planarity: Blocks, offsets: Ints, costs: npt.NDArray[np.int16]
) -> None:
    """Write the bucket of 1 - |n_i . n_j| (0.2 + 0.8 min(c_i, c_j)) per edge, -1 outside."""
    nz, ny, nx = planarity.shape
    for k in range(len(offsets)):
        dz, dy, dx = offsets[k]
        for z in range(nz):
            for y in range(ny):
                for x in range(nx):
                    i = (z * ny + y) * nx + x
                    a, b, c = z + dz, y + dy, x + dx
                    if a < 0 or b < 0 or c < 0 or a >= nz or b >= ny or c >= nx:
                        costs[k, i] = -1
                        continue
                    dot = 0.0
                    for axis_index in range(3):
                        dot += axis[z, y, x, axis_index] * axis[a, b, c, axis_index]
                    trust = 0.2 + 0.8 * min(planarity[z, y, x], planarity[a, b, c])
                    cost = 1.0 - abs(dot) * trust
                    costs[k, i] = int(min(max(cost, 0.0), 1.0) * (LEVELS - 1))


@compiled
def _sort_edges(costs: npt.NDArray[np.int16], order: npt.NDArray[np.int32]) -> int:
    """Counting sort of the edges by cost; return how many there are."""
    counts = np.zeros(LEVELS + 1, np.int64)
    flat = costs.reshape(-1)
    for i in range(len(flat)):
        if flat[i] >= 0:
            counts[flat[i] + 1] += 1
    for level in range(LEVELS):
        counts[level + 1] += counts[level]
    total = int(counts[LEVELS])
    for i in range(len(flat)):
        if flat[i] >= 0:
            order[counts[flat[i]]] = i
            counts[flat[i]] += 1
    return total


@compiled
def _find(parent: npt.NDArray[np.int32], flip: npt.NDArray[np.int8], i: int) -> tuple[int, int]:
    """Return root and parity of i relative to it, halving the path."""
    parity = 0
    while parent[i] != i:
        up = parent[i]
        flip[i] ^= flip[up] if parent[up] != up else 0
        parity ^= flip[i]
        parent[i] = parent[up]
        i = parent[i]
    return i, parity


@compiled
def _span(
    axis: Blocks, offsets: Ints, order: npt.NDArray[np.int32], total: int,
    parent: npt.NDArray[np.int32], flip: npt.NDArray[np.int8],
) -> None:  # fmt: skip
    """Union the blocks along the sorted edges; flips keep n_i . n_j >= 0 on the tree."""
    nz, ny, nx = axis.shape[:3]
    nodes = nz * ny * nx
    rank = np.zeros(nodes, np.int8)
    flat = axis.reshape(-1, 3)
    left = nodes - 1
    for e in range(total):
        k, i = order[e] // nodes, order[e] % nodes
        j = i + (offsets[k, 0] * ny + offsets[k, 1]) * nx + offsets[k, 2]
        root_i, parity_i = _find(parent, flip, i)
        root_j, parity_j = _find(parent, flip, j)
        if root_i == root_j:
            continue
        dot = flat[i, 0] * flat[j, 0] + flat[i, 1] * flat[j, 1] + flat[i, 2] * flat[j, 2]
        turn = parity_i ^ parity_j ^ (1 if dot < 0 else 0)
        if rank[root_i] < rank[root_j]:
            root_i, root_j = root_j, root_i
        parent[root_j] = root_i
        flip[root_j] = turn
        if rank[root_i] == rank[root_j]:
            rank[root_i] += 1
        left -= 1
        if left == 0:
            break


@compiled
def _apply(axis: Blocks, parent: npt.NDArray[np.int32], flip: npt.NDArray[np.int8]) -> None:
    """Flip the vectors in place."""
    flat = axis.reshape(-1, 3)
    for i in range(len(flat)):
        _, parity = _find(parent, flip, i)
        if parity:
            for k in range(3):
                flat[i, k] = -flat[i, k]


def consistent_signs(axis: Blocks, planarity: Blocks, *, prior: Blocks | None = None) -> Blocks:
    """Return the normals with signs that agree along a minimum spanning tree of the blocks.

    Args:
        axis: (bz, by, bx, 3) unit vectors, sign free.
        planarity: (bz, by, bx) in [0, 1], the trust in each.
        prior: (bz, by, bx, 3) vectors whose planarity-weighted majority fixes the global sign
            (network normals, or directions away from the umbilicus). None: the largest
            component of the mean normal points to increasing index.
    """
    axis = np.ascontiguousarray(axis).copy()
    nodes = planarity.size
    costs = np.empty((len(OFFSETS), nodes), np.int16)
    _edge_costs(axis, planarity, OFFSETS, costs)
    order = np.empty(costs.size, np.int32)
    total = _sort_edges(costs, order)
    parent = np.arange(nodes, dtype=np.int32)
    flip = np.zeros(nodes, np.int8)
    _span(axis, OFFSETS, order, total, parent, flip)
    _apply(axis, parent, flip)
    weights = planarity[..., None]
    if prior is not None:
        vote = float((axis * prior * weights).sum())
    else:
        mean = (axis * weights).sum((0, 1, 2))
        vote = float(mean[np.argmax(np.abs(mean))])
    if vote < 0:
        axis *= -1
    return axis
