"""`vesuvius splits` on prepared volumes."""

import json

import pytest

from vesuvius.cli.main import main


@pytest.fixture
def made(prepared, tmp_path, capsys):
    path = tmp_path / "splits.json"
    assert main(["splits", str(prepared / "train"), "--folds", "3", "--out", str(path)]) == 0
    text = capsys.readouterr().out
    assert "3 volumes in 3 folds by volume" in text
    assert "surface %" in text
    return path


def test_file_is_checked_and_not_overwritten(prepared, made, capsys):
    data = str(prepared / "train")
    assert main(["splits", data, "--check", str(made)]) == 0
    assert "3 volumes, 3 folds, no leak" in capsys.readouterr().out
    assert main(["splits", data, "--out", str(made)]) == 2
    assert "runs may have been trained by it" in capsys.readouterr().err
    assert main(["splits", data, "--folds", "2", "--out", str(made), "--overwrite"]) == 0


def test_changed_volumes_and_files_are_found(prepared, made, capsys):
    data = str(prepared / "train")
    content = json.loads(made.read_text())
    name = next(iter(content["volumes"]))
    content["volumes"][name]["content"] = "0" * 16
    made.write_text(json.dumps(content))
    assert main(["splits", data, "--check", str(made)]) == 2
    assert "1 volumes have other voxels or another scroll" in capsys.readouterr().err
    del content["volumes"][name]
    content["num_folds"] = 2
    for fold, entry in enumerate(content["volumes"].values()):
        entry["fold"] = fold
    made.write_text(json.dumps(content))
    assert main(["splits", data, "--check", str(made)]) == 2
    assert f"1 of 3 volumes are in no fold, e.g. {name}" in capsys.readouterr().err


def test_out_or_check(prepared, capsys):
    assert main(["splits", str(prepared / "train")]) == 2
    assert "either --out FILE" in capsys.readouterr().err
