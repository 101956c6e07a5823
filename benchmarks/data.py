"""Crops per second: our streaming data set against the original's approach, in one run.

    python benchmarks/data.py            # the comparison, about one minute
    python benchmarks/data.py --layouts  # chunk x codec x cache, how the default was chosen

The original's approach, written for this benchmark: .npy memory maps opened anew for each
sample, up to 10 random draws until a crop holds surface, scaling to float32, flips and rot90 on
float32. Its first read of a volume decodes the LZW TIFF. Ours: `SurfaceDataset.__getitem__`, whole.
Timings of A and B are interleaved; figures are medians of blocks of samples.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage as ndi
import tifffile
import torch

from vesuvius.data.prepare import PrepareOptions, prepare_volume
from vesuvius.data.sources import SourceItem
from vesuvius.data.surface_dataset import SurfaceDataset
from vesuvius.data.tiff import write_tiff

SIZE = 320
NUM_VOLUMES = 3


def make_volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (image, label) of crumpled sheets with noise; half of the volume is unlabelled."""
    warp = ndi.zoom(rng.normal(0, 8, (10, 10, 10)), SIZE / 10, order=1)
    phase = (np.arange(SIZE)[None, :, None] + warp) % 18
    image = np.where(phase < 9, 150, 70) + rng.normal(0, 12, phase.shape)
    label = (phase < 2.5).astype(np.uint8)
    label[ndi.zoom(rng.random((5, 5, 5)), SIZE / 5, order=0) < 0.6] = 2
    return np.clip(image, 0, 255).astype(np.uint8), label


class OriginalDataset:
    """The original's data set, reduced to what costs time."""

    def __init__(self, pairs: list[tuple[Path, Path]], crop: int, *, tiff: bool = False) -> None:
        self.pairs, self.crop, self.tiff = pairs, crop, tiff
        self.rng = np.random.default_rng(0)
        self.positive_wanted = self.positive_found = self.draws = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, c = self.rng, self.crop
        image_path, label_path = self.pairs[index % len(self.pairs)]
        if self.tiff:
            image, label = tifffile.imread(image_path), tifffile.imread(label_path)
        else:
            image, label = np.load(image_path, mmap_mode="r"), np.load(label_path, mmap_mode="r")
        wanted = rng.random() < 0.7
        for _ in range(10):
            z, y, x = (int(rng.integers(0, n - c + 1)) for n in image.shape)
            mask = np.asarray(label[z : z + c, y : y + c, x : x + c])
            self.draws += 1
            if not wanted or (mask == 1).any():
                break
        self.positive_wanted += wanted
        self.positive_found += bool(wanted and (mask == 1).any())
        grey = np.asarray(image[z : z + c, y : y + c, x : x + c]).astype(np.float32) / 255
        target = (mask == 1).astype(np.float32)
        for axis in range(3):
            if rng.random() < 0.5:
                grey, target = np.flip(grey, axis).copy(), np.flip(target, axis).copy()
        if rng.random() < 0.5:
            k = int(rng.integers(1, 4))
            grey = np.rot90(grey, k, (1, 2)).copy()
            target = np.rot90(target, k, (1, 2)).copy()
        return {"image": torch.from_numpy(grey)[None], "label": torch.from_numpy(target)[None]}


def block_seconds(get: Callable[[int], Any], first: int, num: int) -> float:
    """Return seconds per sample of one block."""
    start = time.perf_counter()
    for i in range(first, first + num):
        get(i)
    return (time.perf_counter() - start) / num


def compare(getters: dict[str, Callable[[int], Any]], *, num: int, rounds: int) -> dict[str, float]:
    """Return the median seconds per sample of each getter, blocks interleaved, after a warm-up."""
    for get in getters.values():
        block_seconds(get, 0, 4 * num)
    seconds: dict[str, list[float]] = {name: [] for name in getters}
    for r in range(rounds):
        for name, get in getters.items():
            seconds[name].append(block_seconds(get, (4 + r) * num, num))
    return {name: float(np.median(values)) for name, values in seconds.items()}


def write_inputs(folder: Path) -> list[SourceItem]:
    """Write TIFF and .npy pairs; return the TIFFs as sources."""
    items = []
    for i in range(NUM_VOLUMES):
        image, label = make_volume(np.random.default_rng(i))
        print(f"volume {i}: surface {np.mean(label == 1):.1%}, ignore {np.mean(label == 2):.1%}")
        for kind, data in (("image", image), ("label", label)):
            write_tiff(folder / kind / f"{i}.tif", data)
            np.save(folder / kind / f"{i}.npy", data)
        items.append(
            SourceItem(f"{i}", "", folder / "image" / f"{i}.tif", folder / f"label/{i}.tif")
        )
    return items


def prepare(items: list[SourceItem], out: Path, **options: Any) -> tuple[list[Path], float, int]:
    """Return the stores, seconds per volume, bytes per volume."""
    start = time.perf_counter()
    targets = [out / f"{item.volume_id}.zarr" for item in items]
    for item, target in zip(items, targets, strict=True):
        prepare_volume(item, target, PrepareOptions(**options))
    seconds = (time.perf_counter() - start) / len(items)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) // len(items)
    return targets, seconds, size


def dataset(stores: list[Path], crop: int, cache_mb: int) -> SurfaceDataset:
    return SurfaceDataset(
        stores, (crop,) * 3, samples_per_volume=1000, augment="flips_rot90", cache_mb=cache_mb
    )


def count_positive(data: SurfaceDataset, num: int) -> tuple[float, float]:
    """Return the share of draws that asked for surface and how many of those held some."""
    wanted = [i for i in range(num) if data._draw_plan(0, i)[1]]
    found = sum(bool((data[i]["label"] == 1).any()) for i in wanted)
    return len(wanted) / num, found / len(wanted)


def run_comparison(items: list[SourceItem], folder: Path) -> None:
    stores, seconds, size = prepare(items, folder / "store")
    npy = [(i.image.with_suffix(".npy"), i.label.with_suffix(".npy")) for i in items]
    tiff = [(i.image, i.label) for i in items]
    print(f"prepare: {seconds:.2f} s and {size / 1e6:.1f} MB a volume of {SIZE}^3 (image + label)")
    for crop, num, rounds in ((64, 40, 15), (128, 12, 15)):
        original = OriginalDataset(npy, crop)
        cached, default, cold = (dataset(stores, crop, mb) for mb in (1024, 256, 0))
        medians = compare(
            {
                "original (.npy reopened)": original.__getitem__,
                "ours, all chunks cached": cached.__getitem__,
                "ours, default cache 256 MiB": default.__getitem__,
                "ours, no chunk cache": cold.__getitem__,
            },
            num=num,
            rounds=rounds,
        )
        miss = OriginalDataset(tiff, crop, tiff=True)
        medians["original, LZW TIFF miss"] = float(
            np.median([block_seconds(miss.__getitem__, i, 1) for i in range(6)])
        )
        base = medians["original (.npy reopened)"]
        print(f"\n{crop}^3{'':24} ms a pair   pairs/s   times the original")
        for name, value in medians.items():
            print(f"{name:30} {value * 1e3:8.2f} {1 / value:9.0f} {base / value:12.2f}")
        ratio = medians["original, LZW TIFF miss"] / medians["ours, all chunks cached"]
        print(f"ours against the LZW TIFF miss: {ratio:.0f}x")
        share, exact = count_positive(cached, 600)
        hits = original.positive_found / original.positive_wanted
        print(f"positive draws: ours {share:.4f} of crops, {exact:.4f} of them hold surface;")
        print(f"original {hits:.4f} hold surface, {original.draws} draws")


def run_layouts(items: list[SourceItem], folder: Path) -> None:
    print("\ncodec chunk   MB/vol  write s |  64^3 ms: cached, miss | 128^3 ms: cached, miss")
    for codec in ("lz4", "zstd", "none"):
        for chunk in (32, 64, 128):
            out = folder / f"{codec}{chunk}"
            stores, seconds, size = prepare(items, out, codec=codec, chunk=chunk)
            cells = []
            for crop, num in ((64, 20), (128, 8)):
                getters = {
                    "cached": dataset(stores, crop, 1024).__getitem__,
                    "miss": dataset(stores, crop, 0).__getitem__,
                }
                medians = compare(getters, num=num, rounds=7)
                cells.append(" ".join(f"{v * 1e3:10.2f}" for v in medians.values()))
            print(f"{codec:5} {chunk:5} {size / 1e6:8.1f} {seconds:8.2f} | {' | '.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layouts", action="store_true", help="compare chunk sizes and codecs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        items = write_inputs(Path(name))
        (run_layouts if args.layouts else run_comparison)(items, Path(name))


if __name__ == "__main__":
    main()
