"""Folders of phantoms: layout, TIFF tags, resuming, refusing, the command line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vesuvius.cli.main import main
from vesuvius.data import phantom_files
from vesuvius.data.phantom import PhantomSettings, make_phantom
from vesuvius.data.phantom_files import plan_volumes, write_kaggle_phantom
from vesuvius.errors import ConfigError, StorageError

SHAPE = (12, 16, 20)


def write(root: Path, **changes: object) -> list[phantom_files.PhantomVolume]:
    arguments = {"num_train": 2, "num_test": 1, "shape_zyx": SHAPE, "seed": 0, **changes}
    return write_kaggle_phantom(root, **arguments)


def times(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*.[tn][ip]*")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "data"
    return root, write(root)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_layout_is_the_competitions(folder):
    root, volumes = folder
    train = [v.volume_id for v in volumes if v.split == "train"]
    (test,) = [v.volume_id for v in volumes if v.split == "test"]
    assert [row["id"] for row in rows(root / "train.csv")] == train
    assert rows(root / "test.csv") == [{"id": test, "scroll_id": "90001"}]
    assert {p.stem for p in (root / "train_images").iterdir()} == set(train)
    assert {p.stem for p in (root / "train_labels").iterdir()} == set(train)
    assert [p.name for p in (root / "test_images").iterdir()] == [f"{test}.tif"]
    assert not (root / "test_labels").exists()
    truth = {"surface.tif", "wrap.tif", "winding.tif", "normals.npy"}
    assert {p.name for p in (root / "train_truth").iterdir()} == {
        f"{name}_{kind}" for name in train for kind in truth
    }
    assert {p.name for p in (root / "test_truth").iterdir()} == {
        f"{test}_{kind}" for kind in truth | {"label.tif"}
    }
    assert not list(root.rglob("*.partial"))
    assert all(name.isdecimal() for name in [*train, test])


@pytest.mark.parametrize("part", ["train_images", "train_labels"])
def test_tiffs_are_lzw_with_one_strip_a_page_and_no_predictor(folder, part):
    root, volumes = folder
    with tifffile.TiffFile(root / part / f"{volumes[0].volume_id}.tif") as tiff:
        assert len(tiff.pages) == SHAPE[0]
        for page in tiff.pages:
            assert page.compression == tifffile.COMPRESSION.LZW
            assert page.rowsperstrip == SHAPE[1]
            assert len(page.dataoffsets) == 1
            assert page.predictor == 1
            assert page.dtype == np.uint8


def test_files_hold_the_phantom(folder):
    root, volumes = folder
    volume = volumes[1]
    p = make_phantom(
        SHAPE, seed=volume.scroll_seed, umbilicus_yx=(0.0, 0.0), origin_zyx=volume.origin_zyx
    )
    truth = root / "train_truth"
    read = {
        "image": tifffile.imread(root / "train_images" / f"{volume.volume_id}.tif"),
        "label": tifffile.imread(root / "train_labels" / f"{volume.volume_id}.tif"),
        **{
            name: tifffile.imread(truth / f"{volume.volume_id}_{name}.tif")
            for name in ("surface", "wrap", "winding")
        },
    }
    for name, array in read.items():
        assert array.dtype == getattr(p, name).dtype
        np.testing.assert_array_equal(array, getattr(p, name), err_msg=name)
    normals = np.load(truth / f"{volume.volume_id}_normals.npy")
    assert normals.dtype == np.int8
    np.testing.assert_allclose(normals / 127.0, p.normals, atol=0.5 / 127 + 1e-6)


def test_second_run_touches_nothing_and_a_missing_file_is_redone(tmp_path):
    volumes = write(tmp_path)
    before = times(tmp_path)
    outcomes = []
    write(tmp_path, progress=outcomes.append)
    assert times(tmp_path) == before
    assert [o.written for o in outcomes] == [False] * 3
    lost = tmp_path / "train_labels" / f"{volumes[0].volume_id}.tif"
    content = lost.read_bytes()
    lost.unlink()
    outcomes.clear()
    write(tmp_path, progress=outcomes.append)
    assert [o.volume.volume_id for o in outcomes if o.written] == [volumes[0].volume_id]
    assert lost.read_bytes() == content


def test_more_volumes_extend_and_fewer_remove_none(tmp_path):
    first = write(tmp_path)
    more = write(tmp_path, num_train=3)
    assert set(first) < set(more)
    assert len(list((tmp_path / "train_images").iterdir())) == 3
    assert write(tmp_path, num_train=1) == more
    assert len(rows(tmp_path / "train.csv")) == 3


def test_other_settings_in_the_same_folder_are_refused(folder):
    root, _ = folder
    with pytest.raises(ConfigError, match=r"made with other settings \(seed 0 there, 1 asked for"):
        write(root, seed=1)
    with pytest.raises(ConfigError, match=r"noise 6\.0 there, 7\.0 asked for"):
        write(root, settings=PhantomSettings(noise=7.0))


def test_a_folder_of_real_data_is_refused(tmp_path):
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train_images" / "1.tif").touch()
    with pytest.raises(ConfigError, match=r"holds train_images that are no phantoms"):
        write(tmp_path)


def test_full_disk_leaves_no_file_that_looks_finished(tmp_path, monkeypatch):
    def full(path, *args, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(StorageError, match="No space left"):
        write(tmp_path)
    assert not list(tmp_path.rglob("*.tif"))
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_train": -1}, "num_train is -1, expected 0 or more"),
        ({"num_scrolls": 0}, "num_scrolls is 0, expected 1 or more"),
        ({"num_jobs": 0}, "num_jobs is 0"),
        ({"shape_zyx": (4, 64, 64)}, "expected three sizes of at least 8 voxels"),
    ],
    ids=["train", "scrolls", "jobs", "shape"],
)
def test_numbers_are_checked(tmp_path, changes, text):
    with pytest.raises(ConfigError, match=text):
        write(tmp_path / "data", **changes)
    assert not (tmp_path / "data").exists()


def test_volumes_of_a_scroll_do_not_overlap():
    volumes = plan_volumes({"train": 9, "test": 4}, shape_zyx=SHAPE, seed=1, num_scrolls=2)
    assert len({v.volume_id for v in volumes}) == 13
    places = [(v.scroll_id, v.origin_zyx[0]) for v in volumes]
    assert len(set(places)) == 13
    assert len({v.scroll_seed for v in volumes}) == 2


def test_processes_write_the_same_files(folder, tmp_path):
    root, _ = folder
    write(tmp_path, num_jobs=2)
    for path in root.rglob("*.tif"):
        assert (tmp_path / path.relative_to(root)).read_bytes() == path.read_bytes()


def test_command_line(tmp_path, capsys):
    out = tmp_path / "data"
    command = ["phantom", str(out), "--train", "1", "--test", "0", "--jobs", "1", "--shape"]
    command += ["10", "11", "12", "--preset", "holes", "--set", "noise=3", "--set", "pitch=9,20"]
    assert main(command) == 0
    assert "1 written, 0 already finished" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 written, 1 already finished" in capsys.readouterr().out
    made = json.loads((out / "phantom.json").read_text())["settings"]
    assert made["hole_share"] == 0.33
    assert made["noise"] == 3.0
    assert made["pitch"] == [9.0, 20.0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("nois=3", "--set nois=3: expected NAME=VALUE with one of the names pitch, thickness"),
        ("pitch=3", "pitch takes two numbers, smallest,largest, got '3'"),
        ("noise=a", "noise takes one number, got 'a'"),
        ("ignore_rim=2.5", "ignore_rim takes one number, got '2.5'"),
        ("noise=-1", "PhantomSettings.noise is -1"),
    ],
    ids=lambda v: v.split("=")[0],
)
def test_command_line_names_bad_settings(tmp_path, capsys, change, text):
    assert main(["phantom", str(tmp_path / "x"), "--set", change]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
