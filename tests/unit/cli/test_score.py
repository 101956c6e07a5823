"""`vesuvius score`: pairing by name, table, CSV, JSON, pictures, errors by name."""

import csv
import json

import numpy as np
import pytest
import tifffile
import zarr

from vesuvius.cli.main import main
from vesuvius.cli.score_files import find_volumes
from vesuvius.metrics import competition_score, dice


def label_volume(seed=0, size=20):
    rng = np.random.default_rng(seed)
    label = np.zeros((size, size, size), np.uint8)
    label[4:6] = label[12:14] = 1
    label[:, :, rng.integers(2, size - 2)] = 0
    label[0] = label[-1] = 2
    return label


def damaged(label, amount):
    drop = np.random.default_rng(1).random(label.shape) < amount
    return ((label == 1) & ~drop).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Three volumes in three formats; `b` is the worst, `c` perfect."""
    masks, labels = tmp_path / "masks", tmp_path / "labels"
    masks.mkdir()
    labels.mkdir()
    for name in "abc":
        tifffile.imwrite(labels / f"{name}.tif", label_volume(), compression="lzw")
    label = label_volume()
    tifffile.imwrite(masks / "a_mask.tif", damaged(label, 0.02), compression="lzw")
    np.save(masks / "b.npy", damaged(label, 0.3))
    group = zarr.open_group(masks / "c.zarr", mode="w")
    group.create_array("mask", data=damaged(label, 0))
    group.create_array("probability", data=np.zeros((20, 20, 20), np.float32))
    return masks, labels


def test_csv_holds_the_scores_worst_first_and_the_mean(folders, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert main(["score", *map(str, folders), "--csv", str(out), "--jobs", "2"]) == 0
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert [row["volume"] for row in rows] == ["b", "a", "c", "mean"]
    expected = competition_score(damaged(label_volume(), 0.3), label_volume())
    assert float(rows[0]["score"]) == pytest.approx(expected.score, abs=1e-12)
    assert int(rows[0]["tunnels_prediction"]) == expected.counts[1][1]
    assert float(rows[0]["dice"]) == dice(damaged(label_volume(), 0.3), label_volume())
    assert float(rows[2]["score"]) == 1.0
    mean = np.mean([float(row["score"]) for row in rows[:3]])
    assert float(rows[3]["score"]) == pytest.approx(mean)
    assert not list(tmp_path.glob("*.partial"))
    shown = capsys.readouterr().out
    assert shown.index(" b ") < shown.index(" a ") < shown.index(" c ")
    assert "mean of 3" in shown


def test_json_and_pictures(folders, tmp_path, capsys):
    pictures = tmp_path / "worst"
    assert main(["score", *map(str, folders), "--json", "--pictures", str(pictures)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["volume"] for row in found["volumes"]] == ["b", "a", "c"]
    assert 0 < found["mean"]["score"] < 1
    names = sorted(path.name for path in pictures.iterdir())
    assert names == ["worst_1_b.png", "worst_2_a.png", "worst_3_c.png"]
    assert (pictures / "worst_1_b.png").read_bytes()[:4] == b"\x89PNG"


def test_missing_and_extra_names_are_listed(folders, capsys):
    masks, labels = folders
    (masks / "b.npy").rename(masks / "x.npy")
    assert main(["score", str(masks), str(labels)]) == 2
    message = capsys.readouterr().err
    assert "1 of 3 labels have no prediction: b" in message
    assert "1 of 3 predictions have no label: x" in message
    (masks / "x.npy").unlink()
    assert main(["score", str(masks), str(labels), "--allow-missing", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["volumes"]) == 2


def test_one_file_against_one_file(folders, capsys):
    masks, labels = folders
    assert main(["score", str(masks / "c.zarr"), str(labels / "a.tif"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["volumes"][0]["score"] == 1.0


def test_nan_is_background(folders, capsys):
    masks, labels = folders
    mask = damaged(label_volume(), 0).astype(np.float32)
    mask[8] = np.nan
    np.save(masks / "b.npy", mask)
    assert main(["score", str(masks), str(labels), "--json"]) == 0
    by_name = {r["volume"]: r for r in json.loads(capsys.readouterr().out)["volumes"]}
    assert by_name["b"]["score"] == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m, g: np.save(m / "b.npy", np.zeros((20, 20, 19))), ("volume b", "(20, 20, 19)")),
        (lambda m, g: np.save(m / "b.npy", np.zeros((20, 20))), ("b.npy",)),
        (lambda m, g: (m / "b.npy").write_bytes(b"nonsense"), ("b.npy",)),
        (lambda m, g: np.save(m / "a.npy", np.zeros((20, 20, 20))), ("both of volume a",)),
        (
            lambda m, g: tifffile.imwrite(g / "b.tif", np.full((20, 20, 20), 255, np.uint8)),
            ("volume b", "0 (background), 1 (surface)"),
        ),
    ],
    ids=["shape", "flat", "broken", "twice", "label values"],
)
def test_faults_are_named(folders, capsys, change, words):
    change(*folders)
    assert main(["score", *map(str, folders)]) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message


def test_folders_that_are_not_there_or_empty(tmp_path, capsys):
    assert main(["score", str(tmp_path / "none"), str(tmp_path)]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["score", str(tmp_path), str(tmp_path)]) == 2
    assert "holds no volume" in capsys.readouterr().err
    assert main(["score", str(tmp_path), str(tmp_path), "--jobs", "0"]) == 2
    assert "--jobs must be at least 1" in capsys.readouterr().err


def test_probabilities_beside_the_masks_are_passed_over(tmp_path):
    (tmp_path / "7.zarr" / "probability").mkdir(parents=True)
    (tmp_path / "7_mask.tif").touch()
    (tmp_path / "8.zarr" / "mask").mkdir(parents=True)
    found = find_volumes(tmp_path, "prediction")
    assert {name: path.name for name, path in found.items()} == {"7": "7_mask.tif", "8": "8.zarr"}
