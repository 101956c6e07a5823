"""From one label map to one prepared case: voxel distances and trilinear interpolation.

Source: vecset-heart specification, section 1.4, with its corrections: outward normals, sides drawn
per class, distances with half a voxel taken off, a grid that holds the whole cube. Labels follow
from the signs of the same interpolated distances, so that they never contradict each other.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import trimesh

from vesuvius.data.heart.field import (
    Box,
    Field,
    box_around,
    crop_padded,
    interpolate,
    outside_distance,
    signed_distance,
)
from vesuvius.data.heart.format import ABSENT_SDF, SDF_MODES, HeartCase, HeartGeometry
from vesuvius.data.heart.labels import LabelMap
from vesuvius.data.heart.mesh import class_mesh, sample_mesh
from vesuvius.data.heart.quota import shared_out
from vesuvius.errors import ConfigError, LabelValueError
from vesuvius.types import HEART_CLASSES

Points = npt.NDArray[np.float64]

_LOCAL_MARGIN = 2
_NEAR_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """What is drawn from a label map.

    Attributes:
        num_surface_points: on all class surfaces together; as many near points.
        num_vol_points: half inside, half uniform in the cube.
        min_surface_per_class: surface points that every class gets, the rest goes by area.
        vol_per_class: inside points that every class gets, the rest goes by volume.
        near_std: of the near points' distance to the surface, cube units.
        sdf_mode: "min_of_classes" (also 0 on inner walls), "union_mask" (distance to the whole
            heart) or "per_class" (the first, and every class's own beside it).
        class_names: of classes 1..K.
        min_class_voxels: a class of fewer voxels is an error, most likely stray voxels.
        block: points interpolated at a time.
        seed: with the case's own number it decides everything drawn.
    """

    num_surface_points: int = 50_000
    num_vol_points: int = 50_000
    min_surface_per_class: int = 2000
    vol_per_class: int = 2500
    near_std: float = 0.01
    sdf_mode: str = "min_of_classes"
    class_names: tuple[str, ...] = HEART_CLASSES
    min_class_voxels: int = 8
    block: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low = 0 if field.name in ("seed", "min_surface_per_class", "vol_per_class") else 1
            if isinstance(value, int) and value < low:
                raise ConfigError(f"{field.name} is {value}; expected {low} or more")
        if not 0 < self.near_std < 1:
            raise ConfigError(f"near_std is {self.near_std}; expected above 0, below 1")
        if self.sdf_mode not in SDF_MODES:
            raise ConfigError(f"sdf_mode is {self.sdf_mode!r}; expected {', '.join(SDF_MODES)}")
        if not 1 <= len(self.class_names) <= 127 or len(set(self.class_names)) < self.num_classes:
            raise ConfigError(f"class_names is {self.class_names}; expected 1 to 127 names")
        ones = dict.fromkeys(range(self.num_classes), 1.0)
        args = "num_surface_points, min_surface_per_class"
        shared_out(ones, self.num_surface_points, self.min_surface_per_class, args)
        shared_out(
            ones, self.num_vol_points // 2, self.vol_per_class, "num_vol_points / 2, vol_per_class"
        )

    @property
    def num_classes(self) -> int:
        """Return K."""
        return len(self.class_names)


@dataclass(frozen=True, slots=True)
class _Class:
    """A class's surface in mm and its own distance field (mm) in a box around it."""

    mesh: trimesh.Trimesh
    field: Field
    box: Box


@dataclass(frozen=True, slots=True)
class _Cube:
    """The grid that holds the cube [-1, 1]^3."""

    labels: npt.NDArray[np.uint8]
    box: Box
    shift: Points
    scale: float
    spacing: Points

    def to_index(self, points: Points) -> Points:
        """Return indices in the whole map of cube coordinates."""
        return np.asarray((points / self.scale + self.shift) / self.spacing, np.float64)


def sample_case(
    label_map: LabelMap,
    options: SamplerOptions,
    *,
    case_id: str,
    case_seed: int = 0,
    threads: int = 1,
) -> HeartCase:
    """Return the points, distances and labels of one heart.

    Args:
        label_map: checked, RAS+.
        options: what to draw.
        case_id: name of the case, in messages too.
        case_seed: number of the case, so that no two draw alike.
        threads: of the distance transforms; the result does not depend on it.

    Raises:
        LabelValueError: a class of too few voxels.
    """
    rng = np.random.default_rng([options.seed, case_seed])
    classes = _classes(label_map, options, case_id, threads)
    cube = _cube(label_map, classes)
    surface, normals, surface_labels = _surface_points(classes, cube, options, rng)
    near = _near_points(surface, normals, surface_labels, classes, cube, options, rng)
    vol = _volume_points(label_map, classes, cube, options, rng)
    drawn = {"surface": surface, "vol": vol, "near": near}
    points = {part: drawn[part].astype(np.float32) for part in drawn}
    found = _distances(points, classes, cube, options, threads)
    names = options.class_names
    return HeartCase(
        case_id=case_id,
        surface_points=points["surface"],
        surface_labels=surface_labels,
        surface_normals=normals.astype(np.float32),
        vol_points=points["vol"],
        vol_sdf=found["vol"][0],
        vol_labels=found["vol"][1],
        near_points=points["near"],
        near_sdf=found["near"][0],
        near_labels=found["near"][1],
        class_names=names,
        present_classes=tuple(classes),
        sdf_mode=options.sdf_mode,
        class_sdf={p: found[p][2] for p in found} if options.sdf_mode == "per_class" else {},
        geometry=_geometry(label_map, cube),
    )


def _classes(
    label_map: LabelMap, options: SamplerOptions, case_id: str, threads: int
) -> dict[int, _Class]:
    counts = np.bincount(label_map.labels.ravel(), minlength=options.num_classes + 1)
    classes: dict[int, _Class] = {}
    for number, name in enumerate(options.class_names, start=1):
        if counts[number] == 0:
            continue
        where = f"{case_id}: class {number} {name}"
        if counts[number] < options.min_class_voxels:
            raise LabelValueError(
                f"{where} has {counts[number]} voxel(s); expected {options.min_class_voxels} or "
                "more, or none. Stray voxels? Remove them, or lower --min-class-voxels"
            )
        mask = label_map.labels == number
        box = box_around(mask, _LOCAL_MARGIN)
        local = crop_padded(mask.view(np.uint8), box).view(np.bool_)
        origin = [s.start for s in box]
        classes[number] = _Class(
            class_mesh(local, label_map.spacing, origin, where),
            signed_distance(local, label_map.spacing, threads=threads),
            box,
        )
    return classes


def _cube(label_map: LabelMap, classes: dict[int, _Class]) -> _Cube:
    vertices = np.concatenate([c.mesh.vertices for c in classes.values()])
    shift = (vertices.max(0) + vertices.min(0)) / 2
    scale = 1 / float(np.linalg.norm(vertices - shift, axis=1).max())
    corners = np.array([[-1.0] * 3, [1.0] * 3]) / scale + shift
    index = corners / label_map.spacing
    first, stop = np.floor(index[0]), np.ceil(index[1]) + 1
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, stop, strict=True))
    labels = crop_padded(label_map.labels, (x, y, z))
    return _Cube(labels, (x, y, z), shift, scale, label_map.spacing)


def _surface_points(
    classes: dict[int, _Class], cube: _Cube, options: SamplerOptions, rng: np.random.Generator
) -> tuple[Points, Points, npt.NDArray[np.int8]]:
    counts = shared_out(
        {n: float(c.mesh.area) for n, c in classes.items()},
        options.num_surface_points,
        options.min_surface_per_class,
        "num_surface_points, min_surface_per_class",
    )
    drawn = [sample_mesh(c.mesh, counts[n], rng) for n, c in classes.items()]
    points = np.concatenate([p for p, _ in drawn])
    labels = np.repeat(np.array(list(classes), np.int8), [counts[n] for n in classes])
    cubed = np.asarray((points - cube.shift) * cube.scale, np.float64)
    return cubed, np.concatenate([n for _, n in drawn]), labels


def _near_points(
    surface: Points,
    normals: Points,
    labels: npt.NDArray[np.int8],
    classes: dict[int, _Class],
    cube: _Cube,
    options: SamplerOptions,
    rng: np.random.Generator,
) -> Points:
    """Return one point beside each surface point; half of every class's lie inside that class."""
    near = np.empty_like(surface)
    for number, one in classes.items():
        chosen = labels == number
        count = int(chosen.sum())
        side = rng.permutation(np.where(np.arange(count) % 2, 1.0, -1.0))
        length = np.abs(rng.normal(0, options.near_std, count))
        voxel = float(cube.spacing.max()) * cube.scale
        # halved while a thin wall is crossed; what stays on the wrong side, because voxels'
        # corners bulge beyond the mesh, is put a share of a voxel away
        for shrink, share in [*[(0.5, 0.0)] * _NEAR_ROUNDS, *[(0.0, q) for q in (0.25, 0.5, 1.0)]]:
            way = (side * length)[:, None] * normals[chosen]
            near[chosen] = np.clip(surface[chosen] + way, -1, 1)
            index = cube.to_index(near[chosen]) - [s.start for s in one.box]
            wrong = (interpolate(one.field, index, block=options.block) < 0) != (side < 0)
            if not wrong.any():
                break
            length[wrong] = shrink * length[wrong] + share * voxel
    return near


def _volume_points(
    label_map: LabelMap,
    classes: dict[int, _Class],
    cube: _Cube,
    options: SamplerOptions,
    rng: np.random.Generator,
) -> Points:
    """Return points in random voxels of every class, then uniform ones in the cube."""
    inside = options.num_vol_points // 2
    voxels = {n: np.argwhere(c.field < 0) for n, c in classes.items()}
    weights = {n: float(len(v)) for n, v in voxels.items()}
    counts = shared_out(weights, inside, options.vol_per_class, "num_vol_points, vol_per_class")
    parts = []
    for number, count in counts.items():
        index = voxels[number][rng.integers(len(voxels[number]), size=count)]
        index = index + [s.start for s in classes[number].box]
        mm = (index + rng.uniform(-0.5, 0.5, index.shape)) * label_map.spacing
        parts.append((mm - cube.shift) * cube.scale)
    parts.append(rng.uniform(-1, 1, (options.num_vol_points - inside, 3)))
    return np.asarray(np.clip(np.concatenate(parts), -1, 1), np.float64)


def _distances(
    points: dict[str, npt.NDArray[np.float32]],
    classes: dict[int, _Class],
    cube: _Cube,
    options: SamplerOptions,
    threads: int,
) -> dict[str, tuple[Any, Any, Any]]:
    """Return part -> (sdf, label, distance to each class), all from one grid at a time."""
    origin = np.array([s.start for s in cube.box])
    index = {p: cube.to_index(points[p].astype(np.float64)) - origin for p in points}
    table = {
        p: np.full((len(points[p]), options.num_classes), ABSENT_SDF, np.float32) for p in points
    }
    for number, one in classes.items():
        grid = class_field(cube.labels == number, one, cube, threads)
        for part, where in index.items():
            values = interpolate(grid, where, block=options.block)
            table[part][:, number - 1] = values * np.float32(cube.scale)
    whole: dict[str, npt.NDArray[np.float32]] = {}
    if options.sdf_mode == "union_mask":
        grid = signed_distance(cube.labels > 0, cube.spacing, threads=threads)
        for part, where in index.items():
            values = interpolate(grid, where, block=options.block)
            whole[part] = values * np.float32(cube.scale)
    found: dict[str, tuple[Any, Any, Any]] = {}
    for part, each in table.items():
        sdf = whole.get(part, each.min(1))
        label = np.where(sdf < 0, each.argmin(1) + 1, 0).astype(np.int8)
        found[part] = (sdf, label, each)
    return found


def class_field(mask: npt.NDArray[np.bool_], one: _Class, cube: _Cube, threads: int) -> Field:
    """Return the distance (mm) to one class in the whole cube; the inside was known already."""
    grid = outside_distance(mask, cube.spacing, threads=threads)
    here, there = [], []
    for box, own in zip(cube.box, one.box, strict=True):
        first, last = max(box.start, own.start), min(box.stop, own.stop)
        here.append(slice(first - box.start, last - box.start))
        there.append(slice(first - own.start, last - own.start))
    grid[tuple(here)] = one.field[tuple(there)]
    return grid


def _geometry(label_map: LabelMap, cube: _Cube) -> HeartGeometry:
    box = box_around(label_map.labels > 0, 1)
    x, y, z = label_map.labels.shape
    return HeartGeometry(
        shift=cube.shift,
        scale=cube.scale,
        spacing=label_map.spacing,
        affine=label_map.affine,
        grid_shape=(x, y, z),
        label_map=crop_padded(label_map.labels, box),
        crop_origin=np.array([s.start for s in box], np.int32),
    )
