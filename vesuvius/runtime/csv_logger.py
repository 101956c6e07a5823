"""CSV logger that goes on in the same file when a run is resumed in its own folder."""

import csv
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from vesuvius.storage.files import whole_file


class _AppendingWriter(ExperimentWriter):
    """Keeps an existing metrics.csv, which Lightning's own writer deletes."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])


class ResumableCSVLogger(CSVLogger):
    """Writes `<save_dir>/metrics.csv`, appending to the rows of the run that is resumed.

    Args:
        save_dir: the run's folder.
        flush_logs_every_n_steps: rows reach the disk at least so often.
    """

    def __init__(self, *, save_dir: str, flush_logs_every_n_steps: int = 50) -> None:
        super().__init__(
            save_dir=save_dir,
            name=None,
            version="",
            flush_logs_every_n_steps=flush_logs_every_n_steps,
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer, made on first use."""
        if self._experiment is None:
            Path(self.root_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


def drop_rows_from(path: Path, step: int) -> None:
    """Remove rows logged at `step` or later: the resumed run logs them again.

    A run that was killed has logged steps after its last checkpoint.
    """
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or [])
        rows = [row for row in reader if row.get("step", "").isdigit() and int(row["step"]) < step]
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
