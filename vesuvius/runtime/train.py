"""Composes and runs one training: build -> fit -> objective."""

import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.inference.store import write_json
from vesuvius.runtime import provenance
from vesuvius.runtime.allocator import keep_freed_memory
from vesuvius.runtime.csv_logger import drop_rows_from
from vesuvius.runtime.data_fingerprint import DataFingerprint
from vesuvius.runtime.hardware import resolve_trainer
from vesuvius.runtime.memory_errors import training_memory
from vesuvius.runtime.quiet import quiet
from vesuvius.runtime.run_split import keep_split
from vesuvius.runtime.sweep import isolate_job
from vesuvius.runtime.wandb_run import name_wandb_run, publish_objective
from vesuvius.runtime.weights import describe_differences, load_network, read_checkpoint

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train as configured and return the best value of `optimized_metric`.

    Everything lies in the run's folder afterwards: `.hydra/` (config), `run.json` (provenance),
    `metrics.csv`, `checkpoints/`, pictures, predictions of the validation volumes.

    Raises:
        VesuviusError: whatever is the user's to solve.
    """
    quiet()
    check_objective(cfg.optimized_metric)
    resolve_trainer(cfg.trainer)
    if cfg.trainer.accelerator == "cpu":
        keep_freed_memory()
    isolate_job()
    folder = Path(cfg.paths.output_dir)
    name_wandb_run(cfg, folder)
    resume = find_resume(cfg.ckpt_path, folder)
    if resume and (finished := read_result(folder, cfg)):
        log.info("%s is finished already; nothing to train (delete it to start again)", folder)
        objective_then: float | None = finished["objective"]
        return objective_then
    seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data, _convert_="all")
    module: LightningModule = instantiate(cfg.module, _convert_="all")
    if cfg.weights:
        load_network(module.model, cfg.weights)  # type: ignore[arg-type]
    if resume:
        prepare_resume(module, resume, folder)
    callbacks = build_callbacks(cfg, folder)
    loggers: list[Logger] = build_list(cfg.logger)
    try:
        trainer: Trainer = instantiate(
            cfg.trainer, callbacks=callbacks, logger=loggers or False, _convert_="all"
        )
        keep_split(datamodule, folder, resumed=resume is not None)
        record(cfg, module, datamodule, loggers)
        try:
            with training_memory(cfg):
                trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        except SystemExit as error:  # how Lightning leaves after Ctrl-C or SIGTERM
            log.warning("interrupted; go on with ckpt_path=auto hydra.run.dir=%s", folder)
            sys.exit(143 if isinstance(error, SIGTERMException) else 130)
        value = objective(trainer, cfg.optimized_metric)
        announce(cfg, trainer, value, folder)
        return value
    finally:
        finish_wandb()


def find_resume(ckpt_path: str | None, folder: Path) -> str | None:
    """Return the checkpoint to resume from.

    'auto' is the run folder's own: of `last.ckpt` and `emergency.ckpt` the one with more steps
    that can be read; None if there is none.

    Raises:
        CheckpointError: none of those there can be read.
    """
    if ckpt_path != "auto":
        return ckpt_path
    names = ("last.ckpt", "emergency.ckpt")
    paths = [path for name in names if (path := folder / "checkpoints" / name).is_file()]
    loadable: list[tuple[int, float, str]] = []
    for path in paths:
        try:
            step = read_checkpoint(path).get("global_step")
        except CheckpointError as error:
            if path == paths[-1] and not loadable:
                raise
            log.warning("not resuming from it: %s", error)
            continue
        loadable.append((step if isinstance(step, int) else -1, path.stat().st_mtime, str(path)))
    return max(loadable)[2] if loadable else None


def read_result(folder: Path, cfg: DictConfig) -> dict[str, Any] | None:
    """Return the folder's result if it was finished with exactly this configuration."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result if result["config"] == config_fingerprint(cfg) else None


def config_fingerprint(cfg: DictConfig) -> str:
    """Return a hash of the resolved configuration."""
    text = json.dumps(OmegaConf.to_container(cfg, resolve=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prepare_resume(module: LightningModule, path: str, folder: Path) -> None:
    """Check the checkpoint and forget what was logged after it was written.

    Raises:
        CheckpointError: it cannot be read or does not fit the module.
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint.get("state_dict")
    found = state if isinstance(state, dict) else {}
    differences = describe_differences(module.state_dict(), found)
    if differences:
        raise CheckpointError(
            f"ckpt_path={path} does not fit this configuration: {differences}. Resume with the "
            "same model options, or start from its weights alone with weights=<path>."
        )
    step = checkpoint.get("global_step")
    if Path(path).resolve().is_relative_to(folder.resolve()) and isinstance(step, int):
        drop_rows_from(folder / "metrics.csv", step)


def check_objective(name: str | None) -> None:
    """Raise ConfigError for a weighted loss: a sweep over a weight would pick the smallest one."""
    if name is not None and "/loss" in name:
        raise ConfigError(
            f"optimized_metric={name} is a loss; a sweep over loss weights would just make the "
            "weight small. Use an unweighted score such as val/score."
        )


def build_list(group: DictConfig | None) -> list[Any]:
    """Return the objects of a group of named nodes; null nodes and groups are skipped."""
    nodes = [] if group is None else [node for node in group.values() if node]
    return [instantiate(node, _convert_="all") for node in nodes]


def build_callbacks(cfg: DictConfig, folder: Path) -> list[Callback]:
    """Return the run's callbacks; trainer.enable_progress_bar=false leaves out the progress bar."""
    callbacks: list[Callback] = [DataFingerprint(folder), *build_list(cfg.callbacks)]
    if cfg.trainer.enable_progress_bar is False:  # Lightning refuses a bar that is switched off
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    return callbacks


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
def announce(cfg: DictConfig, trainer: Trainer, value: float | None, folder: Path) -> None:
    """Write `result.json`, tell the loggers the objective, say where the results lie."""
    scores = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    if not getattr(trainer, "fast_dev_run", False):
        write_json(
            folder / "result.json",
            {"objective": value, "config": config_fingerprint(cfg), "metrics": scores},
        )
    publish_objective(trainer.loggers, value)
    text = ", ".join(f"{name} {score:.4f}" for name, score in sorted(scores.items()))
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
