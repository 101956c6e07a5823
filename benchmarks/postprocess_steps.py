"""Seconds of every chain step on 320^3, and what steps and presets gain on damaged phantoms.

python -m benchmarks.postprocess_steps                     # seconds, one volume of 320^3
python -m benchmarks.postprocess_steps --gains --seeds 3   # gains on 12 phantoms of 128^3
python -m benchmarks.postprocess_steps --write DIR         # 9 of them as predictions to tune on

The timed volume is a damaged phantom of 128^3, mirrored to size: as many sheets, holes and specks a
voxel as a real prediction. Steps run on p > 0.5 without dust; seconds are the second of two runs
(the first compiles). A gain is the official score of threshold, dust and the step minus that of
threshold and dust, on the same volume; presets are compared with p > 0.5 alone.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from benchmarks.winding_cases import phantom_case
from benchmarks.winding_scores import HARD
from vesuvius.data.tiff import write_tiff
from vesuvius.inference.store import PredictionWriter
from vesuvius.metrics import competition_score
from vesuvius.postprocess.chain import ChainPostprocess, run_step
from vesuvius.postprocess.steps.dust import RemoveDust
from vesuvius.postprocess.steps.state import ChainState
from vesuvius.postprocess.steps.thresholds import Threshold

CONF = Path(__file__).parents[1] / "conf"
STEPS = sorted(path.stem for path in (CONF / "postprocess" / "step").glob("*.yaml"))
PRESETS = sorted(path.stem for path in (CONF / "postprocess").glob("chain_*.yaml"))
PHANTOMS = ("default", "touching", "holes", "folds")
DUST = 500
"""Voxels, on 128^3."""


def configured(option, *overrides):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        chosen = [f"postprocess={option}", "run_dir=x", "volume=x", *overrides]
        return compose("infer", overrides=chosen).postprocess


def step_of(name):
    node = configured("chain", f"postprocess/step=[{name}]").step[name]
    if name == "winding":
        node.postprocess.threads = 1
    return instantiate(node, _convert_="all")


def mirrored(volume, size):
    for axis in range(3):
        short = max(size - volume.shape[axis], 0)
        pad = [(0, short if other == axis else 0) for other in range(3)]
        volume = np.pad(volume, pad, mode="symmetric")
    return np.ascontiguousarray(volume[:size, :size, :size])


def seconds_of(step, state):
    """Return wall and CPU seconds of the second run, or the error."""
    run_step("warm", step, small_state(state))
    wall, cpu = time.perf_counter(), time.process_time()
    run_step("timed", step, state)
    return time.perf_counter() - wall, time.process_time() - cpu


def small_state(state):
    box = (slice(0, 40),) * 3
    return ChainState(
        np.ascontiguousarray(state.probability[box]),
        mask=np.ascontiguousarray(state.mask[box]),
        threads=state.threads,
    )


def speed_rows(size, threads, only):
    case, _ = phantom_case("default", seed=0, condition=HARD)
    state = ChainState(mirrored(case.probability, size), threads=threads)
    state = Threshold(threshold=0.5)(state)
    state = replace(RemoveDust(min_size_voxels=DUST)(state), notes={})
    print(f"{size}^3, {int(state.mask.sum())} surface voxels, {threads} thread(s)\n")
    print("| step | s | CPU s |\n|---|---|---|")
    for name in only or STEPS:
        wall, cpu = seconds_of(step_of(name), state)
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |", flush=True)


def volumes(seeds):
    for preset in PHANTOMS:
        for seed in range(seeds):
            case, label = phantom_case(preset, seed=seed, condition=HARD)
            yield case.probability, label


def chains():
    """Yield (name, chain with the step, chain it is compared with)."""
    cut, dust = Threshold(threshold=0.5), RemoveDust(min_size_voxels=DUST)
    plain = ChainPostprocess(step={"cut": cut}, threads=1)
    base = ChainPostprocess(step={"cut": cut, "dust": dust}, threads=1)
    yield "dust", base, plain
    for name in STEPS:
        step = step_of(name)
        if name in ("dust", "threshold"):
            continue
        if name in ("hysteresis", "winding"):
            order = {"step": step, "dust": dust}
        elif step.reads_mask:
            order = {"cut": cut, "dust": dust, "step": step}
        else:
            order = {"step": step, "cut": cut, "dust": dust}
        yield name, ChainPostprocess(step=order, threads=1), base
    for name in PRESETS:
        more = ["postprocess.threads=1"]
        if "winding" not in name:
            more.append(f"postprocess.step.dust.min_size_voxels={DUST}")
        yield name, instantiate(configured(name, *more), _convert_="all"), plain


def gain_rows(seeds, only):
    compared = [one for one in chains() if not only or one[0] in only or one[0] == "dust"]
    gains = {name: [] for name, _, _ in compared}
    plain = compared[0][2]
    plain_scores = []
    for probability, label in volumes(seeds):
        known = {}

        def score(chain, probability=probability, label=label, known=known):
            if id(chain) not in known:
                mask = chain(probability).mask
                known[id(chain)] = competition_score(mask, label, threads=1).score
            return known[id(chain)]

        plain_scores.append(score(plain))
        for name, chain, base in compared:
            gains[name].append(score(chain) - score(base))
    print(f"{len(plain_scores)} phantoms of 128^3; p > 0.5 scores {np.mean(plain_scores):.4f}\n")
    print("| step or preset | mean gain | better on | worst | best |\n|---|---|---|---|---|")
    for name, values in gains.items():
        v = np.array(values)
        print(
            f"| {name} | {v.mean():+.4f} | {(v > 0).sum()} of {len(v)} | {v.min():+.4f} | "
            f"{v.max():+.4f} |"
        )


def write_folder(folder):
    """Write DIR/oof/<id>.zarr, DIR/labels/<id>.tif and DIR/train.csv (a preset is a "scroll")."""
    table = ["id,scroll_id"]
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    for preset in PHANTOMS[:3]:
        for seed in range(3):
            case, label = phantom_case(preset, seed=seed, condition=HARD)
            name = f"{preset}_hard_{seed}"
            with PredictionWriter(
                folder / "oof", name, shape_zyx=label.shape, outputs=("probability",)
            ) as writer:
                stored = np.rint(case.probability * 255).astype(np.uint8)
                writer.arrays["probability"][...] = stored
            write_tiff(folder / "labels" / f"{name}.tif", label)
            table.append(f"{name},{preset}")
    (folder / "train.csv").write_text("\n".join(table) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gains", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", type=Path, metavar="DIR")
    parser.add_argument("--only", nargs="+", help="names of steps (and presets)")
    arguments = parser.parse_args()
    if arguments.write is not None:
        write_folder(arguments.write)
    elif arguments.gains:
        gain_rows(arguments.seeds, arguments.only)
    else:
        speed_rows(arguments.size, arguments.threads, arguments.only)


if __name__ == "__main__":
    main()
