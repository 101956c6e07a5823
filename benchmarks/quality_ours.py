"""Our recipe in `quality.py`: what `train.py` gets, and how many steps fit into the time."""

import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from hydra.utils import instantiate

from benchmarks.quality_data import (
    SHAPE_ZYX,
    SIDES,
    mean_scores,
    read_side,
    score_volume,
    store_folder,
)
from vesuvius.inference.store import load_prediction, write_json
from vesuvius.postprocess.steps.smoothing import GaussianProbability
from vesuvius.postprocess.steps.state import ChainState
from vesuvius.runtime.compose_config import compose_config
from vesuvius.runtime.hardware import resolve_trainer

ROOT = Path(__file__).parents[1]
COST = "cost.json"
WARM_STEPS, TIMED_STEPS = 2, 7
MOST_CROPS = 4  # of an optimizer step below
BASE = ["data=surface_zarr", "data.batch_size=2", "data.val_share=0"]
QUICK = ["experiment=quick", "data.val_share=0"]
OURS: dict[str, list[str]] = {"ours": QUICK, "default": BASE}
"""Contestants that are trained by `train.py`: name -> overrides."""
VOXELS = ["model.space_to_depth=1", "model.n_filters=8", "model.norm=batch"]
VOXELS += ["model.strides_zyx=[[2,2,2],[2,2,2],[2,2,2],[2,2,2]]"]
RESENC = ["model=resenc_s", "~model.space_to_depth", "~model.n_filters"]
RESENC += ["model.strides_zyx=[[1,1,1],[2,2,2],[1,2,2],[2,2,2],[1,2,2]]"]  # its own
PRIMUS = ["model=primus_s", "~model.space_to_depth", "~model.n_filters"]
PRIMUS += ["~model.strides_zyx", "~model.norm"]
NARROW = ["model.embed_dim=192", "model.num_layers=6", "optimizer=adamw", "optimizer.lr=1e-3"]
TERM = "loss/term=[dice,bce,normal,{}]"
ABLATIONS: dict[str, list[str]] = {
    # network and precision
    "voxels": [*QUICK, *VOXELS],
    "voxels_adamw": [*QUICK, *VOXELS, "optimizer=adamw", "optimizer.lr=3e-3"],
    "width8": [*QUICK, "model.n_filters=8"],
    "width24": [*QUICK, "model.n_filters=24"],
    "width32": [*QUICK, "model.n_filters=32"],
    "z_pooled_once": [*QUICK, "model.strides_zyx=[[2,2,2],[1,2,2],[1,2,2]]"],
    "two_levels": [*QUICK, "model.strides_zyx=[[2,2,2],[2,2,2]]"],
    "batch_norm": [*QUICK, "model.norm=batch"],
    "resenc_s": [*QUICK, *RESENC],
    "primus_s_adamw": [*QUICK, *PRIMUS, "optimizer=adamw", "optimizer.lr=3e-4"],
    "primus_narrow": [*QUICK, *PRIMUS, *NARROW],
    "fp32": [*QUICK, "trainer.precision=32-true"],
    "no_normals": [*QUICK, "loss/term=[dice,bce]", "model.normals_head=false"],
    "deep_supervision": [*QUICK, "model.deep_supervision=2", "loss=surface_deep"],
    "sdf": [*QUICK, "model.sdf_distance=4", "loss/term=[sdf,dice,normal]", "~loss.term.bce"],
    # loss
    "pos_weight1.5": [*QUICK, "loss.term.bce.fn.pos_weight=1.5"],
    "pos_weight10": [*QUICK, "loss.term.bce.fn.pos_weight=10"],
    "ignore_as_background": [*QUICK, "data.ignore_as_background=true"],
    "medial_recall": [*QUICK, TERM.format("medial_recall")],
    "skeleton_recall": [*QUICK, TERM.format("skeleton_recall")],
    "cldice": [*QUICK, TERM.format("cldice"), "loss.term.cldice.fn.iterations=3"],
    "boundary": [*QUICK, TERM.format("boundary")],
    "focal_tversky": [*QUICK, "loss/term=[focal_tversky,bce,normal]"],
    "surface_dice": [*QUICK, TERM.format("surface_dice")],
    "separation": [*QUICK, TERM.format("separation")],
    # optimization
    "lr3e-3": [*QUICK, "optimizer.lr=3e-3"],
    "lr1e-2": [*QUICK, "optimizer.lr=1e-2"],
    "no_warmup": [*QUICK, "scheduler.warmup_share=0"],
    "batch1": [*QUICK, "data.batch_size=1"],
    "accumulate2": [*QUICK, "trainer.accumulate_grad_batches=2"],
    "adamw": [*QUICK, "optimizer=adamw", "optimizer.lr=3e-3"],
    "ema": [*QUICK, "callbacks=[speed,checkpoint,ema]", "callbacks.ema.decay=0.99"],
    # data
    "cube": [*QUICK, "data.augment=cube"],
    "intensity": [*QUICK, "transforms=intensity"],
    "strong": [*QUICK, "transforms=strong"],
    "strong_mix": [*QUICK, "transforms=strong_mix"],
    "uniform_crops": [*QUICK, "data.positive_share=0"],
    "patch48": [*QUICK, "data.patch_zyx=[48,48,48]", "data.batch_size=4"],
    "patch96": [*QUICK, "data.patch_zyx=[96,96,96]", "data.batch_size=1"],
    # in several epochs, see EPOCHS
    "six_epochs": [*QUICK, "callbacks.periodic.every_n_epochs=1"],
    "hard_volumes": [*QUICK, "callbacks=[speed,checkpoint,hard_volumes]"],
}
"""The recipe with one thing changed."""
EPOCHS = {"six_epochs": 6, "hard_volumes": 6}
"""Ablations that need more epochs than one; six_epochs is what hard_volumes compares with."""
EQUAL = ["data=surface_zarr", "data.val_share=0", "data.batch_size=2", "transforms=none"]
EQUAL += ["loss/term=[dice,bce,normal]", "loss.term.bce.fn.pos_weight=1.5"]
EQUAL += ["scheduler=cosine", "scheduler.warmup_share=0.1"]
NETWORKS: dict[str, list[str]] = {
    "dual_head_unet": ["optimizer.lr=2e-3", *EQUAL],
    "segformer": ["experiment=surface_segformer", *EQUAL],
    "upernet": ["experiment=surface_upernet", *EQUAL],
    "transunet": ["experiment=surface_transunet", *EQUAL],
    "unetr_pp": ["experiment=surface_unetr_pp", *EQUAL],
}
"""Every surface network with its experiment's learning rate and all else equal."""


@dataclass(frozen=True)
class Way:
    """A way to predict with a trained contestant.

    Attributes:
        options: overrides of `infer.py`.
        sigma: of a Gaussian on the probability in voxels, the step `gaussian` of a chain.
        trained: the contestant whose run it is.
        ensemble: the mean of its runs of all seeds.
        soup: its last so many checkpoints, averaged.
    """

    options: tuple[str, ...] = ()
    sigma: float = 0.0
    trained: str = "ours"
    ensemble: bool = False
    soup: int = 0


INFERENCE = {
    "tta_flips": Way(("tta=flips",)),
    "tta_flips_rot90": Way(("tta=flips_rot90",)),
    "window64": Way(("roi_zyx=[64,64,64]",)),
    "overlap25": Way(("roi_zyx=[64,64,64]", "overlap=0.25")),
    "tensor_normals": Way(("normals=structure_tensor",)),
    "smooth": Way(sigma=0.8),
    "smooth_tta_flips": Way(("tta=flips",), sigma=0.8),
    "ensemble": Way(ensemble=True),
    "soup": Way(trained="six_epochs", soup=3),
}
"""The trained recipe, predicted otherwise."""


class Stepper:
    """Does training steps of a configuration: data, augmentation, forward, loss, backward, update.

    Attributes:
        batch_size: crops in a step.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        alone = ["data.split_file=null", "paths.output_dir=unused"]
        crops = (WARM_STEPS + TIMED_STEPS) * MOST_CROPS
        cfg = compose_config("train", [*training_overrides(crops, 1), *overrides, *alone])
        resolve_trainer(cfg.trainer)
        self.accumulated: int = cfg.trainer.accumulate_grad_batches
        self.bf16 = str(cfg.trainer.precision).startswith("bf16")
        self.batch_size: int = cfg.data.batch_size
        self.module = instantiate(cfg.module, _convert_="all")
        if self.bf16:
            self.module.channels_last = True
            self.module.model.to(memory_format=torch.channels_last_3d)
        self.module.on_fit_start()  # guards the CPU's bf16 convolutions, as in training
        self.optimizer = self.module.make_optimizer(list(self.module.parameters()))
        self.batches = iter(instantiate(cfg.data, _convert_="all").train_dataloader())

    def step(self) -> float:
        """Do a step; return its seconds of process time, those of one batch if it has several."""
        start = time.process_time()
        for _ in range(self.accumulated):
            batch = next(self.batches)
            if self.module.transforms is not None:
                batch = self.module.transforms(batch, epoch=0)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                losses = self.module.loss(self.module.forward_batch(batch), batch)
            losses["total"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return (time.process_time() - start) / self.accumulated


def calibrate(
    overrides: Sequence[str], minutes: float, *, recipe: tuple[Sequence[str], int] | None = None
) -> tuple[int, int]:
    """Return how many steps of a configuration take so many minutes, and its batch size.

    Args:
        overrides: of `train.py`.
        minutes: process time.
        recipe: the recipe's overrides and its number of steps: as many steps as take the same time
            as those. The steps of both alternate, so that a machine whose speed drifts from one
            run to the next does not tell in the comparison.
    """
    steppers = [Stepper(overrides)]
    if recipe is not None:
        steppers.append(Stepper(recipe[0]))
    times = [[s.step() for s in steppers] for _ in range(WARM_STEPS + TIMED_STEPS)][WARM_STEPS:]
    seconds = statistics.median(own for own, *_ in times)
    if recipe is None:
        return round(60 * minutes / seconds), steppers[0].batch_size
    ratio = statistics.median(other for _, other in times) / seconds
    return round(recipe[1] * ratio), steppers[0].batch_size


def training_overrides(
    steps: int, batch_size: int, *, num_volumes: int = SIDES["train"][0], epochs: int = 1
) -> list[str]:
    """Return what makes `train.py` train so many steps and nothing else."""
    each = math.ceil(steps / epochs)
    return [
        "optimized_metric=null", "metrics=none", "callbacks=[speed,checkpoint]",
        "callbacks.best=null", "logger=csv", "trainer.limit_val_batches=0",
        f"trainer.max_epochs={epochs}", "trainer.enable_progress_bar=false",
        f"trainer.limit_train_batches={each}",
        f"data.samples_per_volume={math.ceil(each * batch_size / num_volumes)}",
    ]  # fmt: skip


def call(*command: str) -> None:
    """Run a Python command in the repository's root; show its end and leave if it fails."""
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, text=True, capture_output=True, check=False
    )
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}")


def train_ours(
    overrides: Sequence[str],
    run: Path,
    *,
    minutes: float,
    num_volumes: int = SIDES["train"][0],
    epochs: int = 1,
    recipe: tuple[Sequence[str], int] | None = None,
) -> dict[str, float]:
    """Train with `train.py` for so many minutes of process time; return steps and samples/s.

    A run that is finished is not trained again. `recipe`: see `calibrate`.
    """
    known = training_cost(run)
    if known is not None:
        return known
    steps, batch = calibrate(overrides, minutes, recipe=recipe)
    steps = max(1, round(steps / epochs)) * epochs
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    call(
        "train.py", *training_overrides(steps, batch, num_volumes=num_volumes, epochs=epochs),
        *overrides, f"hydra.run.dir={run}",
    )  # fmt: skip
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    cost = {"steps": steps, "minutes": seconds / 60, "samples_s": steps * batch / seconds}
    write_json(run / COST, cost)
    return cost


def training_cost(run: Path) -> dict[str, float] | None:
    """Return what `train_ours` returned for a run, None if it has not finished it."""
    path = run / COST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def make_soup(run: Path, count: int) -> Path:
    """Average the last checkpoints of a run; return the file."""
    folder = run / "checkpoints"
    last = sorted(folder.glob("epoch*.ckpt"))[-count:]
    soup = folder / "soup.ckpt"
    soup.unlink(missing_ok=True)
    call("-m", "vesuvius.cli.main", "soup", *map(str, last), "--out", str(soup))
    return soup


def predict_ours(
    runs: Sequence[Path], data: Path, out: Path, *options: str, num_val: int, sigma: float = 0
) -> dict[str, float]:
    """Predict the validation volumes with `infer.py`; return their mean scores.

    Args:
        runs: run folders; the mean of several.
        data: folder of `make_volumes`.
        out: where the predictions go.
        options: further overrides of `infer.py`.
        num_val: how many volumes.
        sigma: of a Gaussian on the probability in voxels, 0 = none.
    """
    names = ",".join(str(run) for run in runs)
    call(
        "infer.py", f"run_dir=[{names}]", f"volume={store_folder(data, 'val')}", "checkpoint=last",
        "pictures=false", "postprocess=none", f"out_dir={out}", f"hydra.run.dir={out}_log",
        f"max_volumes={num_val}", f"roi_zyx={list(SHAPE_ZYX)}", *options,
    )  # fmt: skip
    rows = []
    for truth in islice(read_side(data, "val"), num_val):
        probability, normals = load_prediction(out / f"{truth.name}.zarr")
        if sigma:
            smooth = GaussianProbability(sigma=sigma)
            probability = smooth(ChainState(probability=probability)).probability
        rows.append(score_volume(truth, probability, normals))
    return mean_scores(rows)
