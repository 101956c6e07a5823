"""Every surface network trained for the same wall-clock time on phantoms, then scored on others.

All else is equal: loss (Dice, BCE, normals), flips and turns, cosine schedule, bf16; the learning
rate is the experiment's. A few steps are timed first, so that the schedule ends when the time is
over. The test volumes are then predicted by `infer.py` and scored (competition metric) as plain
threshold mask and as winding mask. Finished networks are not trained again in the same `--folder`.

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

from vesuvius.modules.safe_conv import guard_shallow_convolutions
from vesuvius.runtime.compose_config import compose_config

ROOT = Path(__file__).parents[1]
NETWORKS = {
    "dual_head_unet": ["optimizer.lr=2e-3"],
    "segformer": ["experiment=surface_segformer"],
    "upernet": ["experiment=surface_upernet"],
    "transunet": ["experiment=surface_transunet"],
    "unetr_pp": ["experiment=surface_unetr_pp"],
}
EQUAL = ["loss/term=[dice,bce,normal]", "loss.term.bce.fn.pos_weight=1.5", "transforms=none"]
EQUAL += ["scheduler=cosine", "scheduler.warmup_share=0.1"]
EQUAL += ["data=surface_zarr", "data.val_share=0", "data.batch_size=2", "data.samples_per_volume=8"]
EQUAL += ["callbacks=[checkpoint]", "optimized_metric=null", "trainer.limit_val_batches=0"]
NUM_TRAIN, NUM_TEST, EDGE = 10, 4, 96
STEPS_PER_EPOCH = NUM_TRAIN * 8 // 2  # 8 crops a volume, batch of 2
STEPS_TIMED = 5


def seconds_per_step(overrides: list[str]) -> float:
    """Median of training steps on random crops, as the trainer runs them (bf16, channels last)."""
    cfg = compose_config("train", overrides)
    network = instantiate(cfg.model, _convert_="all").to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.rand(cfg.data.batch_size, 1, *cfg.data.patch_zyx)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    batch = {"image": image, "label": (image > 0.9).to(torch.uint8)}
    loss = instantiate(cfg.loss, _convert_="all")
    guard_shallow_convolutions(network)
    times = []
    for _ in range(STEPS_TIMED + 2):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            total = loss(network(image), batch)["total"]
        total.backward()
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
    """Return scores and costs of one network on ready data."""
    overrides = [*NETWORKS[name], *EQUAL, f"data.root={data / 'train'}"]
    run, out = folder / name, folder / f"{name}_masks"
    facts = run / "cost.json"
    if not facts.is_file():
        step_s = seconds_per_step(overrides)
        epochs = max(1, math.floor(60 * minutes / (step_s * STEPS_PER_EPOCH)))
        start = time.perf_counter()
        call("train.py", *overrides, f"trainer.max_epochs={epochs}", f"hydra.run.dir={run}")
        cost = {"step_s": step_s, "steps": epochs * STEPS_PER_EPOCH}
        cost["minutes"] = (time.perf_counter() - start) / 60
        facts.write_text(json.dumps(cost), encoding="utf-8")
    call(
        "infer.py", f"run_dir={run}", f"volume={data / 'test'}", "checkpoint=last",
        "pictures=false", "save_probability=false", f"out_dir={out}", f"hydra.run.dir={out}_log",
    )  # fmt: skip
    scores: dict[tuple[str, str], list[float]] = {}
    with (out / "scores.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for column in ("score", "dice"):
                scores.setdefault((row["mask"], column), []).append(float(row[column]))
    parameters = json.loads((run / "run.json").read_text()).get("num_parameters", 0)
    cost = json.loads(facts.read_text(encoding="utf-8"))
    return {
        **cost,
        "parameters": parameters / 1e6,
        "threshold": statistics.mean(scores["threshold", "score"]),
        "winding": statistics.mean(scores["final", "score"]),
        "dice": statistics.mean(scores["threshold", "dice"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of a network")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--folder", type=Path, help="runs and phantom; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        data = folder / "prepared"
        call(
            "-m", "vesuvius.cli.main", "phantom", str(folder / "kaggle"), "--seed", "0",
            "--train", str(NUM_TRAIN), "--test", str(NUM_TEST), "--shape", *[str(EDGE)] * 3,
        )  # fmt: skip
        call("-m", "vesuvius.cli.main", "prepare", str(folder / "kaggle"), str(data))
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
