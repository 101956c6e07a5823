"""Reads a training run's folder: its configuration, its network, its split."""

import hashlib
import json
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.runtime.weights import load_network

EXPORTED_CONFIG = "config.yaml"
EXPORTED_WEIGHTS = "model.safetensors"


class RunFolder:
    """A finished or stopped training run, or what `vesuvius export` made of one.

    Args:
        path: folder that holds `.hydra/config.yaml` and `checkpoints/`, or `config.yaml` and
            `model.safetensors`.

    Raises:
        ConfigError: no run there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.exported = self.path / EXPORTED_WEIGHTS
        config = self.path / ".hydra" / "config.yaml"
        if not config.is_file() and self.exported.is_file():
            config = self.path / EXPORTED_CONFIG
        if not config.is_file():
            raise ConfigError(
                f"run_dir={path} is no training run: {config} does not exist. Give the folder that "
                "train.py printed as its run folder, e.g. logs/train/runs/<time>, or the folder "
                "that `vesuvius export` wrote."
            )
        loaded = OmegaConf.load(config)
        assert isinstance(loaded, DictConfig)
        self.config = loaded

    def checkpoint(self, which: str) -> Path:
        """Return the path of 'best', 'last' or of a checkpoint given by its own path.

        An exported folder holds one set of weights, which both names mean.

        Raises:
            CheckpointError: not there.
        """
        if which in ("best", "last") and self.exported.is_file():
            return self.exported
        if which in ("best", "last"):
            path = self.path / "checkpoints" / f"{which}.ckpt"
        else:
            path = Path(which)
        if not path.is_file():
            found = sorted(p.name for p in (self.path / "checkpoints").glob("*.ckpt"))
            raise CheckpointError(
                f"checkpoint={which}: {path} does not exist; the run has {found or 'none'}."
            )
        return path

    def network(self, checkpoint: Path) -> nn.Module:
        """Return the network as it was configured in training, with the checkpoint's weights.

        A file that a VGG branch started from is not needed: the checkpoint holds the branch.
        """
        model = self.config.model.copy()
        if "vgg" in model and model.vgg.weights != "none":
            model.vgg.weights = "checkpoint"
        network = instantiate(model, _convert_="all")
        assert isinstance(network, nn.Module)
        return load_network(network, checkpoint)

    def patch_zyx(self) -> list[int]:
        """Return the window of inference: what whole volumes validated with, else the crop."""
        window = OmegaConf.select(self.config, "callbacks.volume_validation.roi_zyx")
        return [int(n) for n in window or training_patch(self.config)]

    def volume_ids(self, side: str) -> list[str]:
        """Return the ids on one side of the run's split, 'train' or 'val'.

        Raises:
            ConfigError: unknown side, or the run saved no split.
        """
        path = self.path / "split.json"
        if not path.is_file():
            raise ConfigError(f"split={side}: the run has no {path}; leave split=null.")
        split = json.loads(path.read_text(encoding="utf-8"))
        if side not in split:
            raise ConfigError(f"split={side}: {path} has {sorted(split)}.")
        return [str(name) for name in split[side]]


def training_patch(config: DictConfig) -> list[int]:
    """Return the crop size a configuration trains with.

    Raises:
        ConfigError: it trains on no crops of volumes (hearts, slices).
    """
    patch = OmegaConf.select(config, "data.patch_zyx")
    if patch is None:
        target = OmegaConf.select(config, "module._target_") or "another task"
        raise ConfigError(
            f"{target} does not train on crops of volumes (no data.patch_zyx); this works on "
            "volume networks only. Hearts: vesuvius heart infer; CT-PET: vesuvius petct."
        )
    return [int(n) for n in patch]


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of the file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()[:16]
