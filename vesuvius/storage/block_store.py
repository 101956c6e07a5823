"""A volume written block by block: sharded OME-Zarr, one record a block, resumable."""

import contextlib
import fcntl
import json
import math
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
from vesuvius.storage.files import replace_folder, storage_errors, write_json
from vesuvius.storage.ome import BlockArray, halved, label_groups, multiscale, num_levels
from vesuvius.types import Report

Zyx = tuple[int, int, int]
Box = tuple[slice, slice, slice]

ATTRIBUTE = "vesuvius"
"""Key of this package's attributes in a group."""
CHUNK = 64
"""Chunk edge in voxels: one window layer of 64 fills whole chunks."""


class BlockStore:
    """A volume in the making: `<path>.unfinished`, and a record of each block.

    A block is one shard of each array. It is written whole under a temporary name and renamed,
    then recorded in `<path>.blocks/`; what is recorded is never written again. `finish` renames
    the group to `<path>`. Several processes may open the same store at once if they
    write different blocks; it pickles to its path.

    Args:
        path: the Zarr group when it is finished; its folder is made if missing.
        arrays: what it holds; the first one is what viewers show.
        shape_zyx: volume in voxels.
        attributes: of the group, under ATTRIBUTE; their "settings" are what decides the result:
            an unfinished store of other settings is refused.
        block: edge of a block in voxels, a multiple of 64.
        voxel_size_zyx_um: edge lengths of a voxel in micrometres, None if unknown.
        origin_zyx: first voxel of the region in its volume: becomes the OME translation.
        name: of the volume, None takes the path's stem.

    Attributes:
        records: folder of the records; it goes away with `finish`.

    Raises:
        ConfigError: wrong block edge, or unfinished work with other settings.
        StorageError: the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        arrays: Sequence[BlockArray],
        *,
        shape_zyx: Sequence[int],
        attributes: Mapping[str, Any],
        block: int = 256,
        voxel_size_zyx_um: Sequence[float] | None = None,
        origin_zyx: Sequence[int] = (0, 0, 0),
        name: str | None = None,
    ) -> None:
        if block < CHUNK or block % CHUNK:
            raise ConfigError(
                f"block is {block}; expected a multiple of {CHUNK}, the chunk (block_edge)"
            )
        self.path = path
        self.arrays = {array.name: array for array in arrays}
        self.names = list(self.arrays)
        self.block = block
        z, y, x = (int(n) for n in shape_zyx)
        self.shape_zyx: Zyx = (z, y, x)
        self.levels = num_levels(self.shape_zyx, CHUNK)
        self.records = path.with_name(path.name + ".blocks")
        self._unfinished = path.with_name(path.name + ".unfinished")
        self._attributes = dict(attributes)
        self._ome = multiscale(
            arrays, self.levels, voxel_size_zyx_um=voxel_size_zyx_um, origin_zyx=origin_zyx,
            name=name or path.stem,
        )  # fmt: skip
        self._labels = label_groups(
            arrays, self.levels, voxel_size_zyx_um=voxel_size_zyx_um, origin_zyx=origin_zyx
        )
        self._opened: dict[str, Any] = {}
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.alone():
                self._begin()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def _begin(self) -> None:
        """Make the empty store, or check that the one there is ours."""
        manifest = self.records / "manifest.json"
        work = {
            "settings": self._attributes["settings"],
            "shape_zyx": list(self.shape_zyx),
            "outputs": self.names,
            "block": self.block,
        }
        if manifest.is_file() and self._unfinished.is_dir():
            stored = json.loads(manifest.read_text(encoding="utf-8"))
            if stored != work:
                raise ConfigError(
                    f"{self._unfinished} was begun with other {_differing(stored, work)}; go on "
                    f"with those, choose another place, or delete it and {self.records.name}"
                )
            return
        for path in self.records.iterdir():  # of a store that is gone, or was not yet there
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._create_arrays(zarr.open_group(self._unfinished, mode="w", zarr_format=3))
        write_json(manifest, work)

    def _create_arrays(self, group: zarr.Group) -> None:
        for path, ome in self._labels.items():
            group.create_group(path, attributes={"ome": ome})
        for level, array in product(range(self.levels), self.arrays.values()):
            group.create_array(
                array.at(level),
                shape=(*array.lead, *self.shape_at(level)),
                shards=(*array.lead, *(self.block,) * 3),
                chunks=(*array.lead, *(CHUNK,) * 3),
                dtype=array.dtype,
                compressors=BloscCodec(
                    cname="zstd",
                    clevel=3,
                    shuffle="noshuffle" if np.dtype(array.dtype).itemsize == 1 else "shuffle",
                ),
                dimension_names=(("c",) if array.lead else ()) + ("z", "y", "x"),
            )

    def shape_at(self, level: int) -> Zyx:
        """Return the shape of one level of the pyramid: every level halves, rounded up."""
        z, y, x = (-(-n // 2**level) for n in self.shape_zyx)
        return (z, y, x)

    def array(self, name: str, level: int = 0) -> Any:
        """Return one array of the store."""
        key = self.arrays[name].at(level)
        if key not in self._opened:
            self._opened[key] = zarr.open_group(self._unfinished, mode="r+")[key]
        return self._opened[key]

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
            for name, array in self.arrays.items():
                place = (slice(None), *box) if array.lead else box
                self.array(name, level)[place] = values[name]
        write_json(self._record(index, level), self.figures(values))

    def figures(self, values: Mapping[str, npt.NDArray[Any]]) -> Report:
        """Return whole numbers of one block; `report` gets their sums."""
        del values
        return {}

    def report(self, total: Mapping[str, int]) -> Report:
        """Return the figures of the finished store.

        Args:
            total: sums of `figures` over all blocks, with "blocks".
        """
        return dict(total)

    def _record(self, index: Zyx, level: int) -> Path:
        return self.records / str(level) / f"{index[0]}_{index[1]}_{index[2]}.json"

    def unfinished_blocks(self, level: int = 0) -> list[Zyx]:
        """Return the blocks of one level that are not recorded."""
        return [index for index in self.blocks(level) if not self.is_done(index, level)]

    def num_blocks(self, level: int = 0) -> int:
        """Return how many blocks one level has."""
        return math.prod(-(-n // self.block) for n in self.shape_at(level))

    def _totals(self) -> dict[str, int]:
        total = {"blocks": self.num_blocks()}
        for index in self.blocks():
            found = json.loads(self._record(index, 0).read_text(encoding="utf-8"))
            for key, value in found.items():
                total[key] = total.get(key, 0) + value
        return total

    def finish(self, more: Mapping[str, Any] | None = None) -> bool:
        """Build the pyramid, add the attributes, rename the store into place.

        Args:
            more: further figures for the report.

        Returns:
            Whether this call finished the store: False while other processes still write blocks,
            and where another one was faster; of several processes one goes on with the result.

        Raises:
            StorageError: the disk is full.
        """
        with storage_errors(self.path), self.alone():
            if not self._unfinished.is_dir():
                return False  # another process was faster
            if self.unfinished_blocks():
                return False
            for level in range(1, self.levels):
                for index in self.unfinished_blocks(level):
                    self.halve(index, level)
            for stray in self._unfinished.rglob("*.partial"):  # of a process that was killed
                stray.unlink()
            report = {**self.report(self._totals()), **(more or {})}
            zarr.open_group(self._unfinished, mode="r+").attrs.update(
                {"ome": self._ome, ATTRIBUTE: {**self._attributes, "report": report}}
            )
            replace_folder(self._unfinished, self.path)
            shutil.rmtree(self.records, ignore_errors=True)
            return True

    def halve(self, index: Zyx, level: int) -> None:
        """Write one block of a coarser level; the finer one must be whole."""
        z, y, x = (
            slice(2 * part.start, min(2 * part.stop, n))
            for part, n in zip(self.box(index, level), self.shape_at(level - 1), strict=True)
        )
        fine = (z, y, x)
        values = {
            name: self._halved(name, level - 1, fine, pick=array.pick)
            for name, array in self.arrays.items()
        }
        self.write(index, values, level)

    def _halved(self, name: str, level: int, box: Box, *, pick: bool) -> npt.NDArray[Any]:
        """Return a box of a level at half its size, read one layer of chunks at a time."""
        array, (zs, ys, xs) = self.array(name, level), box
        layers = [
            halved(np.asarray(array[..., z : min(z + CHUNK, zs.stop), ys, xs]), pick=pick)
            for z in range(zs.start, zs.stop, CHUNK)
        ]
        return np.concatenate(layers, axis=-3)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the store; it goes away with the process that holds it."""
        self.records.mkdir(parents=True, exist_ok=True)
        with (self.records / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


_LOCK = "lock"


def _differing(stored: Mapping[str, Any], work: Mapping[str, Any]) -> str:
    """Return the names of what differs: single settings where both have some."""
    keys = [key for key in work if stored.get(key) != work[key]]
    old, new = stored.get("settings"), work["settings"]
    if "settings" not in keys or not isinstance(old, Mapping):
        return ", ".join(keys)
    keys.remove("settings")
    inner = ", ".join(key for key in {**old, **new} if old.get(key) != new.get(key))
    return ", ".join([*keys, f"settings ({inner})"])


def remove_unfinished(path: Path) -> None:
    """Delete the store in the making at `path` and its records."""
    for part in (".unfinished", ".blocks"):
        shutil.rmtree(path.with_name(path.name + part), ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Delete the records of a store that was finished just before its process was killed."""
    if path.is_dir() and not path.with_name(path.name + ".unfinished").exists():
        shutil.rmtree(path.with_name(path.name + ".blocks"), ignore_errors=True)
