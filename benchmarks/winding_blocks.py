"""One large phantom solved in blocks, against the truth and against single 128^3 solves."""

import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

from benchmarks.winding_cases import phantom_case
from vesuvius.postprocess.winding import winding_field
from vesuvius.postprocess.winding.blocks import solve_blocks


def right_share(truth: npt.NDArray[np.int32], found: npt.NDArray[np.int32]) -> float:
    """Return the share of voxels numbered in both that agree up to one offset and sign."""
    both = (truth > 0) & (found > 0)
    t, f = truth[both], found[both]
    best = max(int(np.unique(t - s * f, return_counts=True)[1].max()) for s in (1, -1))
    return best / max(int(both.sum()), 1)


def block_rows(edge: int, block: int, overlap: int, workers: int, seed: int) -> None:
    """Print right-wrap shares of the whole volume in blocks and of 128^3 parts of it alone."""
    start = time.perf_counter()
    case, _ = phantom_case("default", (edge, edge, edge), seed=seed)
    wrap, probability = case.wrap, case.probability
    del case
    print(f"phantom {edge}^3, mild damage, made in {time.perf_counter() - start:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "p.zarr", Path(folder) / "w.zarr"
        group = zarr.open_group(source, mode="w")
        group.create_array(
            "probability", data=np.round(probability * 255).astype(np.uint8), chunks=(64, 64, 64)
        )
        start = time.perf_counter()
        report = solve_blocks(source, out, block=block, overlap=overlap, workers=workers)
        seconds = time.perf_counter() - start
        labels = np.asarray(zarr.open_group(out, mode="r")["labels"])
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
        result = winding_field(probability[box], threads=1)
        shares.append(right_share(wrap[box], result.labels))
    print(
        f"8 single 128^3 parts of it: {100 * np.mean(shares):.2f} % right on average, "
        f"{100 * min(shares):.2f} to {100 * max(shares):.2f} %"
    )
