"""Training curves and history of a run, whatever the logger."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vesuvius.pictures.curves import draw_curves
from vesuvius.pictures.history import Row, epoch_history, read_metrics, write_history


class CurvesCallback(Callback):
    """Writes `curves.png`, `history.csv` and `history.json` after every epoch, on rank zero.

    One row per epoch is taken from the logged metrics and kept in the checkpoint, so that the
    curves of a resumed run begin at its first epoch. Where a CSV logger runs, the steps between
    are drawn too. Put it after the callbacks whose metrics it shall see.

    Args:
        folder: where the files go.
        every_n_epochs: redraw every n-th epoch; the end of the fit always does.
    """

    def __init__(self, *, folder: str, every_n_epochs: int = 1) -> None:
        self.folder = Path(folder)
        self.every_n_epochs = every_n_epochs
        self._rows: list[Row] = []
        self._seen: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the validation metrics before a checkpoint is written."""
        del pl_module
        if not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING:
            self._record(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the epoch's row and redraw when due."""
        del pl_module
        self._record(trainer)
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the whole run."""
        del pl_module
        self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows for the checkpoint: plain dicts of numbers."""
        return {"rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of the run that is resumed."""
        self._rows = [dict(row) for row in state_dict["rows"]]

    def _record(self, trainer: Trainer) -> None:
        """Merge what was logged since the last call into the row of the current epoch."""
        epoch = trainer.current_epoch
        if not self._rows or self._rows[-1]["epoch"] != epoch:
            self._rows.append({"epoch": epoch, "step": 0})
        row = self._rows[-1]
        row["step"] = max(0, trainer.global_step - 1)
        metrics = dict(trainer.callback_metrics)
        for name, value in metrics.items():
            if name.endswith("_step") or f"{name}_epoch" in metrics:
                continue  # the epoch's mean follows under its own name
            # Lightning keeps old values: the same tensor as before was not logged again
            if self._seen.get(name) is not value:
                row[name.removesuffix("_epoch")] = float(value)
        self._seen = metrics
        if not any(name == "lr" or name.startswith("lr-") for name in row) and trainer.optimizers:
            row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False) or not self._rows:
            return
        write_history(epoch_history(self._rows), self.folder)
        fine = logged_steps(trainer)
        begin = min((row["epoch"] for row in fine), default=float("inf"))
        earlier = [row for row in self._rows if row["epoch"] < begin]
        draw_curves([*earlier, *fine], self.folder / "curves.png")


def logged_steps(trainer: Trainer) -> list[Row]:
    """Return the rows that a CSV logger of this trainer has written so far; [] without one."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.save()
            path = Path(logger.log_dir) / "metrics.csv"
            return read_metrics(path) if path.is_file() else []
    return []
