"""Prepared cases on disk: what is kept, what is read of others, what is refused."""

import dataclasses

import numpy as np
import pytest

from vesuvius.data.heart.format import HeartCase, check_case, load_case, save_case
from vesuvius.errors import CaseFormatError, StorageError, VolumeNotFoundError
from vesuvius.types import HEART_CLASSES

RNG = np.random.default_rng(0)


def seed_arrays(num=30, k=10):
    """Return the arrays of a file of the original project, with its (N, 1) distances."""
    labels = np.arange(num) % k
    sdf = RNG.normal(0, 0.1, (num, 1)).astype(np.float32)
    inside = np.where(sdf[:, 0] < 0, labels + 1, 0).astype(np.int8)
    points = RNG.uniform(-1, 1, (num, 3)).astype(np.float32)
    return {
        "surface_points": points,
        "surface_labels": np.eye(k, dtype=np.float32)[labels],
        "vol_points": points,
        "vol_sdf": sdf,
        "vol_labels": inside,
        "near_points": points,
        "near_sdf": sdf[:, 0],
        "near_labels": inside,
    }


def test_a_case_comes_back_as_it_was_and_equal_cases_give_equal_bytes(heart_case, tmp_path):
    save_case(tmp_path / "a.npz", heart_case)
    save_case(tmp_path / "b.npz", heart_case)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    back = load_case(tmp_path / "a.npz")
    for field in dataclasses.fields(HeartCase):
        old, new = getattr(heart_case, field.name), getattr(back, field.name)
        if isinstance(old, np.ndarray):
            assert old.dtype == new.dtype
            assert (old == new).all()
    assert (back.geometry.label_map == heart_case.geometry.label_map).all()
    assert back.geometry.scale == heart_case.geometry.scale
    assert back.class_names == HEART_CLASSES
    assert set(back.class_sdf) == {"surface", "vol", "near"}
    with np.load(tmp_path / "a.npz") as file:
        assert file["surface_labels"].shape == (6000, 10)
        assert file["vol_sdf"].shape == (8000,)
        assert file["vol_labels"].dtype == np.int8


def test_world_and_cube_coordinates_are_inverse(heart_case):
    geometry = heart_case.geometry
    index = RNG.uniform(0, 47, (50, 3))
    cube = geometry.to_cube(index)
    assert geometry.to_index(cube) == pytest.approx(index)
    assert geometry.to_world(cube) == pytest.approx(index * 2.5)  # affine diag(2.5)
    assert geometry.to_cube(geometry.shift / geometry.spacing) == pytest.approx(np.zeros(3))


@pytest.mark.parametrize("as_numbers", [False, True], ids=["one-hot", "numbers"])
def test_files_of_the_original_project_are_read(as_numbers, tmp_path):
    arrays = seed_arrays()
    if as_numbers:
        arrays["surface_labels"] = arrays["surface_labels"].argmax(1) + 1
    np.savez(tmp_path / "151.npz", **arrays)
    case = load_case(tmp_path / "151.npz")
    assert case.geometry is None
    assert case.vol_sdf.shape == (30,)
    assert case.surface_labels[:3].tolist() == [1, 2, 3]
    assert case.present_classes == tuple(range(1, 11))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"vol_sdf": None}, "holds no vol_sdf"),
        ({"vol_sdf": np.zeros(29, np.float32)}, r"vol_sdf has shape \(29,\); expected \(30,\)"),
        ({"near_sdf": np.full(30, np.nan, np.float32)}, "near_sdf holds NaN"),
        ({"vol_points": np.full((30, 3), np.inf)}, "vol_points holds NaN or infinity"),
        ({"vol_points": np.zeros((30, 2))}, r"vol_points has shape \(30, 2\)"),
        ({"vol_labels": np.full(30, 11)}, r"vol_labels spans 11..11; expected 0..10"),
        ({"near_labels": np.full(30, 0.5)}, "labels hold"),
        ({"surface_labels": np.zeros((30, 10))}, "not one-hot"),
        ({"shift": np.zeros(3)}, "holds shift but not all of"),
        ({"sdf_mode": np.array("mesh")}, "sdf_mode is 'mesh'"),
    ],
    ids=lambda value: str(next(iter(value)) if isinstance(value, dict) else value)[:25],
)
def test_contradicting_files_are_refused_by_name(change, text, tmp_path):
    arrays = {k: v for k, v in {**seed_arrays(), **change}.items() if v is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(CaseFormatError, match=rf"bad\.npz: .*{text}"):
        load_case(tmp_path / "bad.npz")


@pytest.mark.parametrize("how", ["truncated", "text", "pickle"])
def test_broken_files_are_refused(how, tmp_path, heart_case):
    path = tmp_path / "bad.npz"
    if how == "truncated":
        save_case(path, heart_case)
        path.write_bytes(path.read_bytes()[:-5000])
    elif how == "text":
        path.write_text("no archive")
    else:
        np.savez(path, **{**seed_arrays(), "vol_sdf": np.array([{}] * 30, object)})
    with pytest.raises(CaseFormatError, match=r"bad\.npz: not a readable npz"):
        load_case(path)


def test_absent_files_and_folders_that_cannot_be_written_are_named(heart_case, tmp_path):
    with pytest.raises(VolumeNotFoundError, match=r"x\.npz: no such file"):
        load_case(tmp_path / "x.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*a\.npz: File exists.* Nothing half"):
        save_case(tmp_path / "file" / "a.npz", heart_case)


def test_a_case_with_wrong_values_is_never_written(heart_case, tmp_path):
    bad = dataclasses.replace(heart_case, vol_sdf=heart_case.vol_sdf[:-1])
    with pytest.raises(CaseFormatError, match="vol_sdf has shape"):
        save_case(tmp_path / "a.npz", bad)
    geometry = dataclasses.replace(heart_case.geometry, scale=0.0)
    with pytest.raises(CaseFormatError, match=r"scale 0\.0"):
        check_case(dataclasses.replace(heart_case, geometry=geometry), "x")
    assert list(tmp_path.iterdir()) == []
