"""Harmonic solver against the original project's algorithm, on one synthetic 128^3 volume.

    python benchmarks/postprocess.py                 # 128^3, about a minute
    python benchmarks/postprocess.py --size 64

The reference below is written for this benchmark after the description of the original: Python
loops and a dictionary over nodes and edges, one Laplacian over all nodes with the seeds eliminated,
plain SciPy conjugate gradients with tol 1e-6. Both solve the same volume in the same process, one
after the other, ours three times (median). The first call of ours compiles and is not timed.
"ratio_build" sets the reference's graph alone against everything that ours does before the solve
(nodes, seeds, components, reduction to the unknowns that can differ from 0, matrix).
"""

import argparse
import json
import statistics
import time

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg, spsolve

from vesuvius.postprocess.harmonic import harmonic_mask, solve_harmonic

RIM, TOL, MAXITER = 2, 1e-6, 5000


def spiral(size, pitch=11.0, seed=0):
    """Return probability and normals of a deformed spiral sheet, noisy, 20-27 % above 0.5."""
    rng = np.random.default_rng(seed)
    _, y, x = np.meshgrid(*[np.arange(size, dtype=np.float32)] * 3, indexing="ij")
    bend = ndimage.gaussian_filter(rng.standard_normal((size,) * 3).astype(np.float32), size / 14)
    radius = np.hypot(y + 0.3 * size, x + 0.2 * size) + 2 * bend / bend.std()
    phase = radius / pitch - np.arctan2(y + 0.3 * size, x + 0.2 * size) / (2 * np.pi)
    normals = np.stack(np.gradient(radius))
    normals /= np.linalg.norm(normals, axis=0)
    normals += 0.25 * rng.standard_normal(normals.shape).astype(np.float32)
    distance = np.abs(phase - np.round(phase)) * pitch
    noise = ndimage.gaussian_filter(rng.standard_normal((size,) * 3).astype(np.float32), 1.0)
    probability = 1 / (1 + np.exp(3 * (distance - 1.2))) + 0.15 * noise / noise.std()
    return np.clip(probability, 0, 1).astype(np.float32), normals.astype(np.float32)


def reference_graph(probability, normals):
    """Nodes in a dictionary, edges in lists, one Python step each."""
    number, voxels = {}, []
    for z, y, x in zip(*np.where(probability > 0.5), strict=True):
        number[(z, y, x)] = len(voxels)
        voxels.append((z, y, x))
    rows, columns, values = [], [], []
    for (z, y, x), i in number.items():
        for dz, dy, dx in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            j = number.get((z + dz, y + dy, x + dx))
            if j is None:
                continue
            weight = max(float(np.dot(normals[:, z, y, x], normals[:, z + dz, y + dy, x + dx])), 0)
            if weight > 0:
                rows += [i, j]
                columns += [j, i]
                values += [weight, weight]
    count = len(voxels)
    adjacency = sparse.csr_matrix((values, (rows, columns)), shape=(count, count))
    laplacian = sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
    return np.array(voxels), adjacency, laplacian.tocsr()


def reference_seeds(voxels, shape):
    """Rim nodes are 0; the other node nearest the centre is 1."""
    known, best, nearest = {}, np.inf, None
    centre = [n // 2 for n in shape]
    for i, voxel in enumerate(voxels):
        if any(c < RIM or c >= n - RIM for c, n in zip(voxel, shape, strict=True)):
            known[i] = 0.0
            continue
        distance = sum((int(c) - m) ** 2 for c, m in zip(voxel, centre, strict=True))
        if distance < best:
            best, nearest = distance, i
    known[nearest] = 1.0
    return known


def reference_system(laplacian, known):
    """Eliminate the seeds; the rows of components without one have the solution 0."""
    values = np.zeros(laplacian.shape[0])
    seeds = np.array(sorted(known))
    values[seeds] = [known[i] for i in seeds]
    free = np.setdiff1d(np.arange(len(values)), seeds)
    right = -laplacian[free] @ values
    return values, free, laplacian[free][:, free].tocsr(), right


def reference_field(probability, normals):
    """Return the field, its unknowns' system and the seconds of each stage."""
    start = time.perf_counter()
    voxels, adjacency, laplacian = reference_graph(probability, normals)
    built = time.perf_counter()
    known = reference_seeds(voxels, probability.shape)
    values, free, matrix, right = reference_system(laplacian, known)
    seeded = time.perf_counter()
    values[free], info = cg(matrix, right, rtol=TOL, maxiter=MAXITER)
    solved = time.perf_counter()
    field = np.zeros(probability.shape)
    field[tuple(voxels.T)] = values
    seconds = {"build": built - start, "seeds": seeded - built, "solve": solved - seeded}
    return field, seconds, info, (adjacency, known, values, free, matrix, right, voxels)


def direct_field(shape, adjacency, known, values, free, matrix, right, voxels):
    """Sparse LU of the same system without the components that hold no seed (they are 0)."""
    _, component = sparse.csgraph.connected_components(adjacency, directed=False)
    seeded = np.isin(component, np.unique(component[list(known)]))
    use = np.flatnonzero(seeded[free])
    exact = values.copy()
    exact[free] = 0
    exact[free[use]] = spsolve(matrix[use][:, use].tocsc(), right[use])
    field = np.zeros(shape)
    field[tuple(voxels.T)] = exact
    return field


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=128, help="edge of the volume in voxels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--direct", action="store_true", help="compare with sparse LU as well")
    arguments = parser.parse_args()
    probability, normals = spiral(arguments.size)
    first = time.perf_counter()
    small = spiral(24)
    solve_harmonic(*small, device="cpu")
    compile_seconds = time.perf_counter() - first
    runs = []
    for _ in range(arguments.repeats):
        begin = time.perf_counter()
        ours = solve_harmonic(probability, normals, tol=TOL, maxiter=MAXITER, device="cpu")
        runs.append((time.perf_counter() - begin, float(ours.report["seconds_build"])))
    total, build = (statistics.median(column) for column in zip(*runs, strict=True))
    field, seconds, info, system = reference_field(probability, normals)
    exact = direct_field(field.shape, *system) if arguments.direct else None
    mask = harmonic_mask(probability, normals)
    theirs = (field >= 0.5) | (probability > 0.4)
    result = {
        "size": arguments.size,
        "share_above_threshold": round(float((probability > 0.5).mean()), 4),
        "first_call_s": round(compile_seconds, 2),
        "reference_s": {name: round(value, 3) for name, value in seconds.items()},
        "reference_converged": info == 0,
        "ours_s": {"build": round(build, 4), "all": round(total, 4)},
        "ratio_build": round(seconds["build"] / build, 1),
        "ratio_all": round(sum(seconds.values()) / total, 1),
        "max_difference_to_reference": float(np.abs(field - ours.field).max()),
        "max_difference_to_direct": None
        if exact is None
        else {
            "ours": float(np.abs(exact - ours.field).max()),
            "reference": float(np.abs(exact - field).max()),
        },
        "masks_equal": bool((theirs == mask).all()),
        "report": ours.report,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
