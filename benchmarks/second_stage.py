"""What a second stage adds: refine and deform on out-of-fold predictions of a first stage.

Three folds of the quick recipe are trained for `--minutes` each (process time of one thread); each
predicts the volumes that it did not see (`vesuvius oof`). On these, `experiment=refine` and
`experiment=deform` are trained for as long again. Everything is scored on the validation volumes
of `benchmarks/quality.py`: the mean of the three folds, and the second stages upon it. A first
stage trained for all four periods says what the time would have brought without a second stage;
upon it the second stages are scored as well, though they have learnt from weaker ones.
What is finished is kept in `--folder`: the same command goes on.

    python -m benchmarks.second_stage --minutes 2
    python -m benchmarks.second_stage --minutes 2 --second-minutes 8 --only refine
    python -m benchmarks.second_stage --minutes 6 --only refine deform
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.quality_data import SIDES, make_volumes, store_folder
from benchmarks.quality_ours import QUICK, call, predict_ours, train_ours
from vesuvius.inference.store import write_json

FOLDS = 3
STAGES = {
    "refine": ["experiment=refine"],
    "deform": ["experiment=deform"],
    "deform, evidence": ["experiment=deform", "model.evidence=true"],
}
COMMON = ["data.val_share=0", "data.batch_size=2", "optimizer.lr=6e-3"]
# with the first stage's network
COMMON += ["model.backbone.space_to_depth=2", "model.backbone.n_filters=16"]
COMMON += ["model.backbone.norm=instance", "model.backbone.strides_zyx=[[2,2,2],[2,2,2],[2,2,2]]"]
COLUMNS = {
    "dice": "Dice", "surface_dice": "surface Dice", "voi": "VOI", "topo": "topo",
    "score": "score, threshold", "winding": "score, winding", "steps": "steps",
}  # fmt: skip


def first_stage(data: Path, folder: Path, *, minutes: float, seed: int) -> list[Path]:
    """Train one run a fold and predict each training volume by the run that did not see it."""
    root = store_folder(data, "train")
    splits = folder / "splits.json"
    if not splits.is_file():
        call(
            "-m", "vesuvius.cli.main", "splits", str(root), "--folds", str(FOLDS),
            "--out", str(splits),
        )  # fmt: skip
    runs = [folder / f"fold{fold}" for fold in range(FOLDS)]
    seen = SIDES["train"][0] * (FOLDS - 1) // FOLDS
    for fold, run in enumerate(runs):
        options = [*QUICK[:1], f"data.root={root}", f"seed={seed}"]
        options += [f"data.split_file={splits}", f"data.fold={fold}"]
        train_ours(options, run, minutes=minutes, num_volumes=seen)
    call(
        "-m", "vesuvius.cli.main", "oof", *map(str, runs), "--volumes", str(root),
        "--out", str(folder / "oof"), "--splits", str(splits),
        "--set", "checkpoint=last", "postprocess=none", "pictures=false",
    )  # fmt: skip
    return runs


def file_name(row: str) -> str:
    """Return a row's name without what file names had better not hold."""
    return row.replace(", ", "_").replace(" ", "_")


def evaluate(
    folder: Path,
    *,
    minutes: float,
    second_minutes: float,
    stages: Sequence[str],
    seed: int,
    num_val: int,
) -> dict[str, dict[str, float]]:
    """Return the scores of every row."""
    data = folder / "phantom"
    make_volumes(data)
    folder = folder / f"second_stage_{minutes:g}min_seed{seed}"
    runs = first_stage(data, folder, minutes=minutes, seed=seed)
    root = store_folder(data, "train")
    rows: dict[str, dict[str, float]] = {}

    def score(name: str, networks: list[Path], *options: str) -> None:
        result = folder / f"{file_name(name)}.json"
        if not result.is_file():
            out = folder / "predictions" / result.stem
            write_json(result, predict_ours(networks, data, out, *options, num_val=num_val))
        rows[name] = json.loads(result.read_text(encoding="utf-8"))

    score("first stage", runs)
    long = folder / "long"
    train_ours(
        [*QUICK, f"data.root={root}", f"seed={seed}"], long, minutes=minutes * (FOLDS + 1)
    )  # fmt: skip
    strong = "first stage, all the time"
    score(strong, [long])
    for stage in stages:
        name = stage if second_minutes == minutes else f"{stage}, {second_minutes:g} min"
        run = folder / file_name(name)
        options = [*STAGES[stage], *COMMON, f"data.root={root}", f"seed={seed}"]
        options.append(f"data.prior_root={folder / 'oof'}")
        cost = train_ours(options, run, minutes=second_minutes)
        score(name, [run], f"prior={folder / 'predictions' / 'first_stage'}")
        rows[name]["steps"] = cost["steps"]
        upon = folder / "predictions" / file_name(strong)
        score(f"{name}, upon all the time", [run], f"prior={upon}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training")
    parser.add_argument("--second-minutes", type=float, help="of a second stage instead")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--val", type=int, default=8, help="validation volumes that are scored")
    parser.add_argument("--folder", type=Path, default=Path("quality_runs"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = evaluate(
        args.folder.resolve(),
        minutes=args.minutes,
        second_minutes=args.second_minutes or args.minutes,
        stages=args.only,
        seed=args.seed,
        num_val=args.val,
    )
    print("| stage | " + " | ".join(COLUMNS.values()) + " |")
    print("|---|" + "---|" * len(COLUMNS))
    for name, row in rows.items():
        cells = [f"{row[key]:.3g}" if key in row else "" for key in COLUMNS]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
