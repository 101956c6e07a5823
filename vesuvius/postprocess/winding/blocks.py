"""Volumes larger than a chunk: blocks solved apart, numbers agreed on their overlaps.

Four stages over the blocks (solve, compare, write, pyramid) run on workers; between the second and
the third this process finds a place for every block (`stitch.synchronise`). What is finished is
recorded on disk: a killed solve goes on and ends with the same bytes.
"""

import fcntl
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vesuvius.errors import StorageError, VolumeFormatError
from vesuvius.postprocess.winding.block_tasks import (
    BadPredictionError,
    Job,
    Part,
    Solved,
    halve_shard,
    link_block,
    read_solved,
    solve_block,
    write_shard,
)
from vesuvius.postprocess.winding.device import resolve_device
from vesuvius.postprocess.winding.plan import Block, CoreIndex, later_neighbours, plan_blocks
from vesuvius.postprocess.winding.settings import FieldSettings, MaskSettings
from vesuvius.postprocess.winding.stitch import Link, synchronise
from vesuvius.postprocess.winding.store import (
    SheetStore,
    decisive_settings,
    open_probability,
    refuse_existing,
)
from vesuvius.postprocess.winding.workers import Workers, make_workers
from vesuvius.storage.block_store import remove_unfinished

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class BlocksReport:
    """What happened to a volume in blocks.

    Attributes:
        blocks: how many.
        coherence: of each block; 0 for the empty ones.
        fallback: numbers of the blocks whose field failed; they stay without surface.
        empty: number of blocks without any probability; they are not solved.
        links: what the overlaps said.
        broken: links that contradict the spanning tree: loops that do not close.
        places: (sign, offset) of each block.
        before: blocks that a former run had solved.
        seconds: of this run.
        voxels_per_s: of the volume, over all stages of this run.
    """

    blocks: int
    coherence: list[float]
    fallback: list[int]
    empty: int
    links: list[Link]
    broken: list[Link]
    places: list[tuple[int, int]]
    before: int
    seconds: float
    voxels_per_s: float


@dataclass(frozen=True, slots=True)
class StageProgress:
    """State of one stage.

    Attributes:
        stage: "solve", "compare", "write" or "pyramid".
        done: blocks, or shards of the result, finished now or before.
        total: of them.
        seconds: since the stage began.
        eta_s: estimated time to its end, of what this run did; 0 before anything is done.
        voxels_per_s: of the volume.
    """

    stage: str
    done: int
    total: int
    seconds: float
    eta_s: float
    voxels_per_s: float

    def __str__(self) -> str:
        return (
            f"{self.stage} {self.done}/{self.total}, {self.voxels_per_s:.3g} voxels/s, "
            f"{self.eta_s:.0f} s left"
        )


Progress = Callable[[StageProgress], None]


def solve_blocks(
    source: Path, out: Path, *, block: int = 256, overlap: int = 64, workers: int = 1,
    dask: str | None = None, threads: int | None = 1, settings: FieldSettings | None = None,
    mask_settings: MaskSettings | None = None, device: str = "auto",
    provenance: Mapping[str, Any] | None = None, shard: int = 256,
    progress: Progress | None = None,
) -> BlocksReport:  # fmt: skip
    """Write field, labels and mask of a prediction of any size to one OME-Zarr folder.

    Interrupted or killed, it leaves `<out>.unfinished` and `<out>.blocks`; the same call goes on.
    After NaN it leaves nothing: blocks of that prediction do not fit those of the next.

    Args:
        source: prediction, a Zarr group with `probability` (and `normals`).
        out: Zarr folder to write: mask, labels (numbers that agree over all blocks), field.
        block: edge of a block in voxels.
        overlap: least number of voxels that neighbours share.
        workers: processes of this machine; more than 1 need Dask.
        dask: address of a Dask scheduler whose workers see the same folders, instead.
        threads: threads per task, None: all cores of its process.
        settings: constants of the solver.
        mask_settings: constants of the mask.
        device: "cpu", "cuda" or "auto", as in `winding_field`; each process opens it by itself.
        provenance: facts for the reader of `out`; the same in every run of the same work.
        shard: edge of what is written at once, a multiple of 64.
        progress: called after each block of each stage.

    Raises:
        VolumeNotFoundError, VolumeFormatError: the prediction cannot be read.
        StorageError: `out` exists, another process works on it, or it cannot be written.
        ConfigError: the overlap does not fit into the block, unfinished work with other settings,
            no Dask or no scheduler.
        SolverError: blocks that end their workers again and again.
        DeviceError: device="cuda" without CuPy or a CUDA device.
    """
    source, out = source.resolve(), out.resolve()  # workers stand elsewhere
    refuse_existing(out)
    device = resolve_device(device)
    blocks = plan_blocks(open_probability(source)[0].shape, block=block, overlap=overlap)
    settings, mask_settings = settings or FieldSettings(), mask_settings or MaskSettings()
    decisive = decisive_settings(source, device, settings, mask_settings)
    decisive |= {"block": block, "overlap": overlap}
    start = time.perf_counter()
    with _nothing_kept_of_a_bad_prediction(out), make_workers(workers, dask) as pool:
        store = SheetStore(out, source, settings=decisive, provenance=provenance, shard=shard)
        job = Job(source, store, settings, mask_settings, device, threads)
        run = _Stages(pool, progress, math.prod(store.shape_zyx))
        with _only_one(store):
            known = {b.number: found for b in blocks if (found := read_solved(job, b.number))}
            solved = _solve(run, job, blocks, known)
            links = _compare(run, job, blocks, solved)
            places, broken = synchronise(len(blocks), links)
            _write(run, job, blocks, solved, places)
            store.finish(more=_stored_report(solved, links, broken))
    seconds = time.perf_counter() - start
    return BlocksReport(
        blocks=len(blocks), coherence=[s.coherence for s in solved],
        fallback=[number for number, s in enumerate(solved) if s.fallback],
        empty=sum(s.empty for s in solved), links=links, broken=broken, places=places,
        before=len(known), seconds=seconds, voxels_per_s=run.voxels / seconds,
    )  # fmt: skip


@contextmanager
def _nothing_kept_of_a_bad_prediction(out: Path) -> Iterator[None]:
    """Delete what is solved when a block is found bad, after the workers are gone."""
    try:
        yield
    except BadPredictionError as error:
        remove_unfinished(out)
        raise VolumeFormatError(
            f"{error}. Nothing solved of this prediction is kept: write it anew, then run the same "
            "command"
        ) from error


@contextmanager
def _only_one(store: SheetStore) -> Iterator[None]:
    """Hold the store for this process; the system frees it when the process dies.

    Raises:
        StorageError: another process holds it.
    """
    with (store.records / "solve.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"{store.path} is being written by another process; wait for it, or end it"
            ) from error
        yield


class _Stages:
    """Runs the stages on workers and tells how far they are."""

    def __init__(self, pool: Workers, progress: Progress | None, voxels: int) -> None:
        self._pool, self._progress, self.voxels = pool, progress, voxels

    def each(
        self, stage: str, run: Callable[[T], R], items: Sequence[T], *, total: int
    ) -> Iterator[tuple[T, R]]:
        """Yield item and result of what is left of `total`."""
        start = time.perf_counter()
        for done, pair in enumerate(self._pool.each(run, items), 1):
            if self._progress is not None:
                seconds = max(time.perf_counter() - start, 1e-9)
                self._progress(
                    StageProgress(
                        stage, total - len(items) + done, total, seconds,
                        eta_s=(len(items) - done) * seconds / done,
                        voxels_per_s=self.voxels * done / total / seconds,
                    )
                )  # fmt: skip
            yield pair


def _solve(
    run: _Stages, job: Job, blocks: list[Block], known: Mapping[int, Solved]
) -> list[Solved]:
    """Return what is known of every block once all are solved, by block number."""
    solved = dict(known)
    left = [block for block in blocks if block.number not in known]
    for block, found in run.each("solve", partial(solve_block, job=job), left, total=len(blocks)):
        solved[block.number] = found
    return [solved[block.number] for block in blocks]


def _compare(run: _Stages, job: Job, blocks: list[Block], solved: list[Solved]) -> list[Link]:
    """Return the links of all blocks that share voxels, ordered by their numbers."""
    tasks = []
    for block, others in zip(blocks, later_neighbours(blocks), strict=True):
        with_surface = [b for b in (block, *others) if solved[b.number].low is not None]
        if len(with_surface) > 1 and with_surface[0] is block:
            tasks.append((block, with_surface[1:]))
    compare = partial(link_block, job=job)
    found: dict[int, list[Link]] = {}
    for (block, _), links in run.each("compare", compare, tasks, total=len(tasks)):
        found[block.number] = links
    return [link for number in sorted(found) for link in found[number]]


def _write(
    run: _Stages, job: Job, blocks: list[Block], solved: list[Solved],
    places: Sequence[tuple[int, int]],
) -> None:  # fmt: skip
    """Write every shard that is missing, then the coarser levels; numbers start at 1."""
    lowest = [
        (s.low if sign > 0 else -s.high - 1) + offset
        for s, (sign, offset) in zip(solved, places, strict=True)
        if s.low is not None and s.high is not None
    ]
    base = min(lowest, default=0) - 1
    cores = CoreIndex(blocks)
    tasks = []
    for index in job.store.unfinished_blocks():
        meeting = cores.meeting(job.store.box(index))
        tasks.append(
            (
                index,
                [
                    Part(b, places[b.number][0], places[b.number][1] - base)
                    for b in meeting
                    if not solved[b.number].empty
                ],
            )
        )
    write = partial(write_shard, job=job)
    for _ in run.each("write", write, tasks, total=job.store.num_blocks()):
        pass
    halve = partial(halve_shard, job=job)
    for level in range(1, job.store.levels):
        left = [(index, level) for index in job.store.unfinished_blocks(level)]
        for _ in run.each("pyramid", halve, left, total=job.store.num_blocks(level)):
            pass


def _stored_report(
    solved: Sequence[Solved], links: Sequence[Link], broken: Sequence[Link]
) -> dict[str, Any]:
    """Return the figures that stay with the result; the same in every run."""
    coherence = [s.coherence for s in solved if not s.empty]
    return {
        "blocks": len(solved),
        "blocks_empty": sum(s.empty for s in solved),
        "blocks_without_surface": [n for n, s in enumerate(solved) if s.fallback],
        "coherence_least": min(coherence, default=0.0),
        "coherence_mean": float(np.mean(coherence)) if coherence else 0.0,
        "links": len(links),
        "broken_links": [f"{link.a}-{link.b}" for link in broken],
    }
