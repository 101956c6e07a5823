"""Time and memory of the competition metric, part by part, beside plain implementations.

    python benchmarks/metric.py --size 320 --repeats 3 --peers

The pair is a spiral of sheets (label) and a wavy, shifted copy of it with holes, bridges and dust
(prediction). Memory is the largest resident size seen while a part runs, minus that before it.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import psutil

from vesuvius.metrics import competition_score
from vesuvius.metrics.surface_distance import masks_surface_dice, surface_areas
from vesuvius.metrics.topology import match_blocks
from vesuvius.metrics.voi import masks_voi
from vesuvius.metrics.workers import usable_cpus

PITCH, THICKNESS = 14.0, 3.0


def spiral(size: int, waves: float) -> np.ndarray:
    """Return a (z, y, x) bool spiral of 3-voxel sheets, displaced by up to `waves` voxels."""
    z, y, x = np.ogrid[:size, :size, :size]
    y, x = (y - 0.44 * size).astype(np.float32), (x - 0.45 * size).astype(np.float32)
    radius = np.hypot(y, x) + 6 * np.sin(z / 37 + x / 51) + 4 * np.sin(y / 23)
    winding = radius / PITCH - np.arctan2(y, x) / (2 * np.pi) + z / 160
    winding += waves / PITCH * np.sin(z / 9 + y / 13) * np.sin(x / 11)
    return winding % 1 < THICKNESS / PITCH


def add_balls(volume: np.ndarray, count: int, value: int, rng: np.random.Generator) -> None:
    """Set balls of radius 2 to 5: 0 punches holes, 1 builds bridges."""
    size = len(volume)
    for centre in rng.integers(0, size, (count, 3)):
        radius = int(rng.integers(2, 6))
        box = tuple(slice(max(c - radius, 0), c + radius + 1) for c in centre)
        grid = np.ogrid[tuple(slice(s.start, min(s.stop, size)) for s in box)]
        near = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2
        volume[box][near] = value


def make_pair(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (prediction, label), both (z, y, x) bool."""
    rng = np.random.default_rng(seed)
    label, prediction = spiral(size, 0.0), spiral(size, 1.2)
    balls = size**3 // 40000
    add_balls(label, balls // 4, 0, rng)
    add_balls(prediction, balls, 0, rng)
    add_balls(prediction, balls // 2, 1, rng)
    prediction |= rng.random(label.shape, np.float32) < 3e-4
    prediction &= rng.random(label.shape, np.float32) > 2e-3
    return prediction, label


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yield a list that holds the rise of resident memory in MB when the block ends."""
    process, done, result = psutil.Process(), threading.Event(), [0.0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.004):
            result[0] = max(result[0], (process.memory_info().rss - before) / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield result
    finally:
        done.set()
        watcher.join()


def measure(name: str, run: Callable[[], object], repeats: int) -> float:
    """Print the median time and the highest memory of a part; return the time in s."""
    seconds, megabytes = [], []
    for _ in range(repeats):
        with peak_memory() as peak:
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        megabytes.append(peak[0])
    middle = statistics.median(seconds)
    print(f"  {name:38s} {middle:8.2f} s   +{max(megabytes):6.0f} MB", flush=True)
    return middle


def scipy_surface_dice(prediction: np.ndarray, label: np.ndarray) -> float:
    """Return the surface Dice at 2 voxels by scipy's distance transform."""
    from scipy import ndimage

    kernel = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]])
    codes = [
        ndimage.correlate(np.pad(m, (0, 1)).astype(np.uint8), kernel, mode="constant")
        for m in (prediction, label)
    ]
    borders = [(c != 0) & (c != 255) for c in codes]
    reach = [ndimage.distance_transform_edt(~b) for b in borders]
    area = surface_areas()
    near = sum(area[codes[i][borders[i] & (reach[1 - i] <= 2)]].sum() for i in range(2))
    return float(near / sum(area[codes[i][borders[i]]].sum() for i in range(2)))


def skimage_voi(prediction: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Return split and merge by scikit-image."""
    from skimage.measure import label as components
    from skimage.metrics import variation_of_information

    union = prediction | label
    pieces = [components(m, connectivity=3)[union] for m in (label, prediction)]
    split, merge = variation_of_information(*pieces)
    return float(split), float(merge)


def report(size: int, *, threads: int, repeats: int, peers: bool) -> None:
    prediction, label = make_pair(size)
    share = f"{prediction.mean():.1%} and {label.mean():.1%} foreground"
    print(f"{size}^3, {share}, {threads} threads, median of {repeats}")
    surface_args = {"spacing": (1, 1, 1), "tolerance": 2.0, "threads": threads}
    measure("whole", lambda: competition_score(prediction, label, threads=threads), repeats)
    measure("topology", lambda: match_blocks(prediction, label, threads=threads), repeats)
    surface = measure(
        "surface Dice",
        lambda: masks_surface_dice(prediction, label, **surface_args),
        repeats,
    )
    voi = measure("VOI", lambda: masks_voi(prediction, label, alpha=0.3, threads=threads), repeats)
    result = competition_score(prediction, label, threads=threads)
    rss = psutil.Process().memory_info().rss / 1e6
    print(f"  score {result.score:.6f}, counts {result.counts}; resident now {rss:.0f} MB")
    if not peers:
        return
    plain = measure("surface Dice, scipy EDT", lambda: scipy_surface_dice(prediction, label), 1)
    print(f"    ours {plain / surface:.1f} times faster")
    plain = measure("VOI, scikit-image", lambda: skimage_voi(prediction, label), 1)
    print(f"    ours {plain / voi:.1f} times faster")
    assert abs(scipy_surface_dice(prediction, label) - result.surface_dice) < 1e-9
    split, merge = skimage_voi(prediction, label)
    assert abs(split - result.voi_split) + abs(merge - result.voi_merge) < 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[128, 320])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: the usable CPUs")
    parser.add_argument("--peers", action="store_true", help="time plain implementations too")
    args = parser.parse_args()
    threads = args.threads or usable_cpus()
    began = time.perf_counter()
    competition_score(*make_pair(24))
    print(f"first call (compiled, or loaded from the cache): {time.perf_counter() - began:.1f} s")
    for size in args.size:
        report(size, threads=threads, repeats=args.repeats, peers=args.peers)


if __name__ == "__main__":
    main()
