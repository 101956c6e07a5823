"""Meshes of sheets: where they lie, what the files hold."""

import numpy as np
import pytest

from vesuvius.errors import ConfigError
from vesuvius.postprocess.winding.meshes import sheet_mesh, write_mesh


@pytest.fixture
def plane():
    """A field that rises along y by 1 per 8 voxels; sheet 3 (level 2.5) supported for x < 12."""
    y = np.arange(32, dtype=np.float32)[None, :, None]
    field = np.broadcast_to(y / 8, (16, 32, 20)).copy()
    labels = np.zeros(field.shape, np.int32)
    labels[:, 19:22, :12] = 3
    return field, labels


def test_mesh_lies_on_the_level_and_ends_with_the_support(plane):
    mesh = sheet_mesh(*plane, 3)
    np.testing.assert_allclose(mesh.vertices[:, 1], 20.0, atol=1e-4)  # 2.5 * 8
    assert mesh.vertices[:, 2].max() <= 13.0
    assert mesh.vertices[:, 0].max() == 15.0
    np.testing.assert_allclose(mesh.normals, [[0, 1, 0]] * len(mesh.normals), atol=1e-5)
    np.testing.assert_array_equal(mesh.winding, 2.5)


def test_a_sheet_that_is_not_there_has_no_mesh(plane):
    assert sheet_mesh(*plane, 2) is None


def test_obj_holds_world_coordinates_in_x_y_z(plane, tmp_path):
    mesh = sheet_mesh(*plane, 3)
    write_mesh(mesh, tmp_path / "a.obj", voxel_size_um=2.0)
    rows = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()]
    vertices = np.array([r[1:] for r in rows if r[0] == "v"], float)
    np.testing.assert_allclose(vertices, 2 * mesh.vertices[:, ::-1], atol=1e-3)
    faces = np.array([[c.split("/")[0] for c in r[1:]] for r in rows if r[0] == "f"], int)
    np.testing.assert_array_equal(faces, mesh.faces + 1)


def test_ply_is_read_back_by_its_header(plane, tmp_path):
    mesh = sheet_mesh(*plane, 3)
    write_mesh(mesh, tmp_path / "a.ply")
    head, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    assert f"element vertex {len(mesh.vertices)}".encode() in head
    rows = np.frombuffer(body[: 36 * len(mesh.vertices)], "<f4").reshape(-1, 9)
    np.testing.assert_allclose(rows[:, :3], mesh.vertices[:, ::-1], atol=1e-6)
    np.testing.assert_array_equal(rows[:, 6], 2.5)
    assert len(body) == 36 * len(mesh.vertices) + 13 * len(mesh.faces)


def test_unknown_suffix_is_refused(plane, tmp_path):
    with pytest.raises(ConfigError, match=r"'\.stl'.*expected \.obj or \.ply"):
        write_mesh(sheet_mesh(*plane, 3), tmp_path / "a.stl")


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_pyvista_reads_what_is_written(plane, tmp_path, suffix):
    pyvista = pytest.importorskip("pyvista", reason="needs PyVista, extra 'viz'")
    mesh = sheet_mesh(*plane, 3)
    path = tmp_path / f"a{suffix}"
    write_mesh(mesh, path, voxel_size_um=2.0)
    read = pyvista.read(path)
    assert (read.n_points, read.n_cells) == (len(mesh.vertices), len(mesh.faces))
    np.testing.assert_allclose(read.points, 2 * mesh.vertices[:, ::-1], atol=1e-3)
    np.testing.assert_array_equal(read.faces.reshape(-1, 4)[:, 1:], mesh.faces)
    normals = next(array for name, array in read.point_data.items() if "ormals" in name)
    np.testing.assert_allclose(normals, [[0, 1, 0]] * len(mesh.normals), atol=1e-4)
    np.testing.assert_array_equal(read.active_texture_coordinates[:, 0], 2.5)
