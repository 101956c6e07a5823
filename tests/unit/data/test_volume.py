"""Every format gives the same box; OME-Zarr axes, levels and scales."""

import pickle

import numpy as np
import pytest
import zarr

from vesuvius.data.tiff import write_tiff
from vesuvius.data.volume import Volume, image_to_float, open_volume
from vesuvius.errors import ConfigError, VolumeFormatError, VolumeNotFoundError

VOLUME = np.random.default_rng(0).integers(0, 256, (9, 14, 12), dtype=np.uint8)
BOX = ((2, 3, 4), (7, 13, 12))


def _tiff(root):
    write_tiff(root / "v.tif", VOLUME)
    return root / "v.tif"


def _npy(root):
    np.save(root / "v.npy", VOLUME)
    return root / "v.npy"


def _zarr2(root):
    zarr.create_array(root / "v.zarr", data=VOLUME, chunks=(4, 5, 6), zarr_format=2)
    return root / "v.zarr"


def _zarr3(root):
    zarr.create_array(root / "v.zarr", data=VOLUME, chunks=(4, 5, 6))
    return root / "v.zarr"


def _gzip(root):
    codec = zarr.codecs.GzipCodec()
    zarr.create_array(root / "v.zarr", data=VOLUME, chunks=(4, 5, 6), compressors=codec)
    return root / "v.zarr"


def _group(root):
    zarr.create_group(root / "v.zarr").create_array("image", data=VOLUME)
    return root / "v.zarr"


def _ome(root, *, version="0.4", axes="zyx", scale=(2.0, 2.0, 2.0), unit="micrometer"):
    group = zarr.create_group(root / "v.zarr", zarr_format=2 if version == "0.4" else 3)
    order = ["zyx".index(a) for a in axes if a in "zyx"]
    for level in range(2):
        data = VOLUME[:: 2**level, :: 2**level, :: 2**level].transpose(order)
        data = data.reshape([1] * (len(axes) - 3) + list(data.shape))
        group.create_array(str(level), data=data)
    meta = {
        "axes": [{"name": a, **({"unit": unit} if a in "zyx" else {})} for a in axes],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [
                            2**level * scale["zyx".index(a)] if a in "zyx" else 1.0 for a in axes
                        ],
                    }
                ],
            }
            for level in range(2)
        ],
    }
    group.attrs.update(
        {"multiscales": [meta]} if version == "0.4" else {"ome": {"multiscales": [meta]}}
    )
    return root / "v.zarr"


@pytest.mark.parametrize("make", [_tiff, _npy, _zarr2, _zarr3, _gzip, _group, _ome])
def test_box_of_every_format(tmp_path, make):
    volume = open_volume(make(tmp_path))
    assert (volume.name, volume.shape_zyx, volume.dtype) == ("v", (9, 14, 12), np.uint8)
    assert np.array_equal(volume.read(*BOX), VOLUME[2:7, 3:13, 4:12])
    again = pickle.loads(pickle.dumps(volume))
    assert np.array_equal(again.read_all(), VOLUME)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_axes_level_and_scale(tmp_path, version):
    path = _ome(tmp_path, version=version, axes="cxzy", scale=(8.0, 8.0, 8.0), unit="nanometer")
    volume = open_volume(path, level=1)
    assert np.array_equal(volume.read_all(), VOLUME[::2, ::2, ::2])
    assert np.array_equal(volume.read((1, 2, 3), (4, 7, 6)), VOLUME[2:8:2, 4:14:2, 6:12:2])
    assert volume.voxel_size_um == pytest.approx(0.016)


@pytest.mark.parametrize(
    ("unit", "size_um"),
    [("nanometer", 2e-3), ("micrometer", 2.0), ("millimeter", 2e3), (None, None), ("parsec", None)],
)
def test_units_of_the_voxel_size(tmp_path, unit, size_um):
    found = open_volume(_ome(tmp_path, version="0.5", unit=unit)).voxel_size_um
    assert found == (None if size_um is None else pytest.approx(size_um))


def test_flat_voxels_have_three_sizes(tmp_path):
    volume = open_volume(_ome(tmp_path, scale=(5.0, 2.0, 2.0)))
    assert volume.voxel_size_zyx_um == (5.0, 2.0, 2.0)
    assert volume.voxel_size_um is None


@pytest.mark.parametrize(
    ("make", "options", "error", "text"),
    [
        pytest.param(_ome, {"level": 2}, ConfigError, "level=2; expected 0 to 1", id="level"),
        pytest.param(_npy, {"level": 1}, ConfigError, "only a Zarr group has levels", id="npy"),
        pytest.param(
            _group, {"array": "mask"}, ConfigError, "has no array 'mask'; it holds", id="array"
        ),
        pytest.param(
            lambda r: r / "x.tif", {}, VolumeNotFoundError, "no such file or folder", id="missing"
        ),
        pytest.param(lambda r: r, {}, VolumeNotFoundError, "holds no TIFF", id="empty-folder"),
    ],
)
def test_wrong_arguments(tmp_path, make, options, error, text):
    with pytest.raises(error) as caught:
        open_volume(make(tmp_path), **options)
    assert text in str(caught.value)


@pytest.mark.parametrize("shape", [(8, 8), (2, 4, 8, 8)])
@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_two_and_four_dimensions(tmp_path, shape, kind):
    path = tmp_path / f"v.{kind}"
    if kind == "npy":
        np.save(path, np.zeros(shape, np.uint8))
    else:
        zarr.create_array(path, data=np.zeros(shape, np.uint8))
    with pytest.raises(VolumeFormatError, match=f"is {len(shape)}-D of shape .*expected 3-D"):
        open_volume(path)


def test_damaged_files(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY rubbish")
    with pytest.raises(VolumeFormatError, match=r"a\.npy: not a readable \.npy array"):
        open_volume(tmp_path / "a.npy")
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "zarr.json").write_text("{")
    with pytest.raises(VolumeFormatError, match=r"b\.zarr: not a readable Zarr"):
        open_volume(tmp_path / "b.zarr")
    (tmp_path / "c.raw").write_text("")
    with pytest.raises(VolumeFormatError, match=r"unknown format '\.raw'"):
        open_volume(tmp_path / "c.raw")


@pytest.mark.parametrize("box", [((0, 0, 0), (10, 14, 12)), ((-1, 0, 0), (2, 2, 2)), (BOX[0],) * 2])
def test_box_outside_is_refused(tmp_path, box):
    with pytest.raises(ConfigError, match="is empty or leaves the volume of shape"):
        Volume(_npy(tmp_path)).read(*box)


def test_scaling_is_by_dtype_not_by_content():
    assert image_to_float(np.array([0, 51], np.uint8)).tolist() == pytest.approx([0, 0.2])
    assert image_to_float(np.array([13107], np.uint16)).tolist() == pytest.approx([0.2])
    assert image_to_float(np.array([0.25, 1.0])).dtype == np.float32


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.array([0.5, np.nan]), "holds NaN in 1 of 2 voxels"),
        (np.array([0.0, 255.0]), "reach from 0 to 255; expected [0, 1]"),
        (np.array([-0.1, 0.3]), "reach from -0.1 to 0.3"),
        (np.array([1, 2], np.int32), "dtype int32; expected uint8, uint16"),
    ],
)
def test_scaling_refuses(image, text):
    with pytest.raises(VolumeFormatError) as caught:
        image_to_float(image)
    assert text in str(caught.value)
