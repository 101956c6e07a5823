"""The average against a hand-rolled one, and what checkpoints hold."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from vesuvius.callbacks.ema import EMACallback
from vesuvius.callbacks.emergency import EmergencyCheckpoint
from vesuvius.errors import ConfigError

from .tiny import fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:The dirpath has changed",
    "ignore:GPU available but not used",
)


class Recorder(Callback):
    """Raw weight after every step; the weight every validation saw, also in its last hook."""

    def __init__(self):
        self.raw, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.raw.append(pl_module.weight.item())

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append(pl_module.weight.item())


def expected_averages(raw, limit):
    average, averages = raw[0], []
    for n, weight in enumerate(raw):
        if n > 0:
            decay = min(limit, (1 + n) / (10 + n))
            average = decay * average + (1 - decay) * weight
        averages.append(average)
    return averages


@pytest.mark.parametrize("limit", [0.999, 0.3])
def test_the_average_of_every_step_by_hand(limit):
    recorder = Recorder()
    _, module = fit([recorder, EMACallback(decay=limit)], epochs=4)
    averages = expected_averages(recorder.raw, limit)
    assert len(averages) == 8
    assert recorder.validated == pytest.approx(averages[1::2], rel=1e-6)  # 2 steps an epoch
    assert recorder.validated != pytest.approx(recorder.raw[1::2], rel=1e-6)
    assert module.weight.item() == pytest.approx(averages[-1], rel=1e-6)


def checkpoints(folder, every=1):
    return ModelCheckpoint(
        dirpath=folder, filename="{epoch}", save_top_k=-1, every_n_epochs=every, monitor=None
    )


def test_a_checkpoint_holds_the_average_and_a_resumed_run_goes_on_exactly(tmp_path):
    whole, resumed = Recorder(), Recorder()
    callbacks = [whole, EMACallback(), checkpoints(tmp_path / "a")]
    fit(callbacks, epochs=4, enable_checkpointing=True)
    first = torch.load(tmp_path / "a" / "epoch=1.ckpt", weights_only=True)
    averages = expected_averages(whole.raw, 0.999)
    assert float(first["state_dict"]["weight"]) == pytest.approx(averages[3], rel=1e-6)
    assert float(first["current_model_state"]["weight"]) == pytest.approx(whole.raw[3], rel=1e-6)
    fit(
        [resumed, EMACallback(), checkpoints(tmp_path / "b")],
        epochs=4,
        ckpt_path=tmp_path / "a" / "epoch=1.ckpt",
        enable_checkpointing=True,
    )
    assert resumed.raw == whole.raw[4:]
    a, b = (torch.load(tmp_path / x / "epoch=3.ckpt", weights_only=True) for x in "ab")
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert a[key] == b[key]


class Dies(Callback):
    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, idx, dataloader_idx=0):
        if trainer.current_epoch == 1:
            raise RuntimeError("died")


def test_a_run_that_dies_in_validation_saves_raw_weights_as_raw(tmp_path):
    recorder = Recorder()
    callbacks = [recorder, EMACallback(), EmergencyCheckpoint(folder=str(tmp_path)), Dies()]
    with pytest.raises(RuntimeError, match="died"):
        fit(callbacks, epochs=2)
    saved = torch.load(tmp_path / "emergency.ckpt", weights_only=True)
    averages = expected_averages(recorder.raw, 0.999)
    assert float(saved["current_model_state"]["weight"]) == pytest.approx(recorder.raw[-1])
    assert float(saved["state_dict"]["weight"]) == pytest.approx(averages[-1], rel=1e-6)


def test_a_decay_of_one_is_refused():
    with pytest.raises(ConfigError, match=r"callbacks\.ema\.decay=1\.0"):
        EMACallback(decay=1.0)
