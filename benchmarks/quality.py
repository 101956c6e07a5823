"""Ours beside MONAI and an nnU-Net-style training: the same volumes, the same time, the same judge.

Trains every contestant on 24 phantoms of 128^3 and scores it on 8 others of other seeds. The time
is that of one process on one thread (`--minutes`); the number of steps follows from a few timed
ones, so that every learning rate reaches its end. Where the recipe is finished, an ablation gets as
many steps as take the recipe's time, both timed in turns. Finished contestants are kept in
`--folder`: the same command goes on where it was stopped.

    python -m benchmarks.quality --minutes 10 --seeds 0 1
    python -m benchmarks.quality --only ours segresnet --folder quality_runs
    python -m benchmarks.quality --ablate width8 no_normals ema   # rows of our own recipe
    python -m benchmarks.quality --infer tta_flips smooth         # the trained recipe, predicted so
    python -m benchmarks.quality --networks --minutes 5           # every network, all else equal
    python -m benchmarks.quality --table                          # only print what is there

Peers need `pip install -e '.[bench]'`; nnU-Net's pieces besides
`pip install --no-deps dynamic-network-architectures batchgeneratorsv2 batchgenerators pandas`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality_data import (
    make_volumes,
    mean_scores,
    read_side,
    score_volume,
    store_folder,
)
from benchmarks.quality_ours import (
    ABLATIONS,
    EPOCHS,
    INFERENCE,
    NETWORKS,
    OURS,
    Way,
    make_soup,
    predict_ours,
    train_ours,
    training_cost,
)
from benchmarks.quality_peers import Peer, monai_peer, nnunet_peer, predict_peer, train_peer
from vesuvius.inference.store import write_json

PeerFactory = Callable[..., Peer]


def _monai(name: str, lr: float, *, width: int = 16, bf16: bool = False) -> PeerFactory:
    return lambda volumes, seed, rate: monai_peer(
        name, volumes, lr=rate or lr, seed=seed, width=width, bf16=bf16
    )


def _nnunet(lr: float, *, width: int, bf16: bool = False) -> PeerFactory:
    return lambda volumes, seed, rate: nnunet_peer(
        volumes, lr=rate or lr, seed=seed, width=width, bf16=bf16
    )


# The better of 1e-3 and 3e-3 for MONAI's (docs/recipe.md), nnU-Net's own for its.
PEERS: dict[str, PeerFactory] = {
    "segresnet": _monai("segresnet", 1e-3),
    "segresnet_bf16": _monai("segresnet", 1e-3, bf16=True),
    "segresnet8_bf16": _monai("segresnet", 1e-3, width=8, bf16=True),
    "dynunet": _monai("dynunet", 3e-3),
    "dynunet_bf16": _monai("dynunet", 3e-3, bf16=True),
    "dynunet8_bf16": _monai("dynunet", 3e-3, width=8, bf16=True),
    "nnunet": _nnunet(1e-2, width=32),
    "nnunet_bf16": _nnunet(1e-2, width=32, bf16=True),
    "nnunet16_bf16": _nnunet(1e-2, width=16, bf16=True),
}
DEFAULT = ("ours", "segresnet", "dynunet", "nnunet")
COLUMNS = {
    "dice": "Dice", "surface_dice": "surface Dice", "voi": "VOI", "topo": "topo",
    "score": "score, threshold", "winding": "score, winding", "angle": "normals, deg",
    "angle_by_tensor": "normals by structure tensor, deg",
    "samples_s": "samples/s", "steps": "steps", "minutes": "minutes",
}  # fmt: skip


def run_ours(
    overrides: Sequence[str],
    data: Path,
    run: Path,
    *,
    minutes: float,
    seed: int,
    num_val: int,
    epochs: int = 1,
    recipe_steps: int | None = None,
) -> dict[str, float]:
    """Train with `train.py`, predict with `infer.py`, score."""
    same = [f"data.root={store_folder(data, 'train')}", f"seed={seed}"]
    recipe = None if recipe_steps is None else ([*OURS["ours"], *same], recipe_steps)
    cost = train_ours([*overrides, *same], run, minutes=minutes, epochs=epochs, recipe=recipe)
    return {**predict_ours([run], data, run / "masks", num_val=num_val), **cost}


def run_inference(
    way: Way, data: Path, runs: Sequence[Path], out: Path, *, num_val: int
) -> dict[str, float]:
    """Predict with trained runs in another way."""
    costs = [training_cost(run) for run in runs]
    for run, cost in zip(runs, costs, strict=True):
        if cost is None:
            sys.exit(f"{run}: not trained yet; train it with the same --minutes and --seeds")
    options = list(way.options)
    if way.soup:
        options.append(f"checkpoint={make_soup(runs[0], way.soup)}")
    scores = predict_ours(runs, data, out, *options, num_val=num_val, sigma=way.sigma)
    known = [cost for cost in costs if cost is not None]
    return {**scores, **mean_scores(known), "minutes": sum(cost["minutes"] for cost in known)}


def run_peer(
    factory: PeerFactory, data: Path, *, minutes: float, seed: int, num_val: int, lr: float | None
) -> dict[str, float]:
    """Train, predict and score a peer in this process."""
    torch.manual_seed(seed)
    peer = factory(list(read_side(data, "train")), seed, lr)
    cost = train_peer(peer, minutes)
    rows = []
    for truth in islice(read_side(data, "val"), num_val):
        probability = np.round(predict_peer(peer, truth.image) * 255).astype(np.float32) / 255
        rows.append(score_volume(truth, probability, None))
    parameters = sum(p.numel() for p in peer.network.parameters())
    return {**mean_scores(rows), **cost, "parameters": parameters}


def table(folder: Path) -> str:
    """Return the Markdown table of all finished contestants: means over seeds, +- half range."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*/scores.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(f"{row['contestant']} ({row['budget']:g} min)", []).append(row)
    lines = ["| contestant | seeds | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---|" + "---|" * (len(COLUMNS) + 1))
    for name, rows in sorted(found.items(), key=lambda item: -_mean(item[1], "score")):
        cells = [f"{_mean(rows, key):.3g}" for key in COLUMNS]
        for n, key in enumerate(COLUMNS):
            if key in ("score", "winding") and len(rows) > 1:
                values = [row[key] for row in rows]
                cells[n] += f" +- {(max(values) - min(values)) / 2:.3f}"
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return float(np.mean([row.get(key, np.nan) for row in rows]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--only", nargs="+", choices=[*OURS, *PEERS, *NETWORKS], help=f"default: {DEFAULT}"
    )
    parser.add_argument("--ablate", nargs="+", choices=ABLATIONS, help="changes of our recipe")
    parser.add_argument("--networks", action="store_true", help="compare our surface networks")
    parser.add_argument("--infer", nargs="+", choices=INFERENCE, help="ways to predict with it")
    parser.add_argument("--set", nargs="+", default=[], help="further overrides of our recipe")
    parser.add_argument("--val", type=int, default=8, help="validation volumes that are scored")
    parser.add_argument("--lr", type=float, help="learning rate of the peers instead of theirs")
    parser.add_argument("--tag", default="", help="appended to the contestants' names")
    parser.add_argument("--folder", type=Path, default=Path("quality_runs"))
    parser.add_argument("--table", action="store_true", help="print only")
    return parser.parse_args()


def run_contestant(name: str, args: argparse.Namespace, *, seed: int) -> None:
    """Train, predict and score one contestant with one seed, unless its scores are there."""
    folder = args.folder.resolve()
    data = folder / "phantom"

    def run_folder(contestant: str, of_seed: int) -> Path:
        return folder / f"{contestant}_{args.minutes:g}min_seed{of_seed}"

    run = run_folder(name + args.tag, seed)
    once = name in INFERENCE and INFERENCE[name].ensemble  # of all seeds
    if (run / "scores.json").is_file() or (once and seed != args.seeds[0]):
        return
    common = {"minutes": args.minutes, "seed": seed, "num_val": args.val}
    if name in PEERS:
        result = run_peer(PEERS[name], data, lr=args.lr, **common)
    elif name in INFERENCE:
        way = INFERENCE[name]
        seeds = args.seeds if way.ensemble else [seed]
        runs = [run_folder(way.trained + args.tag, n) for n in seeds]
        result = run_inference(way, data, runs, run / "predicted", num_val=args.val)
    else:
        overrides = [*(OURS | NETWORKS | ABLATIONS)[name], *args.set]
        steps = None
        if name in ABLATIONS:  # as long as the recipe, where that is finished
            cost = training_cost(run_folder("ours", seed))
            steps = None if cost is None else int(cost["steps"])
        epochs = EPOCHS.get(name, 1)
        result = run_ours(overrides, data, run, epochs=epochs, recipe_steps=steps, **common)
    run.mkdir(parents=True, exist_ok=True)
    facts = {"contestant": name + args.tag, "seed": seed, "budget": args.minutes}
    write_json(run / "scores.json", {**facts, **result})
    print(f"{run.name}: " + ", ".join(f"{k} {v:.4g}" for k, v in result.items()), flush=True)


def main() -> None:
    args = arguments()
    folder = args.folder.resolve()
    torch.set_num_threads(1)
    names = [*(args.only or []), *(NETWORKS if args.networks else [])]
    names = [*names, *(args.ablate or []), *(args.infer or [])] or list(DEFAULT)
    if not args.table:
        make_volumes(folder / "phantom")
        for seed in args.seeds:
            for name in names:
                run_contestant(name, args, seed=seed)
    print(table(folder))


if __name__ == "__main__":
    main()
