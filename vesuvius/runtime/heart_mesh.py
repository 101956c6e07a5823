"""Class fields on a grid to closed meshes in mm."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vesuvius.storage.files import write_bytes

Affine = npt.NDArray[np.float64]
_FAR = 1.0


def write_class_meshes(
    fields: npt.NDArray[np.float32], affine: Affine, paths: Sequence[Path]
) -> list[str]:
    """Write the zero surface of every class that has one; return the names of the files.

    Args:
        fields: (K or more, x, y, z), below 0 inside a class.
        affine: (4, 4), index to mm.
        paths: of classes 1..K, `.ply` or `.obj`; a class without voxels gets no file, and an old
            one of that name is removed.

    Raises:
        StorageError: a file cannot be written.
    """
    import trimesh  # slow to import

    written = []
    for field, path in zip(fields, paths, strict=False):
        mesh = class_surface(field, affine)
        if mesh is None:
            path.unlink(missing_ok=True)
            continue
        content = trimesh.Trimesh(*mesh, process=False).export(file_type=path.suffix[1:])
        write_bytes(path, content.encode() if isinstance(content, str) else content)
        written.append(path.name)
    return written


def class_surface(
    field: npt.NDArray[np.float32], affine: Affine
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]] | None:
    """Return vertices (n, 3) in mm and outward faces (m, 3) of field = 0, None if it is nowhere.

    The grid is closed with a layer outside, so that the surface has no hole at its border.
    """
    from skimage.measure import marching_cubes  # slow to import

    inside = np.argwhere(field < 0)
    if len(inside) == 0:
        return None
    low = np.maximum(inside.min(0) - 1, 0)
    high = inside.max(0) + 2
    part = field[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    closed = np.pad(part, 1, constant_values=_FAR)
    vertices, faces, _, _ = marching_cubes(closed, 0.0, gradient_direction="descent")
    index = vertices.astype(np.float64) + low - 1
    if np.linalg.det(affine[:3, :3]) < 0:  # a mirrored grid turns the faces
        faces = faces[:, ::-1]
    return index @ affine[:3, :3].T + affine[:3, 3], faces.astype(np.int32)
