"""Samples are pure functions of (seed, epoch, i), over ranks, workers and restarts."""

import json

import numpy as np
import pytest
import torch

from vesuvius.data.epoch_module import EpochDataModule, EpochSampler
from vesuvius.data.prepare import PrepareOptions, prepare_volume
from vesuvius.data.sources import find_items
from vesuvius.data.splits import load_split, split_volumes
from vesuvius.data.store import PreparedVolume
from vesuvius.data.surface import SurfaceDataModule
from vesuvius.data.surface_dataset import SurfaceDataset, collate_surface
from vesuvius.data.tiff import write_tiff
from vesuvius.data.volume import open_volume
from vesuvius.errors import ConfigError, PairingError, VolumeFormatError, VolumeNotFoundError

PATCH = (8, 8, 8)


def _paths(prepared):
    return sorted(prepared.glob("*.zarr"))


def _positive(sample):
    return bool((sample["label"] == 1).any())


def test_sample_is_the_crop_at_its_origin(prepared):
    data = SurfaceDataset(_paths(prepared), PATCH)
    for i in range(20):
        sample = data[i]
        volume = prepared / f"{sample['volume_id']}.zarr"
        box = (sample["origin_zyx"], tuple(o + 8 for o in sample["origin_zyx"]))
        for name in ("image", "label"):
            assert sample[name].shape == (1, 8, 8, 8)
            assert sample[name].dtype == np.uint8
            assert np.array_equal(sample[name][0], open_volume(volume, array=name).read(*box))


def test_augmented_sample_is_a_symmetry_of_the_plain_one(prepared):
    plain = SurfaceDataset(_paths(prepared), PATCH)
    turned = SurfaceDataset(_paths(prepared), PATCH, augment="cube")
    changed = 0
    for i in range(20):
        a, b = plain[1, i], turned[1, i]
        assert a["origin_zyx"] == b["origin_zyx"]
        assert np.array_equal(np.sort(a["image"], axis=None), np.sort(b["image"], axis=None))
        # Image and label turn together: the grey values under the surface stay the same.
        under = [np.sort(s["image"][s["label"] == 1]) for s in (a, b)]
        assert np.array_equal(*under)
        changed += not np.array_equal(a["image"], b["image"])
    assert changed > 15


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_positive_share_is_met_to_one_crop_in_every_epoch(prepared, share):
    data = SurfaceDataset(_paths(prepared), PATCH, samples_per_volume=20, positive_share=share)
    for epoch in range(3):
        wanted = [data._draw_plan(epoch, i)[1] for i in range(100)]
        assert abs(sum(wanted) - 100 * share) <= 1
        assert all(_positive(data[epoch, i]) for i in range(100) if wanted[i])


def test_every_volume_gives_its_samples_in_every_epoch(prepared):
    data = SurfaceDataset(_paths(prepared), PATCH, samples_per_volume=3)
    for epoch in range(2):
        ids = [data[epoch, i]["volume_id"] for i in range(len(data))]
        assert sorted(ids) == sorted(f"v{i}" for i in range(5) for _ in range(3))
    assert data[0, 0]["origin_zyx"] != data[1, 0]["origin_zyx"]


def test_label_2_as_background_and_padding(prepared):
    paths = _paths(prepared)[:1]
    data = SurfaceDataset(paths, (30, 8, 8), positive_share=0)
    sample = data[0]
    assert (sample["label"][0, 24:] == 2).all()
    assert (sample["image"][0, 24:] == 0).all()
    assert (sample["image"][0, :24] > 0).all()
    plain = SurfaceDataset(paths, (30, 8, 8), positive_share=0, ignore_as_background=True)[0]
    assert 2 not in plain["label"]


@pytest.mark.parametrize("augment", ["none", "cube"])
def test_label_2_as_background_but_for_the_border(prepare_array, augment):
    image = np.random.default_rng(0).integers(1, 255, (16, 16, 16), dtype=np.uint8)
    label = np.full_like(image, 2)
    label[6:9] = 1
    label[0, 0, 0] = 0  # background stays background everywhere
    data = SurfaceDataset(
        [prepare_array(image, label)], (18, 18, 18), positive_share=0, augment=augment,
        ignore_as_background=True, ignored_border=3,
    )  # fmt: skip
    for i in range(4):
        found = data[i]["label"][0]
        inside = data[i]["image"][0] > 0
        assert (found[~inside] == 2).all()
        # 16^3 - 10^3 voxels within 3 of a face, less 3 slices of 16^2 - 10^2 surface, less one
        assert (found[inside] == 2).sum() == 16**3 - 10**3 - 3 * (16**2 - 10**2) - 1
        assert (found == 1).sum() == 3 * 16**2
        assert (found == 0).sum() == 10**3 - 3 * 10**2 + 1


def test_a_border_needs_label_2_as_background(prepared):
    with pytest.raises(ConfigError, match="ignored_border is 3; expected 0 or more, and with"):
        SurfaceDataset(_paths(prepared), PATCH, ignored_border=3)


def test_wrap_numbers_come_along(kaggle, tmp_path):
    wrap = np.random.default_rng(0).integers(1, 90, (24, 40, 36), dtype=np.int16)
    write_tiff(kaggle / "train_truth" / "v0_wrap.tif", wrap)
    prepare_volume(find_items(kaggle)[0], tmp_path / "v0.zarr", PrepareOptions(chunk=16))
    sample = SurfaceDataset([tmp_path / "v0.zarr"], (48, 8, 8), with_wrap=True)[0]
    z, y, x = sample["origin_zyx"]
    assert sample["wrap"].dtype == np.int16
    assert np.array_equal(sample["wrap"][0, :24], wrap[z:, y : y + 8, x : x + 8])
    assert (sample["wrap"][0, 24:] == 0).all()


def test_small_volume_is_padded_with_turning(prepared):
    data = SurfaceDataset(_paths(prepared)[:1], (48, 48, 48), augment="cube")
    for i in range(10):
        sample = data[i]
        inside = sample["image"] > 0
        assert inside.sum() == 24 * 40 * 36
        assert (sample["label"][~inside] == 2).all()


def test_volume_without_surface_gives_uniform_crops(prepare_array):
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 16), dtype=np.uint8)
    path = prepare_array(image, np.zeros_like(image))
    assert len(PreparedVolume(path).positive) == 0
    assert SurfaceDataset([path], PATCH, positive_share=1.0)[0]["label"].max() == 0


def _stream(module, rank=0, world=1, epoch=0):
    """Return the batches of one rank as lists of (volume, origin)."""
    module._world = lambda: (rank, world)
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [
        list(zip(b["volume_id"], map(tuple, b["origin_zyx"].tolist()), strict=True)) for b in loader
    ]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_see_the_global_batch_of_one_process(prepared, world):
    one = _stream(SurfaceDataModule(prepared, PATCH, batch_size=2 * world), epoch=4)
    ranks = [
        _stream(SurfaceDataModule(prepared, PATCH, batch_size=2), rank, world, epoch=4)
        for rank in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    for batch, *parts in zip(one, *ranks, strict=True):
        assert sorted(batch) == sorted(sample for part in parts for sample in part)


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_persistent_workers_see_what_one_process_sees(prepared, start_method):
    alone = SurfaceDataModule(prepared, PATCH, batch_size=4)
    module = SurfaceDataModule(
        prepared, PATCH, batch_size=4, num_workers=2, start_method=start_method
    )
    loader, plain = module.train_dataloader(), alone.train_dataloader()
    for epoch in (0, 1):
        for each in (loader, plain):
            each.sampler.set_epoch(epoch)
        for a, b in zip(loader, plain, strict=True):
            assert a["volume_id"] == b["volume_id"]
            assert torch.equal(a["image"], b["image"])
            assert torch.equal(a["label"], b["label"])


def test_epochs_are_whole_global_batches(prepared):
    module = SurfaceDataModule(prepared, PATCH, batch_size=7, samples_per_volume=3)
    batches = _stream(module)
    assert [len(b) for b in batches] == [7, 7]  # 4 volumes x 3 = 12 -> 14, two new crops
    assert len({sample for batch in batches for sample in batch}) > 12


def test_validation_is_the_same_in_every_epoch_and_of_both_kinds(prepared):
    module = SurfaceDataModule(prepared, PATCH, batch_size=3, val_crops_per_volume=5, val_share=0.4)
    loader = module.val_dataloader()
    seen = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        seen.append([(b["volume_id"], b["origin_zyx"].tolist()) for b in loader])
    assert seen[0] == seen[1]
    samples = [module.val_dataset[i] for i in range(10)]
    assert [s["volume_id"] for s in samples] == [n for n in module.split["val"] for _ in range(5)]
    # round(5 * 0.7) = 4 positive crops of each volume, the last uniform.
    assert all(_positive(s) for i, s in enumerate(samples) if i % 5 < 4)


def test_validation_ranks_share_the_crops(prepared):
    data = SurfaceDataset(_paths(prepared), PATCH, fixed=True, samples_per_volume=2)
    parts = [[i for _, i in EpochSampler(data, rank=rank, world_size=2)] for rank in (0, 1)]
    assert parts == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_split_is_by_volume_and_repeatable(prepared):
    module = SurfaceDataModule(prepared, PATCH)
    assert len(module.train_volumes()) == 4
    assert len(module.val_volumes()) == 1
    assert not set(module.train_volumes()) & set(module.val_volumes())
    assert module.val_volumes() == SurfaceDataModule(prepared, PATCH, seed=7).val_volumes()


def test_split_by_scroll_keeps_scrolls_whole(prepared):
    module = SurfaceDataModule(prepared, PATCH, split_by="scroll")
    module.setup()
    sides = [{int(v[1:]) % 2 for v in module.split[side]} for side in ("train", "val")]
    assert sorted(map(len, sides)) == [1, 1]
    assert sides[0] != sides[1]


def test_folds_partition_the_volumes():
    ids = [f"v{i}" for i in range(11)]
    folds = [split_volumes(ids, fold=k, num_folds=4)["val"] for k in range(4)]
    assert sorted(v for fold in folds for v in fold) == sorted(ids)
    assert split_volumes(ids) == split_volumes(ids[::-1])


def test_split_file_is_written_then_read(prepared, tmp_path):
    path = tmp_path / "split.json"
    first = SurfaceDataModule(prepared, PATCH, split_file=path)
    first.setup()
    assert json.loads(path.read_text()) == first.split
    path.write_text(json.dumps({"train": ["v3"], "val": ["v1", "v0"]}))
    second = SurfaceDataModule(prepared, PATCH, split_file=path)
    assert [p.name for p in second.train_volumes()] == ["v3.zarr"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train": ["v0"], "val": ["v0"]}', "lists ['v0'] for training and for validation"),
        ('{"train": ["v9"], "val": []}', "lists 1 volumes that are not there: ['v9']"),
        ('{"train": ["../v0"], "val": []}', "volume id '../v0' is not a plain name"),
        ('{"train": ["v0"]}', "not a split ('val'); expected"),
        ("{", "not a split"),
    ],
)
def test_bad_split_files(tmp_path, text, message):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_split(path, ["v0", "v1"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"patch_zyx": (64, 64, 64)}, "patch_zyx [64, 64, 64] is larger than every volume"),
        ({"patch_zyx": (8, 8)}, "patch_zyx is [8, 8]; expected three positive sizes"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number, 1 or more"),
        ({"positive_share": 1.5}, "positive_share is 1.5; expected 0 to 1"),
        ({"augment": "rot"}, "augment is 'rot'; expected one of"),
        ({"start_method": "fork"}, "start_method is 'fork'; expected forkserver or spawn"),
        ({"max_volumes": 0}, "max_volumes is 0; expected 1 or more"),
        ({"max_volumes": 1}, "1 volume (or scroll) cannot be split"),
        ({"val_share": 1.0}, "val_share is 1.0; expected 0 to below 1"),
        ({"fold": 5}, "fold is 5; expected 0 to 4"),
    ],
)
def test_bad_arguments(prepared, options, text):
    with pytest.raises(ConfigError) as caught:
        SurfaceDataModule(prepared, **{"patch_zyx": PATCH, **options}).setup()
    assert text in str(caught.value)


@pytest.mark.parametrize("value", ["2", 1.5, True, -1])
@pytest.mark.parametrize("name", ["batch_size", "num_workers", "prefetch_factor"])
def test_what_is_no_whole_number_is_told_with_its_key(name, value):
    with pytest.raises(ConfigError) as caught:
        EpochDataModule(**{"batch_size": 1, name: value})
    least = 0 if name == "num_workers" else 1
    told = f"data.{name} is {value!r}; expected a whole number, {least} or more"
    assert str(caught.value) == told


def test_patch_larger_than_every_volume_can_be_asked_for(prepared, caplog):
    module = SurfaceDataModule(prepared, (64, 64, 64), pad_small=True)
    module.setup()
    assert "5 of 5 volumes are smaller than patch_zyx (64, 64, 64)" in caplog.text


def test_one_volume_trains_without_validation(prepared):
    module = SurfaceDataModule(prepared, PATCH, max_volumes=1, val_share=0)
    assert module.val_dataloader() == []
    assert len(module.train_volumes()) == 1


def test_missing_data(prepared, prepare_array, tmp_path):
    with pytest.raises(VolumeNotFoundError, match=r"nowhere: no such folder \(root\)"):
        SurfaceDataModule(tmp_path / "nowhere", PATCH).setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolumeNotFoundError, match=r"holds no <id>\.zarr"):
        SurfaceDataModule(tmp_path / "empty", PATCH).setup()
    with pytest.raises(PairingError, match=r"5 of 5 volumes have no wrap, e\.g\. v0"):
        SurfaceDataModule(prepared, PATCH, with_wrap=True).setup()
    image = np.zeros((16, 16, 16), np.uint8)
    path = prepare_array(image, image, name="a")
    prepare_array(image.astype(np.uint16), image, name="b")
    with pytest.raises(VolumeFormatError, match="different dtypes cannot share a batch"):
        SurfaceDataModule(path.parent, PATCH).setup()


def test_collation_keeps_bytes(prepared):
    data = SurfaceDataset(_paths(prepared), PATCH)
    batch = collate_surface([data[0], data[1]])
    assert batch["image"].dtype == batch["label"].dtype == torch.uint8
    assert batch["image"].shape == (2, 1, 8, 8, 8)
    assert batch["origin_zyx"].tolist() == [list(data[i]["origin_zyx"]) for i in (0, 1)]
