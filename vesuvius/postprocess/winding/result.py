"""From probability to sheets: `winding_field`, the function that everything else calls."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding import mask as mask_stage
from vesuvius.postprocess.winding.backend import Backend, CompiledBackend
from vesuvius.postprocess.winding.checks import (
    checked_density,
    checked_normals,
    checked_probability,
)
from vesuvius.postprocess.winding.device import make_backend
from vesuvius.postprocess.winding.field import Solution, Stopwatch, solve_field
from vesuvius.postprocess.winding.numbering import NO_LEVEL
from vesuvius.postprocess.winding.parallel import resolve_threads
from vesuvius.postprocess.winding.settings import FieldSettings, MaskSettings
from vesuvius.postprocess.winding.slabs import RIDGE_OFFSET
from vesuvius.postprocess.winding.umbilicus import (
    Spiral,
    checked_umbilicus,
    other_branch,
    plane_turns,
)
from vesuvius.types import ByteVolume, FloatVolume, LabelVolume, Report


@dataclass(frozen=True, slots=True)
class WindingResult:
    """The winding field of one chunk, its sheets and its mask.

    Attributes:
        field: (z, y, x) float32; rises by 1 from sheet to sheet, ridges at half-integers.
        labels: (z, y, x) int32; 0 = no surface, sheet numbers from 1 along the field's direction.
        mask: (z, y, x) uint8 in {0, 1}; equals labels > 0 unless `fallback`.
        coherence: agreement of ridges and field; 0.8 is good, below 0.6 doubtful.
        residual: relative residual of the first solve; above `tolerance` it did not converge.
        iterations: conjugate-gradient iterations of the first solve.
        seconds: wall-clock seconds per stage.
        fallback: the field was not trusted (or there was no surface): the mask is the cleaned
            threshold mask and the labels are its components.
        report: the figures above and warnings, flat.
    """

    field: FloatVolume
    labels: LabelVolume
    mask: ByteVolume
    coherence: float
    residual: float
    iterations: int
    seconds: dict[str, float]
    fallback: bool = False
    report: Report = dataclasses.field(default_factory=dict)


def winding_field(
    probability: npt.NDArray[np.floating], normals: npt.NDArray[np.floating] | None = None, *,
    density: npt.NDArray[np.floating] | None = None,
    umbilicus_yx: tuple[float, float] | None = None, device: str = "auto",
    threads: int | None = None, settings: FieldSettings | None = None,
    mask_settings: MaskSettings | None = None,
) -> WindingResult:  # fmt: skip
    """Return the winding field, sheet numbers and mask of one chunk.

    Args:
        probability: (z, y, x) surface probability in [0, 1].
        normals: (3, z, y, x) normals (nz, ny, nx), any length, sign free; zero where unknown.
        density: (z, y, x) windings per voxel if a network predicts them; measured if None.
        umbilicus_yx: scroll axis in the chunk's voxel coordinates; fixes which way numbers rise
            (outward). Inside of the chunk, numbers also gain one a turn, and sheets change theirs
            on the half-plane from the axis toward lower x. None: along the network's normals, or
            increasing index without them.
        device: "cpu", "cuda" (CuPy), or "auto": CUDA where CuPy finds a device.
        threads: CPU threads; None: all cores of this process.
        settings: constants of the solver.
        mask_settings: constants of the mask.

    Raises:
        SolverError: the probability is not a volume.
        VolumeFormatError: NaN, values out of range, or a wrong dtype.
        ShapeMismatchError: normals or density of another shape.
        DeviceError: device="cuda" without CuPy or a CUDA device.
        ConfigError: threads below 1, or an umbilicus that is not two finite numbers.

    Source: own; see docs/winding.md.
    """
    settings, mask_settings = settings or FieldSettings(), mask_settings or MaskSettings()
    volume = checked_probability(probability)
    vectors = checked_normals(normals, volume.shape)
    windings = checked_density(density, volume.shape)
    umbilicus = checked_umbilicus(umbilicus_yx)
    workers = resolve_threads(threads)
    backend = make_backend(device, workers)
    solution = solve_field(
        volume, vectors, density=windings, umbilicus_yx=umbilicus, settings=settings,
        threads=workers, backend=backend,
    )  # fmt: skip
    watch = Stopwatch()
    fallback = solution.coherence < mask_settings.fallback_coherence
    if fallback:
        labels = threshold_labels(volume, mask_settings)
    else:
        labels = sheet_labels(volume, solution, mask_settings, threads=workers, backend=backend)
    watch.lap("mask")
    seconds = solution.seconds | watch.seconds
    return WindingResult(
        solution.field, labels, mask_stage.mask_of(labels), solution.coherence,
        solution.residual, solution.iterations, seconds, fallback,
        _report(solution.coherence, solution.residual, solution.iterations, seconds,
                labels, fallback, settings, mask_settings),
    )  # fmt: skip


def data_thickness(probability: FloatVolume, solution: Solution, threshold: float) -> float:
    """Return the mean thickness of the data in voxels: its volume over the area of its ridges."""
    if solution.ridge_voxels == 0:
        return 1.0
    volume = int(np.count_nonzero(probability > threshold))
    return 2 * RIDGE_OFFSET * volume / solution.ridge_voxels


def sheet_labels(
    probability: FloatVolume, solution: Solution, settings: MaskSettings, *, threads: int,
    backend: Backend | None = None,
) -> LabelVolume:  # fmt: skip
    """Return sheet numbers from 1 on the mask that `settings` describe, 0 elsewhere."""
    backend = backend or CompiledBackend(threads)
    thickness = settings.thickness
    if thickness is None:
        thickness = data_thickness(probability, solution, settings.threshold)
    if solution.spiral is None:
        level = _cut_band(probability, solution, thickness, settings, threads, backend)
    else:
        level = _cut_band_around(
            solution.spiral, probability, solution, thickness, settings, threads, backend
        )
    level = mask_stage.drop_dust(level, settings.dust)
    return mask_stage.number_sheets(level)


def _cut_band(
    probability: FloatVolume, solution: Solution, thickness: float, settings: MaskSettings,
    threads: int, backend: Backend,
) -> LabelVolume:  # fmt: skip
    """Return the levels of the supported bands with the cuts between them."""
    level, depth = backend.band(
        probability, solution.field, solution.axis, thickness=thickness, settings=settings
    )
    return mask_stage.cut_levels(level, depth, threads=threads) if settings.cut else level


def _cut_band_around(
    spiral: Spiral, probability: FloatVolume, solution: Solution, thickness: float,
    settings: MaskSettings, threads: int, backend: Backend,
) -> LabelVolume:  # fmt: skip
    """Return the same where the field has a branch cut: each half from the branch whose cut is not.

    On the cut a sheet's number changes, but nothing is torn there.
    """
    umbilicus, sense = spiral.umbilicus_yx, np.int32(spiral.sense)
    _, ny, nx = solution.field.shape
    plane = plane_turns((ny, nx), umbilicus, 1)
    behind = (other_branch(plane) - plane).astype(np.int32) * sense
    other = dataclasses.replace(solution, field=solution.field + behind.astype(np.float32))
    right = _cut_band(probability, solution, thickness, settings, threads, backend)
    left = _cut_band(probability, other, thickness, settings, threads, backend)
    left = np.where(left == NO_LEVEL, left, left - behind)
    out: LabelVolume = np.where(np.arange(nx) > umbilicus[1], right, left)
    return out


def threshold_labels(probability: FloatVolume, settings: MaskSettings) -> LabelVolume:
    """Return the 26-connected components above the threshold without dust: the fallback."""
    import cc3d  # slow to import

    mask = probability > settings.threshold
    level = np.where(mask, np.int32(0), np.int32(NO_LEVEL))
    kept = mask_stage.drop_dust(level, settings.dust) != NO_LEVEL
    out: LabelVolume = cc3d.connected_components(kept, connectivity=26).astype(np.int32)
    return out


def _report(
    coherence: float, residual: float, iterations: int, seconds: dict[str, float],
    labels: LabelVolume, fallback: bool, settings: FieldSettings, mask_settings: MaskSettings,  # noqa: FBT001
) -> Report:  # fmt: skip
    """Return the figures of a run and its warnings, flat."""
    report: Report = {
        "coherence": coherence,
        "residual": residual,
        "iterations": iterations,
        "sheets": int(np.count_nonzero(np.bincount(labels.ravel())[1:])),
        "fallback": fallback,
    }
    report |= {f"seconds_{stage}": value for stage, value in seconds.items()}
    warnings = []
    if fallback:
        warnings.append(
            f"coherence {coherence:.2f} is below fallback_coherence "
            f"{mask_settings.fallback_coherence:g}: the cleaned threshold mask is returned"
        )
    if residual > settings.tolerance:
        warnings.append(
            f"the first solve stopped at residual {residual:.1e} after {iterations} iterations, "
            f"tolerance {settings.tolerance:g}"
        )
    if warnings:
        report["warning"] = "; ".join(warnings)
    return report
