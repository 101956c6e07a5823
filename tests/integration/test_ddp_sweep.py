"""DDP inside a sweep: one sweep folder, each job with its own parameters on both ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.ddp, pytest.mark.slow]


def test_a_grid_of_two_processes_each(tmp_path, prepared):
    command = [sys.executable, "train.py", "-m", *TINY, f"data.root={prepared / 'train'}"]
    command += ["trainer=ddp_sim", "trainer.max_epochs=1", "trainer.precision=32-true"]
    command += ["callbacks=[volume_validation,checkpoint]", "optimizer.lr=0.001,0.002"]
    command += [f"hydra.sweep.dir={tmp_path / 'sweep'}", f"paths.log_dir={tmp_path / 'logs'}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == ["0", "1", "multirun.yaml"]
    assert not (tmp_path / "logs").exists()  # no second sweep anywhere else
    for job, lr in (("0", 0.001), ("1", 0.002)):
        run = json.loads((tmp_path / "sweep" / job / "run.json").read_text())
        assert run["config"]["optimizer"]["lr"] == lr
        result = json.loads((tmp_path / "sweep" / job / "result.json").read_text())
        assert 0 <= result["metrics"]["val/score"] <= 1
