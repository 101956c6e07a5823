"""What a user sees when something is wrong: one message, exit status 2, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._utils import ExceptionWrapper

from vesuvius.errors import RemoteReadError
from vesuvius.runtime.train import train
from vesuvius.runtime.user_errors import user_errors

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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train.py", "data=surface_zarr", "data.root=/nowhere"], "/nowhere: no such folder"),
        (["infer.py", "run_dir=/nowhere", "volume=/nowhere"], "/nowhere"),
    ],
)
def test_errors_are_one_message_and_exit_2(command, message, tmp_path):
    done = run(*command, f"hydra.run.dir={tmp_path}", f"paths.data_dir={tmp_path}")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


CASES = {
    "data.root is required": ("data=surface_zarr", "Missing mandatory value: data.root"),
    "weighted objective": (
        "optimized_metric=val/loss/total",
        "optimized_metric=val/loss/total is a loss",
    ),
    "head without a term": ("loss/term=[dice,bce]", "head 'normals' has no loss term"),
    "bad argument value": ("model.norm=layer", "model.norm is 'layer'"),
}
if not torch.cuda.is_available():
    CASES["no GPU"] = ("trainer=gpu", "torch sees no GPU")


@pytest.mark.parametrize("case", CASES)
def test_errors_of_training_say_what_to_change(case, tmp_path, compose_config, capfd):
    """As above without a new process: what `vesuvius.train.main` does with its configuration."""
    override, message = CASES[case]
    cfg = compose_config("train", [override, f"paths.data_dir={tmp_path}"], tmp_path)
    with pytest.raises(SystemExit) as left, user_errors():
        train(cfg)
    told = capfd.readouterr().err
    assert left.value.code == 2
    assert message in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("override", "message"),
    [("modle.n_filters=2", "not in struct"), ("model=unetpp", "dual_head_unet")],
)
def test_typos_are_caught_by_the_composition(override, message):
    done = run("train.py", override)
    assert done.returncode == 1
    assert message in done.stderr


def test_an_error_in_a_loader_process_is_one_message_too(tmp_path, compose_config, capsys):
    compose_config("train", [], tmp_path)
    message = "http://host/a.zarr/c/0/0/0: cannot be read after 5 attempts (500); run it again"

    def fail():
        raise RemoteReadError(message) from ValueError("the server said no")

    try:
        fail()
    except RemoteReadError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(SystemExit) as left, user_errors():
        wrapped.reraise()
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
