"""A NaN step changes nothing, is counted, and too many of them end the run."""

import math

import pytest
import torch

from vesuvius.callbacks.nonfinite import SkipNonFinite
from vesuvius.errors import ConfigError, NonFiniteLossError

from .tiny import TinyModule, fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:GPU available but not used",
)


class Spoiled(TinyModule):
    """Its loss is multiplied by `factors[step]`; a norm sees what the loss saw."""

    def __init__(self, factors, *, spoil_gradient=False):
        super().__init__()
        self.factors = list(factors)
        self.norm = torch.nn.BatchNorm3d(1)
        self.weights = []
        self.spoil_gradient = spoil_gradient

    def training_step(self, batch, batch_idx):
        self.weights.append(self.weight.item())
        factor = self.factors[len(self.weights) - 1]
        self.norm(batch["image"].float() * factor)
        loss = (self.weight - 3).square() * (1 if self.spoil_gradient else factor)
        if self.spoil_gradient and not math.isfinite(factor):
            loss.register_hook(lambda gradient: gradient * factor)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("spoil_gradient", [False, True], ids=["loss", "gradient"])
def test_a_bad_step_leaves_no_trace(bad, spoil_gradient, caplog):
    callback = SkipNonFinite(stop_after=2)
    module = Spoiled([1, bad, 1, bad], spoil_gradient=spoil_gradient)
    trainer, _ = fit([callback], epochs=2, module=module, gradient_clip_val=1.0)
    clean = Spoiled([1, 1])
    fit([], module=clean, gradient_clip_val=1.0)
    assert module.weights[1] == module.weights[2] != module.weights[0]
    assert module.weight.item() == pytest.approx(clean.weight.item())  # Adam's moments too
    assert math.isfinite(module.norm.running_mean.item())
    assert callback.num_skipped == 2
    assert trainer.callback_metrics["train/skipped_steps"] == 2
    assert "step 1 skipped: " in caplog.text
    assert "crops vol1" in caplog.text


def test_a_good_step_between_starts_the_count_again_and_too_many_end_the_run():
    callback = SkipNonFinite(stop_after=3)
    module = Spoiled([math.nan] * 2 + [1] + [math.nan] * 5)
    with pytest.raises(NonFiniteLossError, match=r"3 steps in a row .* Lower optimizer\.lr"):
        fit([callback], epochs=4, module=module)
    assert (len(module.weights), callback.num_skipped) == (6, 5)


def test_one_bad_batch_spoils_the_whole_accumulated_step():
    callback = SkipNonFinite()
    module = Spoiled([math.nan, 1, 1, 1])
    fit([callback], epochs=2, module=module, accumulate_grad_batches=2)
    assert module.weights[:3] == [1.0, 1.0, 1.0]
    assert module.weight.item() != 1.0
    assert callback.num_skipped == 1
    assert math.isfinite(module.norm.running_mean.item())


def test_the_count_survives_a_resume():
    callback = SkipNonFinite()
    callback.load_state_dict({"num_skipped": 7})
    assert callback.state_dict() == {"num_skipped": 7}


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match=r"stop_after=0"):
        SkipNonFinite(stop_after=0)
