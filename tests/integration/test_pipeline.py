"""prepare -> train -> resume -> infer -> post-process -> score on small phantoms."""

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from conftest import TINY

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.modules.surface import SurfaceModule
from vesuvius.runtime.train import find_resume

ROOT = Path(__file__).parents[2]
EVERY_EPOCH = "callbacks.periodic.every_n_epochs=1"
PLAIN = (*TINY, "callbacks=[nonfinite,speed,volume_validation,checkpoint,emergency,requeue]")
"""Without pictures, in half the time: for runs of which only weights and figures are looked at."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def trained(runs, run_train):
    """One run of two epochs, shared by the tests of this file."""
    folder = runs / "trained"
    if not (folder / "result.json").is_file():
        run_train(folder, EVERY_EPOCH)
    return folder


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_behind(trained):
    for name in (
        *("run.json", "result.json", "metrics.csv", "split.json", "curves.png", "history.csv"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/epoch000.ckpt"),
        *("pictures/epoch001_comparison.png", "pictures/epoch001_pred_mask.tif"),
    ):
        assert (trained / name).is_file(), name
    run = json.loads((trained / "run.json").read_text())
    assert run["choices"]["model"] == "dual_head_unet"
    assert run["num_parameters"] == 87_490
    assert run["packages"]["torch"].startswith(torch.__version__.split("+")[0])


def test_logged_names_are_those_of_the_metrics_page(trained):
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    with (trained / "metrics.csv").open(newline="") as file:
        logged = set(csv.DictReader(file).fieldnames) - {"step"}
    terms = re.compile(r"^(train|val)/loss/(dice|bce|normal)$")
    unknown = {n for n in logged if n not in documented and not terms.match(n)}
    assert unknown == set()
    others = [r for r in rows if re.search("val/(lesion|points|dense)/", r)]  # other tasks' scores
    elsewhere = {name for row in others for name in re.findall(r"`([^`]+)`", row)}
    assert {n for n in documented if "<" not in n} - elsewhere - logged == set()


def test_checkpoints_hold_plain_data_only(trained):
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["epoch"] == 1


def test_a_resumed_run_ends_with_the_same_weights(trained, runs, run_train):
    folder = runs / "resumed"
    run_train(folder, EVERY_EPOCH, f"ckpt_path={trained / 'checkpoints' / 'epoch000.ckpt'}")
    expected = weights(trained / "checkpoints" / "last.ckpt")
    found = weights(folder / "checkpoints" / "last.ckpt")
    assert expected.keys() == found.keys()
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert different == []


def test_auto_resume_goes_on_in_the_same_folder_and_then_stops(trained, runs, run_train, caplog):
    folder = runs / "auto"
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "result.json").unlink()
    first = folder / "checkpoints" / "epoch000.ckpt"
    shutil.copy(first, folder / "checkpoints" / "last.ckpt")
    run_train(folder, EVERY_EPOCH, "ckpt_path=auto")
    assert torch.equal(
        weights(folder / "checkpoints" / "last.ckpt")["model.surface_head.weight"],
        weights(trained / "checkpoints" / "last.ckpt")["model.surface_head.weight"],
    )
    totals = [r["train/loss/total"] for r in read_rows(folder / "metrics.csv")]
    assert len([t for t in totals if t]) == 2  # one row an epoch: nothing lost, nothing twice
    caplog.set_level("INFO")
    run_train(folder, EVERY_EPOCH, "ckpt_path=auto")
    assert "finished already" in caplog.text


def test_a_killed_run_goes_on_within_its_epoch_to_the_same_weights(
    trained, runs, run_train, monkeypatch, caplog
):
    folder = runs / "killed"
    step = SurfaceModule.training_step

    def killed(self, batch, batch_idx):
        if self.trainer.global_step == 3:  # first of three batches of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    more = (EVERY_EPOCH, "data.samples_per_volume=3", "trainer.max_epochs=2")  # 3 batches an epoch
    run_train(runs / "whole", *more, tiny=PLAIN)
    with monkeypatch.context() as patched:
        patched.setattr(SurfaceModule, "training_step", killed)
        with pytest.raises(SystemExit) as ended:
            run_train(folder, *more, tiny=PLAIN)
    assert ended.value.code == 143
    emergency = folder / "checkpoints" / "emergency.ckpt"
    assert torch.load(emergency, weights_only=True)["global_step"] == 4
    caplog.set_level("INFO")
    run_train(folder, *more, "ckpt_path=auto", tiny=PLAIN)
    expected = weights(runs / "whole" / "checkpoints" / "last.ckpt")
    found = weights(folder / "checkpoints" / "last.ckpt")
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert not emergency.exists()
    rows = read_rows(folder / "metrics.csv")
    assert [int(r["step"]) for r in rows if r["train/step/total"]] == list(range(6))
    assert all(float(r["time/data_s"]) < 60 for r in rows if r["time/data_s"])


def test_a_resumed_run_lowers_the_learning_rate_like_a_whole_one(runs, run_train):
    # a score that can never rise enough: the rate halves after every epoch but the first
    more = ("scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=2.0")
    more = (*more, EVERY_EPOCH, "trainer.max_epochs=3")
    run_train(runs / "plateau", *more, tiny=PLAIN)
    first = runs / "plateau" / "checkpoints" / "epoch001.ckpt"
    run_train(runs / "plateau_resumed", *more, f"ckpt_path={first}", tiny=PLAIN)
    expected, found = (
        torch.load(runs / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("plateau", "plateau_resumed")
    )
    rate = expected["optimizer_states"][0]["param_groups"][0]["lr"]
    assert expected["lr_schedulers"] == found["lr_schedulers"]
    assert rate == found["optimizer_states"][0]["param_groups"][0]["lr"]
    rates = [float(r["lr"]) for r in read_rows(runs / "plateau" / "metrics.csv") if r["lr"]]
    assert rates == pytest.approx([rates[0], rates[0], rates[0] / 2])


def test_auto_resume_takes_the_checkpoint_with_more_steps_that_can_be_read(trained, runs, caplog):
    folder = runs / "choice"
    shutil.copytree(trained / "checkpoints", folder / "checkpoints")
    last, emergency = (folder / "checkpoints" / f"{n}.ckpt" for n in ("last", "emergency"))
    assert find_resume("auto", folder) == str(last)
    shutil.copy(folder / "checkpoints" / "epoch000.ckpt", emergency)
    assert find_resume("auto", folder) == str(last)  # older: fewer steps
    shutil.move(last, emergency)
    shutil.copy(folder / "checkpoints" / "epoch000.ckpt", last)
    assert find_resume("auto", folder) == str(emergency)
    emergency.write_bytes(emergency.read_bytes()[:5000])
    assert find_resume("auto", folder) == str(last)
    assert "not resuming from it: Cannot read checkpoint" in caplog.text
    last.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"Cannot read checkpoint .*emergency"):
        find_resume("auto", folder)
    emergency.unlink()
    with pytest.raises(CheckpointError, match=r"Cannot read checkpoint .*last"):
        find_resume("auto", folder)
    assert find_resume("auto", runs / "nowhere") is None


def test_resuming_another_network_is_refused(trained, runs, run_train):
    with pytest.raises(CheckpointError, match=r"does not fit this configuration: shape: model\."):
        run_train(
            runs / "other",
            f"ckpt_path={trained / 'checkpoints' / 'last.ckpt'}",
            "model.n_filters=4",
        )


@pytest.mark.parametrize("postprocess", ["winding", "threshold", "harmonic"])
def test_inference_writes_masks_and_scores(trained, runs, run_infer, prepared, postprocess):
    out = runs / f"masks_{postprocess}"
    score = run_infer(trained, out, f"postprocess={postprocess}", "precision=fp32")
    (volume,) = (prepared / "test").glob("*.zarr")
    shape = zarr.open_group(volume, mode="r")["image"].shape
    for path in (out / f"{volume.stem}_mask.tif", out / "threshold" / f"{volume.stem}_mask.tif"):
        mask = tifffile.imread(path)
        assert mask.dtype == np.uint8
        assert mask.shape == shape
        assert set(np.unique(mask)) <= {0, 1}
    prediction = zarr.open_group(out / f"{volume.stem}.zarr", mode="r")
    assert prediction["probability"].shape == shape
    assert prediction["normals"].shape == (3, *shape)
    rows = read_rows(out / "scores.csv")
    assert [row["mask"] for row in rows] == ["threshold", "final"]
    assert score == pytest.approx(float(rows[1]["score"]))
    assert (out / f"{volume.stem}.png").is_file()


def test_a_finished_volume_is_not_predicted_again(trained, runs, run_infer, caplog):
    out = runs / "again"
    caplog.set_level("INFO")
    run_infer(trained, out, "postprocess=threshold", "precision=fp32")
    assert "1 predicted, 0 already there" in caplog.text
    (store,) = out.glob("*.zarr")
    before = (store / "zarr.json").stat().st_mtime_ns
    run_infer(trained, out, "postprocess=threshold", "precision=fp32")
    assert "0 predicted, 1 already there" in caplog.text
    assert (store / "zarr.json").stat().st_mtime_ns == before
    run_infer(trained, out, "postprocess=threshold", "precision=fp32", "overlap=0.25")
    assert (store / "zarr.json").stat().st_mtime_ns != before  # other settings, other result


def test_bad_folders_are_named(runs, run_infer, trained, tmp_path):
    with pytest.raises(ConfigError, match="is no training run"):
        run_infer(tmp_path, runs / "x")
    with pytest.raises(CheckpointError, match=r"checkpoint=epoch9: .*does not exist; the run has"):
        run_infer(trained, runs / "x", "checkpoint=epoch9")


def test_a_bad_volume_is_named_and_the_others_are_done(trained, runs, run_infer, prepared, caplog):
    source = runs / "mixed"
    source.mkdir()
    (good,) = (prepared / "test").glob("*.zarr")
    shutil.copytree(good, source / "good.zarr")
    tifffile.imwrite(source / "bad.tif", np.zeros((8, 8, 8), np.uint8), photometric="minisblack")
    content = (source / "bad.tif").read_bytes()
    (source / "bad.tif").write_bytes(content[: len(content) // 2])
    out = runs / "mixed_out"
    with pytest.raises(ConfigError, match="1 volumes failed: bad"):
        run_infer(trained, out, f"volume={source}", "postprocess=threshold", "precision=fp32")
    assert (out / "good_mask.tif").is_file()
    assert not (out / "bad_mask.tif").exists()
    assert "bad.tif" in caplog.text


@pytest.mark.parametrize("normals", ["head", "structure_tensor"])
def test_a_region_over_http_in_blocks_is_the_region_at_once(
    trained, runs, run_infer, prepared, capsys, normals
):
    from http_volumes import serve

    from vesuvius.cli.main import main

    (volume,) = (prepared / "test").glob("*.zarr")
    how = ("region_zyx=[[4,36],[0,40],[8,48]]", "postprocess=threshold", "precision=fp32")
    how = (*how, f"normals={normals}")
    run_infer(trained, runs / "once", f"volume=file://{volume}", *how)
    with serve(volume.parent) as server:
        url = f"volume={server.url}/{volume.name}"
        run_infer(trained, runs / "blocks", url, *how, "blocks=true", "block_edge=64")
    name = f"{volume.stem}.zarr"
    once, blocks = (zarr.open_group(runs / kind / name, mode="r") for kind in ("once", "blocks"))
    for array in ("probability", "normals"):
        np.testing.assert_array_equal(np.asarray(blocks[array]), np.asarray(once[array]))
    assert blocks["probability"].shape == (32, 40, 40)
    length = np.linalg.norm(np.asarray(once["normals"]) / 127, axis=0)
    assert (np.median(length) > 0.9) == (normals == "structure_tensor")  # of unit length, or 0
    mask = f"{volume.stem}_mask.tif"
    np.testing.assert_array_equal(
        tifffile.imread(runs / "once" / mask), tifffile.imread(runs / "blocks" / mask)
    )
    capsys.readouterr()
    for output in (name, mask, f"{volume.stem}_mask.json"):
        assert main(["info", str(runs / "blocks" / output)]) == 0
        told = capsys.readouterr().out
        assert "region_zyx  [[4, 36], [0, 40], [8, 48]]" in told
        assert f"input       {server.url}/{volume.name} level 0" in told
        assert "tta         none" in told
        last = told.splitlines()[-1]
        assert last.startswith(f"python infer.py run_dir={trained} ")
        assert f"volume={server.url}/{volume.name} " in last
        assert "region_zyx=[[4,36],[0,40],[8,48]]" in last.replace("'", "")
        assert f"normals={normals} " in last
    assert main(["info", str(volume)]) == 2
    assert "carries no provenance; infer.py writes it" in capsys.readouterr().err


def test_the_last_line_of_a_large_volume_is_the_command_that_numbers_its_sheets(
    trained, runs, run_infer, prepared, caplog, capsys
):
    from vesuvius.cli.main import main

    caplog.set_level("INFO")
    out = runs / "large"
    run_infer(trained, out, "whole_voxels=1000", "block_edge=64", "precision=fp32")
    (volume,) = (prepared / "test").glob("*.zarr")
    assert not list(out.glob("*_mask.tif"))
    words = caplog.messages[-1].splitlines()[-1].split()
    sheets = out / f"{volume.stem}_sheets.zarr"
    assert words == [*("vesuvius", "winding", str(out / volume.name), "--out", str(sheets))]
    assert main(words[1:]) == 0
    assert zarr.open_group(sheets, mode="r")["mask"].shape == (40, 48, 48)
    capsys.readouterr()
    assert main(["info", str(sheets)]) == 0  # the network, too
    assert "DualHeadResUNet3D" in capsys.readouterr().out


def test_a_region_outside_is_refused(trained, runs, run_infer, caplog):
    with pytest.raises(ConfigError, match="1 volumes failed"):
        run_infer(trained, runs / "outside", "region_zyx=[[0,99],[0,40],[8,48]]")
    assert "whose level 0 has shape (40, 48, 48); expected [[z0,z1]" in caplog.text
