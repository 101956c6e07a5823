"""What a user sees when something is wrong: one message, exit status 2, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*command, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


CASES = {
    "no such data": (
        ["train.py", "data=surface_zarr", "data.root=/nowhere"],
        "/nowhere: no such folder",
    ),
    "data.root is required": (
        ["train.py", "data=surface_zarr"],
        "Missing mandatory value: data.root",
    ),
    "weighted objective": (
        ["train.py", "optimized_metric=val/loss/total"],
        "optimized_metric=val/loss/total is a loss",
    ),
    "head without a term": (
        ["train.py", "loss/term=[dice,bce]"],
        "head 'normals' has no loss term",
    ),
    "bad argument value": (["train.py", "model.norm=layer"], "model.norm is 'layer'"),
    "no such run": (["infer.py", "run_dir=/nowhere", "volume=/nowhere"], "/nowhere"),
}
if not torch.cuda.is_available():
    CASES["no GPU"] = (["train.py", "trainer=gpu"], "torch sees no GPU")


@pytest.mark.parametrize("case", CASES)
def test_errors_are_one_message_and_exit_2(case, tmp_path):
    command, message = CASES[case]
    done = run(*command, f"hydra.run.dir={tmp_path}", f"paths.data_dir={tmp_path}")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [("modle.n_filters=2", "not in struct"), ("model=unetpp", "dual_head_unet")],
)
def test_typos_are_caught_by_the_composition(override, message):
    done = run("train.py", override)
    assert done.returncode == 1
    assert message in done.stderr
