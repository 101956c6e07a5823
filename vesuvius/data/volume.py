"""Opens scans of any supported format lazily: TIFF, .npy, Zarr, OME-Zarr, TFRecord, our stores.

Axis order is always z, y, x on the way out, whatever the file says.
"""

import re
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from vesuvius.data.chunk_cache import ChunkCache
from vesuvius.data.disk_cache import DiskCache
from vesuvius.data.remote import RemoteSettings, as_source
from vesuvius.data.tfrecord import RecordVolume, is_tfrecord
from vesuvius.data.tiff import TiffStack, is_tiff
from vesuvius.data.volume_zarr import (
    ReadOptions,
    VoxelSize,
    is_zarr,
    open_zarr,
    three_axes,
)
from vesuvius.errors import ConfigError, VolumeFormatError, VolumeNotFoundError

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]


class _Backend(Protocol):
    """An open file; everything in z, y, x order."""

    shape_zyx: Zyx
    dtype: np.dtype[Any]
    voxel_size_zyx_um: VoxelSize

    def read(self, start: Zyx, stop: Zyx) -> Array: ...


class Chunked(Protocol):
    """How an open Zarr lies in files.

    Attributes:
        chunk_zyx: what is decoded at a time.
        file_zyx: what one file (shard or chunk) covers.
        place: folder or URL of the array.
        metadata: of the array, as text.
    """

    chunk_zyx: Zyx
    file_zyx: Zyx
    place: Path | str
    metadata: str

    def file_key(self, cell_zyx: Zyx) -> str:
        """Return the name below `place` of one file of the grid."""


class Volume:
    """A scan on disk, opened on first use and once per process; pickles to its path.

    Args:
        path: TIFF file, folder of 2-D TIFF slices, .npy file, Zarr array or group, OME-Zarr image;
            or the URL of a Zarr (http, https, s3, gs, az; file is local).
        level: resolution level of an OME-Zarr, 0 = full.
        array: name of the array inside a Zarr group; None picks the multiscale level, an array
            called `image`, or the only array there is. Of a TFRecord file
            "<record number>/<feature>"; None is "0/image".
        remote: time-out and retries of a URL.
        disk_cache: where chunks of a URL are kept; None keeps none.
        fill: value of Zarr chunks that were never written; None = what the array says.
        cache_bytes: decoded slices or chunks of a local file kept in memory; None = 256 MiB of
            slices or 32 MiB of chunks.

    Attributes:
        source: the local path or the URL.
        path: the local path; of a URL only the part behind the host, for names.

    Raises:
        VolumeNotFoundError: nothing there.
        VolumeFormatError: not a readable 3-D volume.
        ConfigError: no such level or array.
        RemoteReadError: a URL cannot be read, also later from `read`; the chunk is named.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        level: int = 0,
        array: str | None = None,
        remote: RemoteSettings | None = None,
        disk_cache: DiskCache | None = None,
        fill: int | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self.source = as_source(path)
        self.path = (
            self.source if isinstance(self.source, Path) else Path(urlsplit(self.source).path)
        )
        self.level = level
        self.array = array
        self.options = ReadOptions(remote, disk_cache, fill, cache_bytes)
        self._opened: _Backend | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @property
    def _backend(self) -> _Backend:
        if self._opened is None:
            self._opened = _open_backend(self.source, self.level, self.array, self.options)
        return self._opened

    @property
    def chunked(self) -> Chunked:
        """How a Zarr lies in files.

        Raises:
            VolumeFormatError: it is no Zarr.
        """
        backend: Any = self._backend
        if not hasattr(backend, "file_key"):
            raise VolumeFormatError(
                f"{self.source}: is no Zarr; only those are read chunk by chunk. Convert it with "
                "`vesuvius prepare`"
            )
        return backend  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """File name without its format suffix."""
        return re.sub(r"(\.ome)?\.(zarr|tiff?|npy)$", "", self.path.name, flags=re.IGNORECASE)

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels along z, y, x."""
        return self._backend.shape_zyx

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type on disk."""
        return self._backend.dtype

    @property
    def voxel_size_zyx_um(self) -> VoxelSize:
        """Edge lengths of a voxel in micrometres, None if the file does not tell."""
        return self._backend.voxel_size_zyx_um

    @property
    def voxel_size_um(self) -> float | None:
        """Edge length of a cubic voxel in micrometres, None if unknown or not cubic (1 %)."""
        size = self.voxel_size_zyx_um
        if size is None or max(size) > 1.01 * min(size):
            return None
        return float(size[0])

    def read(self, start_zyx: Zyx, stop_zyx: Zyx) -> Array:
        """Return a new (z, y, x) array of the box [start, stop) in the dtype on disk.

        Raises:
            ConfigError: the box is empty or leaves the volume.
        """
        shape = self.shape_zyx
        inside = all(
            0 <= lo < hi <= size for lo, hi, size in zip(start_zyx, stop_zyx, shape, strict=True)
        )
        if not inside:
            raise ConfigError(
                f"{self.source}: box {tuple(start_zyx)} to {tuple(stop_zyx)} is empty or leaves "
                f"the volume of shape {shape} (start_zyx, stop_zyx)"
            )
        return self._backend.read(start_zyx, stop_zyx)

    def read_all(self) -> Array:
        """Return the whole volume as (z, y, x)."""
        return self.read((0, 0, 0), self.shape_zyx)


def open_volume(
    path: str | Path,
    *,
    level: int = 0,
    array: str | None = None,
    remote: RemoteSettings | None = None,
) -> Volume:
    """Return the volume at `path`, checked to be readable; see `Volume` for what raises."""
    volume = Volume(path, level=level, array=array, remote=remote)
    _ = volume.shape_zyx
    return volume


def image_to_float(image: Array) -> npt.NDArray[np.float32]:
    """Return grey values in [0, 1] as float32, scaled by the dtype and never by the content.

    Args:
        image: any shape; uint8 (/ 255), uint16 (/ 65535) or float already in [0, 1].

    Raises:
        VolumeFormatError: NaN, a float out of range, or another dtype.
    """
    if image.dtype == np.uint8:
        return np.divide(image, 255.0, dtype=np.float32)
    if image.dtype == np.uint16:
        return np.divide(image, 65535.0, dtype=np.float32)
    check_float_range(image, "image")
    return image.astype(np.float32)


def check_float_range(image: Array, where: str) -> None:
    """Raise `VolumeFormatError` unless `image` is floating, without NaN, and inside [0, 1]."""
    if image.dtype.kind != "f":
        raise VolumeFormatError(
            f"{where}: dtype {image.dtype}; expected uint8, uint16 or a float in [0, 1]"
        )
    if image.size == 0:
        return
    low, high = float(image.min()), float(image.max())  # NaN anywhere makes both NaN
    if np.isnan(low):
        num_nan = int(np.isnan(image).sum())
        raise VolumeFormatError(f"{where}: holds NaN in {num_nan} of {image.size} voxels")
    if low < 0 or high > 1:
        raise VolumeFormatError(
            f"{where}: float values reach from {low:g} to {high:g}; expected [0, 1]. "
            "Rescale the data or store it as uint8 or uint16"
        )


class _TiffBackend:
    """TIFF stack with its last decoded slices kept."""

    voxel_size_zyx_um: VoxelSize = None

    def __init__(self, path: Path, cache_bytes: int) -> None:
        self._stack = TiffStack(path)
        self._slices = ChunkCache(cache_bytes)
        self.shape_zyx = self._stack.shape_zyx
        self.dtype = self._stack.dtype

    def read(self, start: Zyx, stop: Zyx) -> Array:
        out = np.empty([b - a for a, b in zip(start, stop, strict=True)], self.dtype)
        for z in range(start[0], stop[0]):
            out[z - start[0]] = self._slice(z)[start[1] : stop[1], start[2] : stop[2]]
        return out

    def _slice(self, z: int) -> Array:
        cached = self._slices.get((z,))
        if cached is None:
            cached = self._stack.read_slice(z)
            self._slices.put((z,), cached)
        return cached


class _SliceFolderBackend(_TiffBackend):
    """Folder of 2-D TIFFs, one slice each, in the order of the numbers in their names."""

    def __init__(self, folder: Path, cache_bytes: int) -> None:
        self._paths = slice_files(folder)
        first = TiffStack(self._paths[0])
        first.close()
        if first.shape_zyx[0] != 1:
            raise VolumeFormatError(
                f"{folder}: {self._paths[0].name} is a 3-D volume of shape {first.shape_zyx}; a "
                "folder is one volume only if it holds 2-D slices. Name one file instead"
            )
        self._slices = ChunkCache(cache_bytes)
        self.shape_zyx = (len(self._paths), *first.shape_zyx[1:])
        self.dtype = first.dtype

    def _slice(self, z: int) -> Array:
        cached = self._slices.get((z,))
        if cached is None:
            stack = TiffStack(self._paths[z])
            if stack.shape_zyx != (1, *self.shape_zyx[1:]) or stack.dtype != self.dtype:
                raise VolumeFormatError(
                    f"{self._paths[z]}: slice of shape {stack.shape_zyx[1:]} {stack.dtype}; the "
                    f"first one has {self.shape_zyx[1:]} {self.dtype}"
                )
            cached = stack.read_slice(0)
            stack.close()
            self._slices.put((z,), cached)
        return cached


class _NpyBackend:
    """Memory-mapped .npy file."""

    voxel_size_zyx_um: VoxelSize = None

    def __init__(self, path: Path) -> None:
        try:
            self._data = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise VolumeFormatError(f"{path}: not a readable .npy array ({error})") from error
        self.shape_zyx = three_axes(self._data.shape, path)
        self.dtype = self._data.dtype

    def read(self, start: Zyx, stop: Zyx) -> Array:
        return np.array(self._data[tuple(map(slice, start, stop))])


def slice_files(folder: Path) -> list[Path]:
    """Return the TIFFs of a folder ordered by the numbers in their names, then by name."""
    files = [p for p in folder.iterdir() if is_tiff(p) and not p.name.startswith(".")]
    if not files:
        raise VolumeNotFoundError(f"{folder}: holds no TIFF")
    return sorted(files, key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)], p.name))


def _open_backend(
    path: Path | str, level: int, array: str | None, options: ReadOptions
) -> _Backend:
    if isinstance(path, str):
        return open_zarr(path, level, array, options)
    if not path.exists():
        raise VolumeNotFoundError(f"{path}: no such file or folder")
    if path.is_dir() and is_zarr(path):
        return open_zarr(path, level, array, options)
    if level == 0 and is_tfrecord(path):
        return RecordVolume(path, array)
    if level != 0 or array is not None:
        raise ConfigError(
            f"{path}: level={level}, array={array!r} given, but only a Zarr group has levels or "
            "named arrays"
        )
    if path.is_dir():
        return _SliceFolderBackend(path, options.slice_bytes)
    if is_tiff(path):
        return _TiffBackend(path, options.slice_bytes)
    if path.suffix.lower() == ".npy":
        return _NpyBackend(path)
    raise VolumeFormatError(
        f"{path}: unknown format {path.suffix!r}; expected .tif, .tiff, .npy or a Zarr folder, or "
        ".tfrec"
    )
