"""The original project's winding solver: a harmonic field on the voxel graph.

The field is a random walker's probability of meeting the one seed near the centre before the rim,
so it is near 0 almost everywhere and the mask is mostly the porosity union. It is kept for
comparison, with the same values as the original and built fast; `winding` is the method to use.
"""

import logging
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vesuvius.errors import SolverError
from vesuvius.postprocess.components import close_gaps
from vesuvius.postprocess.harmonic_graph import (
    CENTRE,
    RIM,
    classify,
    count_components,
    reduce_system,
)
from vesuvius.postprocess.harmonic_solve import Device, solve_system
from vesuvius.postprocess.inputs import check_normals, check_probability, check_share
from vesuvius.types import ByteVolume, FloatVolume, PostprocessResult, Report

_LOG = logging.getLogger(__name__)

Porosity = Literal["union", "intersection", "none"]


@dataclass(frozen=True, slots=True)
class HarmonicSolution:
    """Field and figures.

    Attributes:
        field: (z, y, x) float32 in [0, 1], 0 outside the graph.
        fallback: why there is no field ("no voxel above the threshold", ...), "" if there is one.
        report: nodes, components, iterations, residual, seconds.
    """

    field: FloatVolume
    fallback: str
    report: Report


def harmonic_field(
    probability: FloatVolume,
    normals: FloatVolume,
    *,
    threshold: float = 0.5,
    rim: int = 2,
    tol: float = 1e-6,
    maxiter: int = 5000,
) -> FloatVolume:
    """Return the (z, y, x) float32 harmonic field in [0, 1].

    Nodes are voxels with p > threshold, edges join 6-neighbours with weight max(n_i . n_j, 0). The
    field is 0 on nodes fewer than `rim` voxels from a face, 1 on the node nearest the centre, and
    harmonic elsewhere; 0 on components without a seed and outside the graph.

    Args:
        probability: (z, y, x) in [0, 1].
        normals: (3, z, y, x), nz, ny, nx; int8 with 127 = 1 is accepted.
        threshold: a voxel above it is a node.
        rim: width of the seeds of value 0, in voxels.
        tol: relative residual of the linear system.
        maxiter: most CG steps.

    Raises:
        SolverError: NaN, values out of range, shapes that disagree, normals that are all zero.

    Source: the original Chimera project; Grady, Random walks for image segmentation, 2006.
    """
    return solve_harmonic(
        probability, normals, threshold=threshold, rim=rim, tol=tol, maxiter=maxiter
    ).field


def harmonic_mask(
    probability: FloatVolume,
    normals: FloatVolume,
    *,
    threshold: float = 0.5,
    rim: int = 2,
    tol: float = 1e-6,
    maxiter: int = 5000,
    winding_threshold: float = 0.5,
    porosity_threshold: float = 0.4,
    porosity: Porosity = "union",
) -> ByteVolume:
    """Return the (z, y, x) uint8 mask in {0, 1} of the harmonic field with porosity injection.

    Args:
        probability: (z, y, x) in [0, 1].
        normals: (3, z, y, x).
        threshold: a voxel above it is a node; also the mask where there is no seed.
        rim: width of the seeds of value 0, in voxels.
        tol: relative residual of the linear system.
        maxiter: most CG steps.
        winding_threshold: the field's mask is u >= this.
        porosity_threshold: p > this is joined to the mask.
        porosity: "union" (the original), "intersection", or "none".

    Raises:
        SolverError: as `harmonic_field`.
    """
    return HarmonicPostprocess(
        threshold=threshold,
        rim=rim,
        tol=tol,
        maxiter=maxiter,
        winding_threshold=winding_threshold,
        porosity_threshold=porosity_threshold,
        porosity=porosity,
    )(probability, normals).mask


class HarmonicPostprocess:
    """The original's post-processing: harmonic field, threshold, porosity injection.

    Args:
        threshold: a voxel above it is a node of the graph.
        rim: width of the seeds of value 0, in voxels.
        tol: relative residual of the linear system.
        maxiter: most CG steps.
        winding_threshold: the field's mask is u >= this.
        porosity_threshold: p > this is joined to the mask.
        porosity: "union" (the original), "intersection" (only where both hold), or "none".
        closing: steps of a morphological closing of the nodes before the graph, 0 for none.
        axial_normals: weight |n_i . n_j|, for networks whose normals have no sign; the original
            takes max(n_i . n_j, 0).
        device: "auto", "cpu" or "cuda" (CuPy; the CPU where it is missing, said in the log).

    Raises:
        SolverError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        rim: int = 2,
        tol: float = 1e-6,
        maxiter: int = 5000,
        winding_threshold: float = 0.5,
        porosity_threshold: float = 0.4,
        porosity: Porosity = "union",
        closing: int = 0,
        axial_normals: bool = False,
        device: Device = "auto",
    ) -> None:
        if porosity not in ("union", "intersection", "none"):
            msg = f"porosity must be 'union', 'intersection' or 'none', got {porosity!r}"
            raise SolverError(msg)
        _check_arguments(rim=rim, tol=tol, maxiter=maxiter, closing=closing)
        self.threshold = check_share("threshold", threshold)
        self.winding_threshold = check_share("winding_threshold", winding_threshold)
        self.porosity_threshold = check_share("porosity_threshold", porosity_threshold)
        self.rim, self.tol, self.maxiter, self.closing = rim, tol, maxiter, closing
        self.porosity, self.axial_normals, self.device = porosity, axial_normals, device

    def __call__(
        self, probability: FloatVolume, normals: FloatVolume | None = None
    ) -> PostprocessResult:
        """Return the mask of (z, y, x) probability and (3, z, y, x) normals.

        Where the graph has no seed, the mask is the probability threshold; where no voxel exceeds
        the threshold, it is empty. The report says so under "fallback".

        Raises:
            SolverError: missing normals, NaN, values out of range, shapes that disagree.
        """
        solution = solve_harmonic(
            probability,
            normals,
            threshold=self.threshold,
            rim=self.rim,
            tol=self.tol,
            maxiter=self.maxiter,
            closing=self.closing,
            axial_normals=self.axial_normals,
            device=self.device,
        )
        volume = np.asarray(probability)
        if solution.fallback:
            mask = volume > self.threshold
        else:
            mask = solution.field >= self.winding_threshold
            solution.report["field_share"] = float(mask.mean())
            if self.porosity == "union":
                mask = mask | (volume > self.porosity_threshold)
            elif self.porosity == "intersection":
                mask = mask & (volume > self.porosity_threshold)
        solution.report["mask_share"] = float(mask.mean())
        return PostprocessResult(mask=mask.astype(np.uint8), report=solution.report)


def solve_harmonic(
    probability: FloatVolume,
    normals: FloatVolume | None,
    *,
    threshold: float = 0.5,
    rim: int = 2,
    tol: float = 1e-6,
    maxiter: int = 5000,
    closing: int = 0,
    axial_normals: bool = False,
    device: Device = "auto",
) -> HarmonicSolution:
    """Return the field of `harmonic_field` with its report; arguments as `HarmonicPostprocess`.

    Raises:
        SolverError: NaN, values out of range, shapes that disagree, normals that are all zero.
    """
    started = time.perf_counter()
    _check_arguments(rim=rim, tol=tol, maxiter=maxiter, closing=closing)
    volume = check_probability(probability)
    vectors = check_normals(normals, volume.shape)
    mask = close_gaps(volume > check_share("threshold", threshold), iterations=closing)
    report: Report = {"method": "harmonic", "nodes": int(mask.sum())}
    field = np.zeros(volume.shape, np.float32)
    if not mask.any():
        return _finish(field, report, started, fallback="no voxel above the threshold")
    _check_some_normals(vectors, mask)
    kind, centre = classify(mask, rim=rim)
    if centre < 0 or not (kind == RIM).any():
        seed = "rim" if centre >= 0 else "centre"
        return _finish(field, report, started, fallback=f"no {seed} seed")
    parts = count_components(kind, vectors, axial=axial_normals)
    system = reduce_system(kind, vectors, centre, axial=axial_normals)
    report.update(
        components=parts.total,
        components_without_seed=parts.without_seed,
        nodes_without_seed=parts.nodes_without_seed,
        unknowns=len(system.voxels),
        seconds_build=time.perf_counter() - started,
    )
    values = field.reshape(-1)
    values[kind.reshape(-1) == CENTRE] = 1
    if not system.touches_rim:  # the maximum principle: one seed value only
        values[system.voxels] = 1
        report.update(iterations=0, residual=0.0, converged=True, solver="constant")
    elif len(system.voxels):
        solution = solve_system(system.matrix, system.rhs, tol=tol, maxiter=maxiter, device=device)
        values[system.voxels] = np.clip(solution.values, 0, 1)
        report.update(
            iterations=solution.iterations,
            residual=solution.residual,
            converged=solution.converged,
            solver=solution.method,
            seconds_setup=solution.seconds_setup,
        )
    return _finish(field, report, started, fallback="")


def _finish(
    field: FloatVolume, report: Report, started: float, *, fallback: str
) -> HarmonicSolution:
    report["seconds"] = time.perf_counter() - started
    report["fallback"] = fallback
    if fallback:
        _LOG.warning("harmonic solver: %s, the mask is the probability threshold", fallback)
    elif report["components_without_seed"]:
        _LOG.info(
            "harmonic solver: %s of %s components hold no seed (%s nodes stay 0)",
            report["components_without_seed"],
            report["components"],
            report["nodes_without_seed"],
        )
    return HarmonicSolution(field, fallback, report)


def _check_arguments(*, rim: int, tol: float, maxiter: int, closing: int) -> None:
    if rim < 0 or closing < 0 or maxiter < 1 or not 0 < tol < 1:
        msg = (
            "expected rim >= 0, closing >= 0, maxiter >= 1 and 0 < tol < 1, got "
            f"rim={rim}, closing={closing}, maxiter={maxiter}, tol={tol}"
        )
        raise SolverError(msg)


def _check_some_normals(normals: FloatVolume, mask: npt.NDArray[np.bool_]) -> None:
    """Refuse normals that are zero on the whole graph: no voxel would be joined to another."""
    if not any((component[mask] != 0).any() for component in normals):
        msg = (
            f"normals are zero at all {int(mask.sum())} voxels above the threshold; the network's "
            "normals head is missing or untrained: use postprocess=threshold"
        )
        raise SolverError(msg)
