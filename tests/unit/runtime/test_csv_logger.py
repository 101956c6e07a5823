"""The metrics file of a resumed run: nothing lost, nothing twice."""

import csv

from vesuvius.runtime.csv_logger import ResumableCSVLogger, drop_rows_from


def rows(path):
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


def test_a_second_logger_appends(tmp_path):
    first = ResumableCSVLogger(save_dir=str(tmp_path))
    first.log_metrics({"a": 1.0}, step=0)
    first.finalize("success")
    second = ResumableCSVLogger(save_dir=str(tmp_path))
    second.log_metrics({"a": 2.0, "b": 3.0}, step=1)
    second.finalize("success")
    assert rows(tmp_path / "metrics.csv") == [
        {"a": 1.0, "step": 0},
        {"a": 2.0, "b": 3.0, "step": 1},
    ]


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    logger = ResumableCSVLogger(save_dir=str(tmp_path))
    for step in range(6):
        logger.log_metrics({"a": float(step)}, step=step)
    logger.finalize("success")
    drop_rows_from(tmp_path / "metrics.csv", 4)
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == [0, 1, 2, 3]
    drop_rows_from(tmp_path / "missing.csv", 4)  # nothing there: nothing to do
