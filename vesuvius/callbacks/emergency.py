"""A checkpoint when a run dies: an error, Ctrl-C, SIGTERM, SIGUSR1."""

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from vesuvius.storage.files import whole_file

log = logging.getLogger(__name__)

STATE = "emergency"
"""Key of what this callback adds to its own checkpoints."""


class EmergencyCheckpoint(Callback):
    """Writes `<folder>/emergency.ckpt` before an interrupted training ends.

    SIGTERM (what schedulers send before they kill) is handled by Lightning at the end of the
    batch; SIGUSR1 is turned into it. `ckpt_path=auto` goes on from the newer of `last.ckpt` and
    `emergency.ckpt`, in the middle of the epoch. The file appears under its name only when it is
    whole, and is removed when the training reaches its end.

    Args:
        folder: of the run's checkpoints.
    """

    def __init__(self, *, folder: str) -> None:
        self.path = Path(folder) / "emergency.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Treat SIGUSR1 like SIGTERM, unless something else listens to it.

        Lightning remembers the handlers of before this hook and gives them back at the end, after
        an error too.
        """
        del trainer, pl_module
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
            signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(signal.SIGTERM))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the checkpoint of an earlier, interrupted part of the run."""
        del pl_module
        if trainer.is_global_zero:
            self.path.unlink(missing_ok=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save on rank zero, alone: after an error the other ranks may never reach a barrier."""
        del pl_module
        if trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        if trainer.global_step == 0 or trainer.sanity_checking:
            return
        try:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            checkpoint[STATE] = {"batches_done": batches_done(trainer)}
            write_whole(checkpoint, self.path)
        except Exception as error:  # the first error must be the one that is reported
            log.error("no emergency checkpoint: %s: %s", type(error).__name__, error)  # noqa: TRY400
            return
        log.warning(
            "%s at step %d: state saved in %s", type(exception).__name__, trainer.global_step,
            self.path,
        )  # fmt: skip

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell the data module how many batches of the epoch were trained before."""
        del pl_module
        done = checkpoint.get(STATE, {}).get("batches_done", 0)
        skip = getattr(getattr(trainer, "datamodule", None), "skip_batches", None)
        if done and skip is not None:
            skip(done)


def batches_done(trainer: Trainer) -> int:
    """Return how many training batches of the current epoch are complete; 0 after the last."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    if progress.is_last_batch and progress.current.completed == progress.current.ready:
        return 0
    return int(progress.current.completed)


def write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    """Write beside `path`, flush to the disk, rename."""
    with whole_file(path, alone=True) as partial, partial.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
