"""Tells a person when the network stopped predicting anything."""

import logging

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class CollapseAlert(Callback):
    """Sends one alert through every logger that has alerts (wandb) when the module collapsed.

    The module says so with its attribute `collapsed`: an all-zero or all-one mask for many steps.
    Another alert follows only after a recovery.
    """

    def __init__(self) -> None:
        self._told = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        """Look at the module's own verdict; no synchronisation with the device."""
        collapsed = bool(getattr(pl_module, "collapsed", False))
        if collapsed and not self._told and trainer.is_global_zero:
            text = (
                f"Step {trainer.global_step}, epoch {trainer.current_epoch}: the network predicts "
                "the same everywhere. See the run's log for what to change."
            )
            for logger in trainer.loggers:
                alert = getattr(getattr(logger, "experiment", None), "alert", None)
                if alert is not None:
                    alert(title="the network collapsed", text=text)
        self._told = collapsed
