"""Says at the end of `debug=overfit` whether the network learned its one batch by heart."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vesuvius.errors import ConfigError
from vesuvius.types import IGNORE, SURFACE

log = logging.getLogger(__name__)


class OverfitCheck(Callback):
    """Dice of the last training batch, predicted as in inference, against what must be reached.

    A network that cannot learn two crops by heart is broken, or its loss, labels or learning rate
    are. Norms use their running statistics here: a gap to the training loss points at them.

    Args:
        target: Dice that counts as learned, in (0, 1).

    Raises:
        ConfigError: a target out of range.
    """

    def __init__(self, *, target: float = 0.98) -> None:
        if not 0 < target < 1:
            raise ConfigError(f"callbacks.overfit.target={target}; expected between 0 and 1.")
        self.target = target
        self.dice: float | None = None
        self._batch: dict[str, Any] | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch."""
        del trainer, pl_module, batch_idx
        self._batch = batch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict it and tell."""
        if self._batch is None or not hasattr(pl_module, "predict_batch"):
            return  # no step was made, or another task than surfaces
        pl_module.eval()
        with trainer.precision_plugin.forward_context():
            heads: dict[str, torch.Tensor] = pl_module.predict_batch(self._batch)  # type: ignore[operator]
        pl_module.train()
        label = self._batch["label"]
        mask = (heads["probability"] > 0.5) & (label != IGNORE)
        surface = label == SURFACE
        size = int(mask.sum() + surface.sum())
        self.dice = 2 * int((mask & surface).sum()) / size if size else 1.0
        if self.dice >= self.target:
            log.info("one batch learned by heart: Dice %.4f", self.dice)
        else:
            log.warning(
                "one batch not learned by heart: Dice %.4f, expected %.2f. Give it more steps "
                "(trainer.max_epochs), another optimizer.lr, and look at the labels with `vesuvius "
                "verify`; if that does not help the network or the loss is broken.",
                self.dice,
                self.target,
            )
