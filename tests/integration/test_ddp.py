"""Two CPU processes against one at the same global batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CALLBACKS, TINY

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.ddp, pytest.mark.slow]


def train(folder, prepared, *overrides):
    command = [sys.executable, "train.py", *TINY, *CALLBACKS, f"data.root={prepared / 'train'}"]
    command += [f"hydra.run.dir={folder}", "model.norm=instance", *overrides]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text())["metrics"]


def test_two_processes_train_like_one(tmp_path, prepared):
    one = train(tmp_path / "one", prepared, "data.batch_size=2")
    two = train(
        tmp_path / "two",
        prepared,
        "data.batch_size=1",
        "trainer=ddp_sim",
        "trainer.precision=32-true",
        "trainer.max_epochs=2",
    )
    assert one.keys() == two.keys()
    for name in ("val/loss/bce", "val/loss/dice", "val/loss/normal", "val/score", "val/proxy/dice"):
        assert two[name] == pytest.approx(one[name], abs=2e-3), name
    states = [
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in ("one", "two")
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=2e-3, rtol=0.05)
    # one output folder; pictures, masks and the log of rank zero only
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two"}
    assert len(list((tmp_path / "two" / "checkpoints").glob("*.ckpt"))) == 2
    masks = list((tmp_path / "two" / "predictions").glob("*_mask.tif"))
    assert len(masks) == len(list((tmp_path / "one" / "predictions").glob("*_mask.tif"))) == 1
