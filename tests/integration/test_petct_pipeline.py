"""CT-PET: train in the common loop, resume, evaluate, predict on a small phantom."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from vesuvius.cli.main import main
from vesuvius.data.petct.layout import find_triples
from vesuvius.data.petct.png import read_png, write_png
from vesuvius.errors import ConfigError, PairingError, VolumeNotFoundError
from vesuvius.runtime.petct import evaluate, load_trained, pair_files, predict_files, predictions

ROOT = Path(__file__).parents[2]
NETWORK = (
    "data.batch_size=3",
    "model.width=2",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    "callbacks=[speed,memory,curves,ema,checkpoint,emergency]",
    "callbacks.periodic.every_n_epochs=1",
)
PHANTOM = (
    "experiment=petct_cocoseg_tiny",
    "data.num_patients=4",
    "data.slices_per_patient=3",
    "data.phantom_size=32",
    "data.val_ratio=0.25",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("petct")


@pytest.fixture
def train_petct(runs, compose_config):
    def run(folder, *overrides, tiny=(*NETWORK, *PHANTOM)):
        from vesuvius.runtime.train import train

        options = [*tiny, f"paths.data_dir={runs}", *overrides]
        cfg = compose_config("train", options, folder)
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
        return train(cfg)

    return run


@pytest.fixture
def trained(runs, train_petct):
    """One run of two epochs, shared by the tests of this file."""
    folder = runs / "trained"
    if not (folder / "result.json").is_file():
        train_petct(folder)
    return folder


def checkpoint(path):
    return torch.load(path, weights_only=True)


def test_a_run_leaves_what_every_run_leaves(trained):
    for name in (
        *("run.json", "result.json", "metrics.csv", "split.json", "curves.png", "history.csv"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/epoch000.ckpt"),
    ):
        assert (trained / name).is_file(), name
    last = checkpoint(trained / "checkpoints" / "last.ckpt")
    assert last["provenance"] == {"vgg": "random"}
    assert "current_model_state" in last  # state_dict is the average


def test_logged_names_are_those_of_the_metrics_page(trained):
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    with (trained / "metrics.csv").open(newline="") as file:
        logged = set(csv.DictReader(file).fieldnames) - {"step"}
    terms = re.compile(r"^(train|val)/loss/lesion_(dice|ce)$")
    assert {n for n in logged if n not in documented and not terms.match(n)} == set()
    assert {n for n in documented if n.startswith("val/lesion/")} <= logged


def test_a_resumed_run_ends_as_an_uninterrupted_one(trained, runs, train_petct):
    folder = runs / "resumed"
    first = trained / "checkpoints" / "epoch000.ckpt"
    train_petct(folder, f"ckpt_path={first}")
    expected, found = (checkpoint(f / "checkpoints" / "last.ckpt") for f in (trained, folder))
    for key in ("state_dict", "current_model_state", "averaging_state"):
        different = [k for k, v in expected[key].items() if not torch.equal(v, found[key][k])]
        assert different == []
    assert (
        expected["optimizer_states"][0]["param_groups"]
        == (found["optimizer_states"][0]["param_groups"])
    )


def test_evaluation_chooses_the_threshold_on_val_and_writes_everything(trained, runs):
    out = runs / "evaluated"
    results = evaluate(load_trained(trained, device="cpu"), out, split="val")
    stored = json.loads((out / "results.json").read_text())
    split = json.loads((trained / "split.json").read_text())
    assert [s["name"] for s in stored["slices"]] == split["val"]
    assert stored["num_slices"] == 3
    assert stored["provenance"] == {"vgg": "random"}
    sweep = {float(t): s["dice_positive"] for t, s in stored["sweep_on_val"].items()}
    assert sorted(sweep) == [0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    assert sweep[results["threshold"]] == max(sweep.values())
    # the written masks give the written scores
    masks = {t.name: t.mask for t in find_triples(next(runs.glob("petct_phantom_*")))["all"]}
    for entry in stored["slices"]:
        mask = read_png(out / "predictions" / f"{entry['name']}.png")
        truth = read_png(masks[entry["name"]])
        assert set(np.unique(mask)) <= {0, 255}
        hit, size = ((mask > 0) & (truth > 0)).sum(), (mask > 0).sum() + (truth > 0).sum()
        assert entry["dice"] == pytest.approx(2 * hit / size if size else 1.0)
        assert entry["predicted_pixels"] == (mask > 0).sum()


def test_training_scores_are_evaluations_scores(trained, runs):
    last = load_trained(trained, checkpoint="last", device="cpu")
    found = evaluate(last, runs / "last", threshold=0.5, save_predictions=False)["overall"]
    logged = json.loads((trained / "result.json").read_text())["metrics"]
    for name in ("dice_slice", "dice_global", "accuracy"):
        assert found[name] == pytest.approx(logged[f"val/lesion/{name}"], abs=1e-6)


def test_prediction_of_files_is_that_of_the_evaluation(trained, runs):
    network = load_trained(trained, device="cpu")
    triple = find_triples(next(runs.glob("petct_phantom_*")))["all"][0]
    probability, _ = next(predictions(network, [triple], batch_size=1))
    threshold = float(probability.median())
    (path,) = predict_files(network, triple.ct, triple.pet, runs / "p", threshold=threshold)
    assert np.array_equal(read_png(path) > 0, (probability[0, 0] > threshold).numpy())
    arguments = ["--ct", str(triple.ct), "--pet", str(triple.pet), "--out", str(runs / "p2")]
    assert main(["petct", "predict", str(trained), *arguments, "--device", "cpu"]) == 0
    assert (runs / "p2" / path.name).is_file()


def test_vgg_files_are_needed_for_training_only(trained, runs):
    folder = runs / "moved"
    shutil.copytree(trained, folder)
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    config.model.vgg.weights = "gone.pth"
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    assert load_trained(folder, device="cpu").network is not None


def test_the_command_line_wins_over_the_experiment_and_the_group(compose_config, tmp_path):
    cfg = compose_config(
        "train",
        ["experiment=petct_cocoseg", "loss=petct_focal", "loss.term.lesion_focal.fn.gamma=3"],
        tmp_path,
    )
    assert list(cfg.loss.term) == ["lesion_focal"]
    assert cfg.loss.term.lesion_focal.fn == {
        "_target_": "vesuvius.losses.lesion.LesionFocal", "alpha": 1.0, "gamma": 3,
    }  # fmt: skip
    cfg = compose_config("train", ["experiment=petct_cocoseg", "optimizer.lr=5e-5"], tmp_path)
    assert cfg.optimizer.lr == 5e-5
    assert [t.weight for t in cfg.loss.term.values()] == [0.5, 0.5]


def test_evaluation_of_what_is_not_there(trained, runs, run_train):
    network = load_trained(trained, device="cpu")
    with pytest.raises(ConfigError, match=r"--split test: .* has \['all'\]"):
        evaluate(network, runs / "x", split="test", threshold=0.5)
    with pytest.raises(ConfigError, match=r"--threshold 1\.5"):
        evaluate(network, runs / "x", threshold=1.5)
    with pytest.raises(ConfigError, match="is no training run"):
        load_trained(runs / "nothing")


def test_a_missing_modality_is_named(tmp_path):
    image = np.zeros((16, 16), np.uint8)
    for name in ("CT/a.png", "CT/b.png", "PET/a.png"):
        write_png(tmp_path / name, image)
    with pytest.raises(PairingError, match=r"1 slices have one modality only, e\.g\. b \(CT\)"):
        pair_files(tmp_path / "CT", tmp_path / "PET")
    with pytest.raises(VolumeNotFoundError, match=r"--pet .*Both modalities are needed"):
        pair_files(tmp_path / "CT", tmp_path / "nowhere")


def test_phantom_split_and_training_on_files(runs, train_petct, capsys):
    flat, split = runs / "flat", runs / "split"
    size = ["--patients", "5", "--slices", "2", "--size", "32", "--radius", "12", "26"]
    assert main(["petct", "phantom", str(flat), *size]) == 0
    assert main(["petct", "split", str(flat), str(split), "--test-ratio", "0.2"]) == 0
    assert "test: 2 slices of 1 patients" in capsys.readouterr().out
    folder = runs / "files"
    train_petct(
        folder,
        *("experiment=petct_cocoseg", "model=cocoseg_tiny", "transforms=petct"),
        *("data=petct_png", f"data.root={split}", "data.num_workers=0"),
        tiny=NETWORK,
    )
    out = runs / "files_test"
    arguments = ["--out", str(out), "--split", "test", "--device", "cpu"]
    assert main(["petct", "evaluate", str(folder), *arguments]) == 0
    assert len(list((out / "predictions").glob("*.png"))) == 2
    assert "dice_positive" in capsys.readouterr().out
