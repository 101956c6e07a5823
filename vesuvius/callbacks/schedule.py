"""When an expensive validation step is due."""

from lightning.pytorch import Trainer


def is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Return whether this validation epoch is one of every n, or the run's last.

    Never during the sanity check or `fast_dev_run`.
    """
    if trainer.sanity_checking or getattr(trainer, "fast_dev_run", False):
        return False
    epoch = trainer.current_epoch + 1
    return epoch % every_n_epochs == 0 or epoch == trainer.max_epochs
