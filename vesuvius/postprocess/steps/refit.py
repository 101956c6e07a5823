"""Refit of each component to a smooth surface over its own plane; un-merges what does not fit.

A component that is one sheet has one height over its PCA plane. Where many cells hold two layers it
is several sheets grown together: it is tried again at higher thresholds, where they come apart
(2nd place of the competition). Sheets are painted anew at one thickness, each voxel to the nearest
surface, and where two touch a one-voxel cut is made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import RBFInterpolator

from vesuvius.errors import ConfigError
from vesuvius.postprocess.steps.flood import flood
from vesuvius.postprocess.steps.heightmap import (
    Grid,
    HeightMap,
    Surface,
    cut_contacts,
    footprint,
    height_map,
    paint_surface,
    smooth_surface,
)
from vesuvius.postprocess.steps.state import (
    ChainState,
    Mask,
    check_at_least,
    check_between,
    mask_of,
)
from vesuvius.types import FloatVolume, LabelVolume, Report

Voxels = npt.NDArray[np.int64]
"""(n, 3) z, y, x."""


@dataclass(frozen=True, slots=True)
class FitRules:
    """When a component counts as one sheet, and how it is painted. Lengths in voxels.

    Attributes:
        max_spread: a cell whose voxels span more along the normal holds two layers.
        max_layered: share of such cells up to which a component is one sheet.
        thresholds: tried one after the other on what does not fit.
        min_size_voxels: smaller components are kept as they are; smaller parts are no seed when
            one is taken apart.
        thickness: of the painted sheets.
        hole_radius: holes of the footprint up to about this radius are closed.
    """

    max_spread: float = 9.0
    max_layered: float = 0.05
    thresholds: tuple[float, ...] = (0.6, 0.7, 0.8)
    min_size_voxels: int = 1000
    thickness: float = 3.0
    hole_radius: float = 6.0

    def __post_init__(self) -> None:
        check_at_least("max_spread", self.max_spread, 1)
        check_between("max_layered", self.max_layered, 0, 1)
        check_at_least("min_size_voxels", self.min_size_voxels, 3)
        check_at_least("thickness", self.thickness, 1)
        check_at_least("hole_radius", self.hole_radius, 0)
        for threshold in self.thresholds:
            check_between("thresholds", threshold, 0, 1)
        if list(self.thresholds) != sorted(self.thresholds):
            raise ConfigError(f"thresholds must rise, got {list(self.thresholds)}")


def grouped_voxels(labels: npt.NDArray[np.integer]) -> Iterator[Voxels]:
    """Yield the (n, 3) voxels of every positive label, smallest number first."""
    flat = np.flatnonzero(labels)
    names = labels.ravel()[flat]
    order = np.argsort(names, kind="stable")
    cuts = np.flatnonzero(np.diff(names[order])) + 1
    for part in np.split(flat[order], cuts):
        if len(part):
            yield np.stack(np.unravel_index(part, labels.shape), 1)


def fitted_map(voxels: Voxels, probability: FloatVolume, rules: FitRules) -> HeightMap | None:
    """Return the height map of one sheet, or None if too many cells hold two layers."""
    weights = np.maximum(probability[tuple(voxels.T)], np.float32(1e-3))
    fitted = height_map(voxels, weights, int(np.ceil(rules.hole_radius)) + 2)
    layered = int(np.count_nonzero(fitted.spread > rules.max_spread))
    return fitted if layered <= rules.max_layered * np.count_nonzero(fitted.known) else None


def parts_above(
    voxels: Voxels, probability: FloatVolume, threshold: float, min_size_voxels: int
) -> list[tuple[Voxels, Voxels]]:
    """Return (whole, core) of each part of a component; cores are 26-connected above the threshold.

    Cores below `min_size_voxels` are left out; less than two cores give an empty list. All other
    voxels join a core by flooding from the likeliest down (watershed): that is the whole.
    """
    low = voxels.min(0)
    values = probability[tuple(voxels.T)]
    above = values > threshold
    box = np.zeros(voxels.max(0) - low + 1, np.bool_)
    box[tuple((voxels[above] - low).T)] = True
    pieces = cc3d.connected_components(box, connectivity=26)
    cores = np.where(above, pieces[tuple((voxels - low).T)], 0).astype(np.int64)
    sizes = np.bincount(cores)
    sizes[0] = 0
    large = sizes >= min_size_voxels
    if np.count_nonzero(large) < 2:
        return []
    cores[~large[cores]] = 0
    wholes = flood(voxels, values, cores)
    return [(voxels[wholes == k], voxels[cores == k]) for k in np.flatnonzero(large)]


def fitted_sheets(
    voxels: Voxels, probability: FloatVolume, rules: FitRules, thresholds: Sequence[float]
) -> tuple[list[HeightMap], list[Voxels]]:
    """Return the height maps of one component's sheets, and the parts that fit at no threshold.

    A part that does not fit with all voxels that belong to it may fit with its core alone.
    """
    fitted = fitted_map(voxels, probability, rules)
    if fitted is not None:
        return [fitted], []
    for place, threshold in enumerate(thresholds):
        parts = parts_above(voxels, probability, threshold, rules.min_size_voxels)
        if not parts:
            continue  # not apart yet (or gone): the next threshold
        maps: list[HeightMap] = []
        rest: list[Voxels] = []
        for whole, core in parts:
            more, left = fitted_sheets(whole, probability, rules, thresholds[place + 1 :])
            alone = fitted_map(core, probability, rules) if left else None
            maps += [alone] if alone is not None else more
            rest += [] if alone is not None else left
        return maps, rest
    return [], [voxels]


def refit(
    labels: npt.NDArray[np.integer],
    probability: FloatVolume,
    *,
    surface: Surface,
    rules: FitRules | None = None,
) -> tuple[LabelVolume, Report]:
    """Return sheet numbers from 1 of all refitted components, and counts for the report.

    Args:
        labels: (z, y, x) components or sheet numbers, 0 = none.
        probability: (z, y, x) in [0, 1].
        surface: turns known heights into the surface; `smooth_surface` or `rbf_surface`.
        rules: what counts as a fit.
    """
    rules = rules or FitRules()
    owner: LabelVolume = np.zeros(labels.shape, np.int32)
    gap = np.full(labels.shape, np.inf, np.float32)
    kept: list[Voxels] = []
    number = split = 0
    for voxels in grouped_voxels(labels):
        if len(voxels) < rules.min_size_voxels:
            kept.append(voxels)
            continue
        maps, rest = fitted_sheets(voxels, probability, rules, rules.thresholds)
        split += len(maps) + len(rest) > 1
        kept += rest
        for fitted in maps:
            number += 1
            wanted = footprint(fitted.known, hole_radius=rules.hole_radius)
            height = surface(fitted.height, fitted.known, wanted)
            paint_surface(owner, gap, number, fitted, height, wanted, thickness=rules.thickness)
    for place, voxels in enumerate(kept, start=number + 1):
        bare = voxels[owner[tuple(voxels.T)] == 0]
        owner[tuple(bare.T)], gap[tuple(bare.T)] = place, rules.thickness
    cut = cut_contacts(owner, gap)
    return owner, {
        "sheets": number,
        "kept_as_they_are": len(kept),
        "taken_apart": split,
        "contacts_cut": cut,
    }


def rbf_surface(spacing: int, smoothing: float) -> Surface:
    """Return a thin-plate spline through mean heights on a grid of `spacing` cells.

    Between the cells of a second grid (half the spacing) it is interpolated linearly.
    """

    def surface(height: Grid, known: Mask, wanted: Mask) -> Grid:
        points, values = _control_points(height, known, spacing)
        spline = RBFInterpolator(
            points,
            values,
            kernel="thin_plate_spline",
            smoothing=smoothing,
            degree=1,
            neighbors=min(len(points), 64) if len(points) > 600 else None,
        )
        step = max(spacing // 2, 1)
        rows = np.arange(0, wanted.shape[0] + step, step)
        columns = np.arange(0, wanted.shape[1] + step, step)
        coarse = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
        need = ndimage.maximum_filter(np.pad(wanted, step), size=2 * step + 1)
        inside = need[np.minimum(coarse[..., 0] + step, need.shape[0] - 1),
                      np.minimum(coarse[..., 1] + step, need.shape[1] - 1)]  # fmt: skip
        heights = np.zeros(coarse.shape[:2])
        heights[inside] = spline(coarse[inside].astype(np.float64))
        grid = np.stack(np.meshgrid(*map(np.arange, wanted.shape), indexing="ij")) / step
        out: Grid = ndimage.map_coordinates(heights, grid, order=1).astype(np.float32)
        return out

    return surface


def _control_points(
    height: Grid, known: Mask, spacing: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean place (n, 2) and mean height (n,) of the known cells of each square.

    Squares shrink until there are three places that are not on one line, or single cells.
    """
    rows, columns = np.nonzero(known)
    while True:
        square = (rows // spacing) * (known.shape[1] // spacing + 1) + columns // spacing
        names, at = np.unique(square, return_inverse=True)
        count = np.bincount(at)
        points = np.stack([np.bincount(at, rows) / count, np.bincount(at, columns) / count], 1)
        values = np.bincount(at, height[rows, columns]) / count
        flat = np.linalg.matrix_rank(points - points.mean(0), tol=1e-6) < 2
        if spacing == 1 or not (flat or len(names) < 4):
            return points, values
        spacing = max(spacing // 2, 1)


class HeightMapRefit:
    """Refits every component (or every sheet of a winding step) to a smooth height map.

    Args:
        by: "components" (26-connected) or "sheets": the sheet numbers of a step before, e.g. the
            winding solver's levels.
        sigma: Gaussian smoothing of the heights, voxels.
        surface: "heightmap" (Gaussian average) or "rbf" (thin-plate spline).
        rbf_spacing: voxels between the spline's control points.
        rbf_smoothing: 0 passes through them; larger is flatter.
        max_spread: see `FitRules`; these six as well.
        max_layered: share of cells with two layers that is tolerated.
        thresholds: tried on components that do not fit.
        min_size_voxels: smaller components are kept as they are.
        thickness: of the painted sheets, voxels.
        hole_radius: holes up to about this radius are closed.

    Raises:
        ConfigError: an argument out of range.
    """

    reads_mask = True
    makes_mask = True

    def __init__(
        self,
        *,
        by: str = "components",
        sigma: float = 2.0,
        surface: str = "heightmap",
        rbf_spacing: int = 12,
        rbf_smoothing: float = 1.0,
        max_spread: float = 9.0,
        max_layered: float = 0.05,
        thresholds: Sequence[float] = (0.6, 0.7, 0.8),
        min_size_voxels: int = 1000,
        thickness: float = 3.0,
        hole_radius: float = 6.0,
    ) -> None:
        if by not in ("components", "sheets") or surface not in ("heightmap", "rbf"):
            raise ConfigError(
                "by must be 'components' or 'sheets' and surface 'heightmap' or 'rbf', got "
                f"by={by!r}, surface={surface!r}"
            )
        check_at_least("sigma", sigma, 0.3)
        check_at_least("rbf_spacing", rbf_spacing, 2)
        check_at_least("rbf_smoothing", rbf_smoothing, 0)
        self.by = by
        self.rules = FitRules(
            max_spread=max_spread, max_layered=max_layered, thresholds=tuple(thresholds),
            min_size_voxels=min_size_voxels, thickness=thickness, hole_radius=hole_radius,
        )  # fmt: skip
        self.surface = (
            smooth_surface(sigma)
            if surface == "heightmap"
            else rbf_surface(rbf_spacing, rbf_smoothing)
        )

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with refitted sheets and their numbers.

        Raises:
            ConfigError: by="sheets" and no step before numbered the sheets.
        """
        mask = mask_of(state)
        if self.by == "components":
            labels = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26)
        elif state.labels is None:
            raise ConfigError("by='sheets' needs sheet numbers: put a winding step before it")
        else:
            labels = state.labels
        owner, notes = refit(labels, state.probability, surface=self.surface, rules=self.rules)
        return replace(state, mask=owner > 0, labels=owner, notes=notes)
