"""Growing phase lock: ridges settle on half-integers, from the seed outward.

A least-squares field drifts with distance. Here the ridges within a growing radius pull the
field to their nearest level, so that the next shell starts from a solution already in phase.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.poisson import PoissonSolver
from vesuvius.postprocess.winding.sample import normal_at, trilinear
from vesuvius.postprocess.winding.slabs import RIDGE_LEVEL, RIDGE_OFFSET
from vesuvius.postprocess.winding.targets import CELL
from vesuvius.types import ByteVolume, FloatVolume


@dataclass(frozen=True)
class Ridges:
    """One row per cell that a ridge passes through, nearest the seed first.

    Attributes:
        cell: (n,) flat cell index.
        point: (n, 3) mean ridge position in the cell grid's index units, z y x.
        share: (n,) share of the cell's voxels that are ridge voxels.
        phase: (n,) 0.5 for an odd number of sheets in the slab, 0 for an even one.
        distance: (n,) distance to the seed in voxels.
    """

    cell: npt.NDArray[np.int32]
    point: npt.NDArray[np.float32]
    share: npt.NDArray[np.float32]
    phase: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.cell)


@compiled
def _cell_ridge(
    p: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks,
    corner: tuple[int, int, int],
) -> tuple[int, int, float, float, float]:  # fmt: skip
    """Return the number of ridge voxels in a cell, of those with odd counts, and the mean point."""
    nz, ny, nx = p.shape
    hits, odd = 0, 0
    sz, sy, sx = 0.0, 0.0, 0.0
    for z in range(corner[0], min(corner[0] + CELL, nz)):
        for y in range(corner[1], min(corner[1] + CELL, ny)):
            for x in range(corner[2], min(corner[2] + CELL, nx)):
                o = offset[z, y, x]
                if p[z, y, x] <= RIDGE_LEVEL or abs(o) >= RIDGE_OFFSET:
                    continue
                az, ay, ax = normal_at(axis, z, y, x)
                sz += z + o * az
                sy += y + o * ay
                sx += x + o * ax
                odd += counts[z, y, x] & 1
                hits += 1
    n = max(hits, 1)
    return hits, odd, sz / n, sy / n, sx / n


@compiled
def _collect(
    p: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks,
    cells: tuple[int, int, int], row: npt.NDArray[np.int32], cell: npt.NDArray[np.int32],
    point: npt.NDArray[np.float32], share: npt.NDArray[np.float32],
    phase: npt.NDArray[np.float32], start: int, stop: int,
) -> None:  # fmt: skip
    """Count each layer's ridge cells into `row` (given empty arrays), or fill from row[i] on."""
    for i in range(start, stop):
        at = row[i] if len(cell) else 0
        for j in range(cells[1]):
            for k in range(cells[2]):
                corner = (CELL * i, CELL * j, CELL * k)
                hits, odd, z, y, x = _cell_ridge(p, offset, counts, axis, corner)
                if hits == 0:
                    continue
                if len(cell):
                    cell[at] = (i * cells[1] + j) * cells[2] + k
                    point[at, 0] = (z + 0.5) / CELL - 0.5
                    point[at, 1] = (y + 0.5) / CELL - 0.5
                    point[at, 2] = (x + 0.5) / CELL - 0.5
                    share[at] = hits / CELL**3
                    phase[at] = 0.5 if 2 * odd >= hits else 0.0
                at += 1
        if len(cell) == 0:
            row[i] = at


def collect_ridges(
    probability: FloatVolume, offset: FloatVolume, counts: ByteVolume, axis: Blocks,
    cells: tuple[int, int, int], seed_zyx: tuple[float, float, float], *, threads: int,
) -> Ridges:  # fmt: skip
    """Return the ridge rows, sorted by distance to the seed (in voxels)."""
    row = np.zeros(cells[0], np.int32)

    def run(n: int) -> Ridges:
        out = Ridges(
            np.empty(n, np.int32), np.empty((n, 3), np.float32), np.empty(n, np.float32),
            np.empty(n, np.float32), np.empty(n, np.float32),
        )  # fmt: skip
        over_slabs(
            lambda a, b: _collect(
                probability, offset, counts, axis, cells, row, out.cell, out.point, out.share,
                out.phase, a, b,
            ),
            cells[0],
            threads,
        )  # fmt: skip
        return out

    run(0)  # counts per layer
    total = int(row.sum())
    row[:] = np.cumsum(row) - row
    found = run(total)
    seed = (np.asarray(seed_zyx, np.float32) + 0.5) / CELL - 0.5
    distance = (CELL * np.sqrt(((found.point - seed) ** 2).sum(1))).astype(np.float32)
    order = np.argsort(distance, kind="stable")
    return Ridges(
        found.cell[order], found.point[order], found.share[order], found.phase[order],
        distance[order],
    )  # fmt: skip


@compiled
def _phases(w: FloatVolume, point: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    """Write the field at the ridge points."""
    for i in range(len(out)):
        out[i] = trilinear(w, point[i, 0], point[i, 1], point[i, 2])


@compiled
def _pull(
    w: FloatVolume, cell: npt.NDArray[np.int32], point: npt.NDArray[np.float32],
    share: npt.NDArray[np.float32], phase: npt.NDArray[np.float32], weight: float, window: float,
    screen: FloatVolume, pulled: FloatVolume, start: int, stop: int,
) -> None:  # fmt: skip
    """Add screening weights and right-hand side that pull ridges start..stop to their level."""
    flat_w, flat_screen, flat_b = w.reshape(-1), screen.reshape(-1), pulled.reshape(-1)
    for i in range(start, stop):
        here = trilinear(w, point[i, 0], point[i, 1], point[i, 2])
        error = np.floor(here - phase[i] + 0.5) + phase[i] - here
        if abs(error) < window:
            c = cell[i]
            strength = weight * share[i]
            flat_screen[c] = strength
            flat_b[c] += strength * (flat_w[c] + error)


def ridge_values(w: FloatVolume, ridges: Ridges) -> npt.NDArray[np.float32]:
    """Return the field at every ridge row."""
    out = np.empty(len(ridges), np.float32)
    _phases(w, ridges.point, out)
    return out


def coherence(w: FloatVolume, ridges: Ridges) -> float:
    """Return |mean exp(2 pi i (w - phase))| over ridge voxels: 1 all in phase, 0 none."""
    if len(ridges) == 0:
        return 0.0
    turn = 2j * np.pi * (ridge_values(w, ridges) - ridges.phase)
    return float(np.abs(np.average(np.exp(turn), weights=ridges.share)))


def seed_phase(w: FloatVolume, ridges: Ridges, *, radius: float) -> FloatVolume:
    """Return the field shifted so that the ridges near the seed sit on their levels."""
    if len(ridges) == 0:
        return w
    near = int(np.searchsorted(ridges.distance, radius))
    near = max(near, min(len(ridges), 50))
    values = np.empty(near, np.float32)
    _phases(w, ridges.point[:near], values)
    turn = np.exp(2j * np.pi * (values - ridges.phase[:near]))
    mean = np.average(turn, weights=ridges.share[:near])
    return w - np.float32(np.angle(mean) / (2 * np.pi))


def lock_radii(ridges: Ridges, step: float) -> list[float]:
    """Return the radii of the lock's stages in voxels: step, 2 step, ... past the last ridge."""
    if len(ridges) == 0:
        return []
    stages = int(np.ceil(float(ridges.distance[-1]) / step)) + 1
    return [stage * step for stage in range(1, stages + 1)]


def grow_lock(
    solver: PoissonSolver, w: FloatVolume, rhs: FloatVolume, ridges: Ridges, *,
    radii: Sequence[float], weight: float, window: float, iterations: int, tolerance: float,
) -> FloatVolume:  # fmt: skip
    """Return the field after locking the ridges within growing radii of the seed.

    Args:
        solver: multigrid solver of the grid; its screening weights are left at the last stage's.
        w: (cz, cy, cx) field with the seed in phase.
        rhs: (cz, cy, cx) right-hand side of the targets.
        ridges: rows sorted by distance.
        radii: of the stages in voxels, see `lock_radii`.
        weight: pull of a cell full of ridge voxels, relative to one edge.
        window: a ridge further than this from its level (in windings) does not pull.
        iterations: conjugate-gradient iterations per stage, at most.
        tolerance: relative residual that ends a stage earlier.
    """
    screen, pulled = np.empty_like(w), np.empty_like(w)
    for radius in radii:
        n = int(np.searchsorted(ridges.distance, radius))
        screen.fill(0)
        np.copyto(pulled, rhs)
        over_slabs(
            lambda a, b, w=w: _pull(  # type: ignore[misc]
                w, ridges.cell, ridges.point, ridges.share, ridges.phase, weight, window,
                screen, pulled, a, b,
            ),
            n,
            solver.threads,
        )  # fmt: skip
        solver.set_screen(screen)
        w, _, _ = solver.solve(pulled, w, tolerance=tolerance, iterations=iterations)
    return w
