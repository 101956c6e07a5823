"""`vesuvius submit` on files."""

import zipfile

import numpy as np
import pytest

from vesuvius.cli.main import main
from vesuvius.data.tiff import write_tiff
from vesuvius.inference.store import write_mask


@pytest.fixture
def folders(tmp_path, rng):
    """Two test volumes of different shapes and their masks as infer.py names them."""
    for name, shape in (("1407735", (6, 8, 9)), ("2", (5, 7, 7))):
        write_tiff(tmp_path / "test" / f"{name}.tif", rng.integers(0, 256, shape, dtype=np.uint8))
        mask = np.zeros(shape, np.uint8)
        mask[2] = 1
        write_mask(tmp_path / "masks" / f"{name}_mask.tif", mask)
    return tmp_path


def submit(folder, *more: str) -> int:
    out = folder / "submission.zip"
    return main(
        ["submit", str(folder / "masks"), "--test", str(folder / "test"), "--out", str(out), *more]
    )


def test_masks_become_a_checked_zip(folders, capsys):
    assert submit(folders) == 0
    out = capsys.readouterr().out
    assert "2 volumes" in out
    assert "surface 16.67 to 20.00 % of the voxels; names, shapes, dtype and values" in out
    with zipfile.ZipFile(folders / "submission.zip") as archive:
        assert archive.namelist() == ["1407735.tif", "2.tif"]


def test_a_missing_mask_is_an_error_and_a_strange_one_a_note(folders, capsys):
    (folders / "masks" / "2_mask.tif").rename(folders / "masks" / "3_mask.tif")
    assert submit(folders) == 2
    assert "1 of 2 test volumes have no mask, e.g. 2" in capsys.readouterr().err
    assert not (folders / "submission.zip").exists()
    write_mask(folders / "masks" / "2_mask.tif", np.zeros((5, 7, 7), np.uint8))
    assert submit(folders) == 0
    err = capsys.readouterr().err
    assert "1 masks are of no test volume, e.g. 3" in err
    assert "1 masks are empty, e.g. 2" in err


def test_another_shape_is_named(folders, capsys):
    write_mask(folders / "masks" / "2_mask.tif", np.zeros((5, 7, 8), np.uint8))
    assert submit(folders) == 2
    assert "mask of 2 has shape (5, 7, 8); the test volume has (5, 7, 7)" in capsys.readouterr().err
