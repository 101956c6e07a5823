"""Reading is strict: a damaged file raises or reads right, never zeros."""

import numpy as np
import pytest
import tifffile

from vesuvius.data.region import RegionView
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


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_block_under_one_header_is_mapped_not_read(tmp_path, byteorder):
    volume = VOLUME.astype(np.uint16) * 200
    how = {"photometric": "minisblack", "truncate": True, "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "v.tif", volume, **how)
    np.testing.assert_array_equal(open_volume(tmp_path / "v.tif").read_all(), volume)
    sparse = tmp_path / "sparse.tif"  # 32 GiB that take no disk: reading it all would fail
    tifffile.imwrite(sparse, shape=(2**19, 256, 256), dtype=np.uint8, bigtiff=True, **how)
    assert not open_volume(sparse).read((2**18, 3, 4), (2**18 + 2, 9, 9)).any()
    with sparse.open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(VolumeFormatError, match=r"sparse\.tif: its slices end at byte .*truncated"):
        open_volume(sparse)


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_region_of_thousands_of_slices_opens_only_its_own(tmp_path, dtype):
    data = VOLUME.astype(dtype) * dtype(200 if dtype == np.uint16 else 1)
    for z in range(3000):  # any other slice than these would be an error
        (tmp_path / f"{z:05}.tif").write_bytes(b"no TIFF")
    for z in (0, *range(2001, 2006)):
        tifffile.imwrite(tmp_path / f"{z:05}.tif", data[(z - 2001) % 5], compression="lzw")
    region = RegionView(open_volume(tmp_path), [[2001, 2006], [2, 10], [3, 12]])
    assert region.volume.shape_zyx == (3000, 14, 12)
    np.testing.assert_array_equal(region[0:5, 0:8, 0:9], data[:, 2:10, 3:12])
    with pytest.raises(VolumeFormatError, match=r"02006\.tif: not a readable TIFF"):
        region.volume.read((2005, 0, 0), (2007, 14, 12))


def test_folder_with_an_odd_slice_names_it(tmp_path):
    for z in range(3):
        tifffile.imwrite(tmp_path / f"{z}.tif", VOLUME[z, : 14 - 7 * (z == 2)])
    with pytest.raises(VolumeFormatError, match=r"2\.tif: slice of shape \(7, 12\)"):
        open_volume(tmp_path).read_all()


def test_unwritable_folder_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*v\.tif: File exists.* Nothing half"):
        write_tiff(tmp_path / "file" / "v.tif", VOLUME)
