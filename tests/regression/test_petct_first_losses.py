"""Frozen first losses of lesion segmentation; the rules are those of test_first_losses.py."""

import csv

import pytest
from omegaconf import OmegaConf

from vesuvius.runtime.train import train

FROZEN = [0.512065, 0.513455, 0.510328, 0.510030]
OVERRIDES = (
    "experiment=petct_cocoseg",
    "model=cocoseg_tiny",
    "model.width=4",
    "data.num_patients=3",
    "data.slices_per_patient=4",
    "data.phantom_size=48",
    "data.batch_size=4",
    "optimizer.lr=1e-3",
    "trainer.max_epochs=2",
    "trainer.limit_val_batches=0",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    "callbacks=[speed]",
    "optimized_metric=null",
    "metrics=none",
)


def test_first_losses_of_lesion_segmentation(tmp_path, compose_config):
    cfg = compose_config("train", [*OVERRIDES, f"paths.data_dir={tmp_path}"], tmp_path)
    OmegaConf.resolve(cfg)
    train(cfg)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        steps = [row["train/step/total"] for row in csv.DictReader(file)]
    losses = [float(step) for step in steps if step]
    assert losses[:4] == pytest.approx(FROZEN, rel=2e-3)
