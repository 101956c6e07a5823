"""Under SLURM a signal saves first and requeues then; elsewhere nothing happens."""

import os
import signal

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vesuvius.callbacks.emergency import EmergencyCheckpoint
from vesuvius.callbacks.requeue import SlurmRequeue, job_id, requeue

from .test_emergency_callback import At, fail
from .tiny import fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:GPU available but not used",
)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A `scontrol` that notes what it was asked and whether the checkpoint was there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "scontrol"
    noted = tmp_path / "noted"
    ckpt = tmp_path / "emergency.ckpt"
    script.write_text(f'#!/bin/sh\necho "$@" "$(test -f {ckpt} && echo saved)" >> {noted}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    return noted


def interrupted(tmp_path, action, **options):
    fit(
        [
            EmergencyCheckpoint(folder=tmp_path),
            SlurmRequeue(folder=str(tmp_path), **options),
            At(1, action),
        ],
        epochs=2,
    )


def send(number):
    return lambda: os.kill(os.getpid(), number)


def test_sigusr1_saves_then_requeues_and_gives_the_signal_back(scontrol, tmp_path, caplog):
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SIGTERMException):
        interrupted(tmp_path, send(signal.SIGUSR1))
    assert scontrol.read_text() == "requeue 4711 saved\n"
    assert torch.load(tmp_path / "emergency.ckpt", weights_only=True)["global_step"] == 2
    assert "SLURM job 4711 is back in the queue" in caplog.text
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize(("on_sigterm", "asked"), [(False, False), (True, True)])
def test_sigterm_requeues_only_where_wanted(scontrol, tmp_path, on_sigterm, asked):
    with pytest.raises(SIGTERMException):
        interrupted(tmp_path, send(signal.SIGTERM), on_sigterm=on_sigterm)
    noted = scontrol.read_text() if scontrol.exists() else ""  # it may ask why the job ends
    assert ("requeue 4711" in noted) == asked


def test_an_error_does_not_requeue(scontrol, tmp_path):
    with pytest.raises(RuntimeError, match="loss is NaN"):
        interrupted(tmp_path, fail, on_sigterm=True)
    assert not scontrol.exists()


def test_outside_slurm_the_signal_only_saves(scontrol, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(SIGTERMException):
        interrupted(tmp_path, send(signal.SIGUSR1))
    assert not scontrol.exists()
    assert (tmp_path / "emergency.ckpt").exists()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "12_3"),
        ({"SLURM_JOB_ID": "12; rm -r x"}, None),
    ],
)
def test_the_name_of_a_job(environment, expected):
    assert job_id(environment) == expected


def test_a_scontrol_that_fails_or_is_absent_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not requeue("1")
    script = tmp_path / "scontrol"
    script.write_text("#!/bin/sh\necho job is unknown >&2\nexit 1\n")
    script.chmod(0o755)
    assert not requeue("1")
    assert "job 1 was not requeued: scontrol: job is unknown" in caplog.text
