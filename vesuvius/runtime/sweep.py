"""Lets each job of a sweep start its own DDP processes and nothing else."""

import os
import sys

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import open_dict, read_write

_RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def isolate_job() -> None:
    """Make Lightning relaunch this job alone; call before the Trainer is built.

    Lightning starts further ranks by running the command line again. In a sweep that is the whole
    `-m` command: every rank would walk the sweep by itself, with other parameters under a random
    sampler, and no error. So the command line is replaced by this job's own overrides and folder,
    and what the job before left behind (rank variables, process group) is cleared; without that
    the second job waits for ever. Does nothing outside a sweep, or in a rank started this way.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    hydra = HydraConfig.get()
    sys.argv = [sys.argv[0], *hydra.overrides.task, "hydra.mode=RUN"]
    with read_write(hydra), open_dict(hydra):  # type: ignore[arg-type]
        hydra.run.dir = hydra.runtime.output_dir  # Lightning gives it to the ranks it starts
    for name in _RANK_VARIABLES:
        os.environ.pop(name, None)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
