"""`vesuvius prepare` through its entry point: exit status and what the user reads."""

import numpy as np
import pytest

from vesuvius.cli.main import main
from vesuvius.data.tiff import write_tiff

SHAPE = (12, 16, 16)


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        label = np.zeros(SHAPE, np.uint8)
        label[:, 4:6] = 1
        image = rng.integers(0, 256, SHAPE, dtype=np.uint8)
        write_tiff(tmp_path / "in" / "train_images" / f"{i}.tif", image)
        write_tiff(tmp_path / "in" / "train_labels" / f"{i}.tif", label)
    return tmp_path / "in"


def _prepare(source, *more):
    return main(["prepare", str(source), str(source.parent / "out"), "--jobs", "1", *more])


def test_all_prepared_then_all_skipped_then_redone(source, capsys):
    assert _prepare(source) == 0
    assert "3 prepared, 0 already finished, 0 failed, of 3" in capsys.readouterr().out
    assert _prepare(source) == 0
    assert "0 prepared, 3 already finished, 0 failed, of 3" in capsys.readouterr().out
    assert _prepare(source, "--overwrite") == 0
    assert "3 prepared, 0 already finished" in capsys.readouterr().out


def test_a_bad_file_is_named_and_the_status_is_not_zero(source, capsys):
    (source / "train_images" / "1.tif").write_bytes(b"II*\0 and then nothing")
    assert _prepare(source) == 1
    text = capsys.readouterr()
    assert "2 prepared, 0 already finished, 1 failed, of 3" in text.out
    assert "error: 1: " in text.err
    assert "1.tif" in text.err
    assert sorted(p.name for p in (source.parent / "out" / "train").iterdir()) == [
        "0.zarr",
        "2.zarr",
    ]


def test_missing_source(tmp_path, capsys):
    assert _prepare(tmp_path / "nothing") == 2
    assert "nothing: no such file or folder (SOURCE)" in capsys.readouterr().err


def test_bad_number_of_jobs(source, capsys):
    assert main(["prepare", str(source), str(source / "out"), "--jobs", "0"]) == 2
    assert "num_jobs is 0; expected 1 or more (--jobs)" in capsys.readouterr().err


def test_a_file_where_the_folder_should_be_is_named_once(source, capsys):
    (source.parent / "out").write_text("a note")
    assert _prepare(source) == 2
    text = capsys.readouterr().err
    assert text.count("out is a file; OUT must be a folder, or new") == 1
    assert "train_images" not in text
