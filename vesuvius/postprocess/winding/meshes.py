"""One triangle mesh per sheet: the field's level, where the sheet has support."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.errors import ConfigError
from vesuvius.storage.files import write_bytes
from vesuvius.types import FloatVolume, LabelVolume


@dataclass(frozen=True, slots=True)
class SheetMesh:
    """The surface of one sheet.

    Attributes:
        number: sheet number.
        vertices: (n, 3) float32, voxel coordinates z, y, x.
        normals: (n, 3) float32 unit vectors along the rising field, z, y, x.
        winding: (n,) float32 winding coordinate of each vertex.
        faces: (m, 3) int32 vertex indices.
    """

    number: int
    vertices: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32]
    winding: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]


def sheet_mesh(
    field: FloatVolume, labels: LabelVolume, number: int, *, level: float | None = None
) -> SheetMesh | None:
    """Return the mesh of one sheet, None if its level crosses no supported cell.

    Args:
        field: (z, y, x) winding field.
        labels: (z, y, x) sheet numbers; the mesh ends where they do.
        number: the sheet.
        level: of the field on the sheet; None: floor(median of the field on it) + 1/2.
    """
    from skimage import measure  # slow to import

    found = ndimage.find_objects((labels == number).astype(np.uint8))
    if not found or found[0] is None:
        return None
    box = tuple(
        slice(max(s.start - 2, 0), min(s.stop + 2, n))
        for s, n in zip(found[0], labels.shape, strict=True)
    )
    part, here = field[box], labels[box] == number
    if level is None:
        level = float(np.floor(np.median(part[here]))) + 0.5
    support = ndimage.binary_dilation(here, np.ones((3, 3, 3), bool))
    if min(part.shape) < 2 or not part[support].min() < level < part[support].max():
        return None
    try:
        vertices, faces, normals, _ = measure.marching_cubes(
            part, level, mask=support, gradient_direction="ascent"
        )
    except (ValueError, RuntimeError):  # no cell of the support holds the level
        return None
    if len(faces) == 0:
        return None
    origin = np.asarray([s.start for s in box], np.float32)
    return SheetMesh(
        number, (vertices + origin).astype(np.float32), _gradient_at(part, vertices, normals),
        np.full(len(vertices), level, np.float32), faces.astype(np.int32),
    )  # fmt: skip


def _gradient_at(
    field: FloatVolume, vertices: npt.NDArray[np.float32], fallback: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return unit gradients of the field at vertices; where it is flat, the mesh's own normals."""
    gradient = [
        ndimage.map_coordinates(component, vertices.T, order=1, mode="nearest")
        for component in np.gradient(field)
    ]
    vectors = np.stack(gradient, -1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = length[:, 0] < 1e-6
    out: npt.NDArray[np.float32] = (vectors / np.maximum(length, 1e-6)).astype(np.float32)
    out[flat] = fallback[flat]
    return out


def write_obj(mesh: SheetMesh, path: Path, *, voxel_size_um: float = 1.0) -> None:
    """Write a Wavefront OBJ: vertices x y z, normals, and u = winding as texture coordinate."""
    xyz = mesh.vertices[:, ::-1] * np.float32(voxel_size_um)
    lines = [f"# sheet {mesh.number}, winding {mesh.winding[0]:g}", f"o sheet_{mesh.number}"]
    lines += [f"v {x:.3f} {y:.3f} {z:.3f}" for x, y, z in xyz]
    lines += [f"vt {w:.4f} 0" for w in mesh.winding]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in mesh.normals[:, ::-1]]
    lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in mesh.faces + 1]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def write_ply(mesh: SheetMesh, path: Path, *, voxel_size_um: float = 1.0) -> None:
    """Write a binary PLY with per-vertex normals and the property `winding`.

    It stands there twice: viewers built on VTK drop unknown properties, but keep `u` and `v`.
    """
    names = ("x", "y", "z", "nx", "ny", "nz", "winding", "u", "v")
    header = ["ply", "format binary_little_endian 1.0", f"comment sheet {mesh.number}"]
    header += [f"element vertex {len(mesh.vertices)}", *[f"property float {n}" for n in names]]
    header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices"]
    header.append("end_header")
    xyz = mesh.vertices[:, ::-1] * np.float32(voxel_size_um)
    winding = np.stack([mesh.winding, mesh.winding, np.zeros_like(mesh.winding)], 1)
    rows = np.concatenate([xyz, mesh.normals[:, ::-1], winding], 1).astype("<f4")
    faces = np.empty(len(mesh.faces), np.dtype([("n", "u1"), ("v", "<i4", 3)]))
    faces["n"], faces["v"] = 3, mesh.faces
    write_bytes(path, ("\n".join(header) + "\n").encode() + rows.tobytes() + faces.tobytes())


def write_mesh(mesh: SheetMesh, path: Path, *, voxel_size_um: float = 1.0) -> None:
    """Write a mesh in the format that the suffix names.

    Raises:
        ConfigError: neither .obj nor .ply.
        StorageError: the disk is full or the folder cannot be written.
    """
    writers = {".obj": write_obj, ".ply": write_ply}
    if path.suffix not in writers:
        raise ConfigError(f"mesh format {path.suffix!r} of {path}; expected .obj or .ply")
    writers[path.suffix](mesh, path, voxel_size_um=voxel_size_um)
