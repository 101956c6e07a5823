"""Our recipe in `quality.py`: what `train.py` gets, and how many steps fit into the time."""

import math
import statistics
import time
from collections.abc import Sequence

import torch
from hydra.utils import instantiate

from benchmarks.quality_data import SIDES
from vesuvius.runtime.compose_config import compose_config
from vesuvius.runtime.hardware import resolve_trainer

WARM_STEPS, TIMED_STEPS = 2, 4
BASE = ["data=surface_zarr", "data.batch_size=2", "data.val_share=0"]
QUICK = ["experiment=quick", "data.val_share=0"]
OURS: dict[str, list[str]] = {"ours": QUICK, "default": BASE}
"""Contestants that are trained by `train.py`: name -> overrides."""
ABLATIONS: dict[str, list[str]] = {
    "width16": [*QUICK, "model.n_filters=16"],
    "lr1e-3": [*QUICK, "optimizer.lr=1e-3"],
    "pos_weight10": [*QUICK, "loss.term.bce.fn.pos_weight=10"],
    "no_warmup": [*QUICK, "scheduler.warmup_share=0"],
    "fp32": [*QUICK, "trainer.precision=32-true"],
    "no_normals": [*QUICK, "loss/term=[dice,bce]", "model.normals_head=false"],
    "batch1": [*QUICK, "data.batch_size=1", "model.norm=instance"],
    "instance_norm": [*QUICK, "model.norm=instance"],
    "cube": [*QUICK, "data.augment=cube"],
    "intensity": [*QUICK, "transforms=intensity"],
    "strong": [*QUICK, "transforms=strong"],
    "ema": [*QUICK, "+callbacks/ema@callbacks=ema", "callbacks.ema.decay=0.99"],
    "resenc_s": [*QUICK, "~model.n_filters", "model=resenc_s"],
}
"""The recipe with one thing changed."""


def calibrate(overrides: Sequence[str], minutes: float) -> tuple[int, int]:
    """Return how many steps of a configuration take so many minutes, and its batch size.

    Times real steps (data, augmentation, forward, loss, backward, optimizer) in process time.
    """
    alone = ["data.split_file=null", "paths.output_dir=unused"]
    steps = WARM_STEPS + TIMED_STEPS
    cfg = compose_config("train", [*overrides, *training_overrides(steps, 2), *alone])
    resolve_trainer(cfg.trainer)
    bf16 = str(cfg.trainer.precision).startswith("bf16")
    data = instantiate(cfg.data, _convert_="all")
    module = instantiate(cfg.module, _convert_="all")
    if bf16:
        module.channels_last = True
        module.model.to(memory_format=torch.channels_last_3d)
    optimizer = module.make_optimizer(list(module.parameters()))
    times = []
    batches = iter(data.train_dataloader())
    for _ in range(steps):
        start = time.process_time()
        batch = next(batches)
        if module.transforms is not None:
            batch = module.transforms(batch, epoch=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = module.loss(module.forward_batch(batch), batch)
        losses["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - start)
    return round(60 * minutes / statistics.median(times[WARM_STEPS:])), cfg.data.batch_size


def training_overrides(steps: int, batch_size: int) -> list[str]:
    """Return what makes `train.py` train so many steps and nothing else."""
    return [
        "optimized_metric=null", "metrics=none", "callbacks=[speed,checkpoint]",
        "callbacks.best=null", "logger=csv", "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
        f"trainer.limit_train_batches={steps}",
        f"data.samples_per_volume={math.ceil(steps * batch_size / SIDES['train'][0])}",
    ]  # fmt: skip
