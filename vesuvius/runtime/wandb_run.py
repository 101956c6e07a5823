"""Names of a job's wandb run: a resumed run goes on in its own, a sweep's jobs form a group."""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict

from vesuvius.runtime.dashboard import OBJECTIVE


@rank_zero_only
def name_wandb_run(cfg: DictConfig, folder: Path) -> None:
    """Fill in id, group and name of `logger.wandb` where the user left them open.

    The id is kept in `wandb_id.txt` of the run folder, so that `ckpt_path=auto` continues the same
    curves. In a sweep the group is the sweep's folder and the name the job's number and what the
    sweep chose for it.
    """
    node = OmegaConf.select(cfg, "logger.wandb")
    if node is None:
        return
    with open_dict(node):
        if not node.get("id"):
            node.id = stored_id(folder / "wandb_id.txt")
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.MULTIRUN:
            if node.get("group") == cfg.task_name:
                node.group = f"{cfg.task_name}/{Path(hydra.sweep.dir).name}"
            if not node.get("name"):
                chosen = swept_overrides(Path(hydra.sweep.dir), list(hydra.overrides.task))
                node.name = f"{hydra.job.num} {' '.join(chosen)}"[:128].strip()


def swept_overrides(sweep: Path, overrides: Sequence[str]) -> list[str]:
    """Return those of a job's overrides that the sweep chose, not the ones all jobs share.

    `multirun.yaml` of the sweep's folder holds the command line of all jobs. Without it, or when
    the jobs differ in nothing, all overrides come back.
    """
    path = sweep / "multirun.yaml"
    if not path.is_file():
        return list(overrides)
    parser = OverridesParser.create()
    written = OmegaConf.select(OmegaConf.load(path), "hydra.overrides.task", default=[])
    fixed = {
        override.get_key_element()
        for override in parser.parse_overrides(list(written))
        if not override.is_sweep_override()
    }
    chosen = [
        text
        for text, override in zip(overrides, parser.parse_overrides(list(overrides)), strict=True)
        if override.get_key_element() not in fixed
    ]
    return chosen or list(overrides)


def publish_objective(loggers: Iterable[Logger], value: float | None) -> None:
    """Put what a sweep compares into the summary of every run that has one (wandb)."""
    for logger in loggers:
        summary = getattr(getattr(logger, "experiment", None), "summary", None)
        if summary is not None and value is not None:
            summary[OBJECTIVE] = value


def stored_id(path: Path) -> str:
    """Return the id in a file; made on first use."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4) + "\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()
