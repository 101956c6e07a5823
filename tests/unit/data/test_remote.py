"""Volumes over a real HTTP server: every layout, and every way a server can fail."""

import pickle

import numpy as np
import pytest
import zarr
from http_volumes import serve

from vesuvius.data.remote import RemoteSettings, as_source, is_remote
from vesuvius.data.volume import open_volume
from vesuvius.errors import ConfigError, RemoteReadError, VolumeFormatError, VolumeNotFoundError

pytest.importorskip("obstore")

VOLUME = np.random.default_rng(0).integers(1, 256, (8, 12, 10), dtype=np.uint8)
BOX = ((1, 2, 3), (7, 11, 10))
FAST = RemoteSettings(timeout_s=0.2, attempts=3, wait_s=0.01)


@pytest.fixture
def server(tmp_path):
    with serve(tmp_path) as state:
        yield state


def _ome(root, version):
    group = zarr.create_group(root / "v.zarr", zarr_format=2 if version == "0.4" else 3)
    for level, data in enumerate((VOLUME, VOLUME[::2, ::2, ::2])):
        group.create_array(str(level), data=data[None], chunks=(1, 4, 4, 4))
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1, *[7910.0 * 2**level] * 3]}
            ],
        }
        for level in range(2)
    ]
    meta = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    group.attrs.update(meta if version == "0.4" else {"ome": meta})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_levels_axes_and_voxel_size(tmp_path, server, version):
    _ome(tmp_path, version)
    full = open_volume(f"{server.url}/v.zarr", remote=FAST)
    assert full.shape_zyx == (8, 12, 10)
    assert full.voxel_size_um == pytest.approx(7.91)
    assert full.name == "v"
    np.testing.assert_array_equal(full.read(*BOX), VOLUME[1:7, 2:11, 3:10])
    half = open_volume(f"{server.url}/v.zarr/", level=1, remote=FAST)
    np.testing.assert_array_equal(half.read_all(), VOLUME[::2, ::2, ::2])
    assert half.voxel_size_um == pytest.approx(15.82)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1.*level=2; expected 0 to 1"):
        open_volume(f"{server.url}/v.zarr", level=2, remote=FAST)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_uint16_array_is_the_local_one(tmp_path, server, zarr_format):
    data = VOLUME.astype(np.uint16) * 257
    zarr.create_array(tmp_path / "v.zarr", data=data, chunks=(3, 5, 7), zarr_format=zarr_format)
    volume = open_volume(f"{server.url}/v.zarr", remote=FAST)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read_all(), data)
    assert volume.dtype == np.uint16


def test_a_sharded_array_is_read_by_ranges(tmp_path, server):
    zarr.create_array(tmp_path / "v.zarr", data=VOLUME, chunks=(4, 4, 5), shards=(8, 12, 10))
    volume = open_volume(f"{server.url}/v.zarr", remote=FAST)
    np.testing.assert_array_equal(volume.read((0, 0, 0), (4, 4, 5)), VOLUME[:4, :4, :5])
    shard_reads = [part for path, part in server.requests if "/c/" in path]
    assert shard_reads
    assert all(part is not None for part in shard_reads)  # never the whole shard


@pytest.mark.parametrize("faults", [[500, 503], [429], ["cut", "cut"], ["stall"], ["drop", 500]])
def test_failures_that_pass_are_tried_again(tmp_path, server, faults):
    zarr.create_array(tmp_path / "v.zarr", data=VOLUME, chunks=VOLUME.shape, compressors=None)
    volume = open_volume(f"{server.url}/v.zarr", remote=FAST)
    server.faults["v.zarr/c/0/0/0"] = list(faults)
    np.testing.assert_array_equal(volume.read(*BOX), VOLUME[1:7, 2:11, 3:10])
    assert sum("c/0/0/0" in path for path, _ in server.requests) == len(faults) + 1


@pytest.mark.parametrize(
    ("fault", "requests"), [(500, 3), ("cut", 3), ("stall", 3), ("drop", 3), (403, 1), (401, 1)]
)
def test_failures_that_stay_name_the_chunk(tmp_path, server, fault, requests):
    zarr.create_array(tmp_path / "v.zarr", data=VOLUME, chunks=(4, 12, 10), compressors=None)
    volume = open_volume(f"{server.url}/v.zarr", remote=FAST)
    np.testing.assert_array_equal(volume.read((0, 0, 0), (4, 12, 10)), VOLUME[:4])
    server.faults["c/1/0/0"] = [fault, "always"]
    with pytest.raises(RemoteReadError, match=r"http://127.*/v\.zarr/c/1/0/0: .* attempt"):
        volume.read(*BOX)
    assert sum("c/1/0/0" in path for path, _ in server.requests) == requests


def test_a_chunk_that_was_never_written_has_the_fill_value(tmp_path, server):
    array = zarr.create_array(
        tmp_path / "v.zarr", shape=(8, 4, 4), chunks=(4, 4, 4), dtype="uint8", fill_value=7
    )
    array[:4] = 3
    found = open_volume(f"{server.url}/v.zarr", remote=FAST).read_all()
    assert (found[:4] == 3).all()
    assert (found[4:] == 7).all()


def test_a_chunk_with_damaged_content_is_an_error(tmp_path, server):
    zarr.create_array(tmp_path / "v.zarr", data=VOLUME, chunks=VOLUME.shape)
    chunk = tmp_path / "v.zarr" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-20])  # complete for HTTP, truncated for the codec
    with pytest.raises(VolumeFormatError, match=r"127\.0\.0\.1.*damaged Zarr array"):
        open_volume(f"{server.url}/v.zarr", remote=FAST).read_all()


def test_metadata_that_cannot_be_read_or_is_not_there(tmp_path, server):
    with pytest.raises(VolumeNotFoundError, match=r"nothing\.zarr: holds no Zarr"):
        open_volume(f"{server.url}/nothing.zarr", remote=FAST)
    zarr.create_array(tmp_path / "v.zarr", data=VOLUME)
    server.faults["zarr.json"] = [500, "always"]
    with pytest.raises(RemoteReadError, match=r"v\.zarr/zarr\.json: cannot be read after 3"):
        open_volume(f"{server.url}/v.zarr", remote=FAST)


def test_groups_are_read_without_listing_them(tmp_path, server):
    zarr.create_group(tmp_path / "v.zarr").create_array("image", data=VOLUME)
    found = open_volume(f"{server.url}/v.zarr", remote=FAST).read_all()
    np.testing.assert_array_equal(found, VOLUME)
    with pytest.raises(VolumeFormatError, match=r"no array 'label'; give the URL of the array"):
        open_volume(f"{server.url}/v.zarr", array="label", remote=FAST)


def test_what_counts_as_a_url(tmp_path):
    assert is_remote("s3://bucket/scroll.zarr")
    assert not is_remote("C:/scans/a.zarr")
    assert as_source(f"file://{tmp_path}/a%20b.zarr") == tmp_path / "a b.zarr"
    with pytest.raises(ConfigError, match=r"unknown scheme 'ftp'; expected file or one of http"):
        as_source("ftp://host/a.zarr")
    with pytest.raises(ConfigError, match="attempts of at least 1"):
        RemoteSettings(attempts=0)
