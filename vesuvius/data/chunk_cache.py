"""Reads boxes from local Zarr v3 arrays chunk by chunk, with a bounded cache of decoded chunks.

The prepared store keeps one shard file per array, so a chunk is a slice of a memory map plus one
blosc call. Going through zarr-python costs about 0.3 ms a read, many times the decoding itself; a
layout this reader does not know is left to zarr-python (see `volume.py`).

Source: own; the file layout is the Zarr v3 specification (core, sharding-indexed codec 1.0).
"""

import itertools
import json
import math
import mmap
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError, VolumeFormatError

Array = npt.NDArray[Any]
Index = tuple[int, ...]

MISSING = np.uint64(2**64 - 1)
"""Offset of a chunk that was never written (holds the fill value), Zarr v3 sharding."""

SUPPORTED_DTYPES = ("uint8", "uint16", "int8", "int16", "int32", "float32")


class ChunkCache:
    """Decoded chunks, least recently used dropped first, bounded in bytes.

    Args:
        max_bytes: upper bound of the arrays held; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ConfigError(f"max_bytes is {max_bytes}; expected 0 (no cache) or more")
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.hits = 0
        self.misses = 0
        self._chunks: OrderedDict[tuple[Any, ...], Array] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> Array | None:
        """Return the chunk stored under `key`, or None."""
        chunk = self._chunks.get(key)
        if chunk is None:
            self.misses += 1
            return None
        self.hits += 1
        self._chunks.move_to_end(key)
        return chunk

    def put(self, key: tuple[Any, ...], chunk: Array) -> None:
        """Keep `chunk`, dropping the least recently used until the bound holds."""
        if chunk.nbytes > self.max_bytes:
            return
        old = self._chunks.pop(key, None)
        if old is not None:
            self.num_bytes -= old.nbytes
        self._chunks[key] = chunk
        self.num_bytes += chunk.nbytes
        while self.num_bytes > self.max_bytes:
            _, dropped = self._chunks.popitem(last=False)
            self.num_bytes -= dropped.nbytes

    def __len__(self) -> int:
        return len(self._chunks)


class _Layout:
    """What `zarr.json` says about one array, for the layouts this reader knows."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.shape = tuple(int(n) for n in meta["shape"])
        self.dtype: np.dtype[Any] = np.dtype(meta["data_type"])
        self.fill = self.dtype.type(meta["fill_value"])
        self.shard = tuple(int(n) for n in meta["chunk_grid"]["configuration"]["chunk_shape"])
        codecs = meta["codecs"]
        self.sharded = codecs[0]["name"] == "sharding_indexed"
        self.chunk = self.shard
        if self.sharded:
            inner = codecs[0]["configuration"]
            self.chunk = tuple(int(n) for n in inner["chunk_shape"])
            codecs = inner["codecs"]
        self.blosc = codecs[-1]["name"] == "blosc"
        self.per_shard = tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))


def _codecs_known(codecs: list[dict[str, Any]]) -> bool:
    names = [codec["name"] for codec in codecs]
    if names not in (["bytes"], ["bytes", "blosc"]):
        return False
    endian = codecs[0].get("configuration", {}).get("endian", "little")
    return bool(endian == "little")


def _index_known(config: dict[str, Any]) -> bool:
    names = [codec["name"] for codec in config.get("index_codecs", [])]
    return names == ["bytes", "crc32c"] and config.get("index_location", "end") == "end"


def _known(meta: dict[str, Any]) -> bool:
    if meta.get("zarr_format") != 3 or meta.get("node_type") != "array":
        return False
    keys = meta.get("chunk_key_encoding", {})
    plain = (
        meta.get("data_type") in SUPPORTED_DTYPES
        and meta.get("chunk_grid", {}).get("name") == "regular"
        and keys.get("name") == "default"
        and keys.get("configuration", {}).get("separator", "/") == "/"
        and not meta.get("storage_transformers")
    )
    codecs = meta.get("codecs", [])
    if not plain or not codecs:
        return False
    if codecs[0]["name"] == "sharding_indexed" and len(codecs) == 1:
        config = codecs[0]["configuration"]
        return _codecs_known(config["codecs"]) and _index_known(config)
    return _codecs_known(codecs)


class ChunkReader:
    """Read-only access to one local Zarr v3 array of any number of axes.

    Holds memory maps once it has read something; pickles to its path alone, so every process maps
    the files for itself.

    Args:
        path: folder of the array (the one holding `zarr.json`).
        cache: where decoded chunks are kept; may be shared between readers. None keeps none.
        fill: value of chunks that were never written; None = what the array says.

    Raises:
        VolumeFormatError: the layout is not one this reader knows, or a file is damaged.
    """

    def __init__(
        self, path: Path, cache: ChunkCache | None = None, *, fill: int | None = None
    ) -> None:
        self.path = path
        meta = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        if not _known(meta):
            raise VolumeFormatError(f"{path}: Zarr layout unknown to the fast reader")
        self._layout = _Layout(meta)
        self._given_fill = fill
        if fill is not None:
            self._layout.fill = self._layout.dtype.type(fill)
        self._cache = cache
        self._maps: dict[Index, tuple[mmap.mmap, npt.NDArray[np.uint64] | None] | None] = {}

    @staticmethod
    def supports(path: Path) -> bool:
        """Tell whether the array folder at `path` has a layout this reader knows."""
        meta = path / "zarr.json"
        return meta.is_file() and _known(json.loads(meta.read_text(encoding="utf-8")))

    @property
    def shape(self) -> Index:
        """Shape of the array."""
        return self._layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the array."""
        return self._layout.dtype

    @property
    def chunk_shape(self) -> Index:
        """Shape of what is decoded at a time."""
        return self._layout.chunk

    @property
    def shard_shape(self) -> Index:
        """Shape of what lies in one file."""
        return self._layout.shard

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopened, (self.path, self._given_fill))

    def read(self, start: Index, stop: Index) -> Array:
        """Return the box [start, stop), which must lie inside the array."""
        out = np.empty([b - a for a, b in zip(start, stop, strict=True)], self.dtype)
        self.read_into(out, start, stop)
        return out

    def read_into(self, out: Array, start: Index, stop: Index) -> None:
        """Copy the box [start, stop) into `out`, which may be any (flipped, transposed) view."""
        chunk_shape = self._layout.chunk
        for index in chunks_over(start, stop, chunk_shape):
            source, target = [], []
            for i, size, lo, hi in zip(index, chunk_shape, start, stop, strict=True):
                first, last = max(lo, i * size), min(hi, (i + 1) * size)
                source.append(slice(first - i * size, last - i * size))
                target.append(slice(first - lo, last - lo))
            out[tuple(target)] = self._chunk(index)[tuple(source)]

    def _chunk(self, index: Index) -> Array:
        """Return one whole decoded chunk (beyond the array's edge it holds padding)."""
        if self._cache is None or not self._layout.blosc:
            return self._decode(index)
        key = (self.path, index)
        chunk = self._cache.get(key)
        if chunk is None:
            chunk = self._decode(index)
            self._cache.put(key, chunk)
        return chunk

    def _decode(self, index: Index) -> Array:
        layout = self._layout
        shard = tuple(i // n for i, n in zip(index, layout.per_shard, strict=True))
        mapped = self._map(shard)
        raw = None if mapped is None else self._encoded(mapped, index, shard)
        if raw is None:
            return np.broadcast_to(layout.fill, layout.chunk)
        if not layout.blosc:
            return np.frombuffer(raw, layout.dtype).reshape(layout.chunk)
        from numcodecs import blosc  # type: ignore[import-untyped]

        out = np.empty(layout.chunk, layout.dtype)
        try:
            blosc.decompress(raw, out)
        except (RuntimeError, ValueError) as error:
            raise self._damaged(f"chunk {index} does not decode ({error})") from error
        return out

    def _encoded(
        self,
        mapped: tuple[mmap.mmap, npt.NDArray[np.uint64] | None],
        index: Index,
        shard: Index,
    ) -> memoryview | None:
        """Return the encoded bytes of one chunk, None if it was never written."""
        file, table = mapped
        if table is None:
            return memoryview(file)
        layout = self._layout
        local = tuple(i - s * n for i, s, n in zip(index, shard, layout.per_shard, strict=True))
        offset, num_bytes = table[local]
        if offset == MISSING:
            return None
        first, last = int(offset), int(offset) + int(num_bytes)
        if last > len(file):
            raise self._damaged(f"chunk {index} ends at byte {last} of {len(file)}")
        return memoryview(file)[first:last]

    def _map(self, shard: Index) -> tuple[mmap.mmap, npt.NDArray[np.uint64] | None] | None:
        if shard not in self._maps:
            self._maps[shard] = self._open(shard)
        return self._maps[shard]

    def _open(self, shard: Index) -> tuple[mmap.mmap, npt.NDArray[np.uint64] | None] | None:
        path = self.path.joinpath("c", *map(str, shard))
        if not path.exists():
            return None
        # The map outlives the file object: no file descriptor is held per volume.
        with path.open("rb") as file:
            try:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise self._damaged(f"{path.name} is empty") from error
        if not self._layout.sharded:
            return mapped, None
        grid = self._layout.per_shard
        table_bytes = 16 * math.prod(grid) + 4  # two uint64 a chunk and a crc32c
        if len(mapped) < table_bytes:
            raise self._damaged(f"{path.name} has {len(mapped)} bytes, its index {table_bytes}")
        table = np.frombuffer(
            mapped[len(mapped) - table_bytes : len(mapped) - 4], np.dtype("<u8")
        ).reshape(*grid, 2)
        return mapped, table

    def _damaged(self, what: str) -> VolumeFormatError:
        return VolumeFormatError(
            f"{self.path}: damaged Zarr array: {what}. Delete the volume and run "
            "`vesuvius prepare` again"
        )


def _reopened(path: Path, fill: int | None) -> ChunkReader:
    """Return the reader in another process, without a cache."""
    return ChunkReader(path, fill=fill)


def chunks_over(start: Index, stop: Index, chunk_shape: Index) -> Iterator[Index]:
    """Yield the grid indices of all chunks that meet the box [start, stop)."""
    ranges = (
        range(lo // size, -(-hi // size))
        for lo, hi, size in zip(start, stop, chunk_shape, strict=True)
    )
    return itertools.product(*ranges)
