"""What the network gets: bytes in one order, one reader, one geometry for CT, PET and mask."""

import numpy as np
import pytest
import torch

from vesuvius.data.petct.datamodule import PETCTDataModule, PETCTPhantomDataModule
from vesuvius.data.petct.dataset import PETCTDataset, collate_petct, read_image, read_mask
from vesuvius.data.petct.layout import find_triples
from vesuvius.data.petct.png import write_png
from vesuvius.data.petct.transforms import PETCTTransforms
from vesuvius.errors import ConfigError, LabelValueError, PairingError, ShapeMismatchError

FOLDERS = ("CT", "PET", "masks")


def folder(root, rng, *, patients=5, slices=2, size=16, lesion=True):
    for patient in range(patients):
        for number in range(slices):
            name = f"patient_{patient:03d}_slice_{number:04d}.png"
            for part in FOLDERS:
                image = rng.integers(0, 256, (size, size), dtype=np.uint8)
                if part == "masks":
                    image = np.zeros((size, size), np.uint8)
                    image[3:7, 4:9] = 255 * lesion
                write_png(root / part / name, image)
    return root


@pytest.mark.parametrize("value", [1, 128, 255])
def test_masks_of_any_nonzero_value_survive(tmp_path, value):
    path = tmp_path / "mask.png"
    write_png(path, np.array([[0, value], [value, 0]], np.uint8))
    assert read_mask(path).tolist() == [[[0, 1], [1, 0]]]


def test_resizing_averages_areas_by_hand(tmp_path):
    image = np.zeros((4, 4), np.uint8)
    image[:2, :2] = [[10, 20], [30, 41]]  # mean 25.25
    write_png(tmp_path / "a.png", image)
    write_png(tmp_path / "b.png", image.T.copy())
    read = read_image(tmp_path / "a.png", tmp_path / "b.png", image_size=2)
    assert read.tolist() == [[[25, 0], [0, 0]], [[25, 0], [0, 0]]]
    mask = np.zeros((4, 4), np.uint8)
    mask[0, :2] = 1  # half of the first block
    mask[2, 2] = 1  # a quarter of the last
    write_png(tmp_path / "m.png", mask)
    assert read_mask(tmp_path / "m.png", image_size=2).tolist() == [[[1, 0], [0, 0]]]


def test_an_epoch_holds_every_slice_once_in_an_order_of_its_own(tmp_path, rng):
    triples = find_triples(folder(tmp_path, rng))["all"]
    data = PETCTDataset(triples, seed=1)
    orders = [[data[(epoch, i)]["name"] for i in range(len(data))] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == [t.name for t in triples]
    assert orders[0] != orders[1]
    again = PETCTDataset(triples, seed=1)
    assert [again[(0, i)]["name"] for i in range(len(data))] == orders[0]


def test_flips_are_the_same_for_ct_pet_and_mask(tmp_path, rng):
    triples = find_triples(folder(tmp_path, rng))["all"]
    plain = {s["name"]: s for s in (PETCTDataset(triples)[i] for i in range(10))}
    seen = set()
    data = PETCTDataset(triples, augment="flips")
    for epoch in range(4):
        for i in range(10):
            sample = data[(epoch, i)]
            original = plain[sample["name"]]
            for axes in ((), (1,), (2,), (1, 2)):
                if np.array_equal(sample["image"], np.flip(original["image"], axes)):
                    seen.add(axes)
                    assert np.array_equal(sample["label"], np.flip(original["label"], axes))
    assert seen == {(), (1,), (2,), (1, 2)}


def module(root, **options):
    return PETCTDataModule(root=root, **{"batch_size": 2, "num_workers": 0, **options})


def test_the_data_module_splits_by_patient_and_keeps_its_split(tmp_path, rng):
    root = folder(tmp_path / "data", rng)
    data = module(root, split_file=tmp_path / "split.json")
    data.setup()
    sides = [{t.patient for t in d.triples} for d in (data.train_dataset, data.val_dataset)]
    assert [len(s) for s in sides] == [4, 1]
    assert not sides[0] & sides[1]
    again = module(root, split_file=tmp_path / "split.json", val_ratio=0.6)
    again.setup()
    assert again.val_dataset.triples == data.val_dataset.triples
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 2, 16, 16)
    assert batch["image"].dtype == torch.uint8
    assert len(list(data.val_dataloader())) == 1


def test_a_split_file_with_a_patient_on_both_sides_is_refused(tmp_path, rng):
    root = folder(tmp_path / "data", rng, patients=2)
    (tmp_path / "split.json").write_text(
        '{"train": ["patient_000_slice_0000"], "val": ["patient_000_slice_0001"]}'
    )
    with pytest.raises(PairingError, match="patient patient_000 is on both sides"):
        module(root, split_file=tmp_path / "split.json").setup()


def test_all_masks_empty(tmp_path, rng):
    with pytest.raises(LabelValueError, match="all 8 training masks are empty"):
        module(folder(tmp_path, rng, lesion=False)).setup()


def test_slices_of_two_sizes_need_image_size(tmp_path, rng):
    root = folder(tmp_path, rng, patients=4)
    for part in FOLDERS:
        write_png(root / part / "patient_009_slice_0000.png", np.zeros((32, 32), np.uint8))
    with pytest.raises(ShapeMismatchError, match=r"slices of 2 sizes.*data\.image_size"):
        module(root).setup()
    data = module(root, image_size=16)
    data.setup()
    assert {b["image"].shape[2:] for b in data.train_dataloader()} == {(16, 16)}


def test_wrong_arguments(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.batch_size is 0"):
        module(tmp_path, batch_size=0)
    with pytest.raises(ConfigError, match=r"data\.augment='turns'"):
        PETCTDataset([], augment="turns")


def test_a_phantom_module_makes_its_data(tmp_path):
    data = PETCTPhantomDataModule(
        folder=tmp_path / "p", num_patients=3, slices_per_patient=2, phantom_size=32, batch_size=4
    )
    data.prepare_data()
    data.setup()
    assert (len(data.train_dataset), len(data.val_dataset)) == (4, 2)


def batch_of(image, label, names=("a", "b")):
    samples = [
        {"image": image, "label": label, "name": name, "patient": name.upper()} for name in names
    ]
    return collate_petct(samples)


def checker(size=64):
    """CT and PET equal, the mask is where they are bright."""
    label = np.zeros((1, size, size), np.uint8)
    label[0, 20:40, 24:36] = 1
    return np.concatenate([label, label]) * np.uint8(255), label


def test_images_and_mask_are_deformed_by_one_geometry():
    transforms = PETCTTransforms(
        seed=0, affine_share=1, elastic_share=1, intensity_share=0, noise_share=0
    )
    out = transforms(batch_of(*checker()), epoch=0)
    ct, pet, label = out["image"][:, 0], out["image"][:, 1], out["label"][:, 0]
    assert torch.equal(ct, pet)
    assert set(label.unique().tolist()) == {0, 1}
    assert ((ct > 0.5).to(torch.uint8) != label).float().mean() < 0.01  # edges only
    assert (label[0] != batch_of(*checker())["label"][0, 0]).any()


def test_grey_values_change_in_each_modality_for_itself():
    transforms = PETCTTransforms(
        seed=0, affine_share=0, elastic_share=0, intensity_share=1, noise_share=0
    )
    batch = batch_of(*checker())
    out = transforms(batch, epoch=0)
    assert torch.equal(out["label"], batch["label"])
    assert not torch.equal(out["image"][0, 0], out["image"][0, 1])
    assert float(out["image"].min()) >= 0
    assert float(out["image"].max()) <= 1


def test_augmentation_depends_on_seed_epoch_and_name_alone():
    transforms = PETCTTransforms(seed=0, affine_share=1)
    image, label = checker()
    both = transforms(batch_of(image, label, ("a", "b")), epoch=3)["image"]
    alone = transforms(batch_of(image, label, ("b",)), epoch=3)["image"]
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(transforms(batch_of(image, label), epoch=4)["image"], both)


def test_nothing_drawn_changes_nothing():
    off = dict.fromkeys(("affine_share", "elastic_share", "intensity_share", "noise_share"), 0.0)
    batch = batch_of(*checker())
    out = PETCTTransforms(seed=0, **off)(batch, epoch=0)
    assert torch.equal(out["image"], batch["image"] / 255)


@pytest.mark.parametrize("size", [64, 128])
def test_the_elastic_deformation_scales_with_the_slice(size):
    transforms = PETCTTransforms(seed=0, affine_share=0, elastic_share=1)
    fields = [
        transforms._displacement(np.random.default_rng(n), torch.zeros(2, size, size))
        for n in range(8)
    ]
    # std of uniform noise, smoothed: 0.577 / (2 sqrt(pi) 6) * 120 = 3.26 pixels of 512
    spread = torch.stack(fields).std().item() * 256
    assert spread == pytest.approx(3.26, rel=0.25)


def test_transforms_out_of_range():
    with pytest.raises(ConfigError, match=r"transforms\.noise_share=2"):
        PETCTTransforms(seed=0, noise_share=2)
