"""A dying run leaves a whole checkpoint; a half-written one is never taken."""

import os
import signal

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vesuvius.callbacks import emergency
from vesuvius.callbacks.emergency import EmergencyCheckpoint, write_whole

from .tiny import TinyModule, fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:GPU available but not used",
)


class At(Callback):
    """Does something before a given step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            self.action()


def fail():
    raise RuntimeError("loss is NaN")


def test_an_error_leaves_a_checkpoint_that_resumes(tmp_path, caplog):
    with pytest.raises(RuntimeError, match="loss is NaN"):
        fit([EmergencyCheckpoint(folder=tmp_path), At(3, fail)], epochs=2)
    assert [p.name for p in tmp_path.iterdir()] == ["emergency.ckpt"]
    assert "RuntimeError at step 3: state saved in" in caplog.text
    content = torch.load(tmp_path / "emergency.ckpt", weights_only=True)
    assert content["global_step"] == 3
    assert content["emergency"] == {"batches_done": 1}  # epochs of 2 batches
    module = TinyModule()
    module.load_state_dict(content["state_dict"])
    assert module.weight.item() != 1.0
    assert content["optimizer_states"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_run_with_a_checkpoint_after_its_batch(tmp_path, number):
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)
    assert before == (signal.SIG_DFL, signal.SIG_DFL)  # no test before left its handler
    with pytest.raises(SIGTERMException):
        fit(
            [EmergencyCheckpoint(folder=tmp_path), At(2, lambda: os.kill(os.getpid(), number))],
            epochs=2,
        )
    content = torch.load(tmp_path / "emergency.ckpt", weights_only=True)
    assert content["global_step"] == 3  # the batch in which it came was finished
    assert content["emergency"] == {"batches_done": 1}
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)) == before


def test_a_run_that_ends_well_leaves_none(tmp_path):
    (tmp_path / "emergency.ckpt").write_bytes(b"of an earlier interruption")
    fit([EmergencyCheckpoint(folder=tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_saved_before_the_first_step(tmp_path):
    with pytest.raises(RuntimeError, match="loss is NaN"):
        fit([EmergencyCheckpoint(folder=tmp_path), At(0, fail)])
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_hides_nothing_and_keeps_the_older_file(tmp_path, monkeypatch, caplog):
    (tmp_path / "emergency.ckpt").write_bytes(b"older")

    def full_disk(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(emergency.torch, "save", full_disk)
    with pytest.raises(RuntimeError, match="loss is NaN"):
        fit([EmergencyCheckpoint(folder=tmp_path), At(1, fail)])
    path = tmp_path / "emergency.ckpt"
    told = f"no emergency checkpoint: StorageError: cannot write {path}: No space"
    assert told in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["emergency.ckpt"]
    assert (tmp_path / "emergency.ckpt").read_bytes() == b"older"


def test_after_the_last_batch_of_an_epoch_nothing_is_skipped(tmp_path):
    class AfterEpoch(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            fail()

    with pytest.raises(RuntimeError, match="loss is NaN"):
        fit([EmergencyCheckpoint(folder=tmp_path), AfterEpoch()])
    content = torch.load(tmp_path / "emergency.ckpt", weights_only=True)
    assert content["emergency"] == {"batches_done": 0}


def test_write_whole_makes_folders(tmp_path):
    write_whole({"a": torch.ones(1)}, tmp_path / "x" / "y.ckpt")
    assert torch.load(tmp_path / "x" / "y.ckpt", weights_only=True)["a"] == 1
