"""The winding field of one chunk: orientation, targets, Poisson solve, growing phase lock.

Source: formulation of the project's issue on the winding solver; see docs/winding.md.
"""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding import density as density_stage
from vesuvius.postprocess.winding import lock, orientation, sign, slabs, targets
from vesuvius.postprocess.winding.backend import Backend, CompiledBackend
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.sample import BLOCK
from vesuvius.postprocess.winding.settings import FieldSettings
from vesuvius.postprocess.winding.umbilicus import (
    Spiral,
    is_inside,
    other_branch,
    plane_turns,
    seed_point,
    turns,
)
from vesuvius.types import ByteVolume, FloatVolume

RETRIES: tuple[dict[str, Any], ...] = (
    {"lock_step": 12.0, "peak_share": 0.5, "prior_share": 0.3},
    {"lock_step": 12.0, "peak_share": 0.15, "prior_share": 1.0, "density_sigma_along": 20.0},
)
"""Other readings of the gaps, tried while the coherence is low: the best one is kept. In turn:
trust the commonest gap, trust the shortest gap far around (holes)."""
SEED_RADIUS = 12.0
"""Voxels around the seed whose ridges fix the field's phase."""


class Stopwatch:
    """Seconds per named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to `stage`."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True)
class Solution:
    """The solved field and what the numbering needs.

    Attributes:
        field: (z, y, x) float32; rises by 1 per sheet, ridges at half-integers.
        axis: (bz, by, bx, 3) unit normals with one sign, blocks of 4 voxels.
        density: (bz, by, bx) windings per voxel that the targets used.
        coherence: 1: all ridges in phase with the field, 0: none.
        residual: relative residual of the first solve.
        iterations: conjugate-gradient iterations of the first solve.
        ridge_voxels: voxels whose centre lies within RIDGE_OFFSET of a ridge.
        seconds: wall-clock seconds per stage.
        spiral: how the sheets run around an umbilicus inside of the chunk, None without one.
    """

    field: FloatVolume
    axis: Blocks
    density: Blocks
    coherence: float
    residual: float
    iterations: int
    ridge_voxels: float
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    spiral: Spiral | None = None


def _away_from(umbilicus_yx: tuple[float, float], blocks: tuple[int, ...]) -> Blocks:
    """Return unit vectors (bz, by, bx, 3) in the y-x plane, away from the umbilicus."""
    y, x = (
        (np.arange(n, dtype=np.float32) + 0.5) * BLOCK - 0.5 - c
        for n, c in zip(blocks[1:3], umbilicus_yx, strict=True)
    )
    length = np.maximum(np.hypot(y[:, None], x[None, :]), 1e-3)
    out = np.zeros((*blocks[:3], 3), np.float32)
    out[..., 1] = y[:, None] / length
    out[..., 2] = x[None, :] / length
    return out


def _block_mean(volume: FloatVolume) -> Blocks:
    """Return means over blocks of 4 voxels; the last blocks repeat the rim."""
    blocks = orientation.block_shape(volume.shape)
    pad = [(0, BLOCK * b - n) for b, n in zip(blocks, volume.shape, strict=True)]
    padded = np.pad(volume, pad, mode="edge") if any(p[1] for p in pad) else volume
    split = padded.reshape(blocks[0], BLOCK, blocks[1], BLOCK, blocks[2], BLOCK)
    out: npt.NDArray[np.float32] = split.mean((1, 3, 5), dtype=np.float32)
    return out


def oriented_normals(
    probability: FloatVolume, normals: FloatVolume | None,
    umbilicus_yx: tuple[float, float] | None, settings: FieldSettings, threads: int,
) -> Blocks:  # fmt: skip
    """Return unit normals of the blocks, signs agreeing, outward if a prior is known."""
    tensor = orientation.block_tensor(
        probability, normals, normal_weight=settings.normal_weight, threads=threads
    )
    axis, planarity = orientation.orientation(
        tensor, sigma_blocks=settings.orientation_sigma / BLOCK, threads=threads
    )
    prior: Blocks | None = None
    if umbilicus_yx is not None:
        prior = _away_from(umbilicus_yx, axis.shape)
    elif normals is not None:
        means = [_block_mean(probability * normals[i]) for i in range(3)]
        prior = np.stack(means, -1)
    return sign.consistent_signs(axis, planarity, prior=prior)


def solve_field(
    probability: FloatVolume, normals: FloatVolume | None = None, *,
    density: FloatVolume | None = None, umbilicus_yx: tuple[float, float] | None = None,
    settings: FieldSettings | None = None, threads: int = 1, backend: Backend | None = None,
) -> Solution:  # fmt: skip
    """Return the winding field of a checked probability; see `winding_field` for the arguments.

    `backend` runs the heavy stages; None: compiled loops on `threads` threads.
    """
    settings, backend = settings or FieldSettings(), backend or CompiledBackend(threads)
    watch = Stopwatch()
    axis = oriented_normals(probability, normals, umbilicus_yx, settings, threads)
    watch.lap("orientation")
    if settings.sheet_sigma > 0:
        probability = backend.smooth(probability, axis, sigma=settings.sheet_sigma)
    watch.lap("smooth")
    mass, offset = backend.slab_profile(probability, axis, dip=settings.valley)
    counts, _ = slabs.sheet_counts(
        probability, mass, offset, most=settings.most_sheets, threads=threads
    )
    watch.lap("slabs")
    scene = _Scene(
        probability, axis, mass, offset, counts, density, settings, threads, backend,
        umbilicus_yx if is_inside(umbilicus_yx, probability.shape) else None,
    )  # fmt: skip
    watch.lap("density")
    best = _best_attempt(scene, settings, watch)
    settled = _settled(scene, best, settings)
    watch.lap("lock")
    solution = backend.upsample(settled, probability.shape)
    spiral = None
    if scene.umbilicus_yx is not None and best.sense != 0:
        spiral = Spiral(scene.umbilicus_yx, best.sense)
        _, ny, nx = probability.shape
        solution += np.float32(best.sense) * plane_turns((ny, nx), scene.umbilicus_yx, 1)
    watch.lap("upsample")
    return Solution(
        solution, axis, best.density, best.coherence, best.residual, best.iterations,
        float(scene.ridges.share.sum()) * targets.CELL**3, watch.seconds, spiral,
    )  # fmt: skip


class _Scene:
    """What all attempts share: jumps, gaps, ridges and solver of one probability."""

    def __init__(
        self, probability: FloatVolume, axis: Blocks, mass: FloatVolume, offset: FloatVolume,
        counts: ByteVolume, density: FloatVolume | None, settings: FieldSettings, threads: int,
        backend: Backend, umbilicus_yx: tuple[float, float] | None,
    ) -> None:  # fmt: skip
        self.axis, self.threads = axis, threads
        self.density = None if density is None else _block_mean(density)
        self.gaps = np.zeros((0, 10), np.float32)
        if density is None:
            self.gaps = density_stage.find_gaps(
                probability, offset, counts, axis, dip=settings.valley, threads=threads
            )
        self.jumps = targets.jump_density(probability, mass, counts, threads=threads)
        self.normals = targets.cell_normals(axis, probability.shape, threads=threads)
        cells = targets.cell_shape(probability.shape)
        self.solver = backend.poisson(cells, normals=self.normals, stiffness=settings.stiffness)
        self.umbilicus_yx = umbilicus_yx
        seed = seed_point(probability.shape, umbilicus_yx)
        self.ridges = lock.collect_ridges(
            probability, offset, counts, axis, cells, seed, threads=threads
        )

    def turned_ridges(self, sense: int) -> lock.Ridges:
        """Return the ridges with the levels of what is left without the turn (sense 0: none)."""
        if self.umbilicus_yx is None or sense == 0:
            return self.ridges
        y, x = ((self.ridges.point[:, i] + 0.5) * targets.CELL - 0.5 for i in (1, 2))
        phase = self.ridges.phase - np.float32(sense) * turns(y, x, self.umbilicus_yx)
        return dataclasses.replace(self.ridges, phase=phase)

    def without_turn(self, rhs: FloatVolume, sense: int) -> FloatVolume:
        """Return the right-hand side without the turn (sense 0: unchanged)."""
        if self.umbilicus_yx is None or sense == 0:
            return rhs
        _, cy, cx = rhs.shape
        plane = plane_turns((cy, cx), self.umbilicus_yx, targets.CELL)
        left, right = (
            self.solver.apply(np.ascontiguousarray(np.broadcast_to(p, rhs.shape)))
            for p in (other_branch(plane), plane)
        )  # each is right where its cut is not
        side = (np.arange(cx) + 0.5) * targets.CELL - 0.5 > self.umbilicus_yx[1]
        return np.asarray(rhs - sense * np.where(side, right, left), np.float32)


@dataclass(frozen=True)
class _Attempt:
    """One solve: the locked field on cells and how well the ridges agree with it."""

    w: FloatVolume
    rhs: FloatVolume
    coherence: float
    residual: float
    iterations: int
    density: Blocks
    sense: int
    ridges: lock.Ridges


def _best_attempt(scene: _Scene, settings: FieldSettings, watch: Stopwatch) -> _Attempt:
    """Return the most coherent of the first attempt and, while that is poor, of the retries."""
    best = _attempt(scene, settings, watch, sense=0)

    def better(changed: FieldSettings, sense: int) -> _Attempt:
        other = _attempt(scene, changed, watch, sense=sense)
        return max(best, other, key=lambda attempt: attempt.coherence)

    for sense in () if scene.umbilicus_yx is None else (1, -1):
        best = better(settings, sense)
    for change in RETRIES:
        if best.coherence >= settings.retry_coherence or len(scene.ridges) == 0:
            break
        best = better(dataclasses.replace(settings, **change), best.sense)
    return best


def _attempt(scene: _Scene, settings: FieldSettings, watch: Stopwatch, *, sense: int) -> _Attempt:
    """Return the locked field of one choice of settings."""
    rho = scene.density
    if rho is None:
        rho = density_stage.local_density(
            scene.gaps, scene.axis, sigma_along=settings.density_sigma_along,
            sigma_across=settings.density_sigma_across, peak_share=settings.peak_share,
            prior_share=settings.prior_share, threads=scene.threads,
        )  # fmt: skip
    watch.lap("density")
    supplied = targets.supplied_density(
        scene.jumps, rho.shape, sigma_voxels=settings.equalise_sigma
    )
    rhs = targets.right_hand_side(scene.jumps, scene.normals, supplied, rho, threads=scene.threads)
    rhs = scene.without_turn(rhs, sense)
    ridges = scene.turned_ridges(sense)
    watch.lap("targets")
    w, residual, iterations = scene.solver.solve(
        rhs, tolerance=settings.tolerance, iterations=settings.iterations
    )
    watch.lap("solve")
    w = _locked(scene, w, rhs, ridges, settings)
    watch.lap("lock")
    agreed = lock.coherence(w, ridges)
    return _Attempt(w, rhs, agreed, residual, iterations, rho, sense, ridges)


def _locked(
    scene: _Scene, w: FloatVolume, rhs: FloatVolume, ridges: lock.Ridges, settings: FieldSettings
) -> FloatVolume:
    """Return the field locked to the ridges from the seed outward."""
    return scene.solver.lock(
        lock.seed_phase(w, ridges, radius=SEED_RADIUS), rhs, ridges,
        radii=lock.lock_radii(ridges, settings.lock_step), weight=settings.lock_weight,
        window=settings.lock_window, iterations=settings.lock_iterations,
        tolerance=settings.tolerance,
    )  # fmt: skip


def _settled(scene: _Scene, best: _Attempt, settings: FieldSettings) -> FloatVolume:
    """Return the field after one stiff stage that puts its levels on the ridges."""
    if settings.settle_weight <= 0 or len(scene.ridges) == 0:
        return best.w
    return scene.solver.lock(
        best.w, best.rhs, best.ridges, radii=[np.inf, np.inf],
        weight=settings.settle_weight, window=0.5, iterations=4, tolerance=settings.tolerance,
    )  # fmt: skip
