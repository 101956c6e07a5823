"""Orthographic ray caster for the surface of a smoothed mask; NumPy and numba, no graphics stack.

Each pixel's ray marches through the trilinear field until it crosses the iso level, refines the
crossing by bisection and shades it by the field's gradient. It runs where no OpenGL does.
Source: own; depth darkening after Luft, Colditz and Deussen, "Image enhancement by unsharp masking
the depth buffer", SIGGRAPH 2006.
"""

from dataclasses import dataclass

import edt
import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """Orthographic view of a box, z upwards.

    Attributes:
        right, up, forward: unit vectors in (z, y, x); forward points into the scene.
        centre: (z, y, x) voxel at the middle of the picture.
        half_width: half the picture's side in voxels; pictures are square.
    """

    right: npt.NDArray[np.float64]
    up: npt.NDArray[np.float64]
    forward: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    half_width: float

    def project(self, points_zyx: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return (n, 2) picture positions in [-1, 1], right and up, of (n, 3) points."""
        offset = np.asarray(points_zyx, dtype=np.float64) - self.centre
        return np.stack([offset @ self.right, offset @ self.up], axis=1) / self.half_width


def look_at(
    shape_zyx: tuple[int, ...], *, azimuth_deg: float = 35.0, elevation_deg: float = 28.0
) -> Camera:
    """Return a camera that sees the whole box of that shape from above and the side.

    Args:
        shape_zyx: voxels of the box.
        azimuth_deg: turn about the z axis; 0 looks along +x, that is from the x = 0 face.
        elevation_deg: height of the eye above the horizon.
    """
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    forward = np.array(
        [
            -np.sin(elevation),
            np.cos(elevation) * np.sin(azimuth),
            np.cos(elevation) * np.cos(azimuth),
        ]
    )
    up = np.array([1.0, 0.0, 0.0]) - forward[0] * forward
    up /= np.linalg.norm(up)
    right = np.cross(up, forward)
    centre = (np.asarray(shape_zyx, dtype=np.float64) - 1) / 2
    corners = box_corners(shape_zyx) - centre
    half_width = max(np.abs(corners @ right).max(), np.abs(corners @ up).max()) * 1.06
    return Camera(right=right, up=up, forward=forward, centre=centre, half_width=float(half_width))


def box_corners(shape_zyx: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the (8, 3) corners of a volume's box in voxel positions, faces at -0.5 and n - 0.5."""
    ends = [(-0.5, size - 0.5) for size in shape_zyx]
    return np.array([(z, y, x) for z in ends[0] for y in ends[1] for x in ends[2]])


@njit(cache=True)  # type: ignore[untyped-decorator]
def _sample(field: FloatArray, z: float, y: float, x: float) -> float:
    """Trilinear value at a position; zero beyond the edge voxels."""
    z0, y0, x0 = int(np.floor(z)), int(np.floor(y)), int(np.floor(x))
    total = 0.0
    for dz in range(2):
        k = z0 + dz
        if k < 0 or k >= field.shape[0]:
            continue
        weight_z = 1.0 - abs(z - k)
        for dy in range(2):
            j = y0 + dy
            if j < 0 or j >= field.shape[1]:
                continue
            weight_zy = weight_z * (1.0 - abs(y - j))
            for dx in range(2):
                i = x0 + dx
                if i < 0 or i >= field.shape[2]:
                    continue
                total += weight_zy * (1.0 - abs(x - i)) * field[k, j, i]
    return total


@njit(cache=True)  # type: ignore[untyped-decorator]
def _entry_exit(
    shape: tuple[int, int, int], origin: npt.NDArray[np.float64], step: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Distances along a ray at which it enters and leaves the box one voxel around the volume."""
    near, far = -1e30, 1e30
    for axis in range(3):
        low, high = -1.0, float(shape[axis])
        if abs(step[axis]) < 1e-12:
            if origin[axis] < low or origin[axis] > high:
                return 1.0, 0.0
            continue
        first = (low - origin[axis]) / step[axis]
        second = (high - origin[axis]) / step[axis]
        near = max(near, min(first, second))
        far = min(far, max(first, second))
    return near, far


@njit(cache=True)  # type: ignore[untyped-decorator]
def _along(
    field: FloatArray,
    origin: npt.NDArray[np.float64],
    forward: npt.NDArray[np.float64],
    distance: float,
) -> float:
    """Value of the field at a distance along a ray."""
    z = origin[0] + distance * forward[0]
    y = origin[1] + distance * forward[1]
    x = origin[2] + distance * forward[2]
    return float(_sample(field, z, y, x))


@njit(cache=True)  # type: ignore[untyped-decorator]
def _stride(
    gap: FloatArray,
    origin: npt.NDArray[np.float64],
    forward: npt.NDArray[np.float64],
    distance: float,
) -> float:
    """How far a ray may go on without missing the surface, at least half a voxel.

    A trilinear crossing lies within sqrt(3) of a voxel over the level, and the position within
    sqrt(3) / 2 of its nearest voxel, whose distance to the next such voxel is `gap`.
    """
    k = int(np.rint(origin[0] + distance * forward[0]))
    j = int(np.rint(origin[1] + distance * forward[1]))
    i = int(np.rint(origin[2] + distance * forward[2]))
    inside = 0 <= k < gap.shape[0] and 0 <= j < gap.shape[1] and 0 <= i < gap.shape[2]
    return max(0.5, float(gap[k, j, i]) - 2.6) if inside else 0.5


@njit(cache=True)  # type: ignore[untyped-decorator]
def _first_crossing(
    field: FloatArray,
    gap: FloatArray,
    iso: float,
    origin: npt.NDArray[np.float64],
    forward: npt.NDArray[np.float64],
) -> float:
    """Distance at which a ray first reaches the level, to 0.5 / 64 voxel; NaN if it never does."""
    distance, last = _entry_exit(field.shape, origin, forward)
    while distance <= last and _along(field, origin, forward, distance) < iso:
        distance += _stride(gap, origin, forward, distance)
    if distance > last:
        return float(np.nan)
    low, high = distance - 0.5, distance
    for _ in range(6):
        middle = (low + high) / 2
        if _along(field, origin, forward, middle) >= iso:
            high = middle
        else:
            low = middle
    return float(high)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _march(
    field: FloatArray,
    gap: FloatArray,
    iso: float,
    size: int,
    half_width: float,
    centre: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    up: npt.NDArray[np.float64],
    forward: npt.NDArray[np.float64],
) -> tuple[FloatArray, FloatArray]:
    """Hit points and outward normals of all pixels: two (size, size, 3) arrays, NaN for no hit."""
    hits = np.full((size, size, 3), np.nan, dtype=np.float32)
    normals = np.full((size, size, 3), np.nan, dtype=np.float32)
    origin, point, gradient = np.empty(3), np.empty(3), np.empty(3)
    for row in range(size):
        for column in range(size):
            horizontal = ((column + 0.5) / size * 2 - 1) * half_width
            vertical = (1 - (row + 0.5) / size * 2) * half_width
            for axis in range(3):
                origin[axis] = centre[axis] + horizontal * right[axis] + vertical * up[axis]
            distance = _first_crossing(field, gap, iso, origin, forward)
            if np.isnan(distance):
                continue
            for axis in range(3):
                point[axis] = origin[axis] + distance * forward[axis]
            z, y, x = point[0], point[1], point[2]
            gradient[0] = _sample(field, z + 0.7, y, x) - _sample(field, z - 0.7, y, x)
            gradient[1] = _sample(field, z, y + 0.7, x) - _sample(field, z, y - 0.7, x)
            gradient[2] = _sample(field, z, y, x + 0.7) - _sample(field, z, y, x - 0.7)
            length = np.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2) + 1e-12
            for axis in range(3):
                hits[row, column, axis] = point[axis]
                normals[row, column, axis] = -gradient[axis] / length
    return hits, normals


def render(
    field: FloatArray,
    colours: npt.NDArray[np.uint8],
    camera: Camera,
    *,
    iso: float,
    size: int,
) -> npt.NDArray[np.uint8]:
    """Return (size, size, 4) uint8 RGBA of the surface field = iso; transparent where none is hit.

    Args:
        field: (z, y, x) float32, larger inside; it counts as 0 beyond its faces.
        colours: (z, y, x, 3) uint8 colour of each voxel, looked up at the nearest voxel.
        camera: from `look_at`.
        iso: level of the surface.
        size: pixels of the square picture; two rays a side are averaged for each.
    """
    fine = 2 * size
    gap = edt.edt(np.ascontiguousarray(field < iso))
    hits, normals = _march(
        np.ascontiguousarray(field, dtype=np.float32), gap, iso, fine, camera.half_width,
        camera.centre, camera.right, camera.up, camera.forward,
    )  # fmt: skip
    seen = np.isfinite(hits[..., 0])
    nearest = np.rint(np.nan_to_num(hits)).astype(np.intp)
    nearest = np.clip(nearest, 0, np.asarray(field.shape) - 1)
    base = colours[nearest[..., 0], nearest[..., 1], nearest[..., 2]].astype(np.float32)
    light = _shade(hits, normals, seen, camera)
    rgba = np.zeros((fine, fine, 4), dtype=np.float32)
    rgba[..., :3] = np.clip(base * light[..., None], 0, 255)
    rgba[..., 3] = 255.0
    rgba[~seen] = 0.0
    blocks = rgba.reshape(size, 2, size, 2, 4).sum(axis=(1, 3))
    covered = np.maximum(blocks[..., 3:] / 255.0, 1.0)  # rays that hit, of 4
    out = np.concatenate([blocks[..., :3] / covered, blocks[..., 3:] / 4], axis=-1)
    picture: npt.NDArray[np.uint8] = np.rint(out).astype(np.uint8)
    return picture


def _shade(
    hits: FloatArray, normals: FloatArray, seen: npt.NDArray[np.bool_], camera: Camera
) -> FloatArray:
    """Return the (h, w) brightness factor: two lamps, a darker distance, dark creases."""
    key = camera.up * 0.75 - camera.right * 0.45 - camera.forward * 0.8
    fill = camera.right * 0.8 - camera.forward * 0.6
    normals = np.nan_to_num(normals)
    light = 0.46 + 0.62 * np.clip(normals @ (key / np.linalg.norm(key)), 0, 1)
    light += 0.2 * np.clip(normals @ (fill / np.linalg.norm(fill)), 0, 1)
    depth = np.where(seen, np.nan_to_num(hits - camera.centre) @ camera.forward, camera.half_width)
    depth = depth / camera.half_width
    light *= 1.0 - 0.18 * np.clip(depth + 0.5, 0.0, 1.0)
    sigma = 0.012 * hits.shape[0]
    crease = np.clip(depth - ndimage.gaussian_filter(depth, sigma), 0.0, 0.25)
    shaded: FloatArray = (light * (1.0 - 1.8 * crease)).astype(np.float32)
    return shaded
