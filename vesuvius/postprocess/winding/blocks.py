"""Volumes larger than a chunk: blocks solved apart, numbers agreed on their overlaps.

Every step is a function of paths and a block number, so that a cluster engine can run the blocks
where the process pool does now.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError
from vesuvius.postprocess.winding.device import resolve_device
from vesuvius.postprocess.winding.numbering import NO_LEVEL
from vesuvius.postprocess.winding.result import winding_field
from vesuvius.postprocess.winding.settings import FieldSettings, MaskSettings
from vesuvius.postprocess.winding.stitch import Link, synchronise, turned, vote
from vesuvius.postprocess.winding.store import (
    Box,
    create_outputs,
    new_folder,
    open_probability,
    read_box,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: where it is solved and which part of it is kept; half-open voxel ranges."""

    number: int
    start_zyx: tuple[int, int, int]
    stop_zyx: tuple[int, int, int]
    core_start_zyx: tuple[int, int, int]
    core_stop_zyx: tuple[int, int, int]

    def box(self) -> Box:
        """Return the solved part as slices of the volume."""
        return _slices(self.start_zyx, self.stop_zyx)

    def core(self) -> Box:
        """Return the kept part as slices of the volume."""
        return _slices(self.core_start_zyx, self.core_stop_zyx)


@dataclass(frozen=True, slots=True)
class BlocksReport:
    """What happened to a volume in blocks.

    Attributes:
        blocks: how many.
        coherence: of each block.
        fallback: numbers of the blocks whose field failed; they stay without surface.
        links: what the overlaps said.
        broken: links that contradict the spanning tree: loops that do not close.
    """

    blocks: int
    coherence: list[float]
    fallback: list[int]
    links: list[Link]
    broken: list[Link]
    places: list[tuple[int, int]] = field(default_factory=list)


def _slices(start: tuple[int, ...], stop: tuple[int, ...]) -> Box:
    z, y, x = (slice(a, b) for a, b in zip(start, stop, strict=True))
    return z, y, x


def _ranges(length: int, block: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Return (start, stop, core start, core stop) along one axis: equal blocks, shared evenly."""
    if length <= block:
        return [(0, length, 0, length)]
    number = -(-(length - overlap) // (block - overlap))
    starts = [round(i * (length - block) / (number - 1)) for i in range(number)]
    middles = [(a + b + block) // 2 for a, b in zip(starts[1:], starts[:-1], strict=True)]
    edges = [0, *middles, length]
    return [(s, s + block, edges[i], edges[i + 1]) for i, s in enumerate(starts)]


def plan_blocks(shape_zyx: tuple[int, ...], *, block: int, overlap: int) -> list[Block]:
    """Return blocks that cover a volume; the cores tile it, neighbours share `overlap` or more.

    Raises:
        ConfigError: the overlap does not fit into the block.
    """
    if not 16 <= overlap <= block // 2:
        raise ConfigError(
            f"overlap is {overlap} at block {block}; expected 16 to {block // 2}: the numbers "
            "are agreed upon in the overlap"
        )
    axes = [_ranges(n, block, overlap) for n in shape_zyx]
    blocks = []
    for number, (z, y, x) in enumerate(product(*axes)):
        corners = [(z[i], y[i], x[i]) for i in range(4)]
        blocks.append(Block(number, *corners))
    return blocks


def solve_block(
    block: Block, *, source: Path, scratch: Path, settings: FieldSettings,
    mask_settings: MaskSettings, threads: int, device: str = "cpu",
) -> tuple[float, bool]:  # fmt: skip
    """Solve one block of the prediction at `source`, leave its field and levels in `scratch`.

    Returns coherence and whether it was too low to be used.
    """
    volume, normals = read_box(*open_probability(source), block.box())
    result = winding_field(
        volume, normals, settings=settings, mask_settings=mask_settings, threads=threads,
        device=device,
    )  # fmt: skip
    level = np.full(volume.shape, NO_LEVEL, np.int32)
    if not result.fallback:
        mask = result.mask > 0
        first = _first_level(result.field, result.labels)
        level[mask] = result.labels[mask] + np.int32(first - 1)
    np.save(scratch / f"level_{block.number}.npy", level)
    np.save(scratch / f"field_{block.number}.npy", result.field)
    return result.coherence, result.fallback


def _first_level(winding: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> int:
    """Return floor of the field on sheet 1: labels count levels from there."""
    on = labels > 0
    if not on.any():
        return 0
    return int(np.median(np.floor(winding[on]).astype(np.int64) - labels[on])) + 1


def _overlaps(blocks: list[Block], scratch: Path) -> list[Link]:
    """Return the links of all pairs of blocks that share voxels, faces only."""
    links = []
    for a in blocks:
        for b in blocks[a.number + 1 :]:
            low = np.maximum(a.start_zyx, b.start_zyx)
            high = np.minimum(a.stop_zyx, b.stop_zyx)
            moved = sum(p != q for p, q in zip(a.start_zyx, b.start_zyx, strict=True))
            if moved != 1 or np.any(high <= low):
                continue
            parts = [
                np.load(scratch / f"level_{k.number}.npy", mmap_mode="r")[
                    _slices(tuple(low - k.start_zyx), tuple(high - k.start_zyx))
                ]
                for k in (a, b)
            ]
            link = vote(a.number, b.number, np.asarray(parts[0]), np.asarray(parts[1]))
            if link is not None:
                links.append(link)
    return links


def solve_blocks(
    source: Path, out: Path, *, block: int = 256, overlap: int = 64, workers: int = 1,
    threads: int = 1, settings: FieldSettings | None = None,
    mask_settings: MaskSettings | None = None, device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> BlocksReport:  # fmt: skip
    """Write field, labels and mask of a prediction of any size to one Zarr folder.

    Args:
        source: prediction, a Zarr group with `probability` (and `normals`).
        out: Zarr folder to write: field, labels (numbers that agree over all blocks), mask.
        block: edge of a block in voxels.
        overlap: least number of voxels that neighbours share.
        workers: processes.
        threads: threads per process.
        settings: constants of the solver.
        mask_settings: constants of the mask.
        device: "cpu", "cuda" or "auto", as in `winding_field`; each process opens it by itself.
        progress: called with (blocks done, blocks).

    Raises:
        VolumeNotFoundError, VolumeFormatError: the prediction cannot be read.
        StorageError: `out` exists or cannot be written.
        ConfigError: the overlap does not fit into the block.
        DeviceError: device="cuda" without CuPy or a CUDA device.
    """
    device = resolve_device(device)
    shape = open_probability(source)[0].shape
    blocks = plan_blocks(shape, block=block, overlap=overlap)
    with new_folder(out) as folder:
        scratch = folder.with_name(folder.name + ".scratch")
        with new_folder(scratch) as work:
            run = partial(
                solve_block, source=source, scratch=work, threads=threads,
                settings=settings or FieldSettings(), mask_settings=mask_settings or MaskSettings(),
                device=device,
            )  # fmt: skip
            done: list[tuple[float, bool]] = []
            for result in _mapped(run, blocks, workers):
                done.append(result)
                if progress is not None:
                    progress(len(done), len(blocks))
            links = _overlaps(blocks, work)
            places, broken = synchronise(len(blocks), links)
            _assemble(blocks, places, work, folder, shape)
        _remove(scratch)
    return BlocksReport(
        len(blocks), [c for c, _ in done],
        [b.number for b, (_, bad) in zip(blocks, done, strict=True) if bad], links, broken, places,
    )  # fmt: skip


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _mapped(
    run: Callable[[Block], tuple[float, bool]], blocks: list[Block], workers: int
) -> "list[tuple[float, bool]] | map[tuple[float, bool]]":
    """Return results in order, from a process pool if there is more than one worker."""
    if workers <= 1:
        return map(run, blocks)
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(run, blocks))


def _assemble(
    blocks: list[Block], places: list[tuple[int, int]], scratch: Path, folder: Path,
    shape_zyx: tuple[int, ...],
) -> None:  # fmt: skip
    """Write every block's core with its sign and offset; numbers start at 1 over all."""
    lowest = None
    for block, (sign, offset) in zip(blocks, places, strict=True):
        level = np.load(scratch / f"level_{block.number}.npy", mmap_mode="r")
        present = level[level != NO_LEVEL]
        if present.size:
            least = int(turned(present, sign).min()) + offset
            lowest = least if lowest is None else min(lowest, least)
    base = (lowest or 0) - 1
    arrays = create_outputs(folder, shape_zyx)
    for block, (sign, offset) in zip(blocks, places, strict=True):
        inner = _slices(
            tuple(np.subtract(block.core_start_zyx, block.start_zyx)),
            tuple(np.subtract(block.core_stop_zyx, block.start_zyx)),
        )
        level = np.load(scratch / f"level_{block.number}.npy")[inner]
        winding = np.load(scratch / f"field_{block.number}.npy")[inner]
        present = level != NO_LEVEL
        labels = np.where(present, turned(level, sign) + np.int32(offset - base), 0)
        arrays["labels"][block.core()] = labels.astype(np.int32)
        arrays["mask"][block.core()] = present.astype(np.uint8)
        arrays["field"][block.core()] = sign * winding + np.float32(offset - base)
