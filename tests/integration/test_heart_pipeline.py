"""Heart experiments end to end: train, resume, infer, meshes; what lies in the run folder."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from heart_runs import prepared_hearts, train_hearts
from lightning.pytorch import Callback

from vesuvius.cli.main import main


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return prepared_hearts(tmp_path_factory.mktemp("hearts"))


@pytest.fixture(scope="module")
def run(cases, tmp_path_factory):
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    score = train_hearts(cases, folder, "heart_vecset_tiny")
    assert score is not None
    return folder


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_end_of_a_fit_reports_dense_scores_and_pictures(run):
    logged = {name for row in rows(run) for name, value in row.items() if value}
    assert {"val/dense/union_iou", "val/dense/class_dice", "val/points/iou"} <= logged
    assert {"train/loss/sdf_vol", "train/loss/sdf_near", "train/loss/class_bce", "lr"} <= logged
    assert {"time/step_s", "throughput/samples_s"} <= logged
    result = json.loads((run / "result.json").read_text())
    assert 0 <= result["metrics"]["val/dense/union_iou"] <= 1
    assert (run / "pictures" / "epoch001_hearts.png").is_file()
    assert (run / "curves.png").is_file()


def test_only_the_best_and_the_last_checkpoint_are_kept(run):
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_metric_names_are_documented(run, pytestconfig):
    page = (pytestconfig.rootpath / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in ("union_iou", "class_dice", "class_iou"):
        assert f"val/dense/{name}" in page


class Keep(Callback):
    """Copies the last checkpoint of the first epoch aside."""

    def on_train_epoch_start(self, trainer, pl_module):
        folder = Path(trainer.default_root_dir)
        if trainer.current_epoch == 1 and not (folder / "first.ckpt").exists():
            shutil.copy(folder / "checkpoints" / "last.ckpt", folder / "first.ckpt")


@pytest.mark.slow
def test_a_resumed_run_ends_like_an_uninterrupted_one(cases, tmp_path):
    keep = f"+callbacks.keep={{_target_: {__name__}.Keep}}"
    train_hearts(cases, tmp_path / "whole", "heart_vecset_tiny", keep)
    first = tmp_path / "whole" / "first.ckpt"
    train_hearts(cases, tmp_path / "resumed", "heart_vecset_tiny", f"ckpt_path={first}")
    whole, resumed = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "resumed")
    )
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_inference_of_the_run_writes_labels_and_meshes(run, cases, tmp_path):
    given = sorted(cases.glob("*.npz"))[0]
    args = ["heart", "infer", str(run), str(given), "--out", str(tmp_path), "--resolution", "16"]
    assert main(args) == 0
    report = json.loads((tmp_path / f"{given.stem}.json").read_text())
    assert report["input_classes"] == [float(c) for c in range(1, 11)]
    assert (tmp_path / f"{given.stem}_labels.nii.gz").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "overrides"),
    [
        ("heart_vecset", ("model.latent_dim=4", "trainer.accumulate_grad_batches=1")),
        ("heart_vecset", ("model.bottleneck=kl", "data.num_channels=12", "model.num_classes=12",
                          "loss/term=[sdf_vol,sdf_near,sdf_surface,eikonal,class_bce,code]",
                          "trainer.accumulate_grad_batches=1")),
        ("heart_vecset_perclass", ("model.points_per_class=16",)),
    ],
    ids=["multiclass", "kl_and_padding", "perclass"],
)  # fmt: skip
def test_the_other_experiments_train(cases, tmp_path, experiment, overrides):
    fast = ("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1")
    assert train_hearts(cases, tmp_path, experiment, *overrides, *fast) is not None


@pytest.mark.slow
def test_a_network_learns_one_heart_by_heart(tmp_path):
    """Overfitting one phantom reaches a 3-D IoU above 0.9 within 600 steps."""
    cases = prepared_hearts(tmp_path, count=1, size=64, num_points=20_000)
    shutil.copy(cases / "heart_0000.npz", cases / "same.npz")
    (tmp_path / "one.json").write_text(json.dumps({"train": ["heart_0000"], "val": ["same"]}))
    train_hearts(
        cases,
        tmp_path / "run",
        "heart_vecset_tiny",
        f"data.split_file={tmp_path / 'one.json'}",
        "data.sdf_size=2048",
        "data.point_cloud_size=1024",
        "data.rotation_std=0",
        "data.samples_per_case=100",
        "model.dim=64",
        "model.depth=2",
        "model.num_latents=64",
        "trainer.max_epochs=12",
        "trainer.check_val_every_n_epoch=12",
        "callbacks.heart_dense.resolution=48",
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics"]["val/dense/union_iou"] > 0.9
    assert result["metrics"]["val/dense/class_dice"] > 0.8
