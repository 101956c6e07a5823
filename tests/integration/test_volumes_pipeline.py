"""`python train.py data=surface_volumes` on a scroll behind HTTP: trains and validates."""

import csv
import json

import numpy as np
import pytest
from conftest import CALLBACKS
from http_volumes import serve
from sparse_volumes import write_scroll

pytest.importorskip("obstore")

SMALL = (
    "data=surface_volumes",
    "data.patch_zyx=[16,16,16]",
    "data.batch_size=2",
    "data.samples_per_volume=4",
    "data.val_crops_per_volume=2",
    "data.num_workers=0",
    "data.remote.wait_s=0.01",
    "model.n_filters=2",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
)


@pytest.mark.slow
def test_two_steps_on_a_remote_scroll(tmp_path, compose_config):
    from vesuvius.runtime.train import train

    write_scroll(tmp_path / "data")
    with serve(tmp_path / "data") as server:
        place = f"image: '{server.url}/image.zarr', label: '{server.url}/label.zarr'"
        regions = "[[0,24],[0,48],[0,56]]", "[[24,40],[16,48],[32,56]]"
        volumes = (
            f"[{{{place}, region_zyx: {regions[0]}, id: part}},"
            f" {{{place}, region_zyx: {regions[1]}, id: held_out, val: true}}]"
        )
        server.faults["image.zarr/c/"] = [500, "cut"]
        folder = tmp_path / "run"
        overrides = [*SMALL, *CALLBACKS, f"data.volumes={volumes}"]
        cfg = compose_config(
            "train", [*overrides, f"data.cache_folder={tmp_path / 'cache'}"], folder
        )
        score = train(cfg)
    assert 0 <= score <= 1
    assert json.loads((folder / "split.json").read_text()) == {
        "train": ["part"],
        "val": ["held_out"],
    }
    assert len(json.loads((folder / "run.json").read_text())["data"]["fingerprint"]) == 16
    assert (folder / "predictions" / "held_out.zarr").is_dir()
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss/total"]) for row in rows if row.get("train/loss/total")]
    assert losses
    assert np.isfinite(losses).all()
    assert list(folder.glob("**/epoch000_comparison.png"))
