"""History and curves of a fit, with any logger and across a resume."""

import csv
import json

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from vesuvius.callbacks.curves import CurvesCallback

from .tiny import fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:The dirpath has changed",
    "ignore:GPU available but not used",
)


def history(folder):
    return json.loads((folder / "history.json").read_text())


@pytest.mark.parametrize("with_csv", [False, True], ids=["no logger", "csv"])
def test_one_row_per_epoch_without_stale_values(tmp_path, with_csv):
    logger = CSVLogger(tmp_path / "log", name=None, version="") if with_csv else False
    _, module = fit([CurvesCallback(folder=str(tmp_path))], epochs=3, logger=logger)
    rows = history(tmp_path)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["step"] for row in rows] == [1, 3, 5]
    # logged in epochs 0 and 2 only: Lightning would still offer epoch 0's value in epoch 1
    assert [row.get("val/score") for row in rows] == [0.25, None, 0.75]
    assert rows[2]["val/loss/total"] == pytest.approx(module.weight.item())
    assert rows[0]["lr"] == 0.01
    assert "train/loss/total" in rows[0]
    assert not any(name.endswith(("_step", "_epoch")) for name in rows[0])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "history.csv").open() as lines:
        table = list(csv.DictReader(lines))
    assert [row["val/score"] for row in table] == ["0.25", "", "0.75"]


def test_epoch_means_of_training_losses_are_those_lightning_logs(tmp_path):
    logger = CSVLogger(tmp_path / "log", name=None, version="")
    fit([CurvesCallback(folder=str(tmp_path))], epochs=2, logger=logger)
    with (tmp_path / "log" / "metrics.csv").open() as lines:
        logged = [r["train/loss/total_epoch"] for r in csv.DictReader(lines)]
    expected = [float(value) for value in logged if value]
    assert [row["train/loss/total"] for row in history(tmp_path)] == pytest.approx(expected)


def test_a_resumed_run_has_the_history_of_both(tmp_path):
    first, second, whole = (tmp_path / name for name in ("first", "second", "whole"))
    fit(
        [CurvesCallback(folder=str(first)), ModelCheckpoint(dirpath=first, save_last=True)],
        epochs=1,
        enable_checkpointing=True,
    )
    fit(
        [CurvesCallback(folder=str(second)), ModelCheckpoint(dirpath=second)],
        epochs=2,
        enable_checkpointing=True,
        logger=CSVLogger(second, name=None, version=""),
        ckpt_path=first / "last.ckpt",
    )
    fit([CurvesCallback(folder=str(whole))], epochs=2)
    assert history(second) == [pytest.approx(row) for row in history(whole)]


def test_silent_in_fast_dev_run(tmp_path):
    fit([CurvesCallback(folder=str(tmp_path / "p"))], fast_dev_run=True)
    assert not (tmp_path / "p").exists()
