"""Keeps schedule-free optimizers in the mode that Lightning's loop is in."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class ScheduleFreeMode(Callback):
    """Calls `train` and `eval` of optimizers that have them; others are left alone.

    Such optimizers (package `schedulefree`) keep two sets of weights in one: in training mode the
    point at which gradients are taken, in evaluation mode the average, which is the result. The
    average is what validates and what checkpoints hold, together with the optimizer's own note of
    the mode, so that a resumed run goes on where it was.

    Source: Defazio et al. 2024, The road less scheduled.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take gradients at the training point."""
        del pl_module, batch, batch_idx
        _switch(trainer, "train")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        del pl_module
        _switch(trainer, "eval")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the network."""
        del pl_module
        _switch(trainer, "eval")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the average and the mode that goes with it.

        The checkpoint's weights are the network's own tensors, which the switch changes in place;
        the optimizer's state was noted before it.
        """
        del pl_module
        if _switch(trainer, "eval"):
            states = [trainer.strategy.optimizer_state(o) for o in trainer.optimizers]
            checkpoint["optimizer_states"] = states


def _switch(trainer: Trainer, mode: str) -> bool:
    """Switch the optimizers that can be; return whether there is one."""
    switches = [getattr(optimizer, mode, None) for optimizer in trainer.optimizers]
    for switch in switches:
        if switch is not None:
            switch()
    return any(switches)
