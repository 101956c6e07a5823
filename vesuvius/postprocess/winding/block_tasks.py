"""What is done to one block: solve it, compare it with its neighbours, write its part.

Every task is a function of paths and numbers, leaves its result on disk under its final name only
when it is whole, then a record, and does nothing where the record is there: any process may run
it, twice as well.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from vesuvius.errors import VolumeFormatError
from vesuvius.postprocess.winding.numbering import NO_LEVEL
from vesuvius.postprocess.winding.plan import Block, common, moved
from vesuvius.postprocess.winding.result import winding_field
from vesuvius.postprocess.winding.settings import FieldSettings, MaskSettings
from vesuvius.postprocess.winding.stitch import Link, turned, vote
from vesuvius.postprocess.winding.store import SheetStore, open_probability, read_box, save_arrays
from vesuvius.storage.files import write_json

Zyx = tuple[int, int, int]


class BadPredictionError(VolumeFormatError):
    """A block holds values that are none of a prediction: all of it must be written anew."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of a solve share.

    Attributes:
        source: the prediction.
        store: where the result goes; its records hold the fields and levels until then.
        settings: constants of the solver.
        mask_settings: constants of the mask.
        device: "cpu" or "cuda".
        threads: per task, None: all cores of its process.
    """

    source: Path
    store: SheetStore
    settings: FieldSettings
    mask_settings: MaskSettings
    device: str
    threads: int | None

    def solved(self, number: int) -> Path:
        """Return the folder with the arrays `level` and `field` of a block."""
        return self.store.records / "solved" / str(number)

    def links(self, number: int) -> Path:
        """Return the record of a block's links."""
        return self.store.records / "links" / f"{number}.json"


@dataclass(frozen=True, slots=True)
class Solved:
    """What is known of a solved block.

    Attributes:
        coherence: of its field; 0 where there is no probability at all.
        fallback: the field failed; the block stays without surface.
        empty: nothing to solve: no probability, nothing stored.
        low, high: least and greatest level of its surface, None without any.
    """

    coherence: float
    fallback: bool
    empty: bool
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """A solved block's share of a shard: numbers are turned by `sign`, then moved by `offset`."""

    block: Block
    sign: int
    offset: int


def read_solved(job: Job, number: int) -> Solved | None:
    """Return the record of a block, None if it is not solved yet."""
    path = job.solved(number).with_suffix(".json")
    if not path.is_file():
        return None
    return Solved(**json.loads(path.read_text(encoding="utf-8")))


def solve_block(block: Block, job: Job) -> Solved:
    """Solve one block of the prediction; leave its levels, and the field of its core.

    Raises:
        BadPredictionError: NaN, or values out of range.
        VolumeFormatError: a chunk is damaged.
    """
    known = read_solved(job, block.number)
    if known is not None:
        return known
    volume, normals = read_box(*open_probability(job.source), block.box())
    if not volume.any():
        solved = Solved(0.0, fallback=False, empty=True, low=None, high=None)
    else:
        try:
            result = winding_field(
                volume, normals, settings=job.settings, mask_settings=job.mask_settings,
                threads=job.threads, device=job.device,
            )  # fmt: skip
        except VolumeFormatError as error:
            place = ", ".join(f"{part.start}:{part.stop}" for part in block.box())
            raise BadPredictionError(f"{job.source}, voxels [{place}]: {error}") from error
        level = np.full(volume.shape, NO_LEVEL, np.int32)
        if not result.fallback:
            mask = result.mask > 0
            first = _first_level(result.field, result.labels)
            level[mask] = result.labels[mask] + np.int32(first - 1)
        core = moved(block.core(), block.start_zyx)
        save_arrays(job.solved(block.number), {"level": level, "field": result.field[core]})
        present = level[level != NO_LEVEL]
        solved = Solved(
            float(result.coherence), fallback=result.fallback, empty=False,
            low=int(present.min()) if present.size else None,
            high=int(present.max()) if present.size else None,
        )  # fmt: skip
    write_json(job.solved(block.number).with_suffix(".json"), asdict(solved))
    return solved


def _first_level(winding: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> int:
    """Return floor of the field on sheet 1: labels count levels from there."""
    on = labels > 0
    if not on.any():
        return 0
    return int(np.median(np.floor(winding[on]).astype(np.int64) - labels[on])) + 1


def link_block(task: tuple[Block, list[Block]], job: Job) -> list[Link]:
    """Return what the overlaps of a block with later ones say; all of them are solved."""
    block, others = task
    record = job.links(block.number)
    if record.is_file():
        return [Link(**link) for link in json.loads(record.read_text(encoding="utf-8"))["links"]]
    links = []
    for other in others:
        box = common(block.box(), other.box())
        assert box is not None, "the plan gives neighbours only"
        levels = [
            np.asarray(_array(job, k, "level")[moved(box, k.start_zyx)]) for k in (block, other)
        ]
        link = vote(block.number, other.number, levels[0], levels[1])
        if link is not None:
            links.append(link)
    write_json(record, {"links": [asdict(link) for link in links]})
    return links


def write_shard(task: tuple[Zyx, list[Part]], job: Job) -> None:
    """Write one shard of the result from the cores of the blocks that meet it."""
    index, parts = task
    if job.store.is_done(index):
        return
    box = job.store.box(index)
    start = tuple(part.start for part in box)
    shape = tuple(part.stop - part.start for part in box)
    labels, field = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for part in parts:
        inside = common(box, part.block.core())
        assert inside is not None, "the plan gives blocks that meet the shard"
        level = np.asarray(_array(job, part.block, "level")[moved(inside, part.block.start_zyx)])
        winding = np.asarray(
            _array(job, part.block, "field")[moved(inside, part.block.core_start_zyx)]
        )
        place = moved(inside, start)
        numbers = turned(level, part.sign) + np.int32(part.offset)
        labels[place] = np.where(level != NO_LEVEL, numbers, 0)
        field[place] = part.sign * winding + np.float32(part.offset)
    mask = (labels > 0).astype(np.uint8)
    job.store.write(index, {"labels": labels, "mask": mask, "field": field})


def halve_shard(task: tuple[Zyx, int], job: Job) -> None:
    """Write one shard of a coarser level; the finer one is whole."""
    index, level = task
    if not job.store.is_done(index, level):
        job.store.halve(index, level)


def _array(job: Job, block: Block, name: str) -> zarr.Array[Any]:
    found = zarr.open_group(job.solved(block.number), mode="r")[name]
    assert isinstance(found, zarr.Array)
    return found
