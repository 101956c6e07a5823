"""A run folder without a training: configuration, random weights, split."""

import json

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

OVERRIDES = (
    "model.n_filters=2",
    "data=surface_zarr",
    "data.root=unused",
    "data.patch_zyx=[16,16,32]",
)


@pytest.fixture
def run_dir(tmp_path, compose_config):
    """Return the folder of a tiny run whose batch norms have seen data."""
    folder = tmp_path / "run"
    cfg = compose_config("train", list(OVERRIDES), folder)
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
