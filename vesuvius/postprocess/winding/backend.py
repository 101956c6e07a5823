"""Where the heavy stages run: compiled loops on the CPU, or whole arrays on a GPU.

Both are called with NumPy arrays and return them. Orientation, signs, gaps and the histograms of
the density stay on the CPU: they are a fifth of the time, and full of branches.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from vesuvius.postprocess.winding import arrays, lock, mask, numbering, slabs, smooth
from vesuvius.postprocess.winding.arrays_poisson import ArrayPoisson
from vesuvius.postprocess.winding.arrays_poisson import grow_lock as grow_lock_arrays
from vesuvius.postprocess.winding.lock import Ridges
from vesuvius.postprocess.winding.numbering import NO_LEVEL
from vesuvius.postprocess.winding.orientation import Blocks
from vesuvius.postprocess.winding.poisson import PoissonSolver
from vesuvius.postprocess.winding.settings import MaskSettings
from vesuvius.postprocess.winding.targets import CELL
from vesuvius.types import FloatVolume, LabelVolume


class Poisson(Protocol):
    """The solver of one cell grid, and the phase lock that uses it."""

    def solve(
        self, rhs: FloatVolume, *, tolerance: float, iterations: int
    ) -> tuple[FloatVolume, float, int]:
        """Return the unscreened solution from zero, its relative residual, the iterations."""

    def apply(self, w: FloatVolume) -> FloatVolume:
        """Return the unscreened equations' left-hand side for w."""

    def lock(
        self, w: FloatVolume, rhs: FloatVolume, ridges: Ridges, *, radii: Sequence[float],
        weight: float, window: float, iterations: int, tolerance: float,
    ) -> FloatVolume:  # fmt: skip
        """Return the field after `lock.grow_lock`."""


class Backend(Protocol):
    """The heavy stages; each is described where its compiled version lives."""

    def smooth(self, probability: FloatVolume, axis: Blocks, *, sigma: float) -> FloatVolume:
        """See `smooth.smooth_along_sheets`."""

    def slab_profile(
        self, probability: FloatVolume, axis: Blocks, *, dip: float
    ) -> tuple[FloatVolume, FloatVolume]:
        """See `slabs.slab_profile`."""

    def poisson(
        self, cells: tuple[int, int, int], *, normals: FloatVolume, stiffness: float
    ) -> Poisson:
        """See `poisson.PoissonSolver`."""

    def upsample(self, w: FloatVolume, shape_zyx: tuple[int, ...]) -> FloatVolume:
        """See `numbering.upsample`."""

    def band(
        self, probability: FloatVolume, field: FloatVolume, axis: Blocks, *, thickness: float,
        settings: MaskSettings,
    ) -> tuple[LabelVolume, FloatVolume]:  # fmt: skip
        """See `mask.band_levels`."""


class _CompiledPoisson:
    def __init__(self, solver: PoissonSolver) -> None:
        self._solver = solver

    def solve(
        self, rhs: FloatVolume, *, tolerance: float, iterations: int
    ) -> tuple[FloatVolume, float, int]:
        start = np.zeros_like(rhs)
        self._solver.set_screen(start)
        return self._solver.solve(rhs, start, tolerance=tolerance, iterations=iterations)

    def apply(self, w: FloatVolume) -> FloatVolume:
        self._solver.set_screen(np.zeros_like(w))
        return self._solver.apply(w)

    def lock(
        self, w: FloatVolume, rhs: FloatVolume, ridges: Ridges, *, radii: Sequence[float],
        weight: float, window: float, iterations: int, tolerance: float,
    ) -> FloatVolume:  # fmt: skip
        return lock.grow_lock(
            self._solver, w, rhs, ridges, radii=radii, weight=weight, window=window,
            iterations=iterations, tolerance=tolerance,
        )  # fmt: skip


class CompiledBackend:
    """The reference: compiled loops over slabs of the volume, on `threads` threads."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def smooth(self, probability: FloatVolume, axis: Blocks, *, sigma: float) -> FloatVolume:
        """See `Backend.smooth`."""
        return smooth.smooth_along_sheets(probability, axis, sigma=sigma, threads=self._threads)

    def slab_profile(
        self, probability: FloatVolume, axis: Blocks, *, dip: float
    ) -> tuple[FloatVolume, FloatVolume]:
        """See `Backend.slab_profile`."""
        return slabs.slab_profile(probability, axis, dip=dip, threads=self._threads)

    def poisson(
        self, cells: tuple[int, int, int], *, normals: FloatVolume, stiffness: float
    ) -> Poisson:
        """See `Backend.poisson`."""
        solver = PoissonSolver(cells, normals=normals, stiffness=stiffness, threads=self._threads)
        return _CompiledPoisson(solver)

    def upsample(self, w: FloatVolume, shape_zyx: tuple[int, ...]) -> FloatVolume:
        """See `Backend.upsample`."""
        return numbering.upsample(w, shape_zyx, threads=self._threads)

    def band(
        self, probability: FloatVolume, field: FloatVolume, axis: Blocks, *, thickness: float,
        settings: MaskSettings,
    ) -> tuple[LabelVolume, FloatVolume]:  # fmt: skip
        """See `Backend.band`."""
        return mask.band_levels(
            probability, field, axis, thickness=thickness, threshold=settings.support_threshold,
            support=settings.support, support_radius=settings.support_radius,
            hole_probability=settings.hole_probability, hole_support=settings.hole_support,
            threads=self._threads,
        )  # fmt: skip


class _ArrayPoisson:
    def __init__(self, solver: ArrayPoisson, host: Any) -> None:
        self._solver, self._host = solver, host

    def solve(
        self, rhs: FloatVolume, *, tolerance: float, iterations: int
    ) -> tuple[FloatVolume, float, int]:
        right = self._solver.xp.asarray(rhs)
        start = self._solver.xp.zeros_like(right)
        self._solver.set_screen(start)
        w, residual, used = self._solver.solve(
            right, start, tolerance=tolerance, iterations=iterations
        )
        return self._host(w), residual, used

    def apply(self, w: FloatVolume) -> FloatVolume:
        there = self._solver.xp.asarray(w)
        self._solver.set_screen(self._solver.xp.zeros_like(there))
        out: FloatVolume = self._host(self._solver.apply(there))
        return out

    def lock(
        self, w: FloatVolume, rhs: FloatVolume, ridges: Ridges, *, radii: Sequence[float],
        weight: float, window: float, iterations: int, tolerance: float,
    ) -> FloatVolume:  # fmt: skip
        there = self._solver.xp.asarray
        locked: FloatVolume = self._host(
            grow_lock_arrays(
                self._solver, there(w), there(rhs), ridges, radii=radii, weight=weight,
                window=window, iterations=iterations, tolerance=tolerance,
            )
        )  # fmt: skip
        return locked


class ArrayBackend:
    """Whole-array versions of the stages.

    Args:
        xp: cupy; numpy runs the same lines on the CPU, which is how they are tested.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._host = xp.asnumpy if hasattr(xp, "asnumpy") else np.asarray

    def smooth(self, probability: FloatVolume, axis: Blocks, *, sigma: float) -> FloatVolume:
        """See `Backend.smooth`."""
        xp = self._xp
        p, n = xp.asarray(probability), xp.asarray(axis)
        out: FloatVolume = self._host(arrays.smooth_along_sheets(xp, p, n, sigma=sigma))
        return out

    def slab_profile(
        self, probability: FloatVolume, axis: Blocks, *, dip: float
    ) -> tuple[FloatVolume, FloatVolume]:
        """See `Backend.slab_profile`."""
        xp = self._xp
        mass, offset = arrays.slab_profile(xp, xp.asarray(probability), xp.asarray(axis), dip=dip)
        return self._host(mass), self._host(offset)

    def poisson(
        self, cells: tuple[int, int, int], *, normals: FloatVolume, stiffness: float
    ) -> Poisson:
        """See `Backend.poisson`."""
        there = self._xp.asarray(normals)
        solver = ArrayPoisson(self._xp, cells, normals=there, stiffness=stiffness)
        return _ArrayPoisson(solver, self._host)

    def upsample(self, w: FloatVolume, shape_zyx: tuple[int, ...]) -> FloatVolume:
        """See `Backend.upsample`."""
        xp = self._xp
        out: FloatVolume = self._host(arrays.upsample(xp, xp.asarray(w), shape_zyx, CELL))
        return out

    def band(
        self, probability: FloatVolume, field: FloatVolume, axis: Blocks, *, thickness: float,
        settings: MaskSettings,
    ) -> tuple[LabelVolume, FloatVolume]:  # fmt: skip
        """See `Backend.band`."""
        xp = self._xp
        level, depth = arrays.band_levels(
            xp, xp.asarray(probability), xp.asarray(field), xp.asarray(axis), thickness=thickness,
            threshold=settings.support_threshold, support=settings.support,
            hole_probability=settings.hole_probability, hole_support=settings.hole_support,
            disc=mask.disc(settings.support_radius).tolist(), nothing=int(NO_LEVEL),
        )  # fmt: skip
        return self._host(level), self._host(depth)
