"""The submission's zip: content by an independent reader, and what the check refuses."""

import io
import zipfile

import numpy as np
import pytest
import tifffile

from vesuvius.errors import PairingError, ShapeMismatchError, VolumeFormatError
from vesuvius.inference.submission import check_submission, write_submission

SHAPES = {"7": (4, 6, 5), "12": (3, 9, 8)}


@pytest.fixture
def masks(rng) -> dict[str, np.ndarray]:
    return {name: rng.integers(0, 2, shape, dtype=np.uint8) for name, shape in SHAPES.items()}


def tiff(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack", compression="lzw")
    return buffer.getvalue()


def write_zip(path, **files: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_zip_holds_the_masks_page_by_page(tmp_path, masks):
    path = tmp_path / "out" / "submission.zip"
    found = write_submission(path, SHAPES, masks.__getitem__)
    assert found.shapes == SHAPES
    assert found.num_bytes == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["12.tif", "7.tif"]
        for name, mask in masks.items():
            with tifffile.TiffFile(io.BytesIO(archive.read(f"{name}.tif"))) as file:
                assert len(file.pages) == len(mask)
                assert file.pages[0].compression.name == "LZW"
                assert file.pages[0].dtype == np.uint8
                np.testing.assert_array_equal(file.asarray(), mask)
            assert found.mask_share[name] == pytest.approx(mask.mean())
    again = tmp_path / "again.zip"
    write_submission(again, SHAPES, masks.__getitem__)
    assert again.read_bytes() == path.read_bytes()


def test_bool_masks_are_written_as_bytes(tmp_path):
    write_submission(tmp_path / "s.zip", {"a": (2, 3, 4)}, lambda _: np.ones((2, 3, 4), bool))
    assert check_submission(tmp_path / "s.zip", {"a": (2, 3, 4)}).mask_share == {"a": 1.0}


@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        (np.full((4, 6, 5), 255, np.uint8), VolumeFormatError, "values up to 255"),
        (np.zeros((4, 6, 5), np.float32), VolumeFormatError, "dtype float32"),
        (np.zeros((6, 5), np.uint8), VolumeFormatError, "mask of 7: shape"),
        (np.zeros((4, 5, 6), np.uint8), ShapeMismatchError, r"the test volume has \(4, 6, 5\)"),
    ],
)
def test_bad_masks_leave_nothing(tmp_path, mask, error, text):
    with pytest.raises(error, match=text):
        write_submission(tmp_path / "s.zip", {"7": (4, 6, 5)}, lambda _: mask)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "error", "text"),
    [
        (
            {"8.tif": tiff(np.zeros((4, 6, 5), np.uint8))},
            PairingError,
            "1 of 1 missing, e.g. 7.tif",
        ),
        (
            {"7.tif": tiff(np.zeros((4, 6, 5), np.uint8)), "x.txt": b""},
            PairingError,
            "1 that are no test volume, e.g. x.txt",
        ),
        ({"7.tif": b"no tiff"}, VolumeFormatError, "7.tif is no readable TIFF"),
        ({"7.tif": tiff(np.full((4, 6, 5), 2, np.uint8))}, VolumeFormatError, "values up to 2"),
        ({"7.tif": tiff(np.zeros((4, 6, 5), bool))}, VolumeFormatError, "dtype bool, not uint8"),
        ({"7.tif": tiff(np.zeros((4, 6, 6), np.uint8))}, ShapeMismatchError, "has shape"),
    ],
)
def test_check_refuses(tmp_path, files, error, text):
    write_zip(tmp_path / "s.zip", **files)
    with pytest.raises(error, match=text):
        check_submission(tmp_path / "s.zip", {"7": (4, 6, 5)})


def test_damaged_zips(tmp_path, masks):
    path = tmp_path / "s.zip"
    write_submission(path, SHAPES, masks.__getitem__)
    whole = path.read_bytes()
    middle = len(whole) // 4
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(VolumeFormatError, match="damaged"):
        check_submission(path, SHAPES)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeFormatError, match="not a readable zip"):
        check_submission(path, SHAPES)
