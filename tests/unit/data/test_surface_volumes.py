"""Training straight from Zarr volumes: the right voxels, each chunk asked for once."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import zarr
from sparse_volumes import (
    SHAPE,
    blocks_of,
    check_crops,
    chunk_requests,
    here,
    make_arrays,
    module_of,
    there,
    write_label,
    write_ome,
)

from vesuvius.errors import (
    ConfigError,
    LabelValueError,
    RemoteReadError,
    ShapeMismatchError,
    VolumeFormatError,
)

pytest.importorskip("obstore")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("place", ["here", "there"])
def test_crops_of_an_ome_zarr_level_and_region(tmp_path, server, version, place):
    image, label = make_arrays(shape=(80, 96, 112))
    write_ome(tmp_path / "data", image, label, version)
    entry = here(tmp_path) if place == "here" else there(server)
    region = [[4, 36], [8, 44], [0, 56]]
    module = module_of(tmp_path, {**entry, "level": 1, "label_level": 1, "region_zyx": region})
    check_crops(module, image[::2, ::2, ::2], label[::2, ::2, ::2], origin=(4, 8, 0))
    assert list(module._sources) == ["image_z4_y8_x0"]


@pytest.mark.parametrize("options", [{"zarr_format": 2}, {"shards": (32, 32, 32)}])
@pytest.mark.parametrize("place", ["here", "there"])
def test_crops_of_plain_zarr_and_shards(tmp_path, server, options, place):
    image, label = make_arrays()
    image = image.astype(np.uint16) * 100
    zarr.create_array(tmp_path / "data" / "image.zarr", data=image, chunks=(16, 16, 16), **options)
    write_label(tmp_path / "data" / "label.zarr", label, **options)
    entry = here(tmp_path) if place == "here" else there(server)
    check_crops(module_of(tmp_path, entry), image, label)


@pytest.mark.parametrize("place", ["here", "there"])
def test_an_absent_label_chunk_is_ignored_or_background(tmp_path, scroll, server, place):
    image, label = scroll
    entry = here(tmp_path) if place == "here" else there(server)
    check_crops(module_of(tmp_path, entry), image, label)  # 2, though the array's fill value is 0
    written = np.zeros(SHAPE, bool)
    written[0:16, 16:32, 0:16] = written[32:, 32:, 48:] = True
    background = np.where(written, label, 0)
    check_crops(module_of(tmp_path, {**entry, "absent_label": 0}), image, background)


def test_a_batch_asks_for_each_chunk_once_and_gives_the_single_samples(tmp_path, scroll, server):
    del scroll
    module = module_of(tmp_path, there(server), disk_cache_gb=0, cache_mb=0)
    module.setup()
    server.requests.clear()
    batch = module.train_dataset.__getitems__([(1, i) for i in range(8)])
    for name in ("image", "label"):
        asked = chunk_requests(server, name)
        assert len(asked) == len(set(asked)) > 8
    for i, sample in enumerate(batch):
        single = module.train_dataset[1, i]
        assert sample["origin_zyx"] == single["origin_zyx"]
        np.testing.assert_array_equal(sample["image"], single["image"])
        np.testing.assert_array_equal(sample["label"], single["label"])


def test_the_disk_cache_serves_the_next_run_and_stays_within_its_bound(tmp_path, scroll, server):
    image, label = scroll
    check_crops(module_of(tmp_path, there(server)), image, label)
    server.requests.clear()
    again = module_of(tmp_path, there(server))
    check_crops(again, image, label)
    assert chunk_requests(server, "image") == chunk_requests(server, "label") == []
    small = module_of(tmp_path / "small", there(server), disk_cache_gb=30e3 / 1e9, cache_mb=0)
    check_crops(small, image, label)
    files = [p for p in (tmp_path / "small/cache/chunks").rglob("*") if len(p.name) == 32]
    assert len(files) >= 5
    assert sum(p.stat().st_size for p in files) <= 30_000


@pytest.mark.parametrize("faults", [[500, 503], ["cut"], ["drop", 429]])
def test_a_flaky_server_costs_time_alone(tmp_path, scroll, server, faults):
    image, label = scroll
    for z, y, x in itertools.product(range(3), range(3), range(4)):
        server.faults[f"image.zarr/c/{z}/{y}/{x}"] = list(faults)
    check_crops(module_of(tmp_path, there(server)), image, label, num=4)


@pytest.mark.parametrize("fault", [500, "cut", 403])
def test_a_chunk_that_cannot_be_read_stops_and_is_not_cached(tmp_path, scroll, server, fault):
    image, label = scroll
    module = module_of(tmp_path, there(server))
    module.setup()
    server.faults["image.zarr/c/"] = [fault, "always"]
    with pytest.raises(RemoteReadError, match=r"http://127.*/image\.zarr/c/\d/\d/\d: cannot be"):
        module.train_dataset.__getitems__([(3, i) for i in range(4)])
    server.faults.clear()
    check_crops(module, image, label)


def test_weights_set_the_shares_of_two_scrolls(tmp_path, scroll):
    del scroll
    a = here(tmp_path, id="a", weight=3)
    b = here(tmp_path, id="b", weight=1)
    module = module_of(tmp_path, a, b, samples_per_volume=20)
    module.setup()
    for epoch in range(2):
        names = [module.train_dataset[epoch, i]["volume_id"] for i in range(40)]
        assert (names.count("a"), names.count("b")) == (30, 10)  # 40 crops as 3 : 1
    module.weigh_volumes({"a": 1.0, "b": 2.0})  # callbacks=hard_volumes: 3 : 2
    names = [module.train_dataset[2, i]["volume_id"] for i in range(40)]
    assert (names.count("a"), names.count("b")) == (24, 16)


def test_labels_coarser_by_a_whole_factor(tmp_path):
    image, _ = make_arrays(shape=(41, 48, 56))
    coarse = np.full((21, 24, 28), 2, np.uint8)  # a pyramid's 41 / 2, rounded up
    coarse[3:9, 5:20] = np.random.default_rng(1).integers(0, 2, (6, 15, 28))
    zarr.create_array(tmp_path / "data" / "image.zarr", data=image, chunks=(16, 16, 16))
    zarr.create_array(tmp_path / "data" / "label.zarr", data=coarse, chunks=(8, 8, 8))
    full = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    region = [[3, 41], [5, 48], [0, 55]]
    module = module_of(tmp_path, here(tmp_path, region_zyx=region), positive_share=1.0)
    check_crops(module, image, full, origin=(3, 5, 0))
    found = module.train_dataset.volumes()[0].positive + np.array([3, 5, 0])
    assert (full[tuple(found.T)] == 1).all()
    assert blocks_of(found) == blocks_of(np.argwhere(full[:, :, :55] == 1))
    assert all((module.train_dataset[i]["label"] == 1).any() for i in range(10))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((80, 96, 112), r"labels finer than the image .* choose the label_level"),
        ((20, 24, 27), r"expected the same shape, or one smaller by the same whole factor"),
        ((20, 48, 56), r"expected the same shape, or one smaller by the same whole factor"),
    ],
)
def test_labels_of_another_resolution_are_refused(tmp_path, scroll, shape, text):
    del scroll
    other = tmp_path / "data" / "other.zarr"
    zarr.create_array(other, data=np.zeros(shape, np.uint8), chunks=(16, 16, 16))
    with pytest.raises(ShapeMismatchError, match=text):
        module_of(tmp_path, {**here(tmp_path), "label": str(other)}).setup()


def test_val_entries_and_fixed_validation_crops(tmp_path, scroll, caplog):
    image, label = scroll
    train = here(tmp_path, region_zyx=[[0, 20], [0, 48], [0, 56]], id="train")
    val = here(tmp_path, region_zyx=[[20, 40], [0, 48], [0, 56]], id="val", val=True)
    file = tmp_path / "split.json"
    module = module_of(tmp_path, train, val, split_file=file, val_crops_per_volume=3)
    module.setup()
    assert module.split == {"train": ["train"], "val": ["val"]} == json.loads(file.read_text())
    crops = [[module.val_dataset[epoch, i]["origin_zyx"] for i in range(3)] for epoch in (0, 5)]
    assert crops[0] == crops[1]
    (scan,) = module.val_scans()
    assert (scan.volume_id, scan.image.shape, scan.image.dtype) == ("val", (20, 48, 56), np.uint8)
    np.testing.assert_array_equal(scan.image[2:9, 3:40, 10:56], image[22:29, 3:40, 10:56])
    np.testing.assert_array_equal(scan.read_label(), label[20:])
    large = module_of(tmp_path, train, val, split_file=file, val_whole_voxels=1000)
    assert large.val_scans() == large.val_scans() == []
    assert caplog.text.count("1 of 1 validation volumes, e.g. val, have more than") == 1
    with pytest.raises(ConfigError, match=r"split\.json holds another split than `val`"):
        module_of(tmp_path, {**train, "val": True}, {**val, "val": False}, split_file=file).setup()


def test_regions_that_train_and_validate_may_not_overlap(tmp_path):
    image, label = make_arrays(shape=(80, 96, 112))
    write_ome(tmp_path / "data", image, label, "0.5")
    whole = here(tmp_path, id="coarse", level=1, label_level=1)
    train = {**whole, "region_zyx": [[0, 20], [0, 48], [0, 56]]}
    for first, fits in ((39, False), (40, True)):  # slice 20 of level 1 is slice 40 of level 0
        val = here(tmp_path, id="v", region_zyx=[[first, 80], [0, 96], [0, 112]], val=True)
        val["image"] += "/0"  # the level itself, as a plain array
        module = module_of(tmp_path, train, val)
        if fits:
            module.setup()
            continue
        with pytest.raises(ConfigError, match=r"coarse trains on .* v validates on .* overlap"):
            module.setup()


def test_regions_of_one_image_stay_on_one_side(tmp_path, scroll):
    del scroll
    parts = [
        here(tmp_path, id=f"p{i}", region_zyx=[[i * 16, i * 16 + 16], [0, 48], [0, 56]])
        for i in range(2)
    ]
    with pytest.raises(ConfigError, match=r"1 volume .* cannot be split"):
        module_of(tmp_path, *parts, val_share=0.5).setup()
    with pytest.raises(ConfigError, match="2 volumes have no scroll_id"):
        module_of(tmp_path, *parts, val_share=0.5, split_by="scroll").setup()
    scrolls = [{**part, "scroll": str(i)} for i, part in enumerate(parts)]
    module = module_of(tmp_path, *scrolls, val_share=0.5, split_by="scroll")
    module.setup()
    assert sorted(map(len, module.split.values())) == [1, 1]


def test_the_fingerprint_follows_data_and_regions(tmp_path, scroll):
    del scroll
    first = module_of(tmp_path, here(tmp_path)).fingerprint()
    assert module_of(tmp_path, here(tmp_path, weight=2)).fingerprint() == first
    region = [[0, 20], [0, 48], [0, 56]]
    assert module_of(tmp_path, here(tmp_path, region_zyx=region)).fingerprint() != first
    zarr.open_array(tmp_path / "data" / "label.zarr", mode="r+")[20, 20, 20] = 1
    assert module_of(tmp_path, here(tmp_path)).fingerprint() != first


@pytest.mark.slow
def test_workers_see_what_one_process_sees(tmp_path, scroll, server):
    del scroll
    alone = module_of(tmp_path, there(server)).train_dataloader()
    several = module_of(tmp_path, there(server), num_workers=2).train_dataloader()
    for epoch in (0, 1):
        for loader in (alone, several):
            loader.sampler.set_epoch(epoch)
        for a, b in zip(alone, several, strict=True):
            assert a["volume_id"] == b["volume_id"]
            assert a["origin_zyx"].tolist() == b["origin_zyx"].tolist()
            assert a["image"].equal(b["image"])
            assert a["label"].equal(b["label"])


def test_label_values_and_dtypes_are_checked(tmp_path, scroll):
    image, label = scroll
    data = tmp_path / "data"
    zarr.create_array(data / "odd.zarr", data=label * 100, chunks=(16, 16, 16))
    with pytest.raises(LabelValueError, match=r"odd\.zarr: box \(0, 0, 0\) .* \[200\]; exp"):
        module_of(tmp_path, {**here(tmp_path), "label": str(data / "odd.zarr")}).setup()
    zarr.create_array(data / "wide.zarr", data=image.astype(np.uint16), chunks=(16, 16, 16))
    with pytest.raises(VolumeFormatError, match="different dtypes cannot share a batch"):
        module_of(
            tmp_path, here(tmp_path), {**here(tmp_path), "image": str(data / "wide.zarr")}
        ).setup()
    zarr.create_array(data / "float.zarr", data=image / 255, chunks=(16, 16, 16))
    with pytest.raises(VolumeFormatError, match=r"float\.zarr: is float64; training reads uint8"):
        module_of(tmp_path, {**here(tmp_path), "image": str(data / "float.zarr")}).setup()
    np.save(data / "image.npy", image)
    with pytest.raises(VolumeFormatError, match=r"image\.npy: is no Zarr"):
        module_of(tmp_path, {**here(tmp_path), "image": str(data / "image.npy")}).setup()


@pytest.mark.parametrize(
    ("volumes", "text"),
    [
        ([], r"data\.volumes is empty"),
        ([{"image": "a"}], r"data\.volumes\[0\]: has no label; it takes image, label, level"),
        ([{"image": "a", "label": "b", "lvl": 1}], r"has unknown keys \['lvl'\]; it takes"),
        ([{"image": "a", "label": "b", "weight": 0}], r"\[0\] \(a\): weight is 0; expected a num"),
        ([{"image": "a", "label": "b", "absent_label": 1}], r"absent_label is 1; expected 2"),
        ([{"image": "a", "label": "b", "level": -1}], r"level is -1; expected 0 or more"),
        ([{"image": "a", "label": "b", "region_zyx": [[0, 1]]}], r"region_zyx is \[\[0, 1\]\]; ex"),
        ([{"image": "ftp://a/b", "label": "b"}], r"ftp://a/b: unknown scheme 'ftp'"),
    ],
)
def test_bad_entries(tmp_path, volumes, text):
    with pytest.raises(ConfigError, match=text):
        module_of(tmp_path, *volumes).setup()


def test_two_entries_of_one_name(tmp_path, scroll):
    del scroll
    with pytest.raises(ConfigError, match=r"2 entries are called 'image'; give each an id"):
        module_of(tmp_path, here(tmp_path), here(tmp_path)).setup()


def test_an_id_cannot_leave_the_cache_folder(tmp_path, scroll):
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"'\.\./\.\./evil' is not a plain name"):
        module_of(tmp_path, here(tmp_path, id="../../evil")).setup()
    assert set(tmp_path.rglob("*.npy")) <= before


def test_labels_without_surface_give_uniform_crops(tmp_path):
    image, label = make_arrays()
    label[label == 1] = 0
    zarr.create_array(tmp_path / "data" / "image.zarr", data=image, chunks=(16, 16, 16))
    write_label(tmp_path / "data" / "label.zarr", label)
    module = module_of(tmp_path, here(tmp_path), positive_share=1.0)
    check_crops(module, image, label)
    assert len(module.train_dataset.volumes()[0].positive) == 0


def test_loader_processes_import_no_lightning():
    unpickled = "vesuvius.data.labelled_volume, vesuvius.data.surface_dataset"
    code = f"import sys, {unpickled}; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
