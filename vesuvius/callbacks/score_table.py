"""Scores of every validation volume, as a file and as a table of the dashboard."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch import Trainer

from vesuvius.storage.files import whole_file

ScoreRow = dict[str, str | float]
"""volume, mask, then the scores."""


def publish_scores(trainer: Trainer, rows: Sequence[ScoreRow], path: Path, *, key: str) -> None:
    """Write the rows of all ranks, worst first, and hand them to every logger that takes tables.

    Args:
        trainer: its loggers get the table; its ranks all call this.
        rows: of this rank.
        path: CSV to write, atomically, on rank zero.
        key: name of the table in the dashboard.
    """
    gathered: list[list[ScoreRow]] = [list(rows)]
    if trainer.world_size > 1:
        gathered = [[] for _ in range(trainer.world_size)]
        dist.all_gather_object(gathered, list(rows))
    table = sorted((row for part in gathered for row in part), key=lambda row: float(row["score"]))
    if not trainer.is_global_zero or not table:
        return
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    for logger in trainer.loggers:
        log_table = getattr(logger, "log_table", None)
        if log_table is not None:
            data = [list(row.values()) for row in table]
            log_table(key=key, columns=list(table[0]), data=data, step=trainer.global_step)
