"""Class surfaces: marching cubes on voxel masks, checked, and points on them."""

import numpy as np
import numpy.typing as npt
import trimesh
from skimage.measure import marching_cubes

from vesuvius.data.heart.field import Mask, Spacing
from vesuvius.errors import LabelValueError


def class_mesh(mask: Mask, spacing: Spacing, origin: npt.ArrayLike, where: str) -> trimesh.Trimesh:
    """Return the closed surface of a mask in mm, faces wound outward.

    Args:
        mask: (x, y, z) bool with one voxel of background on every side.
        spacing: mm.
        origin: index of `mask[0, 0, 0]` in the whole grid.
        where: named in the message.

    Raises:
        LabelValueError: the surface is open or inside out (a fault of this program or its mask).
    """
    # inside = 1: only "ascent" winds the faces outward (specification, finding 6)
    vertices, faces, _, _ = marching_cubes(
        mask.astype(np.float32), 0.5, spacing=tuple(spacing), gradient_direction="ascent"
    )
    vertices = vertices.astype(np.float64) + np.asarray(origin) * np.asarray(spacing)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if not is_closed(mesh) or mesh.volume <= 0:
        raise LabelValueError(
            f"{where}: its surface is not closed and outward (volume {mesh.volume:.3g} mm^3); the "
            "label map needs background around every class"
        )
    return mesh


def is_closed(mesh: trimesh.Trimesh) -> bool:
    """Return whether every edge is walked as often forward as backward.

    Unlike `mesh.is_watertight` it lets two sheets touch in one edge (four faces), as marching cubes
    gives where voxels meet corner to corner: that surface still has no hole.
    """
    edges = np.asarray(mesh.edges, np.int64)
    forward = edges[:, 0] * len(mesh.vertices) + edges[:, 1]
    backward = edges[:, 1] * len(mesh.vertices) + edges[:, 0]
    return bool(np.array_equal(np.sort(forward), np.sort(backward)))


def sample_mesh(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return `count` points, uniform by area, and the unit normals of their faces, (n, 3) each."""
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=rng)
    return np.asarray(points, np.float64), np.asarray(mesh.face_normals[faces], np.float64)
