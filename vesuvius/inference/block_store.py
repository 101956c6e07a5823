"""A prediction written block by block: sharded OME-Zarr, one record a block, resumable."""

import contextlib
import fcntl
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.inference.accumulate import CHANNELS, NORMALS, PROBABILITY, STORED_AS, STORED_MAX
from vesuvius.inference.ome import halved, multiscale, num_levels
from vesuvius.inference.store import (
    ATTRIBUTE,
    CHUNK,
    FORMAT_VERSION,
    plain_json,
    prediction_path,
    replace_folder,
    storage_errors,
    write_json,
)
from vesuvius.inference.windows import Zyx
from vesuvius.types import Report

_LOG = logging.getLogger(__name__)

Box = tuple[slice, slice, slice]


class BlockStore:
    """One volume's prediction in the making: `<id>.zarr.unfinished`, and a record of each block.

    A block is one shard of each array. It is written whole under a temporary name and renamed,
    then recorded in `<id>.zarr.blocks/`; what is recorded is never written again. `finish` renames
    the group to `<id>.zarr`. Several processes may open the same store at once if they
    write different blocks.

    Args:
        folder: made if missing.
        volume_id: file stem.
        shape_zyx: volume in voxels.
        outputs: names of what to store: "probability", "normals", "density".
        settings: what decides the result; an unfinished store of other settings is refused.
        provenance: facts for the reader; the same in every run of the same work.
        block: edge of a block in voxels, a multiple of 64.
        voxel_size_zyx_um: edge lengths of a voxel in micrometres, None if unknown.
        origin_zyx: first voxel of the region in its volume: becomes the OME translation.

    Raises:
        ConfigError: unknown output, wrong block edge, or unfinished work with other settings.
        StorageError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        volume_id: str,
        *,
        shape_zyx: Sequence[int],
        outputs: Sequence[str] = (PROBABILITY, NORMALS),
        settings: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        block: int = 256,
        voxel_size_zyx_um: Sequence[float] | None = None,
        origin_zyx: Sequence[int] = (0, 0, 0),
    ) -> None:
        if PROBABILITY not in outputs or not set(outputs) <= set(CHANNELS):
            msg = f"outputs must hold 'probability' and may hold {list(CHANNELS)}, got {outputs!r}"
            raise ConfigError(msg)
        if block < CHUNK or block % CHUNK:
            raise ConfigError(
                f"block is {block}; expected a multiple of {CHUNK}, the chunk (block_edge)"
            )
        self.path = prediction_path(folder, volume_id)
        self.block = block
        z, y, x = (int(n) for n in shape_zyx)
        self.shape_zyx: Zyx = (z, y, x)
        self.names = [name for name in CHANNELS if name in outputs]
        self.levels = num_levels(self.shape_zyx, CHUNK)
        self._unfinished = self.path.with_name(self.path.name + ".unfinished")
        self._records = self.path.with_name(self.path.name + ".blocks")
        self._attributes = {
            "format_version": FORMAT_VERSION,
            "stored_max": {name: STORED_MAX[name] for name in self.names},
            "value": "stored / stored_max; normals ordered nz, ny, nx",
            "settings": plain_json(settings or {}),
            "provenance": plain_json(provenance or {}),
        }
        self._ome = multiscale(
            self.names, self.levels, voxel_size_zyx_um=voxel_size_zyx_um, origin_zyx=origin_zyx,
            name=volume_id,
        )  # fmt: skip
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._begin()
            self._group = zarr.open_group(self._unfinished, mode="r+")
        self._arrays: dict[str, Any] = {}

    def _begin(self) -> None:
        """Make the empty store, or check that the one there is ours."""
        manifest = self._records / "manifest.json"
        work = {
            "settings": self._attributes["settings"],
            "shape_zyx": list(self.shape_zyx),
            "outputs": self.names,
            "block": self.block,
        }
        if manifest.is_file() and self._unfinished.is_dir():
            stored = json.loads(manifest.read_text(encoding="utf-8"))
            if stored != work:
                differing = [key for key in work if stored.get(key) != work[key]]
                raise ConfigError(
                    f"{self._unfinished} was begun with other {', '.join(differing)}; go on with "
                    f"those, choose another out_dir, or delete it and {self._records.name}"
                )
            return
        if not self._unfinished.is_dir():
            shutil.rmtree(self._records, ignore_errors=True)  # of a store that is gone
        # Renamed into place whole: processes that start together end up with one store.
        fresh = self.path.with_name(f"{self.path.name}.new-{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        self._create_arrays(zarr.open_group(fresh, mode="w", zarr_format=3))
        with contextlib.suppress(FileExistsError, OSError):
            fresh.rename(self._unfinished)
        shutil.rmtree(fresh, ignore_errors=True)
        write_json(manifest, work)

    def _create_arrays(self, group: zarr.Group) -> None:
        for level, name in product(range(self.levels), self.names):
            lead: tuple[int, ...] = (3,) if name == NORMALS else ()
            group.create_array(
                array_name(name, level),
                shape=(*lead, *self.shape_at(level)),
                shards=(*lead, *(self.block,) * 3),
                chunks=(*lead, *(CHUNK,) * 3),
                dtype=np.dtype(STORED_AS[name]).name,
                compressors=BloscCodec(cname="zstd", clevel=3, shuffle="noshuffle"),
                dimension_names=(("c",) if lead else ()) + ("z", "y", "x"),
            )

    def shape_at(self, level: int) -> Zyx:
        """Return the shape of one level of the pyramid: every level halves, rounded up."""
        z, y, x = (-(-n // 2**level) for n in self.shape_zyx)
        return (z, y, x)

    def array(self, name: str, level: int = 0) -> Any:
        """Return one array of the store."""
        key = array_name(name, level)
        if key not in self._arrays:
            self._arrays[key] = self._group[key]
        return self._arrays[key]

    def blocks(self, level: int = 0) -> Iterator[Zyx]:
        """Yield the grid indices of the blocks of one level, x fastest."""
        z, y, x = (range(-(-n // self.block)) for n in self.shape_at(level))
        return product(z, y, x)

    def box(self, index: Zyx, level: int = 0) -> Box:
        """Return the voxels of one block."""
        z, y, x = (
            slice(i * self.block, min((i + 1) * self.block, n))
            for i, n in zip(index, self.shape_at(level), strict=True)
        )
        return z, y, x

    def is_done(self, index: Zyx, level: int = 0) -> bool:
        """Tell whether a block is recorded as written."""
        return self._record(index, level).is_file()

    def write(self, index: Zyx, values: Mapping[str, npt.NDArray[Any]], level: int = 0) -> None:
        """Write one block of every array, then record it.

        Raises:
            ShapeMismatchError: not the shape of the block, or an output is missing.
            StorageError: the disk is full.
        """
        box = self.box(index, level)
        shape = tuple(part.stop - part.start for part in box)
        for name in self.names:
            if name not in values or values[name].shape[-3:] != shape:
                found = values[name].shape if name in values else None
                raise ShapeMismatchError(f"block {index}: {name} is {found}, expected {shape}")
        with storage_errors(self.path):
            for name in self.names:
                place = (slice(None), *box) if name == NORMALS else box
                self.array(name, level)[place] = values[name]
        write_json(self._record(index, level), self._figures(values))

    def _figures(self, values: Mapping[str, npt.NDArray[Any]]) -> Report:
        probability = values[PROBABILITY]
        return {
            "voxels": probability.size,
            "sum": int(probability.sum(dtype=np.int64)),
            "above_half": int((probability >= STORED_MAX[PROBABILITY] / 2).sum()),
        }

    def _record(self, index: Zyx, level: int) -> Path:
        return self._records / str(level) / f"{index[0]}_{index[1]}_{index[2]}.json"

    def unfinished_blocks(self, level: int = 0) -> list[Zyx]:
        """Return the blocks of one level that are not recorded."""
        return [index for index in self.blocks(level) if not self.is_done(index, level)]

    def report(self) -> Report:
        """Return figures of all recorded blocks, also of former runs."""
        total = {"voxels": 0, "sum": 0, "above_half": 0}
        empty = 0
        for index in self.blocks():
            found = json.loads(self._record(index, 0).read_text(encoding="utf-8"))
            total = {key: total[key] + found[key] for key in total}
            empty += found["sum"] == 0
        return {
            "blocks": math.prod(-(-n // self.block) for n in self.shape_zyx),
            "blocks_empty": empty,
            "mask_share_at_half": total["above_half"] / total["voxels"],
            "probability_mean": total["sum"] / total["voxels"] / STORED_MAX[PROBABILITY],
        }

    def finish(self) -> bool:
        """Build the pyramid, add the attributes, rename the store into place.

        Returns whether the store is finished: False while other processes still write blocks.

        Raises:
            StorageError: the disk is full.
        """
        with storage_errors(self.path), self._alone():
            if not self._unfinished.is_dir():
                return True  # another process was faster
            if self.unfinished_blocks():
                return False
            for level in range(1, self.levels):
                for index in self.unfinished_blocks(level):
                    self.write(index, self._halved_block(index, level), level)
            for stray in self._unfinished.rglob("*.partial"):  # of a process that was killed
                stray.unlink()
            self._group.attrs.update(
                {"ome": self._ome, ATTRIBUTE: {**self._attributes, "report": self.report()}}
            )
            replace_folder(self._unfinished, self.path)
            shutil.rmtree(self._records, ignore_errors=True)
            return True

    def _halved_block(self, index: Zyx, level: int) -> dict[str, npt.NDArray[Any]]:
        fine = tuple(
            slice(2 * part.start, min(2 * part.stop, n))
            for part, n in zip(self.box(index, level), self.shape_at(level - 1), strict=True)
        )
        return {
            name: halved(
                np.asarray(self.array(name, level - 1)[(..., *fine)]), pick=name == NORMALS
            )
            for name in self.names
        }

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the last step; it goes away with the process that holds it."""
        self._records.mkdir(parents=True, exist_ok=True)
        with (self._records / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def array_name(name: str, level: int) -> str:
    """Return the name of an array in the group: level 0 keeps the output's own name."""
    return name if level == 0 else f"{name}_{level}"


def remove_leftovers(folder: str | os.PathLike[str], volume_id: str) -> None:
    """Delete the records of a store that was finished just before its process was killed."""
    path = prediction_path(folder, volume_id)
    unfinished = path.with_name(path.name + ".unfinished")
    if path.is_dir() and not unfinished.exists():
        shutil.rmtree(path.with_name(path.name + ".blocks"), ignore_errors=True)
