"""One sheet as a height over a plane: frame, map, smoothing, and back to voxels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.postprocess.steps.state import Mask
from vesuvius.postprocess.winding.jit import compiled
from vesuvius.types import FloatVolume, LabelVolume

Floats = npt.NDArray[np.float64]
Grid = npt.NDArray[np.float32]
"""(u, v) float32, one cell a voxel."""
Surface = Callable[[Grid, Mask, Mask], Grid]
"""(height, cells that have one, cells wanted) -> height on all wanted cells."""


@dataclass(frozen=True, slots=True)
class HeightMap:
    """Heights of one component over its own plane.

    Attributes:
        centre: (3,) z, y, x of the plane's origin.
        axes: (3, 3) rows u, v, normal: orthonormal.
        corner: (u, v) of the grid's cell (0, 0).
        height: (u, v) float32 mean height along the normal, 0 where `known` is false.
        known: (u, v) bool, cells that hold voxels.
        spread: (u, v) float32 largest minus smallest height of a cell.
    """

    centre: Floats
    axes: Floats
    corner: tuple[int, int]
    height: Grid
    known: Mask
    spread: Grid


def plane_axes(voxels: Floats) -> tuple[Floats, Floats]:
    """Return centre (3,) and orthonormal rows (u, v, normal) of (n, 3) voxels by PCA."""
    centre = voxels.mean(0)
    _, vectors = np.linalg.eigh(np.cov((voxels - centre).T, bias=True))
    return centre, np.ascontiguousarray(vectors.T[::-1])  # eigh sorts upwards: normal comes first


def height_map(voxels: npt.NDArray[np.integer], weights: FloatVolume, margin: int) -> HeightMap:
    """Return the weighted mean height of (n, 3) voxels on a grid with `margin` empty cells around.

    Args:
        voxels: (n, 3) z, y, x; n >= 3.
        weights: (n,) positive, e.g. the probability.
        margin: cells added on each side.
    """
    points = voxels.astype(np.float64)
    centre, axes = plane_axes(points)
    u, v, h = axes @ (points - centre).T
    cells = np.floor(np.stack([u, v]) + 0.5).astype(np.int64)  # rint would pair up half numbers
    corner = cells.min(1) - margin
    size = cells.max(1) - corner + 1 + margin
    flat = (cells[0] - corner[0]) * size[1] + cells[1] - corner[1]
    total = np.bincount(flat, weights, size[0] * size[1])
    mean = np.bincount(flat, weights * h, size[0] * size[1])
    known = total > 0
    mean = np.where(known, mean / np.where(known, total, 1), 0)
    low, high = np.full(known.size, np.inf), np.full(known.size, -np.inf)
    np.minimum.at(low, flat, h)
    np.maximum.at(high, flat, h)
    spread = np.where(known, high - low, 0)
    shape = (int(size[0]), int(size[1]))
    return HeightMap(
        centre,
        axes,
        (int(corner[0]), int(corner[1])),
        mean.reshape(shape).astype(np.float32),
        known.reshape(shape),
        spread.reshape(shape).astype(np.float32),
    )


def footprint(known: Mask, *, hole_radius: float) -> Mask:
    """Return the known cells with holes up to about that radius closed; the grid has a margin."""
    if hole_radius <= 0:
        return known
    near = ndimage.distance_transform_edt(~known) <= hole_radius
    inside: Mask = ndimage.distance_transform_edt(near) > hole_radius
    return inside | known


def smooth_surface(sigma: float) -> Surface:
    """Return a surface that averages known heights with a Gaussian, twice for the bias."""

    def average(values: Grid, weight: Grid) -> Grid:
        top = ndimage.gaussian_filter(values * weight, sigma, truncate=4)
        below = ndimage.gaussian_filter(weight, sigma, truncate=4)
        out: Grid = np.where(below > 1e-4, top / np.maximum(below, 1e-4), 0)
        return out

    def surface(height: Grid, known: Mask, wanted: Mask) -> Grid:
        weight = known.astype(np.float32)
        filled = height
        bare = wanted & (ndimage.gaussian_filter(weight, sigma, truncate=4) <= 1e-4)
        if bare.any():  # further from data than the Gaussian reaches: the nearest height
            nearest = ndimage.distance_transform_edt(
                ~known, return_distances=False, return_indices=True
            )
            filled, weight = height[tuple(nearest)], weight + np.float32(1e-3)
        first = average(filled, weight)
        return first + average(np.where(weight > 0, filled - first, 0), weight)

    return surface


@compiled
def _paint(
    owner: LabelVolume,
    gap: FloatVolume,
    number: int,
    box: npt.NDArray[np.int64],
    frame: Floats,
    surface: Grid,
    wanted: npt.NDArray[np.uint8],
    half: float,
) -> None:
    """Give voxels within `half` of the surface to `number` where no other surface is nearer.

    `frame` holds the rows centre, u, v, normal and (corner u, corner v, largest |height|).
    """
    last_u, last_v = surface.shape[0] - 1, surface.shape[1] - 1
    for z in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            for x in range(box[4], box[5]):
                dz, dy, dx = z - frame[0, 0], y - frame[0, 1], x - frame[0, 2]
                h = frame[3, 0] * dz + frame[3, 1] * dy + frame[3, 2] * dx
                if h > frame[4, 2] + 2 * half + 1 or h < -frame[4, 2] - 2 * half - 1:
                    continue
                u = frame[1, 0] * dz + frame[1, 1] * dy + frame[1, 2] * dx - frame[4, 0]
                v = frame[2, 0] * dz + frame[2, 1] * dy + frame[2, 2] * dx - frame[4, 1]
                i, j = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
                if i < 1 or j < 1 or i >= last_u or j >= last_v or wanted[i, j] == 0:
                    continue
                here = surface[i, j]
                slope_u = slope_v = 0.0
                if wanted[i - 1, j] and wanted[i + 1, j]:
                    slope_u = 0.5 * (surface[i + 1, j] - surface[i - 1, j])
                if wanted[i, j - 1] and wanted[i, j + 1]:
                    slope_v = 0.5 * (surface[i, j + 1] - surface[i, j - 1])
                rise = h - here - slope_u * (u - i) - slope_v * (v - j)
                distance = abs(rise) / np.sqrt(1 + slope_u * slope_u + slope_v * slope_v)
                if distance <= half and distance < gap[z, y, x]:
                    gap[z, y, x] = distance
                    owner[z, y, x] = number


def paint_surface(
    owner: LabelVolume,
    gap: FloatVolume,
    number: int,
    fitted: HeightMap,
    surface: Grid,
    wanted: Mask,
    *,
    thickness: float,
) -> None:
    """Paint a surface of `thickness` voxels into `owner` (sheet numbers) and `gap` (distances)."""
    half = thickness / 2
    rows, columns = np.nonzero(wanted)
    uvh = np.stack([rows + fitted.corner[0], columns + fitted.corner[1], surface[wanted]], 1)
    points = fitted.centre + uvh @ fitted.axes
    low = np.maximum(np.floor(points.min(0) - half - 1), 0)
    high = np.minimum(np.ceil(points.max(0) + half + 2), owner.shape)
    box = np.stack([low, high], 1).astype(np.int64).ravel()
    tallest = float(np.abs(surface[wanted]).max())
    frame = np.vstack([fitted.centre, fitted.axes, (*fitted.corner, tallest)])
    _paint(owner, gap, number, box, frame, surface, wanted.astype(np.uint8), half)


@compiled
def cut_contacts(owner: LabelVolume, gap: FloatVolume) -> int:
    """Clear voxels that touch (26 neighbours) another sheet; return how many.

    Of two touching voxels the one further from its own surface goes; if equal, the later number.
    """
    depth, height, width = owner.shape
    cut = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                for code in range(14, 27):
                    number = owner[z, y, x]
                    if number == 0:
                        break
                    v, w, u = z + code // 9 - 1, y + code // 3 % 3 - 1, x + code % 3 - 1
                    if v >= depth or w < 0 or w >= height or u < 0 or u >= width:
                        continue
                    other = owner[v, w, u]
                    if other == 0 or other == number:
                        continue
                    cut += 1
                    here, there = gap[z, y, x], gap[v, w, u]
                    if here > there or (here == there and number > other):
                        owner[z, y, x] = 0
                    else:
                        owner[v, w, u] = 0
    return cut
