"""What a run was: code version, packages, group choices, sizes; saved and sent to the loggers."""

import platform
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from vesuvius import __version__
from vesuvius.inference.store import write_json
from vesuvius.runtime.versions import git_commit, package_versions


def collect(cfg: DictConfig, *, num_parameters: int, data: dict[str, Any]) -> dict[str, Any]:
    """Return everything worth knowing about the run as plain nested values."""
    hydra = HydraConfig.get()
    return {
        "config": OmegaConf.to_container(cfg, resolve=True),
        "choices": dict(hydra.runtime.choices),
        "overrides": list(hydra.overrides.task),
        "num_parameters": num_parameters,
        "data": data,
        "vesuvius": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def save(provenance: dict[str, Any], folder: Path, loggers: list[Logger]) -> None:
    """Write `run.json` and send the configuration by groups to every logger. Rank zero only.

    `module` goes without the groups it only repeats: `module.model`, `module.loss`, ...
    """
    write_json(folder / "run.json", provenance)
    flat = dict(provenance["config"])
    flat["module"] = {k: v for k, v in flat.get("module", {}).items() if k not in flat}
    for name in ("choices", "num_parameters", "data", "git_commit", "packages"):
        flat[name] = provenance[name]
    for logger in loggers:
        logger.log_hyperparams(flat)
