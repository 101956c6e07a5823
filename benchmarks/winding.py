"""The winding solver's tables: wraps told apart, competition score, speed.

python -m benchmarks.winding                         # conditions: VOI, right wraps, holes
python -m benchmarks.winding --phantom               # threshold mask against winding mask
python -m benchmarks.winding --predictions DIR --labels DIR   # the same for a trained network
python -m benchmarks.winding --keys                  # gain and harm of every mask key
python -m benchmarks.winding --blocks 512            # one large phantom in blocks of 256
python -m benchmarks.winding --umbilicus             # the scroll's axis inside of the chunk
python -m benchmarks.winding --speed                 # 128, 192, 256, 320, memory traffic
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import cc3d
import numpy as np

from benchmarks.winding_blocks import block_rows
from benchmarks.winding_cases import CONDITIONS, DEFAULT, make_case
from benchmarks.winding_scores import key_rows, phantom_rows, prediction_rows
from benchmarks.winding_umbilicus import umbilicus_rows
from vesuvius.metrics import wrap_accuracy
from vesuvius.postprocess.winding import winding_field


def condition_rows(seeds: range, threads: int | None) -> None:
    print("| condition | components: VOI | VOI split + merge | right | merged / split sheets | "
          "truth covered | hole voxels right | coherence | s |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name, condition in CONDITIONS.items():
        rows = []
        for seed in seeds:
            case = make_case(condition, seed=seed)
            start = time.perf_counter()
            result = winding_field(case.probability, threads=threads)
            seconds = time.perf_counter() - start
            seen = np.where(result.labels > 0, case.wrap, 0)
            fit = wrap_accuracy(result.labels, seen)
            pieces = cc3d.connected_components(case.probability > 0.5, connectivity=26)
            data = (case.probability > 0.5) & (case.wrap > 0)
            plain = wrap_accuracy(pieces, np.where(data, case.wrap, 0))
            hole = (case.wrap > 0) & (case.probability <= 0.5)
            level = np.floor(result.field[hole]).astype(np.int64)
            first = np.floor(result.field[result.labels > 0]) - result.labels[result.labels > 0]
            own = level - int(np.median(first)) if first.size else level
            held = (fit.sign * own + fit.offset == case.wrap[hole]).mean()
            covered = np.count_nonzero(seen) / np.count_nonzero(case.wrap)
            rows.append(
                (plain.voi_split + plain.voi_merge, fit.voi_split + fit.voi_merge, fit.right,
                 fit.merged, fit.split, covered, held, result.coherence, seconds)
            )  # fmt: skip
        m = np.mean(rows, 0)
        worst = np.max([r[1] for r in rows])
        print(
            f"| {name} | {m[0]:.2f} | {m[1]:.4f} (worst {worst:.3f}) | {100 * m[2]:.2f} % | "
            f"{m[3]:.1f} / {m[4]:.1f} | {100 * m[5]:.0f} % | {100 * m[6]:.2f} % | {m[7]:.2f} | "
            f"{np.median([r[8] for r in rows]):.1f} |",
            flush=True,
        )


def _store_case(path: Path, edge: int) -> None:
    """Write the probability of a default case; in its own process, for its memory's sake."""
    np.save(path, make_case(DEFAULT, (edge, edge, edge)).probability)


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _time_size(path: Path, repeats: int, threads: int | None) -> None:
    """Print one size's row; in its own process, so that its peak of memory is its own."""
    probability = np.load(path)
    winding_field(probability[:64, :64, :64], threads=threads)  # compile
    before, size = _peak_gb(), probability.size
    wall, cpu = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        result = winding_field(probability, threads=threads)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    seconds, busy = float(np.median(wall)), float(np.median(cpu))
    stages = ", ".join(f"{k} {v:.1f}" for k, v in result.seconds.items() if v >= 0.05)
    volumes = 1 + (_peak_gb() - before) * 2**30 / (4 * size)
    print(
        f"| {probability.shape[0]} | {seconds:.1f} | {busy:.1f} | {1e6 * busy / size:.2f} | "
        f"{_peak_gb():.2f} | {volumes:.1f} | {stages} |",
        flush=True,
    )


def speed_rows(sizes: list[int], repeats: int, threads: int | None) -> None:
    """Print seconds (median of the repeats) and memory of every size."""
    print("| edge | s | CPU s | CPU microseconds per voxel | peak GB | float32 volumes, the input "
          "included | stages, s |\n|---|---|---|---|---|---|---|", flush=True)  # fmt: skip
    context = multiprocessing.get_context("spawn")
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "p.npy"
            for work, args in ((_store_case, (path, n)), (_time_size, (path, repeats, threads))):
                process = context.Process(target=work, args=args)
                process.start()
                process.join()
    roofline()


def roofline() -> None:
    """Compare a conjugate-gradient iteration's memory traffic with what the memory can do."""
    from vesuvius.postprocess.winding.poisson import PoissonSolver

    n = 128
    source, copy = np.ones(2**26, np.float32), np.empty(2**26, np.float32)
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(copy, source)
        rates.append(2 * source.nbytes / (time.perf_counter() - start))
    solver = PoissonSolver((n, n, n))
    rhs = np.random.default_rng(0).standard_normal((n, n, n)).astype(np.float32)
    zero = np.zeros_like(rhs)
    solver.solve(rhs, zero, tolerance=0.0, iterations=1)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        solver.solve(rhs, zero, tolerance=0.0, iterations=10)
        times.append((time.perf_counter() - start) / 10)
    # per cell: 4 colour sweeps (w read and written, b, screen: 16 B each), 2 operators (12 B),
    # residual 12, restriction 4.5, prolongation 8.5, vectors 52; coarse levels add 1/7
    traffic = (4 * 16 + 2 * 12 + 12 + 4.5 + 8.5 + 52) * 8 / 7
    used = traffic * n**3 / np.median(times)
    print(
        f"\nconjugate-gradient iteration, {n}^3 cells, one thread: {traffic:.0f} bytes per cell, "
        f"{used / 1e9:.1f} GB/s of {np.median(rates) / 1e9:.1f} GB/s copied by one thread"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--phantom", action="store_true")
    parser.add_argument("--keys", action="store_true")
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--labels", type=Path, help="folder of <id>.tif or prepared <id>.zarr")
    parser.add_argument("--blocks", type=int, metavar="EDGE")
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--umbilicus", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192, 256, 320])
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    if args.speed:
        speed_rows(args.sizes, args.repeats, args.threads)
    elif args.blocks is not None:
        block_rows(args.blocks, args.block, args.overlap, args.workers, args.first_seed)
    elif args.umbilicus:
        umbilicus_rows(seeds, args.threads)
    elif args.keys:
        key_rows(seeds, args.predictions, args.labels, args.threads)
    elif args.predictions is not None:
        prediction_rows(args.predictions, args.labels or args.predictions, args.threads)
    elif args.phantom:
        phantom_rows(seeds, args.threads)
    else:
        condition_rows(seeds, args.threads)


if __name__ == "__main__":
    main()
