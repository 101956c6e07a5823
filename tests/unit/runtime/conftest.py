"""A run folder without a training: configuration, random weights, split."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import composed
from hydra.utils import instantiate
from omegaconf import OmegaConf

OVERRIDES = (
    "model.n_filters=2",
    "data=surface_zarr",
    "data.root=unused",
    "data.patch_zyx=[16,16,32]",
)


@pytest.fixture(scope="session")
def untouched_run(tmp_path_factory) -> Path:
    """The folder of a tiny run whose batch norms have seen data; tests copy it."""
    folder = tmp_path_factory.mktemp("untouched") / "run"
    cfg = composed("train", list(OVERRIDES), folder)
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    torch.manual_seed(0)
    network = instantiate(cfg.model, _convert_="all").train()
    with torch.no_grad():
        network(torch.rand(2, 1, 16, 16, 32))
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 3}, folder / "checkpoints" / "best.ckpt")
    (folder / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    (folder / "run.json").write_text(json.dumps({"git_commit": "abc", "num_parameters": 1}))
    return folder


@pytest.fixture
def run_dir(untouched_run, tmp_path) -> Path:
    """A run folder of the test's own."""
    torch.manual_seed(0)
    return shutil.copytree(untouched_run, tmp_path / "run")
