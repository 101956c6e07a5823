"""Logs where the time of a training step goes."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class SpeedMonitor(Callback):
    """Logs `time/data_s`, `time/step_s` (means of an epoch) and `throughput/samples_s`.

    `time/data_s` is what the loop waited for a batch, `time/step_s` the rest of the step. On a GPU
    the step's kernels may still run when the clock stops; the epoch's throughput is exact.
    """

    def __init__(self) -> None:
        self._mark = 0.0
        self._epoch_start = 0.0
        self._waited = 0.0
        self._stepped = 0.0
        self._num_samples = 0
        self._num_batches = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks of an epoch that goes on after an interruption."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        del trainer, pl_module
        self._waited = self._stepped = 0.0
        self._num_samples = self._num_batches = 0
        self._mark = self._epoch_start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Book the time since the last step as waiting for data."""
        del trainer, pl_module, batch, batch_idx
        now = time.perf_counter()
        self._waited += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Book the step."""
        del outputs, batch_idx
        now = time.perf_counter()
        self._stepped += now - self._mark
        self._mark = now
        size: int = pl_module.batch_size(batch)  # type: ignore[operator] # BaseModule's
        self._num_samples += size * trainer.world_size
        self._num_batches += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means."""
        del trainer
        batches = max(1, self._num_batches)
        # up to the last step: validation runs before this hook
        elapsed = max(1e-9, self._mark - self._epoch_start)
        pl_module.log("time/data_s", self._waited / batches, rank_zero_only=True)
        pl_module.log("time/step_s", self._stepped / batches, rank_zero_only=True)
        pl_module.log("throughput/samples_s", self._num_samples / elapsed, rank_zero_only=True)
