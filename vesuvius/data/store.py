"""The prepared store: one Zarr v3 group a volume, written whole or not at all.

Layout and reasons: docs/data-format.md. Reading needs no zarr-python; writing uses it.
"""

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.data.chunk_cache import ChunkCache, ChunkReader
from vesuvius.data.crop_source import ChunkLoader, Fill
from vesuvius.data.positive_index import positive_voxels
from vesuvius.errors import ConfigError, StorageError, VolumeFormatError, VolumeNotFoundError

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]
ReadBox = Callable[[Zyx, Zyx], Array]

FORMAT_VERSION = 1
POSITIVE = "positive_voxels"
TRUTH_DTYPES = {"surface": "uint8", "wrap": "int16", "winding": "float32", "normals": "int8"}
"""Truth arrays a phantom brings along; normals are (3, z, y, x) times 127."""
CODECS = ("lz4", "zstd", "none")
CHUNK = 64
SHARD = 512
"""Longest edge of a shard: bounds what writing holds in memory (128 MiB of uint8)."""


class PreparedVolume:
    """One prepared volume, opened lazily and once per process; pickles to its path.

    Args:
        path: folder `<id>.zarr`.
        cache: decoded chunks, shared between volumes; None keeps none.

    Raises:
        VolumeNotFoundError: nothing there.
        VolumeFormatError: not a prepared volume of this format version.
    """

    def __init__(self, path: str | Path, cache: ChunkCache | None = None) -> None:
        self.path = Path(path)
        self._cache = cache
        self._readers: dict[str, ChunkReader] = {}
        meta = self.path / "zarr.json"
        if not meta.is_file():
            raise VolumeNotFoundError(f"{self.path}: no prepared volume (run `vesuvius prepare`)")
        try:
            self.attributes: dict[str, Any] = json.loads(meta.read_text("utf-8"))["attributes"]
            self.shape_zyx: Zyx = tuple(self.attributes["shape"])
            version = self.attributes["format_version"]
        except (KeyError, ValueError) as error:
            raise VolumeFormatError(
                f"{self.path}: not a prepared volume (no {error} in its attributes). "
                "Convert it with `vesuvius prepare`"
            ) from error
        if version != FORMAT_VERSION:
            raise VolumeFormatError(
                f"{self.path}: format version {version}; this program reads {FORMAT_VERSION}. "
                "Run `vesuvius prepare` again"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (PreparedVolume, (self.path,))

    @property
    def volume_id(self) -> str:
        """File name without `.zarr`."""
        return self.path.name.removesuffix(".zarr")

    def has(self, name: str) -> bool:
        """Tell whether the array exists."""
        return (self.path / name / "zarr.json").is_file()

    def array(self, name: str) -> ChunkReader:
        """Return the reader of one array.

        Raises:
            VolumeFormatError: the volume has no such array.
        """
        if name not in self._readers:
            if not self.has(name):
                raise VolumeFormatError(f"{self.path}: has no array {name!r}")
            self._readers[name] = ChunkReader(self.path / name, self._cache)
        return self._readers[name]

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the data type of one array."""
        return self.array(name).dtype

    def request(self, names: Sequence[str], start: Zyx, stop: Zyx) -> Fill:
        """Return what copies a box of an array; a memory map needs no asking ahead."""
        del names
        return lambda name, out: self.array(name).read_into(out, start, stop)

    @cached_property
    def positive(self) -> npt.NDArray[np.int32]:
        """(n, 3) surface voxels, one for each block of 8^3 that has any (z, y, x)."""
        reader = self.array(POSITIVE)
        if reader.shape[0] == 0:
            return np.empty((0, 3), np.int32)
        return reader.read((0, 0), reader.shape)


class PreparedSource:
    """A prepared volume that each process opens for itself.

    Args:
        path: folder `<id>.zarr`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.volume_id = self.path.name.removesuffix(".zarr")

    def open(self, loader: ChunkLoader) -> PreparedVolume:
        """Return the open volume; see `PreparedVolume` for what raises."""
        return PreparedVolume(self.path, loader.cache)


def list_prepared(root: str | Path) -> list[Path]:
    """Return the prepared volumes of a folder, sorted by name; half-written ones do not count.

    Raises:
        VolumeNotFoundError: the folder is missing or holds none.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise VolumeNotFoundError(f"{folder}: no such folder (root)")
    found = sorted(p for p in folder.glob("*.zarr") if (p / "zarr.json").is_file())
    if not found:
        raise VolumeNotFoundError(
            f"{folder}: holds no <id>.zarr (root). Run `vesuvius prepare SOURCE OUT` and give "
            "OUT/train"
        )
    return found


class StoreWriter:
    """Writes one prepared volume into `<id>.zarr.partial`; `writing` renames it at the end.

    Args:
        folder: the partial folder.
        chunk: edge of a chunk in voxels.
        codec: one of `CODECS`.
    """

    def __init__(self, folder: Path, *, chunk: int = CHUNK, codec: str = "lz4") -> None:
        import zarr

        self._group = zarr.create_group(folder, zarr_format=3)
        self._chunk = chunk
        self._codec = codec

    def write(self, name: str, shape: tuple[int, ...], dtype: Any, read: ReadBox) -> None:
        """Write one array shard by shard; `read(start_zyx, stop_zyx)` delivers (..., z, y, x)."""
        lead, zyx = shape[:-3], shape[-3:]
        chunk = tuple(min(self._chunk, n) for n in zyx)
        shard = tuple(
            c * max(1, min(SHARD // c, -(-n // c))) for c, n in zip(chunk, zyx, strict=True)
        )
        array = self._group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(*lead, *chunk),
            shards=(*lead, *shard),
            compressors=_compressor(self._codec),
            dimension_names=["z", "y", "x"] if not lead else ["c", "z", "y", "x"],
        )
        for start, stop in _boxes((zyx[0], zyx[1], zyx[2]), (shard[0], shard[1], shard[2])):
            box: Any = (..., *map(slice, start, stop))
            array[box] = read(start, stop)

    def write_positive(self, voxels: npt.NDArray[np.int32]) -> None:
        """Write the positive index, (n, 3) int32."""
        self._group.create_array(
            POSITIVE, data=voxels, chunks=(max(1, len(voxels)), 3), compressors=_compressor("lz4")
        )

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the group's attributes: what makes the store readable."""
        self._group.attrs.update({"format_version": FORMAT_VERSION, "axes": "zyx", **attributes})


@contextmanager
def writing(target: Path, *, chunk: int = CHUNK, codec: str = "lz4") -> Iterator[StoreWriter]:
    """Give a writer of `target`; what it wrote appears under that name only if all went well.

    Raises:
        StorageError: disk full, no permission; nothing is left behind.
        ConfigError: chunk or codec out of range.
    """
    check_layout(chunk, codec)
    partial = target.with_name(target.name + ".partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(partial)
        yield StoreWriter(partial, chunk=chunk, codec=codec)
        remove_tree(target)
        partial.replace(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)  # the first error is the one to report
        cause = _storage_cause(error)
        if cause is None:
            raise
        raise StorageError(_storage_message(target, cause)) from error


def check_layout(chunk: int, codec: str) -> None:
    """Raise `ConfigError` unless chunk is a multiple of 8 up to 512 and the codec is known."""
    if chunk % 8 or not 8 <= chunk <= SHARD:
        raise ConfigError(f"chunk is {chunk}; expected a multiple of 8 from 8 to {SHARD} (--chunk)")
    if codec not in CODECS:
        raise ConfigError(f"codec is {codec!r}; expected one of {', '.join(CODECS)} (--codec)")


def remove_tree(path: Path) -> None:
    """Delete a folder or file if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def index_label(label: ReadBox, shape_zyx: Zyx) -> npt.NDArray[np.int32]:
    """Return the positive index of a label volume, read in slabs (see `positive_index`)."""
    slab = max(8, 2**26 // max(1, shape_zyx[1] * shape_zyx[2]) // 8 * 8)
    parts = [
        positive_voxels(
            label((z, 0, 0), (min(z + slab, shape_zyx[0]), *shape_zyx[1:])), offset_zyx=(z, 0, 0)
        )
        for z in range(0, shape_zyx[0], slab)
    ]
    return np.concatenate(parts)


def _boxes(shape: Zyx, step: Zyx) -> Iterator[tuple[Zyx, Zyx]]:
    ranges = (range(0, n, s) for n, s in zip(shape, step, strict=True))
    for z, y, x in product(*ranges):
        stop = tuple(min(a + s, n) for a, s, n in zip((z, y, x), step, shape, strict=True))
        yield (z, y, x), (stop[0], stop[1], stop[2])


def _compressor(codec: str) -> Any:
    from zarr.codecs import BloscCodec

    if codec == "none":
        return None
    # Grey values of one byte gain nothing from shuffling; zstd beyond level 3 only costs time.
    return BloscCodec(
        cname="zstd" if codec == "zstd" else "lz4",
        clevel=3 if codec == "zstd" else 5,
        shuffle="noshuffle",
    )


def _storage_cause(error: BaseException | None) -> OSError | None:
    """Return the OSError of a failed write inside a chain of exceptions, if there is one."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)
    while error is not None:
        if isinstance(error, OSError) and error.errno in codes:
            return error
        error = error.__cause__ or error.__context__
    return None


def _storage_message(target: Path, cause: OSError) -> str:
    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(target.parent).free if target.parent.exists() else 0
        return (
            f"{target}: disk full ({free / 2**20:.0f} MiB free); nothing half-written was left. "
            "Free space or choose another folder, then run the same command again"
        )
    return f"{target}: cannot be written ({cause.strerror}); nothing half-written was left"
