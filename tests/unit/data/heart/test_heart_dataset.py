"""Samples and batches of hearts: composition, masks, motion, partial inputs, splits."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.data.heart.augment import draw_motion
from vesuvius.data.heart.datamodule import HeartDataModule
from vesuvius.data.heart.dataset import HeartDataset, HeartDraws
from vesuvius.data.heart.dense import true_labels
from vesuvius.data.heart.format import ABSENT_SDF, save_case
from vesuvius.data.heart.index import read_index, split_cases, write_index
from vesuvius.data.heart.partial import HEART_SUBSETS, draw_kept, subset
from vesuvius.data.heart.phantom_module import HeartPhantomDataModule
from vesuvius.errors import CaseFormatError, ConfigError, VolumeNotFoundError
from vesuvius.types import HeartLayout

DRAWS = HeartDraws(sdf_size=400, point_cloud_size=500)


@pytest.fixture(scope="module")
def folder(heart_case, tmp_path_factory):
    """Four cases of two patients."""
    root = tmp_path_factory.mktemp("cases")
    for name in ("p1_a", "p1_b", "p2_a", "p2_b"):
        save_case(root / f"{name}.npz", dataclasses.replace(heart_case, case_id=name))
    return root


def one(folder, draws=DRAWS, **kwargs):
    return HeartDataset([folder / "p1_a.npz"], draws, **kwargs)


def test_a_sample_holds_inside_outside_and_near_queries_in_order(folder, heart_case):
    sample = one(folder, fixed=True)[0]
    sdf, label = sample["target"].T
    layout = HeartLayout(200, 100, 500)
    assert layout.num_queries == 300
    assert (layout.vol, layout.near, layout.surface) == (
        slice(0, 200), slice(200, 300), slice(300, 800),
    )  # fmt: skip
    assert DRAWS.layout == layout
    assert (sdf[:100] < 0).all()
    assert (sdf[100:200] >= 0).all()
    assert np.abs(sdf[layout.near]).max() < 0.06
    assert ((label > 0) == (sdf < 0)).all()
    assert sample["surface"].shape == (500, 13)
    assert (sample["surface"][:, 3:].sum(1) == 1).all()
    assert (sample["surface"] == sample["surface_target"]).all()
    assert sample["valid_class_mask"].tolist() == [1] * 10
    assert sample["scale"] == np.float32(heart_case.geometry.scale)
    away = np.abs(sdf) > 2.5 * heart_case.geometry.scale
    truth = true_labels(heart_case.geometry, sample["points"])
    assert (truth == label)[away].mean() > 0.99


def test_defaults_are_the_sizes_of_the_specification():
    layout = HeartDraws().layout
    assert (layout.num_queries, layout.num_surface) == (3072, 8192)
    assert layout.surface.stop == 11264


def test_samples_depend_on_seed_epoch_and_index_only(folder):
    data = one(folder, samples_per_case=3, seed=1)
    first = data[(2, 1)]
    assert (one(folder, samples_per_case=3, seed=1)[(2, 1)]["points"] == first["points"]).all()
    for other in (data[(3, 1)], data[(2, 2)], one(folder, seed=2)[(2, 1)]):
        assert (other["points"] != first["points"]).any()
    still = one(folder, fixed=True)
    assert (still[(0, 0)]["points"] == still[(7, 0)]["points"]).all()


def test_every_heart_comes_once_an_epoch_in_a_new_order(folder):
    paths = sorted(folder.glob("*.npz"))
    data = HeartDataset(paths, DRAWS, cache_cases=2)
    orders = [[data[(e, i)]["case_id"] for i in range(4)] for e in range(4)]
    for order in orders:
        assert sorted(order) == [p.stem for p in paths]
    assert len({tuple(order) for order in orders}) > 1


def test_surface_and_queries_turn_together_and_distances_stay(folder):
    turned = one(folder, dataclasses.replace(DRAWS, rotation_std=1.0))[0]
    still = one(folder, dataclasses.replace(DRAWS, rotation_std=0.0))[0]
    assert (turned["target"] == still["target"]).all()
    matrix, *_ = np.linalg.lstsq(still["points"], turned["points"], rcond=None)
    assert np.abs(matrix - np.eye(3)).max() > 0.05
    assert matrix.T @ matrix == pytest.approx(np.eye(3), abs=1e-4)
    assert still["surface"][:, :3] @ matrix == pytest.approx(turned["surface"][:, :3], abs=1e-4)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.5]))
def test_motions_keep_lengths_and_mirror_only_if_asked(seed, permute, mirror, std):
    rng = np.random.default_rng(seed)
    matrix = draw_motion(rng, rotation_std=std, permute_axes=permute, mirror=mirror)
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-5)
    if not mirror:
        assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-4)
    if std == 0 and not permute and not mirror:
        assert (matrix == np.eye(3)).all()


def test_half_of_the_mirrored_motions_are_mirror_images():
    rng = np.random.default_rng(0)
    found = [np.linalg.det(draw_motion(rng, mirror=True, permute_axes=True)) for _ in range(200)]
    assert 0.35 < (np.array(found) < 0).mean() < 0.65


def test_partial_inputs_lack_classes_and_targets_do_not(folder):
    draws = dataclasses.replace(DRAWS, partial_prob=1.0, min_remove=2, max_remove=4)
    data = one(folder, draws)
    for i in range(6):
        sample = data[(0, i)]
        shown = sample["surface"][:, 3:].any(0)
        assert shown.tolist() == (sample["input_class_mask"] > 0).tolist()
        assert 6 <= shown.sum() <= 8
        assert sample["surface_target"][:, 3:].any(0).all()
        assert sample["present_class_mask"].sum() == 10
        assert len(sample["surface"]) == 500
    named = dataclasses.replace(DRAWS, partial_prob=1.0, subsets=("right_heart",))
    assert np.flatnonzero(one(folder, named)[0]["input_class_mask"]).tolist() == [3, 4, 6]
    shown = dataclasses.replace(DRAWS, input_classes=(2, 3))
    assert np.flatnonzero(one(folder, shown, fixed=True)[0]["input_class_mask"]).tolist() == [1, 2]


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 5))
def test_at_least_one_present_class_stays(seed, num, remove):
    present = tuple(range(1, num + 1))
    kept = draw_kept(np.random.default_rng(seed), present, min_remove=remove, max_remove=remove + 1)
    assert len(kept) >= 1
    assert set(kept) <= set(present)
    assert len(kept) in {max(num - remove, 1), max(num - remove - 1, 1)}


def test_padding_adds_channels_that_no_mask_counts(folder):
    draws = dataclasses.replace(DRAWS, num_channels=16)
    sample = one(folder, draws, with_class_sdf=True)[0]
    assert sample["surface"].shape == (500, 19)
    assert sample["valid_class_mask"].tolist() == [1] * 10 + [0] * 6
    assert (sample["surface"][:, 13:] == 0).all()
    assert (sample["points_class_sdf"][:, 10:] == ABSENT_SDF).all()
    least = sample["points_class_sdf"].min(1)
    assert least == pytest.approx(sample["target"][:, 0])
    own = sample["surface_target"][:, 3:].argmax(1)
    at_own = sample["surface_class_sdf"][np.arange(500), own]
    assert np.abs(at_own).mean() < 0.01


def test_small_and_empty_pools_are_drawn_again(heart_case, tmp_path):
    inside = np.flatnonzero(heart_case.vol_sdf < 0)
    few = np.concatenate([inside[:3], inside[:0]])
    case = dataclasses.replace(
        heart_case,
        vol_points=heart_case.vol_points[few],
        vol_sdf=heart_case.vol_sdf[few],
        vol_labels=heart_case.vol_labels[few],
        class_sdf={},
        sdf_mode="min_of_classes",
    )
    save_case(tmp_path / "few.npz", case)
    sample = HeartDataset([tmp_path / "few.npz"], DRAWS)[0]
    assert sample["points"].shape == (300, 3)
    assert (sample["target"][:200, 0] < 0).all()  # no outside points: volume points instead


def test_cases_that_do_not_fit_are_named(folder, heart_case, tmp_path):
    two = dataclasses.replace(DRAWS, class_names=("a", "b"), max_remove=1, min_remove=0)
    with pytest.raises(CaseFormatError, match=r"p1_a\.npz: has 10 classes; expected 2"):
        one(folder, two)[0]
    plain = dataclasses.replace(heart_case, class_sdf={}, sdf_mode="min_of_classes")
    save_case(tmp_path / "plain.npz", plain)
    with pytest.raises(CaseFormatError, match="--sdf-mode per_class"):
        HeartDataset([tmp_path / "plain.npz"], DRAWS, with_class_sdf=True)[0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sdf_size": 10}, "sdf_size is 10; expected a positive multiple of 4"),
        ({"point_cloud_size": 0}, "point_cloud_size is 0"),
        ({"num_channels": 9}, "num_channels is 9; expected 10"),
        ({"partial_prob": 1.5}, "partial_prob 1.5"),
        ({"min_remove": 6}, "min_remove is 6, max_remove 5"),
        ({"subsets": ("left",)}, "'left' is no subset of classes; expected one of left_heart"),
        ({"input_classes": (11,)}, r"classes \[11\]; expected some of 1 to 10"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_draws_out_of_range_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        HeartDraws(**change)


def test_named_subsets_are_the_specification_s():
    assert HEART_SUBSETS["left_heart"] == (1, 2, 3, 6, 8, 10)
    assert subset("great_vessels", 10) == (6, 7, 9)
    assert subset([5, 4, 5], 10) == (4, 5)


def test_patients_stay_on_one_side_and_lists_count_from_their_own_folder(folder, tmp_path):
    cases = sorted(folder.glob("*.npz"))
    split = split_cases(cases, val_share=0.5, seed=0, patient_pattern=r"p\d")
    assert {name[:2] for name in split["train"]}.isdisjoint({name[:2] for name in split["val"]})
    write_index(tmp_path / "lists" / "train.csv", cases)
    assert [p.resolve() for p in read_index(tmp_path / "lists" / "train.csv")] == cases
    with pytest.raises(ConfigError, match=r"patient_pattern 'x\(' is no regular expression"):
        split_cases(cases, val_share=0.5, seed=0, patient_pattern="x(")
    with pytest.raises(ConfigError, match="'q' is not in 4 ids"):
        split_cases(cases, val_share=0.5, seed=0, patient_pattern="q")
    (tmp_path / "bad.csv").write_text(",gone,heart\n")
    with pytest.raises(VolumeNotFoundError, match="1 of 1 cases do not exist"):
        read_index(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("a,b\n")
    with pytest.raises(ConfigError, match=r"line 1: \['a', 'b'\]; expected subdir,stem,category"):
        read_index(tmp_path / "bad.csv")


def test_the_data_module_splits_loads_and_keeps_its_split(folder, tmp_path):
    args = {"sdf_size": 40, "point_cloud_size": 50, "batch_size": 2, "patient_pattern": r"p\d"}
    module = HeartDataModule(folder, **args, val_share=0.5, split_file=tmp_path / "split.json")
    batch = next(iter(module.train_dataloader()))
    assert batch["points"].shape == (2, 30, 3)
    assert batch["target"].dtype == torch.float32
    assert len(batch["case_id"]) == 2
    assert len({name[:2] for name in batch["case_id"]}) == 1
    again = HeartDataModule(folder, **args, val_share=0.0, split_file=tmp_path / "split.json")
    assert again.val_volumes() == module.val_volumes()
    assert len(list(module.val_dataloader())) == 1
    module.skip_batches(1)
    assert list(module.train_dataloader()) == []
    write_index(tmp_path / "train.csv", module.train_volumes())
    lists = {"train_csv": tmp_path / "train.csv", "val_csv": tmp_path / "train.csv"}
    with pytest.raises(ConfigError, match="is listed in train_csv and in val_csv"):
        HeartDataModule(**lists).setup()
    with pytest.raises(ConfigError, match="belong together"):
        HeartDataModule(folder, train_csv=tmp_path / "train.csv")
    with pytest.raises(ConfigError, match="neither root nor"):
        HeartDataModule()
    with pytest.raises(VolumeNotFoundError, match=r"holds no <id>\.npz"):
        HeartDataModule(tmp_path / "..").setup()


def test_phantom_hearts_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr("vesuvius.data.heart.phantom_module.default_jobs", lambda: 1)
    args = {"folder": tmp_path, "num_hearts": 2, "grid_size": 40, "num_points": 1000}
    module = HeartPhantomDataModule(**args, sdf_size=40, point_cloud_size=50, val_share=0.5)
    module.prepare_data()
    times = [p.stat().st_mtime_ns for p in sorted((tmp_path / "cases").iterdir())]
    assert len(times) == 2
    module.prepare_data()
    assert times == [p.stat().st_mtime_ns for p in sorted((tmp_path / "cases").iterdir())]
    batch = next(iter(module.train_dataloader()))
    assert batch["surface"].shape[1:] == (50, 13)
    assert len(module.val_volumes()) == 1
