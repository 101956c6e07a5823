"""CoCoSeg on the CT-PET phantom: fusion against either modality alone, and ablations.

    python benchmarks/petct.py --out runs/petct                        # fused, CT, PET; three seeds
    python benchmarks/petct.py --out runs/petct --rows ablations --seeds 0
    python benchmarks/petct.py --out runs/petct --rows all --minutes 30

Trains `experiment=petct_cocoseg_tiny` (128^2, quarter width) and scores each network on ten
patients of another phantom seed, at the threshold chosen on its own validation patients. Finished
runs are kept: the same command goes on where it stopped. The table holds means and, over several
seeds, the smallest and largest.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIN = {
    "fused": [],
    "CT alone": ["model.inputs=[ct,ct]"],
    "PET alone": ["model.inputs=[pet,pet]"],
}
ABLATIONS = {
    "shared encoder": ["model.encoders=shared"],
    "batch norm": ["model.norm=batch"],
    "no attention": ["model.attention=none"],
    "no VGG branches": ["model.vgg.weights=none"],
    "one VGG branch for both": ["model.share_vgg=true"],
    "V1 (shared, batch norm, focal)": ["model=cocoseg_v1", "model.width=8", "loss=petct_focal"],
}
ROWS = {"main": MAIN, "ablations": ABLATIONS, "all": {**MAIN, **ABLATIONS}}
SCORES = ("dice_positive", "dice_slice", "dice_global", "fp_rate", "hd95")
TEST_SEED = 1000


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).lower()


def call(*command: str) -> None:
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT)


def train_and_score(folder: Path, data: Path, seed: int, overrides: list[str], more: list[str]):
    """Train unless finished, score unless scored; return the scores."""
    results = folder / "test" / "results.json"
    if not results.is_file():
        start = time.perf_counter()
        call(
            "train.py", "experiment=petct_cocoseg_tiny", f"seed={seed}", f"paths.data_dir={data}",
            f"hydra.run.dir={folder}", "ckpt_path=auto", "trainer.enable_progress_bar=false",
            "callbacks=[speed,curves,ema,checkpoint,emergency]",
            *overrides, *more,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        (folder / "seconds.json").write_text(json.dumps(seconds))
        call(
            "-m", "vesuvius.cli.main", "petct", "evaluate", str(folder), "--out",
            str(folder / "test"), "--data", str(data / "test"), "--split", "all",
            "--no-predictions",
        )  # fmt: skip
    found = json.loads(results.read_text())["overall"]
    found["seconds"] = json.loads((folder / "seconds.json").read_text())
    found["parameters"] = json.loads((folder / "run.json").read_text())["num_parameters"]
    return found


def cell(values: list[float], digits: int) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def show(table: dict[str, list[dict[str, float]]]) -> None:
    print(f"\n| network | runs | M parameters | {' | '.join(SCORES)} | training s |")
    print("|---|---|---|" + "---|" * len(SCORES) + "---|")
    for name, rows in table.items():
        if rows:
            scores = " | ".join(cell([r[s] for r in rows], 1 if s == "hd95" else 3) for s in SCORES)
            seconds = cell([r["seconds"] for r in rows], 0)
            millions = f"{rows[0]['parameters'] / 1e6:.2f}"
            print(f"| {name} | {len(rows)} | {millions} | {scores} | {seconds} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of phantoms and runs")
    parser.add_argument("--rows", choices=ROWS, default="main")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="start no run after so many")
    parser.add_argument("overrides", nargs="*", help="of train.py, after --")
    args = parser.parse_args()
    out = args.out.resolve()
    call(
        "-m", "vesuvius.cli.main", "petct", "phantom", str(out / "data" / "test"), "--size", "128",
        "--radius", "12", "26", "--patients", "10", "--slices", "10", "--seed", str(TEST_SEED),
    )  # fmt: skip
    begin = time.perf_counter()
    table: dict[str, list[dict[str, float]]] = {name: [] for name in ROWS[args.rows]}
    for seed in args.seeds:
        for name, overrides in ROWS[args.rows].items():
            folder = out / f"{slug(name)}_{seed}"
            late = args.minutes and time.perf_counter() - begin > 60 * args.minutes
            if late and not (folder / "test" / "results.json").is_file():
                continue
            table[name].append(
                train_and_score(folder, out / "data", seed, overrides, args.overrides)
            )
    show(table)


if __name__ == "__main__":
    main()
