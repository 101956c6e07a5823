"""Volumes in a real S3 API (moto's server): every layout, and every way it can fail."""

import numpy as np
import pytest
import zarr

from vesuvius.data.region import RegionView
from vesuvius.data.remote import RemoteSettings
from vesuvius.data.volume import Volume, open_volume
from vesuvius.errors import RemoteReadError, VolumeNotFoundError

pytest.importorskip("obstore")

VOLUME = np.random.default_rng(0).integers(1, 256, (8, 12, 10), dtype=np.uint8)
BOX = ((1, 2, 3), (7, 11, 10))
FAST = RemoteSettings(timeout_s=0.3, attempts=3, wait_s=0.01)
PATIENT = RemoteSettings(timeout_s=20, attempts=2, wait_s=0.01)


def _ome(root, version, *, axes, unit, data):
    """Write two levels of `data` (z, y, x) in the given order of axes; return the folder."""
    group = zarr.create_group(root / "v.zarr", zarr_format=2 if version == "0.4" else 3)
    order = ["zyx".index(a) for a in axes if a in "zyx"]
    datasets = []
    for level in (0, 1):
        part = data[:: 2**level, :: 2**level, :: 2**level].transpose(order)
        part = part.reshape([1] * (len(axes) - 3) + list(part.shape))
        group.create_array(str(level), data=part, chunks=[min(n, 5) for n in part.shape])
        scale = [1.0 if a not in "zyx" else 7.91 * 2**level for a in axes]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    spatial = {"type": "space", "unit": unit}
    meta = {
        "axes": [{"name": a, **(spatial if a in "zyx" else {"type": "channel"})} for a in axes],
        "datasets": datasets,
    }
    group.attrs.update(
        {"multiscales": [meta]} if version == "0.4" else {"ome": {"multiscales": [meta]}}
    )
    return root / "v.zarr"


@pytest.mark.parametrize(
    ("version", "axes", "unit", "size_um"),
    [
        ("0.4", "zyx", "micrometer", 7.91),
        ("0.4", "cxzy", "nanometer", 0.00791),
        ("0.5", "czyx", "micrometer", 7.91),
        ("0.5", "xyz", "millimeter", 7910.0),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ome_zarr_level_region_axes_and_voxel_size(
    tmp_path, s3, version, axes, unit, size_um, dtype
):
    data = VOLUME.astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
    folder = _ome(tmp_path, version, axes=axes, unit=unit, data=data)
    url = s3.put(folder, "s3://scrolls/a/v.zarr")
    full = RegionView(Volume(url, remote=PATIENT), [[1, 7], [2, 11], [3, 10]])
    assert full.dtype == dtype
    assert full.volume.voxel_size_um == pytest.approx(size_um)
    np.testing.assert_array_equal(full[0:6, 0:9, 0:7], data[1:7, 2:11, 3:10])
    half = RegionView(Volume(url, level=1, remote=PATIENT), [[0, 4], [1, 3], [2, 5]])
    assert half.volume.voxel_size_um == pytest.approx(2 * size_um)
    np.testing.assert_array_equal(half[0:4, 0:2, 0:3], data[::2, 2:6:2, 4:10:2])


def test_shards_are_read_by_ranges_and_missing_ones_hold_the_fill_value(tmp_path, s3):
    zarr.create_array(tmp_path / "v.zarr", data=VOLUME, chunks=(4, 4, 5), shards=(4, 12, 10))
    volume = open_volume(s3.put(tmp_path / "v.zarr", "s3://scrolls/a/v.zarr"), remote=PATIENT)
    np.testing.assert_array_equal(volume.read((0, 0, 0), (4, 4, 5)), VOLUME[:4, :4, :5])
    ranges = [part for path, part in s3.requests if "/c/" in path]
    assert ranges
    assert all(part is not None for part in ranges)  # never a whole shard
    for name in ("c/1/0/0", "c/0/0/0"):  # never written, like a sparse scan
        s3.client.delete_object(Bucket="scrolls", Key=f"a/v.zarr/{name}")
    assert not volume.read_all().any()


@pytest.mark.parametrize("faults", [[500, 503], [429], ["cut", "cut"], ["stall"], ["drop", 500]])
def test_failures_that_pass_are_tried_again(tmp_path, s3, faults):
    zarr.create_array(tmp_path / "v.zarr", data=VOLUME, chunks=VOLUME.shape, compressors=None)
    volume = open_volume(s3.put(tmp_path / "v.zarr", "s3://scrolls/v.zarr"), remote=FAST)
    s3.faults["v.zarr/c/0/0/0"] = list(faults)
    np.testing.assert_array_equal(volume.read(*BOX), VOLUME[1:7, 2:11, 3:10])
    assert sum("c/0/0/0" in path for path, _ in s3.requests) == len(faults) + 1


@pytest.mark.parametrize(
    ("fault", "requests"), [(500, 3), (503, 3), ("cut", 3), ("stall", 3), ("drop", 3), (403, 1)]
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_failures_that_stay_name_the_chunk(tmp_path, s3, fault, requests, zarr_format):
    zarr.create_array(
        tmp_path / "v.zarr", data=VOLUME, chunks=(4, 12, 10), compressors=None,
        zarr_format=zarr_format,
    )  # fmt: skip
    volume = open_volume(s3.put(tmp_path / "v.zarr", "s3://scrolls/v.zarr"), remote=FAST)
    np.testing.assert_array_equal(volume.read((0, 0, 0), (4, 12, 10)), VOLUME[:4])
    chunk = "1.0.0" if zarr_format == 2 else "c/1/0/0"
    s3.faults[chunk] = [fault, "always"]
    with pytest.raises(RemoteReadError, match=rf"s3://scrolls/v\.zarr/{chunk}: .* attempt"):
        volume.read(*BOX)
    assert sum(chunk in path for path, _ in s3.requests) == requests


def test_what_is_not_there(s3, monkeypatch):
    with pytest.raises(VolumeNotFoundError, match=r"s3://none/v\.zarr: holds no Zarr"):
        open_volume("s3://none/v.zarr", remote=PATIENT)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RemoteReadError, match=r"s3://scrolls/a\.zarr/.* after 2 attempts"):
        open_volume("s3://scrolls/a.zarr", remote=PATIENT)
