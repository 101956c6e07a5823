"""Names of a job's wandb run: a resumed run goes on in its own, a sweep's jobs form a group."""

import secrets
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict


@rank_zero_only
def name_wandb_run(cfg: DictConfig, folder: Path) -> None:
    """Fill in id, group and name of `logger.wandb` where the user left them open.

    The id is kept in `wandb_id.txt` of the run folder, so that `ckpt_path=auto` continues the same
    curves. In a sweep the group is the sweep's folder and the name the job's number and overrides.
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
                node.name = f"{hydra.job.num} {hydra.job.override_dirname}"[:128].strip()


def stored_id(path: Path) -> str:
    """Return the id in a file; made on first use."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4) + "\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()
