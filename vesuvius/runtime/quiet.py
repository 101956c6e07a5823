"""Keeps other libraries' remarks off the screen, each for a reason."""

import logging
import warnings


class _Remarks(logging.Filter):
    """Drops Lightning's remarks about hardware it looked for and services it advertises."""

    STARTS = (
        "GPU available",
        "TPU available",
        "HPU available",
        "Using ",
        "\U0001f4a1 Tip",
        "Loading `",
    )

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record may pass."""
        text = record.getMessage().strip()
        return not (text.startswith(self.STARTS) or text.startswith("`Trainer.fit` stopped"))


def quiet() -> None:
    """Drop messages a user can do nothing about; everything else stays."""
    # Beside Hydra's handlers Lightning's own would print each line twice.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
    remarks = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if not any(isinstance(f, _Remarks) for f in remarks.filters):
        remarks.addFilter(_Remarks())
    for message in (
        # torch 2.13 deprecates what lightning 2.6 still calls
        r".*isinstance\(treespec, LeafSpec\)",
        # a short epoch is fine: epoch means are logged whatever log_every_n_steps is
        r"The number of training batches .* is smaller than the logging interval",
        # our loaders choose their workers by data.num_workers; 0 is right for few cores
        r"The '.*_dataloader' does not have many workers",
        # a run resumed in another folder keeps its own best.ckpt there: as documented
        r"The dirpath has changed from",
        # what callbacks log is the same on every rank: metrics synchronise, rank zero broadcasts
        r"It is recommended to use .*sync_dist=True",
        # the crops of an interrupted epoch go on where they stopped: EmergencyCheckpoint
        r"You're resuming from a checkpoint that ended before the epoch ended",
        # data.val_share=0: nothing to validate with, as asked
        r"Total length of `list` across ranks is zero",
        # resuming in the run's own folder is what ckpt_path=auto does
        r"Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message=message)
