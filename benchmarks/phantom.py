"""How real is the phantom, and how long does it take? In numbers, beside the real samples.

    python benchmarks/phantom.py                       # real samples from ../shared/data if there
    python benchmarks/phantom.py --picture beside.png  # phantom and real slices in one picture

Figures about real data are left out, with a line, where the samples are absent.
"""

import argparse
import itertools
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from vesuvius.data.phantom import PRESETS, Phantom, PhantomSettings, make_phantom

GREYS = np.arange(256)


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Return the earth mover's distance of two uint8 volumes' histograms, in grey levels."""
    ha, hb = (np.bincount(v.ravel(), minlength=256) / v.size for v in (a, b))
    return float(np.abs(np.cumsum(ha) - np.cumsum(hb)).sum())


def best_threshold(volumes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int]:
    """Return the best Dice one grey threshold reaches on all labelled voxels, and the threshold."""
    every = sum(np.bincount(im[lab != 2], minlength=256) for im, lab in volumes)
    right = sum(np.bincount(im[lab == 1], minlength=256) for im, lab in volumes)
    found, hit = np.cumsum(every[::-1]), np.cumsum(right[::-1])
    dice = 2 * hit / (found + right.sum())
    return float(dice.max()), 255 - int(dice.argmax())


def air_noise(volume: np.ndarray) -> tuple[float, list[float]]:
    """Return sigma and lag-1 correlation along z, y, x in the 150 flattest blocks of 8^3."""
    n = [s // 8 for s in volume.shape]
    blocks = volume[: n[0] * 8, : n[1] * 8, : n[2] * 8].astype(float)
    blocks = blocks.reshape(n[0], 8, n[1], 8, n[2], 8).transpose(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(-1, 8, 8, 8)
    flat = blocks[np.argsort(blocks.std((1, 2, 3)))[:150]]
    flat = flat - flat.mean((1, 2, 3), keepdims=True)
    variance = float((flat**2).mean())
    lag = [
        float((np.take(flat, range(7), a) * np.take(flat, range(1, 8), a)).mean()) / variance
        for a in (1, 2, 3)
    ]
    return variance**0.5, lag


def sheet_spacing(volume: np.ndarray) -> float:
    """Return the lag of the first autocorrelation peak along the main normal, voxels."""
    v = volume.astype(float) - ndimage.gaussian_filter(volume.astype(float), 20)
    gradient = np.array(np.gradient(ndimage.gaussian_filter(v, 2.0)))
    normal = np.linalg.eigh(np.einsum("izyx,jzyx->ij", gradient, gradient))[1][:, -1]
    spectrum = np.abs(np.fft.fftn(v * _window(v.shape))) ** 2
    correlation = np.fft.fftshift(np.fft.ifftn(spectrum).real)
    centre = np.array(v.shape) // 2
    lags = np.arange(0, 45, 0.5)
    line = ndimage.map_coordinates(correlation, centre[:, None] + normal[:, None] * lags, order=1)
    start = int(np.argmax(np.diff(line) > 0))
    return float(lags[start + int(np.argmax(line[start : start + 60]))])


def _window(shape: tuple[int, ...]) -> np.ndarray:
    z, y, x = (np.hanning(n) for n in shape)
    return z[:, None, None] * y[:, None] * x


def line_runs(mask: np.ndarray) -> tuple[float, float]:
    """Return median thickness and median spacing of lines in (z, y, x) slices, voxels.

    Runs along y and x are projected on the in-plane normal (structure tensor of the mask) and
    used where it is steeper than 45 degrees to the run.
    """
    thick, spacing = [], []
    for plane in mask[:: max(len(mask) // 20, 1)].astype(float):
        soft = ndimage.gaussian_filter(plane, 1.5)
        gy, gx = np.gradient(soft)
        tensor = [ndimage.gaussian_filter(p, 2.0) for p in (gy * gy, gy * gx, gx * gx)]
        angle = 0.5 * np.arctan2(2 * tensor[1], tensor[0] - tensor[2])
        for image, share in ((plane, np.abs(np.cos(angle))), (plane.T, np.abs(np.sin(angle)).T)):
            for column, weight in zip(image.T, share.T, strict=True):
                edges = np.flatnonzero(np.diff(np.concatenate([[0], column, [0]])))
                starts, stops = edges[::2], edges[1::2]
                middle = (starts + stops) // 2
                cosine = weight[np.minimum(middle, len(weight) - 1)]
                ok = cosine > 0.71
                thick += list(((stops - starts) * cosine)[ok])
                both = ok[1:] & ok[:-1]
                spacing += list((np.diff(middle) * 0.5 * (cosine[1:] + cosine[:-1]))[both])
    return float(np.median(thick)), float(np.median(spacing))


def compare(real: Path, phantoms: list[Phantom]) -> None:
    images = [p.image for p in phantoms]
    stack = np.concatenate([im.ravel() for im in images])
    print(f"\n{'':34}{'phantom':>22}{'real':>22}")
    ct_path = real / "real_ct128" / "image.tif"
    ct = tifffile.imread(ct_path) if ct_path.is_file() else None
    if ct is None:
        print(f"no real CT at {ct_path}: its column stays empty")
    show("mean, sigma (grey)", moments(stack), None if ct is None else moments(ct))
    noises = [air_noise(im) for im in images]
    sigma = statistics.median(s for s, _ in noises)
    lags = np.median([lag for _, lag in noises], axis=0)
    show("air noise sigma", f"{sigma:.1f}", None if ct is None else f"{air_noise(ct)[0]:.1f}")
    show(
        "air noise lag-1 z y x",
        " ".join(f"{v:.2f}" for v in lags),
        None if ct is None else " ".join(f"{v:.2f}" for v in air_noise(ct)[1]),
    )
    spacing = [sheet_spacing(im) for im in images]
    show(
        "sheet spacing, autocorrelation",
        f"{statistics.median(spacing):.1f} ({min(spacing):.1f}-{max(spacing):.1f})",
        None if ct is None else f"{sheet_spacing(ct):.1f}",
    )
    surface_path = real / "real_dense60" / "surface.tif"
    runs = np.median([line_runs(p.surface) for p in phantoms], axis=0)
    labels = tifffile.imread(surface_path) if surface_path.is_file() else None
    real_runs = None if labels is None else line_runs(labels > 0)
    show("line thickness, median", f"{runs[0]:.2f}", real_runs and f"{real_runs[0]:.2f}")
    show("line spacing, median", f"{runs[1]:.1f}", real_runs and f"{real_runs[1]:.1f}")
    labelled = np.concatenate([p.label.ravel() for p in phantoms])
    shares = [float((labelled == v).mean()) for v in (1, 2)]
    show("surface share", f"{shares[0]:.3f}", "0.04-0.05 (competition)")
    show("ignore share", f"{shares[1]:.3f}", "0.58-0.71 (competition)")
    show("surface / labelled", f"{shares[0] / (1 - shares[1]):.3f}", "0.10-0.17 (from those)")
    dice, level = best_threshold([(p.image, p.label) for p in phantoms])
    show("best threshold: Dice at grey", f"{dice:.3f} at {level}", None)
    if ct is not None:
        halves = wasserstein(ct[: len(ct) // 2], ct[len(ct) // 2 :])
        print(f"histogram distance phantom - real: {wasserstein(stack, ct):.2f} grey levels")
        print(f"  for scale: two halves of the real chunk {halves:.2f}, ", end="")
        pair = [wasserstein(a, b) for a, b in itertools.pairwise(images)]
        print(f"two phantoms {statistics.median(pair):.2f}" if pair else "one phantom")


def moments(volume: np.ndarray) -> str:
    return f"{volume.mean():.1f}, {volume.std():.1f}"


def show(name: str, phantom: str, real: str | None) -> None:
    print(f"{name:34}{phantom:>22}{real or '-':>24}")


def time_sizes(sizes: list[int], settings: PhantomSettings, repeats: int) -> None:
    make_phantom((16, 16, 16), seed=0, settings=settings)  # compile
    print("\nsize    wall s (median)   CPU s   Mvoxel/CPU s   peak RSS so far (GB)")
    for size in sizes:
        wall, cpu = [], []
        for repeat in range(repeats if size < 200 else 1):
            starts = time.perf_counter(), time.process_time()
            make_phantom((size,) * 3, seed=repeat, settings=settings)
            wall.append(time.perf_counter() - starts[0])
            cpu.append(time.process_time() - starts[1])
        busy = statistics.median(cpu)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rate = size**3 / busy / 1e6
        print(f"{size:4}^3 {statistics.median(wall):14.2f} {busy:8.2f} {rate:10.2f} {rss:18.2f}")


def draw(path: Path, real: Path, phantoms: list[Phantom]) -> None:
    """Write slices along z, y, x of the real chunk and of phantoms, one row each."""
    from PIL import Image

    chunks = [p.image for p in phantoms[:3]]
    ct_path = real / "real_ct128" / "image.tif"
    if ct_path.is_file():
        chunks.insert(1, tifffile.imread(ct_path))
    size = min(min(c.shape) for c in chunks)
    middle = size // 2
    rows = [
        np.hstack([c[middle, :size, :size], c[:size, middle, :size], c[:size, :size, middle]])
        for c in chunks
    ]
    grid = np.kron(np.vstack(rows), np.ones((3, 3), np.uint8))
    Image.fromarray(grid).save(path)
    print(f"\n{path}: rows are phantoms, the second is real" if len(chunks) > 3 else f"\n{path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, default=Path("../shared/data"))
    parser.add_argument("--preset", choices=tuple(PRESETS), default="default")
    parser.add_argument("--size", type=int, default=128, help="of the compared phantoms")
    parser.add_argument("--count", type=int, default=6, help="compared phantoms")
    parser.add_argument("--times", type=int, nargs="*", default=[64, 128, 256])
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    settings = PhantomSettings.preset(args.preset)
    phantoms = [
        make_phantom((args.size,) * 3, seed=seed, settings=settings) for seed in range(args.count)
    ]
    compare(args.real, phantoms)
    if args.picture:
        draw(args.picture, args.real, phantoms)
    time_sizes(args.times, settings, repeats=3)


if __name__ == "__main__":
    main()
