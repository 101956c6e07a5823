"""What heart inference starts from: files, input points, the grid to predict on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import DictConfig

from vesuvius.data.heart.dataset import HeartDataset, HeartDraws
from vesuvius.data.heart.dense import true_labels
from vesuvius.data.heart.format import HeartCase, save_case
from vesuvius.data.heart.labels import case_id, read_label_map
from vesuvius.data.heart.sampler import SamplerOptions, sample_case
from vesuvius.errors import CaseFormatError, ConfigError, VolumeNotFoundError
from vesuvius.inference.heart import cube_points

Affine = npt.NDArray[np.float64]
_SUFFIXES = (".npz", ".nii", ".nii.gz")


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the labels lie.

    Attributes:
        points: (x, y, z, 3) float32 in the cube.
        affine: (4, 4) index of `points` to world mm (to the cube, if the case has no geometry).
        truth: (x, y, z) uint8 true labels there, None if not known.
    """

    points: npt.NDArray[np.float32]
    affine: Affine
    truth: npt.NDArray[np.uint8] | None

    @property
    def spacing(self) -> list[float]:
        """Return the edges of a cell in mm (cube units, if the case has no geometry)."""
        return [float(n) for n in np.linalg.norm(self.affine[:3, :3], axis=0)]


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """Return the files named, and all cases and label maps of the folders named, sorted.

    Raises:
        VolumeNotFoundError: a path does not exist, or a folder holds neither.
        ConfigError: two inputs of one name would write the same files.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise VolumeNotFoundError(f"{path}: no such file or folder")
        inside = [p for p in sorted(path.glob("*")) if p.name.endswith(_SUFFIXES)]
        if path.is_dir() and not inside:
            raise VolumeNotFoundError(f"{path}: holds no .npz, .nii or .nii.gz")
        found += inside if path.is_dir() else [path]
    names = [case_id(path) for path in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"several inputs are named {', '.join(twice[:5])}; give one of each")
    return found


def prepare_label_map(path: Path, out_dir: Path, names: tuple[str, ...]) -> Path:
    """Draw the points of a label map and return the case, `<out_dir>/<id>.npz`."""
    label_map = read_label_map(path, num_classes=len(names))
    name = case_id(path)
    case = sample_case(label_map, SamplerOptions(class_names=names), case_id=name)
    target = out_dir / f"{name}.npz"
    save_case(target, case)
    return target


def encoder_input(
    path: Path,
    config: DictConfig,
    names: tuple[str, ...],
    *,
    input_classes: str | tuple[int, ...] | None,
    seed: int,
) -> torch.Tensor:
    """Return (P, 3 + C) surface points as in validation of the run."""
    data = config.data
    draws = HeartDraws(
        sdf_size=data.sdf_size,
        point_cloud_size=data.point_cloud_size,
        class_names=names,
        num_channels=data.get("num_channels"),
        min_remove=0,
        max_remove=0,
        input_classes=input_classes,
    )
    sample = HeartDataset([path], draws, seed=seed, fixed=True)[0]
    return torch.from_numpy(sample["surface"])


def make_grid(case: HeartCase, resolution: int | None) -> Grid:
    """Return the grid to predict on.

    Raises:
        CaseFormatError: the voxels are wanted and the case does not know them.
    """
    geometry = case.geometry
    if resolution is None:
        if geometry is None:
            raise CaseFormatError(
                f"{case.case_id}: the file does not say where its voxels are (made by another "
                "program); give --resolution, e.g. 128"
            )
        index = np.stack(
            np.meshgrid(
                *(np.arange(n, dtype=np.float32) for n in geometry.grid_shape), indexing="ij"
            ),
            -1,
        )
        points = geometry.to_cube(index).astype(np.float32)
        return Grid(points, geometry.affine, true_labels(geometry, points))
    points = cube_points(resolution)
    corner, step = points[0, 0, 0].astype(np.float64), 2 / resolution
    if geometry is None:
        affine = np.diag([step, step, step, 1.0])
        affine[:3, 3] = corner
        return Grid(points, affine, None)
    affine = np.eye(4)
    origin = geometry.to_world(corner)
    for axis in range(3):
        affine[:3, axis] = geometry.to_world(corner + step * np.eye(3)[axis]) - origin
    affine[:3, 3] = origin
    return Grid(points, affine, true_labels(geometry, points))
