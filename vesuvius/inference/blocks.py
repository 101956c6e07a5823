"""Inference of volumes of any size into a block store: bounded memory, resumable, shared out.

The windows are those of `predict_volume` over the whole volume. A block gets the sums of every
window that touches it, added in the same order, so the stored integers are the same; its halo is
what those windows see. Blocks are worked off in columns along z, in which no window is
predicted twice; windows across the sides of a column are predicted for each column they touch.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.inference.accumulate import CHANNELS, NORMALS, STORED_AS
from vesuvius.inference.device import select_device
from vesuvius.inference.reading import ImageVolume, image_scale
from vesuvius.inference.window_run import Predict, Progress, WindowRun
from vesuvius.inference.windows import Blend, Overlap, Zyx, plan_windows
from vesuvius.storage.block_store import BlockStore
from vesuvius.types import Report

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Column:
    """Blocks that are predicted in one pass along z.

    Attributes:
        z_blocks: first and last-plus-one block along z.
        y_blocks: the same along y.
        x_blocks: the same along x.
    """

    z_blocks: tuple[int, int]
    y_blocks: tuple[int, int]
    x_blocks: tuple[int, int]


@dataclass(frozen=True, slots=True)
class BlockProgress:
    """State of the work of this process.

    Attributes:
        done: windows finished (predicted or skipped).
        total: windows of this process, without those of blocks that were there already.
        blocks_done: blocks written now or before.
        blocks_total: blocks of the volume.
        seconds: since the start.
        eta_s: estimated time to the end.
        voxels_per_s: written voxels a second.
        rss_mb: resident memory in MiB.
    """

    done: int
    total: int
    blocks_done: int
    blocks_total: int
    seconds: float
    eta_s: float
    voxels_per_s: float
    rss_mb: float

    def __str__(self) -> str:
        return (
            f"block {self.blocks_done}/{self.blocks_total}, {self.voxels_per_s:.3g} voxels/s, "
            f"{self.eta_s:.0f} s left, {self.rss_mb:.0f} MiB"
        )


def predict_blocks(
    predict: Predict,
    image: ImageVolume,
    store: BlockStore,
    *,
    roi_zyx: Sequence[int],
    overlap: Overlap = 0.5,
    batch_size: int = 1,
    blend: Blend = "gaussian",
    device: str | torch.device = "auto",
    axial_normals: bool = True,
    empty_max: float | None = None,
    occupied: Callable[[Zyx, Zyx], bool] | None = None,
    max_bytes: int = 4 << 30,
    rank: int = 0,
    world_size: int = 1,
    channels: int = 1,
    progress: Callable[[BlockProgress], None] | None = None,
) -> Report:
    """Predict the blocks that `store` lacks and finish it when none is left.

    Args:
        predict: see `Predict`.
        image: volume of the store's shape, read in slabs.
        store: where blocks go; those recorded there are not predicted again.
        roi_zyx: window in voxels.
        overlap: as in `predict_volume`.
        batch_size: windows predicted at once.
        blend: as in `predict_volume`.
        device: as in `predict_volume`.
        axial_normals: as in `predict_volume`.
        empty_max: windows whose values are all at most this are air: 0, not predicted.
        occupied: tells whether a box (start, stop) is wanted; windows in unwanted boxes are 0 and
            not even read.
        max_bytes: memory for sums and finished planes; decides how wide a column is.
        rank: number of this process.
        world_size: processes that share the volume; each takes every world_size-th column and
            none talks to another.
        channels: of the image.
        progress: called after each batch and block.

    Returns:
        Figures of this process; `finished` tells whether it is the one that finished the volume.

    Raises:
        ConfigError: rank, window, overlap or the predictor's output is wrong.
        ShapeMismatchError: image and store differ in shape.
        VolumeFormatError, CheckpointError, StorageError: as in `predict_volume`.

    Source: own.
    """
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank is {rank} of {world_size}; expected 0 to {world_size - 1}")
    image_scale(image, channels)
    if tuple(image.shape[-3:]) != store.shape_zyx:
        raise ShapeMismatchError(f"image is {image.shape}, its store {store.shape_zyx}")
    axes = plan_windows(store.shape_zyx, roi_zyx, overlap=overlap, blend=blend)
    roi = (axes[0].window, axes[1].window, axes[2].window)
    ends = store.shape_zyx
    run = WindowRun(
        predict=predict,
        image=image,
        axes=axes,
        device=select_device(device),
        batch_size=batch_size,
        outputs={},
        axial=axial_normals,
        empty_max=empty_max,
        threshold=0.5,
        progress=None,
        channels=channels,
        occupied=None
        if occupied is None
        else lambda start: occupied(start, _stop(start, roi, ends)),
    )
    work = _Work(store, run, progress)
    columns = plan_columns(store, roi, max_bytes=max_bytes, at_least=world_size)[rank::world_size]
    todo = [part for column in columns for part in work.missing(column)]
    run.total = sum(work.num_windows(part) for part in todo)
    run.progress = work.tell
    with torch.inference_mode():
        for part in todo:
            work.column(part)
    finished = store.finish()
    return work.report(finished=finished)


def _stop(start: Zyx, roi: Zyx, ends: Zyx) -> Zyx:
    z, y, x = (min(a + n, end) for a, n, end in zip(start, roi, ends, strict=True))
    return z, y, x


def plan_columns(
    store: BlockStore, roi_zyx: Zyx, *, max_bytes: int, at_least: int = 1
) -> list[Column]:
    """Return columns that cover all blocks, as wide as `max_bytes` allows.

    Args:
        store: gives the grid of blocks.
        roi_zyx: window in voxels.
        max_bytes: for the float sums of one window's depth and two copies of the planes
            that wait for a whole block.
        at_least: number of columns wanted: cut along z where there are fewer.
    """
    num_z, num_y, num_x = (-(-n // store.block) for n in store.shape_zyx)
    deep = min(roi_zyx[0], store.shape_zyx[0])
    channels = sum(CHANNELS[name] for name in store.names)
    bytes_yx = channels * (4 * deep + 2 * (store.block + deep)) + 4 * deep
    side = max(1, math.isqrt(max_bytes // bytes_yx) // store.block)
    ys, xs = ([(i, min(i + side, n)) for i in range(0, n, side)] for n in (num_y, num_x))
    depth = num_z
    if len(ys) * len(xs) < at_least:
        depth = max(1, num_z * len(ys) * len(xs) // at_least)
    zs = [(i, min(i + depth, num_z)) for i in range(0, num_z, depth)]
    return [Column(z, y, x) for z, y, x in product(zs, ys, xs)]


@dataclass(slots=True)
class _Work:
    """What one process does to a store."""

    store: BlockStore
    run: WindowRun
    progress: Callable[[BlockProgress], None] | None
    written: int = 0
    voxels: int = 0
    blocks_before: int = field(init=False)
    blocks_total: int = field(init=False)
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.blocks_total = sum(1 for _ in self.store.blocks())
        self.blocks_before = self.blocks_total - len(self.store.unfinished_blocks())

    def missing(self, column: Column) -> list[Column]:
        """Return the parts of a column whose blocks are not all recorded."""
        parts: list[Column] = []
        for z in range(*column.z_blocks):
            level = product([z], range(*column.y_blocks), range(*column.x_blocks))
            if all(self.store.is_done(index) for index in level):
                continue
            if parts and parts[-1].z_blocks[1] == z:
                parts[-1] = Column((parts[-1].z_blocks[0], z + 1), column.y_blocks, column.x_blocks)
            else:
                parts.append(Column((z, z + 1), column.y_blocks, column.x_blocks))
        return parts

    def ranges(self, column: Column) -> tuple[tuple[int, int], ...]:
        """Return the voxels of a column along z, y, x."""
        edge = self.store.block
        return tuple(
            (low * edge, min(high * edge, n))
            for (low, high), n in zip(
                (column.z_blocks, column.y_blocks, column.x_blocks),
                self.store.shape_zyx,
                strict=True,
            )
        )

    def num_windows(self, column: Column) -> int:
        """Return how many windows touch a column."""
        ranges = self.ranges(column)
        return math.prod(
            len(axis.touching(*part)) for axis, part in zip(self.run.axes, ranges, strict=True)
        )

    def column(self, column: Column) -> None:
        """Predict one column; its blocks are written as soon as they are complete."""
        z_range, y_range, x_range = self.ranges(column)
        sink = _Sink(self, column)
        self.run.outputs = {name: _SinkArray(sink, name) for name in self.store.names}
        self.run.block(y_range, x_range, z_range)

    def write(self, index: Zyx, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Store one block unless a former run did."""
        if self.store.is_done(index):
            return
        self.store.write(index, values)
        self.written += 1
        self.voxels += math.prod(part.stop - part.start for part in self.store.box(index))

    def tell(self, state: Progress) -> None:
        """Pass the state of the windows on with that of the blocks."""
        if self.progress is None:
            return
        self.progress(
            BlockProgress(
                *(state.done, state.total, self.blocks_before + self.written, self.blocks_total),
                *(state.seconds, state.eta_s, self.voxels / max(state.seconds, 1e-9)),
                state.rss_mb,
            )
        )

    def report(self, *, finished: bool) -> Report:
        """Return the figures of this process."""
        seconds = time.perf_counter() - self.started
        return {
            "shape_zyx": [float(n) for n in self.store.shape_zyx],
            "finished": finished,
            "blocks": self.blocks_total,
            "blocks_written": self.written,
            "blocks_before": self.blocks_before,
            "windows": self.run.total,
            "windows_skipped": self.run.skipped,
            "windows_once": math.prod(len(axis.starts) for axis in self.run.axes),
            "seconds": seconds,
            "voxels_per_s": self.voxels / seconds,
            "rss_peak_mb": self.run.rss_peak / 2**20,
        }


class _Sink:
    """Takes the finished planes of a column and hands whole blocks on."""

    def __init__(self, work: _Work, column: Column) -> None:
        self.work = work
        self.column = column
        self._held: dict[str, tuple[int, npt.NDArray[Any]]] = {}

    def take(self, name: str, z_start: int, planes: npt.NDArray[Any]) -> None:
        """Keep the planes of one output; write once those of all outputs are there."""
        self._held[name] = (z_start, planes)
        if len(self._held) < len(self.work.store.names):
            return
        (z_ranges, *_), stop = self.work.ranges(self.column), z_start + planes.shape[-3]
        edge = self.work.store.block
        for z in range(*self.column.z_blocks):
            low, high = z * edge, min((z + 1) * edge, z_ranges[1])
            if low >= z_start and high <= stop:
                self._write(z, slice(low - z_start, high - z_start))
        self._held.clear()

    def _write(self, z: int, planes: slice) -> None:
        store = self.work.store
        (y_low, _), (x_low, _) = self.work.ranges(self.column)[1:]
        for y, x in product(range(*self.column.y_blocks), range(*self.column.x_blocks)):
            _, ys, xs = store.box((z, y, x))
            part = (
                ...,
                planes,
                slice(ys.start - y_low, ys.stop - y_low),
                slice(xs.start - x_low, xs.stop - x_low),
            )
            self.work.write((z, y, x), {n: held[part] for n, (_, held) in self._held.items()})


class _SinkArray:
    """One output of a `_Sink`, as the accumulator wants it: whole blocks along z."""

    def __init__(self, sink: _Sink, name: str) -> None:
        store = sink.work.store
        lead = (3,) if name == NORMALS else ()
        self._sink, self._name = sink, name
        self.shape = (*lead, *store.shape_zyx)
        self.dtype = np.dtype(STORED_AS[name])
        self.shards = (*lead, *(store.block,) * 3)

    def __setitem__(self, key: tuple[slice, ...], value: npt.NDArray[Any]) -> None:
        self._sink.take(self._name, int(key[-3].start), value)
