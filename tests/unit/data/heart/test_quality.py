"""The checker flags what spoiled the original's data, and passes what is right."""

import dataclasses

import numpy as np
import pytest

from vesuvius.cli.main import main
from vesuvius.data.heart.format import load_case, save_case
from vesuvius.data.heart.inventory import case_inventory, link_all, mark, unprepared
from vesuvius.data.heart.labels import write_label_map
from vesuvius.data.heart.quality import CRITICAL, check_quality, contradictions
from vesuvius.errors import StorageError
from vesuvius.types import HEART_CLASSES


def texts(case):
    return [text for level, text in check_quality(case).verdicts if level == CRITICAL]


def changed(case, **arrays):
    return dataclasses.replace(case, class_sdf={}, sdf_mode="min_of_classes", **arrays)


def test_a_right_case_passes_with_full_consistency(heart_case):
    quality = check_quality(heart_case)
    assert not quality.critical
    assert quality.consistency == 1
    assert quality.agreement > 0.999
    assert quality.slope == pytest.approx(1, abs=0.15)
    assert all(abs(share - 0.5) < 0.03 for share in quality.near_inside.values())
    assert sum(quality.class_counts.values()) == (heart_case.vol_labels > 0).sum()
    assert quality.pools["vol"].mean == pytest.approx(heart_case.vol_sdf.mean())


def test_swapped_signs_are_found(heart_case):
    bad = changed(heart_case, vol_sdf=-heart_case.vol_sdf, near_sdf=-heart_case.near_sdf)
    assert check_quality(bad).consistency < 0.01
    assert any("signs are swapped" in text for text in texts(bad))


def test_labels_of_other_points_are_found(heart_case):
    bad = changed(
        heart_case,
        vol_labels=np.roll(heart_case.vol_labels, 2000),
        near_labels=np.roll(heart_case.near_labels, 2000),
    )
    found = texts(bad)
    assert any("labels belong elsewhere" in text for text in found)
    assert any("near points lie in it; expected 50 %" in text for text in found)


def test_points_that_all_lie_inside_are_found(heart_case):
    bad = changed(heart_case, vol_sdf=-np.abs(heart_case.vol_sdf) - 1e-4)
    assert any("0.0% of the volume points lie outside" in text for text in texts(bad))


def test_classes_pushed_to_one_side_are_found(heart_case):
    """Finding 6: the original pushed the first classes out and the others in."""
    inward = np.where(heart_case.surface_labels > 4, heart_case.surface_labels, 0)
    bad = changed(heart_case, near_labels=inward.astype(np.int8))
    found = texts(bad)
    assert any("class 1 Myocardium: 0% of its near points" in text for text in found)
    assert any("class 6 Aorta: 100% of its near points" in text for text in found)


def test_points_in_another_frame_than_the_label_map_are_found(heart_case):
    flipped = heart_case.vol_points * np.array([-1, 1, 1], np.float32)
    found = texts(changed(heart_case, vol_points=flipped))
    assert len(found) == 1
    assert "points and label map lie in different frames" in found[0]


def test_a_slope_of_two_is_reported(heart_case):
    steep = changed(heart_case, near_sdf=2 * heart_case.near_sdf)
    quality = check_quality(steep)
    assert quality.slope == pytest.approx(2, abs=0.3)
    assert any("expected 1: half a voxel" in text for _, text in quality.verdicts)


def test_contradictions_are_both_kinds():
    sdf = np.array([-1.0, -1, 0, 1, 0], np.float32)
    inside, outside = contradictions(sdf, np.array([0, 2, 0, 3, 1], np.int8))
    assert (inside.tolist(), outside.tolist()) == ([0], [3, 4])  # exactly 0 is outside


@pytest.fixture(scope="module")
def folder(heart_case, heart_map, tmp_path_factory):
    root = tmp_path_factory.mktemp("hearts")
    save_case(root / "cases" / "a.npz", dataclasses.replace(heart_case, fingerprint="x"))
    no_coronary = changed(heart_case, present_classes=(1, 2, 3, 4, 5, 6, 7, 8, 10))
    save_case(root / "cases" / "b.npz", dataclasses.replace(no_coronary, fingerprint="y"))
    for name in "abc":
        labels = heart_map.labels[8:40, 8:40, :40]
        write_label_map(root / "labels" / f"{name}.nii.gz", labels, heart_map.affine)
    return root


def test_inventories_count_what_is_missing(folder):
    found = case_inventory(sorted((folder / "cases").glob("*.npz")), HEART_CLASSES)
    assert {c: len(files) for c, files in found.missing.items() if files} == {9: 1}
    assert found.by_number == {10: 1, 9: 1}
    assert found.lone_gaps == {9: 1}
    assert [mark(s) for s in (0.1, 0.3, 0.6)] == ["", "!", "!!"]
    rest = unprepared(sorted((folder / "labels").iterdir()), folder / "cases")
    assert [p.name for p in rest] == ["c.nii.gz"]
    for _ in range(2):
        link_all(rest, folder / "todo")
    assert (folder / "todo" / "c.nii.gz").resolve() == folder / "labels" / "c.nii.gz"
    with pytest.raises(StorageError, match="cannot be filled with links"):
        link_all([folder / "cases" / "a.npz"], folder / "cases")


def heart(capsys, *args):
    status = main(["heart", *map(str, args)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_check_returns_one_for_critical_and_unreadable_cases(folder, heart_case, tmp_path, capsys):
    status, out, _ = heart(capsys, "check", folder / "cases", "-v")
    assert status == 0
    assert "consistency 100.00%, lowest 100.00%" in out
    assert "2 cases: 0 critical, 0 cannot be read" in out
    bad = changed(heart_case, vol_sdf=-heart_case.vol_sdf, near_sdf=-heart_case.near_sdf)
    save_case(tmp_path / "bad.npz", bad)
    (tmp_path / "worse.npz").write_text("")
    status, out, _ = heart(capsys, "check", tmp_path)
    assert status == 1
    assert "critical  bad: sign and label agree for 0.00%" in out
    assert "2 cases: 1 critical, 1 cannot be read" in out


def test_inspect_lists_offenders(heart_case, tmp_path, capsys):
    labels = heart_case.vol_labels.copy()
    labels[[0, 1]] = 0
    save_case(tmp_path / "bad.npz", changed(heart_case, vol_labels=labels))
    status, out, _ = heart(capsys, "inspect", tmp_path / "bad.npz", "--show", "1")
    assert status == 1
    assert "inside, but background: 2 of" in out
    assert out.count("    point ") == 1
    assert " 9 Coronary" in out
    save_case(tmp_path / "good.npz", heart_case)
    assert heart(capsys, "inspect", tmp_path / "good.npz")[0] == 0


def test_missing_and_classes_print_what_lacks_and_how_to_go_on(folder, capsys):
    status, out, _ = heart(capsys, "missing", folder / "cases", "--labels", folder / "labels")
    assert status == 0
    assert " 9 Coronary      missing in     1 (50.0%) !" in out
    assert "only 9 Coronary missing: 1 files" in out
    assert "1 label maps have no case" in out
    assert f"vesuvius heart prepare {folder / 'labels'} {folder / 'cases'}" in out
    status, out, _ = heart(capsys, "classes", folder / "labels", "--classes", "4")
    assert status == 1
    assert "cannot be used" in out
    assert "expected 0..4" in out


def test_phantom_prepare_csv_and_view_work_together(tmp_path, capsys):
    args = ("--count", "2", "--size", "40")
    status, out, _ = heart(capsys, "phantom", tmp_path / "in", *args)
    assert (status, "2 hearts written, 0 were there" in out) == (0, True)
    prepare = (
        *("prepare", tmp_path / "in", tmp_path / "out", "--num-surface-points", "1000"),
        *("--num-vol-points", "1000", "--min-surface-per-class", "50", "--vol-per-class", "20"),
        *("--min-class-voxels", "1"),
    )
    status, out, _ = heart(capsys, *prepare)
    assert (status, "2 prepared, 0 already finished, 0 failed, of 2" in out) == (0, True)
    status, out, _ = heart(capsys, *prepare, "--start-idx", "1")
    assert "0 prepared, 1 already finished, 0 failed, of 1" in out
    status, out, _ = heart(
        capsys, "csv", tmp_path / "out", "--out", tmp_path / "lists", "--train-share", "0.5"
    )
    assert (tmp_path / "lists" / "val.csv").read_text() == "../out,heart_0001,heart\n"
    picture = tmp_path / "view.png"
    status, *_ = heart(
        capsys, "view", tmp_path / "lists" / "val.csv", "--out", picture, "--resolution", "64"
    )
    assert status == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert load_case(tmp_path / "out" / "heart_0000.npz").num_classes == 10


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("prepare", "{}/in", "{}/out"), "no such folder (input_dir)"),
        (("phantom", "{}/x", "--size", "40", "40"), "--size has 2 numbers"),
        (("classes", "{}", "--classes", "2", "--class-names", "a"), "--class-names gives 1"),
        (("inspect", "{}/a.npz"), "a.npz: no such file"),
        (("csv", "{}", "--out", "{}/x"), "holds no <id>.npz"),
        (("view", "{}/a.csv", "--out", "{}/x"), "a.csv: no such file"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_bad_arguments_are_one_line(args, text, tmp_path, capsys):
    status, _, err = heart(capsys, *(a.format(tmp_path) for a in args))
    assert status == 2
    assert text in err
    assert "Traceback" not in err


def test_a_missing_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = heart(capsys, "check", tmp_path)
    assert status == 2
    assert "needs nibabel and trimesh: pip install 'vesuvius[heart]'" in err
