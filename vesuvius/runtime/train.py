"""Composes and runs one training: build -> fit -> objective."""

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.runtime import provenance
from vesuvius.runtime.hardware import resolve_trainer
from vesuvius.runtime.weights import describe_differences, load_network, read_checkpoint

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train as configured and return the best value of `optimized_metric`.

    Everything lies in the run's folder afterwards: `.hydra/` (config), `run.json` (provenance),
    `metrics.csv`, `checkpoints/`, pictures, predictions of the validation volumes.

    Raises:
        VesuviusError: whatever is the user's to solve.
    """
    check_objective(cfg.optimized_metric)
    resolve_trainer(cfg.trainer)
    seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data, _convert_="all")
    module: LightningModule = instantiate(cfg.module, _convert_="all")
    if cfg.weights:
        load_network(module.model, cfg.weights)  # type: ignore[arg-type]
    if cfg.ckpt_path:
        check_resumable(module, cfg.ckpt_path)
    callbacks: list[Callback] = build_list(cfg.callbacks)
    loggers: list[Logger] = build_list(cfg.logger)
    try:
        trainer: Trainer = instantiate(
            cfg.trainer, callbacks=callbacks, logger=loggers or False, _convert_="all"
        )
        record(cfg, module, datamodule, loggers)
        trainer.fit(module, datamodule=datamodule, ckpt_path=cfg.ckpt_path)
        announce(trainer, Path(cfg.paths.output_dir))
        return objective(trainer, cfg.optimized_metric)
    finally:
        finish_wandb()


def check_objective(name: str | None) -> None:
    """Raise ConfigError for a weighted loss: a sweep over a weight would pick the smallest one."""
    if name is not None and "/loss" in name:
        raise ConfigError(
            f"optimized_metric={name} is a loss; a sweep over loss weights would just make the "
            "weight small. Use an unweighted score such as val/score."
        )


def check_resumable(module: LightningModule, path: str) -> None:
    """Raise CheckpointError unless the checkpoint can be read and fits the module."""
    state = read_checkpoint(path).get("state_dict")
    found = state if isinstance(state, dict) else {}
    differences = describe_differences(module.state_dict(), found)
    if differences:
        raise CheckpointError(
            f"ckpt_path={path} does not fit this configuration: {differences}. Resume with the "
            "same model options, or start from its weights alone with weights=<path>."
        )


def build_list(group: DictConfig | None) -> list[Any]:
    """Return the objects of a group of named nodes; null nodes and groups are skipped."""
    nodes = [] if group is None else [node for node in group.values() if node]
    return [instantiate(node, _convert_="all") for node in nodes]


@rank_zero_only
def record(cfg: DictConfig, module: Any, datamodule: Any, loggers: list[Logger]) -> None:
    """Save what the run is and tell the loggers."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    facts = provenance.collect(
        cfg,
        num_parameters=module.count_parameters(),
        data={"root": str(getattr(datamodule, "root", ""))},
    )
    provenance.save(facts, folder, loggers)
    log.info("run folder %s", folder)
    log.info(
        "%s, %.2f M parameters, precision %s",
        facts["choices"].get("model"),
        facts["num_parameters"] / 1e6,
        cfg.trainer.precision,
    )


@rank_zero_only
def announce(trainer: Trainer, folder: Path) -> None:
    """Say where the results lie."""
    scores = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    text = ", ".join(f"{name} {value:.4f}" for name, value in sorted(scores.items()))
    log.info("finished after %d epochs: %s", trainer.current_epoch, text or "no validation")
    log.info("results in %s", folder)


def objective(trainer: Trainer, name: str | None) -> float | None:
    """Return the value a sweep maximises: the best checkpoint's, else the last epoch's.

    Raises:
        ConfigError: nothing was logged under that name.
    """
    if name is None or getattr(trainer, "fast_dev_run", False):
        return None
    for callback in trainer.checkpoint_callbacks:
        best = getattr(callback, "best_model_score", None)
        if getattr(callback, "monitor", None) == name and best is not None:
            return float(best)
    if name in trainer.callback_metrics:
        return float(trainer.callback_metrics[name])
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ConfigError(
            f"optimized_metric={name} was never logged; logged: "
            f"{sorted(trainer.callback_metrics)}. Change optimized_metric or the metric's name."
        )
    return None


def finish_wandb() -> None:
    """Close a wandb run even after a crash; otherwise the next job of a sweep writes into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=1 if sys.exc_info()[0] else 0)
