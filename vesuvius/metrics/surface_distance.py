"""Surface Dice at a tolerance, by surface elements as in DeepMind's `surface-distance`.

A surface element is a 2x2x2 cell of the zero-padded mask that holds both values; marching cubes
gives its area. For small tolerances no distance transform is computed: each element looks into the
ball around it, nearest offset first, and stops at the first element of the other surface.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError
from vesuvius.metrics.compiled import compiled
from vesuvius.metrics.masks import Mask, foreground_pair
from vesuvius.metrics.runs import Bytes, Ints
from vesuvius.metrics.workers import map_threads, usable_cpus

# Marching-cubes triangles of each kind of cell, as area vectors |z y x| in eighths of a voxel face.
_C, _B = (1, 1, 1), (2, 2, 2)
_TRIANGLES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    (),
    (_C,),
    ((2, 2, 0),) * 2,
    ((2, 0, 2),) * 2,
    (_C,) * 2,
    (_C, _B, (4, 0, 0)),
    ((4, 0, 0),) * 2,
    ((0, 2, 2),) * 2,
    ((0, 4, 0), _C, _B),
    ((0, 0, 4), _C, _B),
    (_C,) * 3,
    (_C, _C, _B, _B),
    ((0, 2, 2), (0, 2, 2), _C),
    (_C, (2, 0, 2), (2, 0, 2)),
    ((0, 2, 2), _C, (2, 0, 2), (3, 3, 3)),
    (_C, (2, 2, 0), (2, 2, 0)),
    ((0, 2, 2), _C, (2, 2, 0), (3, 3, 3)),
    (_C, _C, _B, (4, 0, 0)),
    ((0, 4, 0),) * 2,
    (_C, (2, 0, 2), (2, 2, 0), (3, 3, 3)),
    ((0, 4, 0), _C, _C, _B),
    ((2, 2, 0),) * 4,
    ((0, 0, 4),) * 2,
    ((0, 0, 4), _C, _C, _B),
    ((2, 0, 2),) * 4,
    ((0, 2, 2),) * 4,
    (_C,) * 4,
)
# Kind of each of the first 128 neighbour codes; a code and its complement are of one kind. The
# triangulation of the ambiguous kinds follows surface-distance (Apache-2.0, DeepMind 2018).
_KINDS = bytes.fromhex(
    "000101020103040501040305020505060107040804090a0b040c0d0e0f101105"
    "01040708040d0c0e040a090b0f111005020808120f1314080f141308150f0f02"
    "0104040f07090c10040a0d11080b0e0503090d13091617090d17180d13090d03"
    "040a0c140c17190c0a1a170a140a0c04050b0e0810090c07110a0d040f040401"
)
_LARGEST_BALL = 1000  # offsets; beyond, a distance transform is cheaper


def surface_areas(spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> npt.NDArray[np.float64]:
    """Return the (256,) area of a surface element by neighbour code, in units of spacing squared.

    Bit 0 of a code is the cell's upper (z, y, x) corner; bits 1, 2, 4 step down in x, y, z.
    """
    z, y, x = spacing
    faces = np.array([y * x, z * x, z * y])
    areas = [
        float(sum(np.linalg.norm(np.array(t) * faces) for t in kind)) / 8 for kind in _TRIANGLES
    ]
    half = np.array(areas)[list(_KINDS)]
    return np.concatenate([half, half[::-1]])


@compiled
def _fill_codes(mask: Bytes, codes: Bytes, begin: int, end: int) -> None:
    """Write the neighbour codes of slices [begin, end) of the padded cell grid."""
    depth, height, width = mask.shape
    for z in range(begin, end):
        up, low = z < depth, z > 0
        for y in range(height + 1):
            front, back = y < height, y > 0
            before = 0
            for x in range(width):
                wall = 0
                if up and front:
                    wall |= mask[z, y, x]
                if up and back:
                    wall |= mask[z, y - 1, x] << 2
                if low and front:
                    wall |= mask[z - 1, y, x] << 4
                if low and back:
                    wall |= mask[z - 1, y - 1, x] << 6
                codes[z, y, x] = wall | before << 1
                before = wall
            codes[z, y, width] = before << 1


@compiled
def _count_within(own: Bytes, other: Bytes, offsets: Ints, begin: int, end: int) -> Ints:
    """Return (2, 256) elements by code in slices [begin, end): all, and within the offsets."""
    depth, height, width = own.shape
    counts = np.zeros((2, 256), np.int64)
    for z in range(begin, end):
        for y in range(height):
            for x in range(width):
                code = own[z, y, x]
                if code in (0, 255):
                    continue
                counts[0, code] += 1
                for k in range(len(offsets)):
                    u, v, w = z + offsets[k, 0], y + offsets[k, 1], x + offsets[k, 2]
                    inside = 0 <= u < depth and 0 <= v < height and 0 <= w < width
                    if inside and other[u, v, w] not in (0, 255):
                        counts[1, code] += 1
                        break
    return counts


def _ball(spacing: Sequence[float], tolerance: float) -> Ints | None:
    """Return the (n, 3) offsets within the tolerance, nearest first; None if they are too many."""
    reach = [int(tolerance // step) for step in spacing]
    if np.prod([2.0 * r + 1 for r in reach]) > 8 * _LARGEST_BALL:
        return None
    offsets = np.array(list(product(*(range(-r, r + 1) for r in reach))), np.int64)
    distance = np.sqrt(((offsets * np.asarray(spacing)) ** 2).sum(1))
    near = np.argsort(distance, kind="stable")
    near = near[distance[near] <= tolerance]
    return offsets[near] if len(near) <= _LARGEST_BALL else None


def _count_by_transform(
    own: Bytes, other: Bytes, spacing: Sequence[float], tolerance: float
) -> Ints:
    """Return what `_count_within` does, by a float32 distance transform."""
    import edt  # only for wide tolerances

    background = ((other == 0) | (other == 255)).view(np.uint8)
    distance = edt.edt(background, anisotropy=tuple(spacing), black_border=False)
    border = (own != 0) & (own != 255)
    near = border & (distance <= tolerance * (1 + 1e-6))  # float32 rounding at the tolerance itself
    return np.stack([np.bincount(own[m], minlength=256) for m in (border, near)]).astype(np.int64)


def _check(spacing: Sequence[float], tolerance: float) -> None:
    if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise ConfigError(f"spacing must be three positive numbers (z, y, x), got {spacing}")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ConfigError(f"tolerance must be a finite number >= 0, got {tolerance}")


def masks_surface_dice(
    prediction: Mask,
    label: Mask,
    *,
    spacing: Sequence[float],
    tolerance: float,
    threads: int | None,
) -> float:
    """Return the surface Dice in [0, 1] of two (z, y, x) boolean masks."""
    _check(spacing, tolerance)
    empty = not prediction.any(), not label.any()
    if any(empty):
        return float(all(empty))
    grid = tuple(size + 1 for size in label.shape)
    pair = [np.empty(grid, np.uint8) for _ in range(2)]
    bounds = np.linspace(0, grid[0], min(grid[0], 4 * (threads or usable_cpus())) + 1).astype(int)
    slabs = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))

    def fill(slab: tuple[int, int]) -> None:
        for mask, codes in zip((prediction, label), pair, strict=True):
            _fill_codes(mask.view(np.uint8), codes, *slab)

    map_threads(fill, slabs, threads=threads)
    ball = _ball(spacing, tolerance)
    if ball is None:
        counts = _count_by_transform(pair[0], pair[1], spacing, tolerance)
        counts += _count_by_transform(pair[1], pair[0], spacing, tolerance)
    else:

        def count(slab: tuple[int, int]) -> Ints:
            found: Ints = _count_within(pair[0], pair[1], ball, *slab)
            found += _count_within(pair[1], pair[0], ball, *slab)
            return found

        counts = np.sum(map_threads(count, slabs, threads=threads), axis=0)
    total, within = counts @ surface_areas(spacing)
    return float(within / total)


def surface_dice(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ignore_label: int | None = 2,
    ignore_mask: npt.ArrayLike | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float = 2.0,
    threads: int | None = None,
) -> float:
    """Return the share of both surfaces' area within `tolerance` of the other one, in [0, 1].

    Both empty: 1. One empty: 0.

    Args:
        prediction: (z, y, x); non-zero is surface, NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value that becomes background in both; None for none.
        ignore_mask: (z, y, x) further voxels to ignore, or None.
        spacing: voxel size along z, y, x, in any unit.
        tolerance: largest distance that counts as agreement, in the unit of `spacing`.
        threads: None takes the CPUs this process may use.

    Raises:
        ShapeMismatchError: if shapes differ.
        VolumeFormatError: if an array is not 3-D or is empty.
        ConfigError: if spacing or tolerance is not positive and finite.

    Source: Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and
    neck anatomy", 2018 (arXiv:1809.04430), section 4.
    """
    pair = foreground_pair(prediction, label, ignore_label=ignore_label, ignore_mask=ignore_mask)
    return masks_surface_dice(*pair, spacing=spacing, tolerance=tolerance, threads=threads)
