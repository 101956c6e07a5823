"""Reading is strict: a damaged file raises or reads right, never zeros."""

import numpy as np
import pytest
import tifffile

from vesuvius.data.tiff import read_tiff, write_tiff
from vesuvius.data.volume import open_volume
from vesuvius.errors import StorageError, VolumeFormatError, VolumeNotFoundError

VOLUME = np.random.default_rng(0).integers(1, 256, (5, 14, 12), dtype=np.uint8)


def test_write_then_read_keeps_voxels_and_is_lzw_with_one_strip_a_page(tmp_path):
    path = tmp_path / "a" / "v.tif"
    write_tiff(path, VOLUME)
    assert np.array_equal(read_tiff(path), VOLUME)
    with tifffile.TiffFile(path) as file:
        assert [page.compression.name for page in file.pages] == ["LZW"] * 5
        assert [len(page.dataoffsets) for page in file.pages] == [1] * 5
    assert [p.name for p in path.parent.iterdir()] == ["v.tif"]


def test_uint16_and_one_contiguous_block_read_the_same(tmp_path):
    volume = VOLUME.astype(np.uint16) * 200
    tifffile.imwrite(tmp_path / "v.tif", volume, photometric="minisblack")
    assert np.array_equal(read_tiff(tmp_path / "v.tif"), volume)


def test_two_dimensional_tiff_is_one_slice(tmp_path):
    write_tiff(tmp_path / "v.tif", VOLUME[0])
    assert read_tiff(tmp_path / "v.tif").shape == (1, 14, 12)


@pytest.mark.parametrize("options", [{"compression": "lzw", "rowsperstrip": 14}, {"ome": True}, {}])
def test_truncated_file_never_yields_wrong_voxels(tmp_path, options):
    whole = tmp_path / "v.tif"
    tifffile.imwrite(whole, VOLUME, photometric="minisblack", **options)
    data = whole.read_bytes()
    part = tmp_path / "part.tif"
    raised = 0
    for length in range(0, len(data), 37):
        part.write_bytes(data[:length])
        try:
            assert np.array_equal(read_tiff(part), VOLUME)
        except VolumeFormatError as error:
            raised += 1
            assert str(part) in str(error)  # noqa: PT017 - either outcome is right
    assert raised > 10


@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(
            lambda p: p.write_bytes(b"hello, no image"), "not a readable TIFF", id="no-tiff"
        ),
        pytest.param(
            lambda p: tifffile.imwrite(p, np.zeros((4, 8, 8, 3), np.uint8), photometric="rgb"),
            "is a colour image",
            id="colour",
        ),
        pytest.param(
            lambda p: tifffile.imwrite(p, np.zeros((2, 3, 8, 8), np.uint8), imagej=True),
            "is 4-D of shape (2, 3, 8, 8); expected 3-D",
            id="4-D",
        ),
    ],
)
def test_other_contents_are_refused(tmp_path, make, text):
    make(tmp_path / "v.tif")
    with pytest.raises(VolumeFormatError) as caught:
        read_tiff(tmp_path / "v.tif")
    assert text in str(caught.value)


def test_slices_of_different_sizes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "v.tif") as writer:
        writer.write(VOLUME[0], metadata=None)
        writer.write(VOLUME[1, :7], metadata=None)
    with pytest.raises(VolumeFormatError, match="holds 2 image series of shapes"):
        read_tiff(tmp_path / "v.tif")


def test_missing_file(tmp_path):
    with pytest.raises(VolumeNotFoundError, match=r"v\.tif: no such file"):
        read_tiff(tmp_path / "v.tif")


def test_folder_of_slices_is_one_volume_in_numeric_order(tmp_path):
    for z in range(5):
        tifffile.imwrite(tmp_path / f"{z * 5}.tif", VOLUME[z])  # 0, 5, 10, 15, 20
    volume = open_volume(tmp_path)
    assert np.array_equal(volume.read((1, 2, 3), (4, 10, 12)), VOLUME[1:4, 2:10, 3:12])


def test_folder_with_an_odd_slice_names_it(tmp_path):
    for z in range(3):
        tifffile.imwrite(tmp_path / f"{z}.tif", VOLUME[z, : 14 - 7 * (z == 2)])
    with pytest.raises(VolumeFormatError, match=r"2\.tif: slice of shape \(7, 12\)"):
        open_volume(tmp_path).read_all()


def test_unwritable_folder_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="nothing was left"):
        write_tiff(tmp_path / "file" / "v.tif", VOLUME)
