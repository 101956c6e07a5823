"""One large phantom solved in blocks, against the truth and against single 128^3 solves."""

import itertools
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

from benchmarks.winding_cases import phantom_case
from vesuvius.data.phantom_geometry import default_umbilicus
from vesuvius.postprocess.winding import winding_field
from vesuvius.postprocess.winding.blocks import solve_blocks


def right_share(truth: npt.NDArray[np.integer], found: npt.NDArray[np.int32]) -> float:
    """Return the share of voxels numbered in both that agree up to one offset and sign."""
    both = (truth > 0) & (found > 0)
    t, f = truth[both].astype(np.int32), found[both]
    best = max(int(np.unique(t - s * f, return_counts=True)[1].max()) for s in (1, -1))
    return best / max(int(both.sum()), 1)


def store_phantom(path: Path, edge: int, seed: int, part: int = 256) -> None:
    """Write probability (uint8) and true wraps (int16) of one scroll, part by part.

    A part is what fits into memory. The sheets go on from part to part, the damage starts anew.
    """
    group = zarr.open_group(path, mode="w")
    shape, chunks = (edge, edge, edge), (64, 64, 64)
    arrays = [
        group.create_array(name, shape=shape, chunks=chunks, dtype=kind)
        for name, kind in (("probability", "u1"), ("wrap", "i2"))
    ]
    umbilicus = default_umbilicus(shape, np.random.default_rng([seed, 1]))
    for origin in itertools.product(range(0, edge, part), repeat=3):
        size = tuple(min(part, edge - o) for o in origin)
        case, _ = phantom_case(
            "default", size, seed=seed, umbilicus_yx=umbilicus, origin_zyx=origin
        )
        box = tuple(slice(o, o + n) for o, n in zip(origin, size, strict=True))
        arrays[0][box] = np.round(case.probability * 255).astype(np.uint8)
        arrays[1][box] = case.wrap.astype(np.int16)


def block_rows(edge: int, block: int, overlap: int, workers: int, seed: int) -> None:
    """Print right-wrap shares of the whole volume in blocks and of 128^3 parts of it alone."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "p.zarr", Path(folder) / "w.zarr"
        maker = multiprocessing.get_context("spawn").Process(
            target=store_phantom, args=(source, edge, seed)
        )  # in its own process, for its memory's sake
        maker.start()
        maker.join()
        made = time.perf_counter() - start
        print(f"phantom {edge}^3, mild damage, made in {made:.0f} s", flush=True)
        start = time.perf_counter()
        report = solve_blocks(source, out, block=block, overlap=overlap, workers=workers)
        seconds = time.perf_counter() - start
        labels = np.asarray(zarr.open_group(out, mode="r")["labels/sheets/0"])
        stored = zarr.open_group(source, mode="r")
        wrap, probability = np.asarray(stored["wrap"]), np.asarray(stored["probability"])
    print(
        f"{report.blocks} blocks of {block} (overlap {overlap}, {workers} workers): "
        f"{100 * right_share(wrap, labels):.2f} % right over {len(np.unique(wrap)) - 1} wraps, "
        f"{len(report.links)} links, {len(report.broken)} broken, {len(report.fallback)} blocks "
        f"without surface, coherence {min(report.coherence):.2f} to {max(report.coherence):.2f}, "
        f"{seconds:.0f} s",
        flush=True,
    )
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(8):
        z, y, x = rng.integers(0, edge - 128, 3) if edge > 128 else (0, 0, 0)
        box = (slice(z, z + 128), slice(y, y + 128), slice(x, x + 128))
        result = winding_field(probability[box].astype(np.float32) / 255, threads=1)
        shares.append(right_share(wrap[box], result.labels))
    print(
        f"8 single 128^3 parts of it: {100 * np.mean(shares):.2f} % right on average, "
        f"{100 * min(shares):.2f} to {100 * max(shares):.2f} %"
    )
