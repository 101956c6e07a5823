"""DDP inside a sweep: one sweep folder, each job with its own parameters on both ranks."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY
from rank_probe import read_ranks
from wandb_records import read_records

ROOT = Path(__file__).parents[2]
PROBE = "+callbacks.probe={_target_:rank_probe.RankProbe,folder:${paths.output_dir}}"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "WANDB_SILENT": "true"}

pytestmark = [pytest.mark.ddp, pytest.mark.slow]


def check_ranks(job, *, lr):
    """Both ranks trained this job's rate, and ended with the same weights."""
    first, second = read_ranks(job, num=2)
    assert first == second
    assert (first["lr"], first["world"]) == (lr, 2)
    return first["weights"]


JOBS = (("0", 0.001), ("1", 0.002))


def test_a_grid_of_two_processes_each(tmp_path, prepared):
    command = [sys.executable, "train.py", "-m", *TINY, f"data.root={prepared / 'train'}"]
    command += ["trainer=ddp_sim", "trainer.max_epochs=1", "trainer.precision=32-true"]
    command += ["callbacks=[volume_validation,checkpoint]", PROBE, "optimizer.lr=0.001,0.002"]
    command += ["logger=wandb", "logger.wandb.offline=true"]
    command += [f"hydra.sweep.dir={tmp_path / 'sweep'}", f"paths.log_dir={tmp_path / 'logs'}"]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == ["0", "1", "multirun.yaml"]
    assert not (tmp_path / "logs").exists()  # no second sweep anywhere else
    weights = {check_ranks(tmp_path / "sweep" / job, lr=lr) for job, lr in JOBS}
    assert len(weights) == 2  # job 1 is not job 0 once more
    for job, lr in JOBS:
        found = read_records(tmp_path / "sweep" / job)  # one wandb run a job, of rank zero alone
        assert found["run"].run_group == "train/sweep"
        assert found["run"].display_name == f"{job} optimizer.lr={lr}"
        assert (found["exit"], found["config"]["optimizer"]["lr"]) == (0, lr)
        result = json.loads((tmp_path / "sweep" / job / "result.json").read_text())
        assert 0 <= result["metrics"]["val/score"] <= 1


def test_a_search_of_two_processes_each(tmp_path, prepared):
    folder = tmp_path / "logs" / "ddp" / "searches" / "surface_optuna"
    command = [sys.executable, "train.py", "hparams_search=surface_optuna", *TINY]
    command += [f"data.root={prepared / 'train'}", "trainer=ddp_sim", "trainer.max_epochs=1"]
    command += ["trainer.precision=32-true", "callbacks=[volume_validation,checkpoint]", PROBE]
    command += [f"paths.log_dir={tmp_path / 'logs'}", "task_name=ddp", "hydra.sweeper.n_trials=2"]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["0", "1"]
    assert list((tmp_path / "logs").glob("*")) == [tmp_path / "logs" / "ddp"]  # one search alone
    with (folder / "trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert [trial["state"] for trial in trials] == ["complete", "complete"]
    for trial in trials:
        check_ranks(folder / trial["trial"], lr=float(trial["optimizer.lr"]))
        run = json.loads((folder / trial["trial"] / "run.json").read_text())
        assert run["config"]["optimizer"]["lr"] == float(trial["optimizer.lr"])
        result = json.loads((folder / trial["trial"] / "result.json").read_text())
        assert result["objective"] == float(trial["value"])


def test_a_pruned_trial_stops_both_of_its_processes(tmp_path, prepared):
    folder = tmp_path / "logs" / "prune" / "searches" / "surface_optuna"
    command = [sys.executable, "train.py", "hparams_search=surface_optuna", *TINY]
    command += [f"data.root={prepared / 'train'}", "trainer=ddp_sim", "trainer.max_epochs=3"]
    command += ["trainer.precision=32-true", "callbacks=[volume_validation,checkpoint]", PROBE]
    pruner = "{_target_:optuna.pruners.ThresholdPruner,lower:0.999}"  # below it, whatever the seed
    command += ["~callbacks.pruning.pruner", f"+callbacks.pruning.pruner={pruner}"]
    command += [f"paths.log_dir={tmp_path / 'logs'}", "task_name=prune", "hydra.sweeper.n_trials=1"]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with (folder / "trials.csv").open(newline="") as file:
        assert [trial["state"] for trial in csv.DictReader(file)] == ["pruned"]
    read_ranks(folder / "0", num=2)  # both came to their end
    with (folder / "0" / "metrics.csv").open(newline="") as file:
        scores = [row for row in csv.DictReader(file) if row["val/score"]]
    assert len(scores) == 1  # of three epochs


def test_two_jobs_at_a_time(tmp_path):
    """The joblib launcher: each job makes sure of the phantom by itself, in a worker process."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = [sys.executable, "train.py", "-m", "hydra/launcher=joblib_2", *TINY[1:]]
    command += ["data=surface_phantom", "data.shape_zyx=[40,48,48]", "data.num_volumes=2"]
    command += ["data.val_share=0.5", f"data.folder={tmp_path / 'data'}", "trainer.max_epochs=1"]
    command += ["callbacks=[volume_validation,checkpoint]", "optimizer.lr=0.001,0.002"]
    command += [f"hydra.sweep.dir={tmp_path / 'sweep'}", f"paths.log_dir={tmp_path / 'logs'}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for job in ("0", "1"):
        assert (tmp_path / "sweep" / job / "result.json").is_file()
