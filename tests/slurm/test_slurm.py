"""Sweeps and preemption on a real single-node SLURM; started by start_slurm.sh in CI."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY

ROOT = Path(__file__).parents[2]
START = Path(__file__).with_name("start_slurm.sh")

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def slurm():
    """A running SLURM; skipped with the reason where there is none and none may be installed."""
    answer = shutil.which("sinfo") and subprocess.run(
        ["sinfo", "-h"], capture_output=True, text=True, check=False, timeout=30
    )
    if answer and answer.returncode == 0:
        return
    if os.environ.get("CI") != "true":
        pytest.skip("no SLURM here; CI=true installs and starts one (root, Debian)")
    done = subprocess.run(
        ["bash", str(START)], capture_output=True, text=True, check=False, timeout=400
    )
    if done.returncode:
        pytest.skip(f"SLURM did not start: {done.stderr.strip()[-300:]}")


def arguments(prepared, *more):
    return [*TINY, f"data.root={prepared / 'train'}", "trainer.precision=32-true", *more]


def wait_for(condition, *, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.5)
    raise AssertionError(f"{what} did not happen in {seconds} s")


def test_a_sweep_of_two_jobs(slurm, tmp_path, prepared):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command = [sys.executable, "train.py", "-m", "hydra/launcher=slurm", "optimizer.lr=0.001,0.002"]
    command += ["hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10"]
    command += arguments(prepared, "trainer.max_epochs=1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    command += ["callbacks=[volume_validation,checkpoint]", f"paths.log_dir={tmp_path / 'logs'}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for job, lr in (("0", 0.001), ("1", 0.002)):
        run = json.loads((tmp_path / "sweep" / job / "run.json").read_text())
        assert run["config"]["optimizer"]["lr"] == lr
        assert (tmp_path / "sweep" / job / "result.json").is_file()


def test_a_preempted_job_requeues_and_goes_on(slurm, tmp_path, prepared):
    run = tmp_path / "run"
    words = arguments(
        prepared,
        "trainer.max_epochs=12",
        "ckpt_path=auto",
        "callbacks=[checkpoint,emergency,requeue]",
        "optimized_metric=null",
        f"hydra.run.dir={run}",
    )
    script = tmp_path / "job.sh"
    script.write_text(
        f"#!/bin/bash\ncd {ROOT}\necho start $SLURM_RESTART_COUNT >> {tmp_path}/starts\n"
        f"srun {sys.executable} train.py {' '.join(words)}\n"
    )
    options = ["--requeue", "--open-mode=append", "--exclusive", f"--output={tmp_path}/log"]
    low = subprocess.run(
        ["sbatch", "--parsable", "-p", "low", *options, str(script)],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    try:
        checkpoint = run / "checkpoints" / "last.ckpt"
        wait_for(checkpoint.is_file, seconds=240, what="the first epoch")
        subprocess.run(
            ["sbatch", "-p", "high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1"],
            check=True, capture_output=True,
        )  # fmt: skip
        wait_for((run / "result.json").is_file, seconds=280, what="the end of the requeued job")
    finally:
        subprocess.run(["scancel", low], check=False, capture_output=True)
    starts = (tmp_path / "starts").read_text().split("\n")
    assert len(starts) == 3, starts  # two starts
    epochs = [
        int(line.split(",")[0])
        for line in (run / "metrics.csv").read_text().splitlines()[1:]
        if line[0].isdigit()
    ]
    assert max(epochs) == 11
    assert sorted(epochs) == epochs  # nothing was trained twice
