"""Preparing: exact copies, resumable, atomic, bad input by name."""

import errno
import json
import os

import numpy as np
import pytest
import zarr

from vesuvius.data import store as store_module
from vesuvius.data.chunk_cache import ChunkCache, ChunkReader
from vesuvius.data.prepare import PrepareOptions, prepare_all, target_path
from vesuvius.data.sources import find_items
from vesuvius.data.store import PreparedVolume, StoreWriter, list_prepared
from vesuvius.data.tiff import write_tiff
from vesuvius.data.volume import open_volume
from vesuvius.errors import (
    ConfigError,
    LabelValueError,
    PairingError,
    ShapeMismatchError,
    VolumeFormatError,
    VolumeNotFoundError,
)

OPTIONS = PrepareOptions(chunk=16)
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 18, 33), dtype=np.uint8)
LABEL = (np.random.default_rng(1).random(IMAGE.shape) < 0.05).astype(np.uint8)


def _run(items, out, options=OPTIONS, num_jobs=1):
    outcomes = prepare_all(items, out, options, num_jobs=num_jobs)
    return {o.item.volume_id: (o.status, o.error) for o in outcomes}


def _statuses(items, out, **more):
    return {name: status for name, (status, _) in _run(items, out, **more).items()}


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
def test_store_reads_back_through_both_readers(prepare_array, codec):
    path = prepare_array(IMAGE, LABEL, codec=codec, chunk=8)
    volume = PreparedVolume(path, ChunkCache(10**6))
    for name, truth in (("image", IMAGE), ("label", LABEL)):
        assert np.array_equal(zarr.open(path, mode="r")[name][:], truth)
        assert np.array_equal(
            volume.array(name).read((3, 0, 7), (19, 18, 33)), truth[3:19, :, 7:33]
        )
    assert sorted(map(tuple, volume.positive)) == sorted(
        {tuple(v) for v in volume.positive} & set(map(tuple, np.argwhere(LABEL == 1)))
    )


def test_attributes(kaggle, tmp_path):
    items = find_items(kaggle)
    _run(items, tmp_path / "out", PrepareOptions(chunk=16, voxel_size_um=7.91))
    found = PreparedVolume(tmp_path / "out" / "train" / "v1.zarr").attributes
    assert (found["format_version"], found["axes"], found["scroll_id"]) == (1, "zyx", "101")
    assert (found["shape"], found["source"], found["voxel_size_um"]) == (
        [24, 40, 36],
        "v1.tif",
        7.91,
    )
    test = PreparedVolume(tmp_path / "out" / "test" / "t0.zarr")
    assert not test.has("label")
    assert test.attributes["scroll_id"] is None


def test_truth_is_copied(kaggle, tmp_path):
    shape = (24, 40, 36)
    wrap = np.random.default_rng(0).integers(-3, 90, shape, dtype=np.int16)
    normals = np.random.default_rng(0).integers(-127, 128, (3, *shape), dtype=np.int8)
    write_tiff(kaggle / "train_truth" / "v0_wrap.tif", wrap)
    np.save(kaggle / "train_truth" / "v0_normals.npy", normals)
    _run(find_items(kaggle), tmp_path / "out")
    volume = PreparedVolume(tmp_path / "out" / "train" / "v0.zarr")
    assert np.array_equal(volume.array("wrap").read((0, 0, 0), shape), wrap)
    assert np.array_equal(volume.array("normals").read((0, 0, 0, 0), (3, *shape)), normals)


def test_second_run_skips_and_changes_are_redone(kaggle, tmp_path):
    items, out = find_items(kaggle), tmp_path / "out"
    assert set(_statuses(items, out, num_jobs=2).values()) == {"done"}
    assert set(_statuses(items, out).values()) == {"skipped"}
    # A source that changed, a store cut off while writing, and a store that lost its metadata.
    changed = kaggle / "train_images" / "v0.tif"
    write_tiff(changed, open_volume(changed).read_all() // 2)
    (out / "train" / "v1.zarr").rename(out / "train" / "v1.zarr.partial")
    (out / "train" / "v2.zarr" / "zarr.json").write_text("{")
    assert len(list_prepared(out / "train")) == 4
    again = _statuses(items, out)
    assert {name for name, status in again.items() if status == "done"} == {"v0", "v1", "v2"}
    assert sorted(p.name for p in (out / "train").iterdir()) == [f"v{i}.zarr" for i in range(5)]
    assert np.array_equal(
        open_volume(out / "train" / "v0.zarr").read_all(), open_volume(changed).read_all()
    )


def test_bad_files_are_named_and_the_others_finish(kaggle, tmp_path):
    images, labels = kaggle / "train_images", kaggle / "train_labels"
    data = (images / "v0.tif").read_bytes()
    (images / "v0.tif").write_bytes(data[: len(data) // 2])
    write_tiff(labels / "v1.tif", np.zeros((24, 40, 35), np.uint8))
    write_tiff(labels / "v2.tif", np.full((24, 40, 36), 255, np.uint8))
    write_tiff(labels / "v3.tif", np.ones((24, 40, 36), np.uint8))
    outcomes = _run(find_items(kaggle), tmp_path / "out")
    assert {n for n, (status, _) in outcomes.items() if status == "done"} == {"v4", "t0"}
    for name, text in (
        ("v0", "the file is truncated"),
        ("v1", "shape (24, 40, 35); its image v1.tif has (24, 40, 36)"),
        ("v2", "label values [255] (0/255 mask: divide it by 255); expected only 0 background"),
        ("v3", "100.0% of the voxels are surface; a surface label has about 5 %"),
    ):
        assert text in outcomes[name][1]
        assert f"{name}.tif" in outcomes[name][1]
    assert sorted(p.name for p in (tmp_path / "out" / "train").iterdir()) == ["v4.zarr"]


def test_full_disk_stops_and_leaves_nothing(kaggle, tmp_path, monkeypatch):
    written = StoreWriter.write

    def write(self, name, *args):
        written(self, name, *args)
        if name == "label":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module.StoreWriter, "write", write)
    outcomes = list(prepare_all(find_items(kaggle), tmp_path / "out", OPTIONS))
    # The first volume fails at its label; the other five are not tried.
    assert [o.status for o in outcomes] == ["failed"]
    assert outcomes[-1].fatal
    assert "disk full" in outcomes[-1].error
    assert "nothing half-written was left" in outcomes[-1].error
    assert list((tmp_path / "out" / "train").iterdir()) == []


def test_partial_labels(prepare_array):
    label = np.zeros(IMAGE.shape, np.uint8)
    label[4] = 1
    path = prepare_array(IMAGE, label, ignore_zero=True)
    assert np.array_equal(open_volume(path, array="label").read_all(), np.where(label, 1, 2))


def test_floats_become_uint16(prepare_array):
    volume = open_volume(prepare_array(np.linspace(0, 1, 4**3).reshape(4, 4, 4)))
    assert volume.dtype == np.uint16
    assert volume.read_all().ravel()[[0, 21, -1]].tolist() == [0, 21845, 65535]


def _with(value):
    image = np.full((4, 4, 4), 0.5)
    image[1, 2, 3] = value
    return image


@pytest.mark.parametrize(
    ("image", "label", "error", "text"),
    [
        (_with(np.nan), None, VolumeFormatError, "holds NaN in 1 of 64 voxels"),
        (_with(7.0), None, VolumeFormatError, "reach from 0.5 to 7; expected [0, 1]"),
        (np.zeros((4, 4, 4), np.int32), None, VolumeFormatError, "dtype int32; expected uint8"),
        (np.zeros((4, 4, 4, 2), np.uint8), None, VolumeFormatError, "is 4-D of shape"),
        (np.zeros((4, 4), np.uint8), None, VolumeFormatError, "is 2-D of shape (4, 4)"),
        (IMAGE, LABEL.astype(np.float32) * 1.5, LabelValueError, "label values [1.5]"),
        (IMAGE, LABEL.astype(np.int16) * -1, LabelValueError, "label values [-1]"),
        (IMAGE, LABEL[:-1], ShapeMismatchError, "shape (19, 18, 33); its image v_i.npy has"),
    ],
)
def test_bad_arrays(prepare_array, image, label, error, text):
    with pytest.raises(error) as caught:
        prepare_array(image, label)
    assert text in str(caught.value)


def test_labels_of_other_integer_types_are_taken(prepare_array):
    path = prepare_array(IMAGE, LABEL.astype(np.int64))
    assert np.array_equal(open_volume(path, array="label").read_all(), LABEL)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"chunk": 20}, "chunk is 20; expected a multiple of 8"),
        ({"codec": "lzma"}, "codec is 'lzma'; expected one of lz4, zstd, none"),
    ],
)
def test_bad_options(kaggle, tmp_path, options, text):
    with pytest.raises(ConfigError, match=text):
        _run(find_items(kaggle), tmp_path, PrepareOptions(**options))


def test_missing_empty_and_unpaired_sources(kaggle, tmp_path):
    with pytest.raises(VolumeNotFoundError, match=r"nowhere: no such file or folder \(SOURCE\)"):
        find_items(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolumeNotFoundError, match=r"empty: holds no \.tif"):
        find_items(tmp_path / "empty")
    (kaggle / "train_labels" / "v1.tif").rename(kaggle / "train_labels" / "w.tif")
    with pytest.raises(PairingError) as caught:
        find_items(kaggle)
    assert "1 images without a label: v1; 1 labels without an image: w" in str(caught.value)
    for path in (kaggle / "train_labels").iterdir():
        path.unlink()
    (kaggle / "train_labels").rmdir()
    with pytest.raises(PairingError, match="has train_images but no train_labels folder"):
        find_items(kaggle)


def test_images_and_labels_named_apart(kaggle):
    image, label = "train_images/v0.tif", "train_labels/v3.tif"
    (item,) = find_items(kaggle, images=kaggle / image, labels=kaggle / label)
    assert (item.image, item.label) == (kaggle / image, kaggle / label)
    assert target_path(kaggle / "out", item) == kaggle / "out" / "v0.zarr"


def test_damaged_store_says_so(prepare_array):
    path = prepare_array(IMAGE, LABEL)
    shard = path / "image" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[100:])
    with pytest.raises(VolumeFormatError, match=r"damaged Zarr array: .* Delete the volume"):
        PreparedVolume(path).array("image").read((0, 0, 0), IMAGE.shape)


def test_other_zarr_is_no_prepared_volume(tmp_path):
    zarr.create_group(tmp_path / "v.zarr")
    with pytest.raises(VolumeFormatError, match="not a prepared volume"):
        PreparedVolume(tmp_path / "v.zarr")


def test_newer_format_is_refused(prepare_array):
    path = prepare_array(IMAGE)
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"]["format_version"] = 99
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(VolumeFormatError, match="format version 99; this program reads 1"):
        PreparedVolume(path)


def test_cache_is_bounded_and_drops_the_oldest():
    cache = ChunkCache(250)
    for i in range(3):
        cache.put((i,), np.zeros(100, np.uint8))
        cache.get((0,))
    assert cache.get((1,)) is None
    assert cache.get((0,)) is not None
    assert cache.num_bytes == 200
    cache.put((9,), np.zeros(1000, np.uint8))
    assert cache.num_bytes == 200


def test_missing_chunks_hold_the_fill_value(tmp_path):
    array = zarr.create_array(
        tmp_path / "a", shape=(20, 20, 20), chunks=(8,) * 3, shards=(16,) * 3, dtype="u1",
        fill_value=7,
    )  # fmt: skip
    array[0:3, 0:3, 0:3] = 1
    truth = np.full((20, 20, 20), 7)
    truth[0:3, 0:3, 0:3] = 1
    assert not ChunkReader.supports(tmp_path / "a")  # zstd without blosc: left to zarr-python
    assert np.array_equal(open_volume(tmp_path / "a").read_all(), truth)
    blosc = zarr.codecs.BloscCodec(cname="lz4")
    array = zarr.create_array(
        tmp_path / "b", shape=(20, 20, 20), chunks=(8,) * 3, shards=(16,) * 3, dtype="u1",
        fill_value=7, compressors=blosc,
    )  # fmt: skip
    array[0:3, 0:3, 0:3] = 1
    assert np.array_equal(ChunkReader(tmp_path / "b").read((0, 0, 0), (20, 20, 20)), truth)
