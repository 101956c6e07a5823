"""Every surface network trained for the same wall-clock time on the default phantom, then scored.

Each network trains through `train.py` with its own experiment: a few steps are timed first, so that
the learning-rate schedule ends when the time is over. The validation volume is then predicted by
`infer.py` and scored (competition metric) as plain threshold mask and as winding mask.

    python benchmarks/networks_quality.py                    # 3 minutes each, about 20 in all
    python benchmarks/networks_quality.py --minutes 10 --only segformer unetr_pp
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra.utils import instantiate

from vesuvius.runtime.model_facts import compose_training

ROOT = Path(__file__).parents[1]
NETWORKS = {
    "dual_head_unet": [],
    "segformer": ["experiment=surface_segformer"],
    "upernet": ["experiment=surface_upernet"],
    "transunet": ["experiment=surface_transunet"],
    "unetr_pp": ["experiment=surface_unetr_pp"],
}
STEPS_PER_EPOCH = 16  # 4 training volumes x 8 crops / batch of 2
STEPS_TIMED = 4


def seconds_per_step(overrides: list[str]) -> float:
    """Median of training steps on random crops, as the trainer runs them (bf16, channels last)."""
    cfg = compose_training(overrides)
    network = instantiate(cfg.model, _convert_="all").to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.rand(cfg.data.batch_size, 1, *cfg.data.patch_zyx)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    times = []
    for _ in range(STEPS_TIMED + 2):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(image)
        sum(o.float().square().mean() for o in outputs.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def call(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, text=True, capture_output=True, check=False
    )
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}")


def evaluate(name: str, minutes: float, data: Path, folder: Path) -> dict[str, float]:
    """Return scores and costs of one network; with ready data (made on first use)."""
    overrides = [*NETWORKS[name], f"data.folder={data}"]
    step_s = seconds_per_step(overrides)
    epochs = max(1, math.floor(60 * minutes / (step_s * STEPS_PER_EPOCH)))
    run = folder / name
    quick = ["callbacks=[checkpoint,volume_validation]", "trainer.enable_progress_bar=false"]
    quick += [f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={epochs}"]
    start = time.perf_counter()
    call("train.py", *overrides, *quick, f"hydra.run.dir={run}", f"paths.log_dir={folder}")
    trained_s = time.perf_counter() - start
    out = folder / f"{name}_masks"
    volumes = data / "prepared" / "train"
    call(
        "infer.py", f"run_dir={run}", f"volume={volumes}", "split=val", "checkpoint=last",
        "pictures=false", "save_probability=false", f"out_dir={out}", f"hydra.run.dir={out}_log",
    )  # fmt: skip
    with (out / "scores.csv").open(newline="") as file:
        rows = {row["mask"]: row for row in csv.DictReader(file)}
    parameters = json.loads((run / "run.json").read_text()).get("num_parameters", 0)
    return {
        "parameters": parameters / 1e6,
        "step_s": step_s,
        "steps": epochs * STEPS_PER_EPOCH,
        "minutes": trained_s / 60,
        "threshold": float(rows["threshold"]["score"]),
        "winding": float(rows["final"]["score"]),
        "dice": float(rows["threshold"]["dice"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of a network")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--folder", type=Path, help="runs and phantom; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        data = folder / "phantom"
        call(
            "train.py", "trainer.fast_dev_run=1", "callbacks=none", "logger=none",
            "model.n_filters=2", f"data.folder={data}", f"hydra.run.dir={folder / 'prepare'}",
        )  # fmt: skip
        print("| network | M parameters | s a step | steps | minutes | Dice | score, threshold "
              "| score, winding |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
        for name in args.only:
            r = evaluate(name, args.minutes, data, folder)
            print(
                f"| {name} | {r['parameters']:.1f} | {r['step_s']:.2f} | {r['steps']:.0f} | "
                f"{r['minutes']:.1f} | {r['dice']:.3f} | {r['threshold']:.3f} | "
                f"{r['winding']:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
