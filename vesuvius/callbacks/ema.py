"""Exponential moving average of the weights: validated, checkpointed, and what inference loads."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from vesuvius.errors import ConfigError


class EMACallback(WeightAveraging):
    """Averages parameters and buffers after every optimizer step.

    Validation, checkpoints' `state_dict` (best, last, emergency) and the network after the fit hold
    the average; checkpoints keep the raw weights beside it, so that a resumed run goes on exactly.

    After n earlier averages the decay is min(decay, (1 + n) / (10 + n)): the first steps, far from
    the final weights, are soon forgotten. The first average is a copy.

    Args:
        decay: greatest decay, in [0, 1).

    Raises:
        ConfigError: decay out of range.

    Source: the warm-up of TensorFlow's ExponentialMovingAverage; storage by Lightning's callback.
    """

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"callbacks.ema.decay={decay}; expected a value in [0, 1).")
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay
        self._swapped = False

    @torch.no_grad()
    def _average(
        self,
        averages: tuple[Tensor, ...] | list[Tensor],
        current: tuple[Tensor, ...] | list[Tensor],
        num_averaged: Tensor | int,
    ) -> None:
        """Move the averages towards the current values, in place; integers are copied."""
        n = int(num_averaged)
        decay = min(self.decay, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(current), 1 - decay)
        else:
            torch._foreach_copy_(list(averages), list(current))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the average where the network will train; it is moved there only later."""
        if self._device is None:
            self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exchange the weights for their average."""
        del trainer
        self._exchange(pl_module, averaged=True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the average: other callbacks predict whole volumes in this hook."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the raw weights back; checkpoints are written after this."""
        del trainer
        self._exchange(pl_module, averaged=False)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the average as `state_dict` and the raw weights beside it.

        An error during validation comes here while both are exchanged.
        """
        swapped = self._swapped
        if swapped:
            self._exchange(pl_module, averaged=False)
            checkpoint["state_dict"] = pl_module.state_dict()
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if swapped:  # tensors of a checkpoint are views of the weights
            for key in ("state_dict", "current_model_state"):
                checkpoint[key] = {k: v.clone() for k, v in checkpoint[key].items()}
            self._exchange(pl_module, averaged=True)

    def _exchange(self, pl_module: LightningModule, *, averaged: bool) -> None:
        """Swap weights and average unless the module holds what is wanted."""
        if self._average_model is not None and self._swapped != averaged:
            self._swap_models(pl_module)
            self._swapped = averaged
