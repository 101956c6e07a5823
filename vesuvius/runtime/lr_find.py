"""Learning-rate range test: how fast may this network, loss and data be trained?"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from omegaconf import DictConfig

from vesuvius.errors import ConfigError
from vesuvius.runtime.hardware import resolve_trainer
from vesuvius.runtime.memory_errors import training_memory
from vesuvius.storage.files import write_text

SMOOTHING = 0.9
DIVERGED = 4.0
"""The test ends when the smoothed loss exceeds so many times its least value."""


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a range test measured.

    Attributes:
        rates: learning rate of each step, rising exponentially.
        losses: smoothed total loss of each step.
        suggestion: a tenth of the rate at which the smoothed loss was least, or, if that is lower,
            the rate at which it fell fastest; None if it never fell.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float | None


class RateRamp(Callback):
    """Raises every group's learning rate exponentially, step by step, and notes the loss.

    Args:
        low: first rate.
        high: last rate.
        num_steps: steps from the first to the last.

    Source: Smith 2017 (range test). Lightning's Tuner needs a learning rate that is an attribute
    of the module; here it belongs to the optimizer's configuration.
    """

    def __init__(self, *, low: float, high: float, num_steps: int) -> None:
        if not 0 < low < high or num_steps < 10:
            raise ConfigError(
                f"lr-find: --low {low} must be positive and below --high {high}, --steps "
                f"{num_steps} at least 10."
            )
        self.low, self.high, self.num_steps = low, high, num_steps
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._mean = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rate of this step."""
        del pl_module, batch, batch_idx
        share = len(self.rates) / max(1, self.num_steps - 1)
        rate = self.low * (self.high / self.low) ** share
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self.rates.append(rate)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Smooth the loss, stop when it has risen far above its least value."""
        del pl_module, batch, batch_idx
        loss = float(torch.as_tensor(outputs["loss"]))
        step = len(self.rates)
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.losses.append(self._mean / (1 - SMOOTHING**step))
        risen = self.losses[-1] > DIVERGED * min(self.losses)
        trainer.should_stop = step >= self.num_steps or not math.isfinite(loss) or risen


def find_rate(
    cfg: DictConfig, *, low: float = 1e-6, high: float = 0.3, num_steps: int = 100
) -> RangeTest:
    """Train for a few steps at rising rates and return what the loss did.

    Args:
        cfg: of `train.py`; changed in place.
        low: first rate.
        high: last rate.
        num_steps: steps from the first to the last.

    Raises:
        ConfigError: a number out of range.
        OutOfMemoryError: crops or batch are too large.
    """
    ramp = RateRamp(low=low, high=high, num_steps=num_steps)
    resolve_trainer(cfg.trainer)
    seed_everything(cfg.seed, workers=True, verbose=False)
    cfg.scheduler = None
    cfg.trainer.limit_val_batches = 0
    cfg.trainer.max_epochs = num_steps
    cfg.trainer.enable_progress_bar = False
    datamodule = instantiate(cfg.data, _convert_="all")
    module = instantiate(cfg.module, _convert_="all")
    trainer = instantiate(
        cfg.trainer, callbacks=[ramp], logger=False, enable_checkpointing=False, _convert_="all"
    )
    with training_memory(cfg):
        trainer.fit(module, datamodule=datamodule)
    rates = ramp.rates[: len(ramp.losses)]
    return RangeTest(rates, ramp.losses, suggest(rates, ramp.losses))


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the rate to try first; see RangeTest."""
    finite = [n for n, loss in enumerate(losses) if math.isfinite(loss)]
    if len(finite) < 3:
        return None
    best = min(finite, key=lambda n: losses[n])
    if best == 0:
        return None
    steepest = min(range(1, best + 1), key=lambda n: losses[n] - losses[n - 1])
    return min(rates[steepest], rates[best] / 10)


def write_table(result: RangeTest, path: Path) -> None:
    """Write `lr,loss` rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["lr", "loss"])
    writer.writerows(zip(result.rates, result.losses, strict=True))
    write_text(path, text.getvalue())
