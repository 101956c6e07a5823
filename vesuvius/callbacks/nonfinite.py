"""Skips optimizer steps with a NaN or infinite loss or gradient; stops when they persist."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from vesuvius.errors import ConfigError, NonFiniteLossError

log = logging.getLogger(__name__)


class SkipNonFinite(Callback):
    """Leaves weights, optimizer state and norm statistics as they were after a non-finite step.

    All processes see the same gradients once they are averaged, so all skip the same steps. Under
    fp16 infinite gradients are how the scaler finds its scale; it skips those steps itself and
    only the loss is watched here. `train/skipped_steps` counts the skipped steps of the whole run.

    Args:
        stop_after: raise after so many skipped steps in a row.

    Raises:
        ConfigError: `stop_after` below 1.
    """

    def __init__(self, *, stop_after: int = 20) -> None:
        if stop_after < 1:
            raise ConfigError(f"callbacks.nonfinite.stop_after={stop_after}; expected >= 1.")
        self.stop_after = stop_after
        self.num_skipped = 0
        self.num_in_row = 0
        self._buffers: list[Tensor] | None = None
        self._loss: Tensor | None = None
        self._batch: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the count, so that a resumed run goes on counting."""
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the count of the interrupted run."""
        self.num_skipped = int(state_dict["num_skipped"])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember norm statistics before the first batch of an optimizer step."""
        del trainer, batch_idx
        self._batch = batch if isinstance(batch, dict) else {}
        if self._buffers is None:
            self._buffers = [buffer.clone() for buffer in _float_buffers(pl_module)]

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Add up the losses of the batches that make up one optimizer step."""
        del trainer, pl_module
        loss = loss.detach()
        self._loss = loss if self._loss is None else self._loss + loss

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take the gradients away from the optimizer if they or the loss are not finite.

        Raises:
            NonFiniteLossError: `stop_after` steps in a row were skipped.
        """
        watched = [] if self._loss is None else [self._loss.float().reshape(())]
        if not str(trainer.precision).startswith("16"):
            watched += _gradient_norms(optimizer)
        value = float(torch.stack(watched).sum()) if watched else 0.0
        loss = math.nan if self._loss is None else float(self._loss)
        buffers, self._buffers, self._loss = self._buffers, None, None
        if math.isfinite(value):
            self.num_in_row = 0
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        for now, before in zip(_float_buffers(pl_module), buffers or [], strict=True):
            now.copy_(before)
        self._count(trainer, loss)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the count."""
        del trainer
        pl_module.log("train/skipped_steps", float(self.num_skipped), rank_zero_only=True)

    def _count(self, trainer: Trainer, loss: float) -> None:
        self.num_skipped += 1
        self.num_in_row += 1
        what = f"loss {loss:g}" if not math.isfinite(loss) else "gradients not finite"
        where = _origin(self._batch)
        log.warning(
            "step %d skipped: %s%s (%d in a row, %d in all; stops at %d in a row)",
            *(trainer.global_step, what, where, self.num_in_row, self.num_skipped, self.stop_after),
        )
        if self.num_in_row >= self.stop_after:
            raise NonFiniteLossError(
                f"{self.num_in_row} steps in a row had a non-finite loss or gradient, the last at "
                f"step {trainer.global_step}{where}: {what}. Lower optimizer.lr, add warm-up "
                "(scheduler.warmup_share=0.05), try trainer.precision=32-true, or look at those "
                "volumes with `vesuvius verify`; debug=overfit with trainer.detect_anomaly=true "
                "names the operation. callbacks.nonfinite.stop_after sets the limit."
            )


def _float_buffers(module: LightningModule) -> list[Tensor]:
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]


def _gradient_norms(optimizer: Optimizer) -> list[Tensor]:
    """Return the norm of every gradient as a scalar; NaN and inf stay what they are."""
    gradients = [
        parameter.grad.detach()
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    return [norm.float() for norm in torch._foreach_norm(gradients)] if gradients else []


def _origin(batch: Mapping[str, Any]) -> str:
    """Return which crops the batch holds, if it says so."""
    if "volume_id" not in batch:
        return ""
    origins = batch.get("origin_zyx")
    places = origins.tolist() if isinstance(origins, Tensor) else [""] * len(batch["volume_id"])
    crops = [f"{name} {place}" for name, place in zip(batch["volume_id"], places, strict=True)]
    return ", crops " + "; ".join(crops[:4])
