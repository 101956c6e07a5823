"""Zarr v2/v3 arrays, groups and OME-Zarr images as (z, y, x) volumes."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.data.chunk_cache import ChunkCache, ChunkReader
from vesuvius.data.disk_cache import DiskCache
from vesuvius.data.remote import RemoteSettings
from vesuvius.errors import ConfigError, VesuviusError, VolumeFormatError, VolumeNotFoundError

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]
VoxelSize = tuple[float, float, float] | None

SLICE_CACHE_BYTES = 256 * 2**20
"""Decoded TIFF slices that one open volume keeps: every window needs many whole ones."""
CHUNK_CACHE_BYTES = 32 * 2**20
"""Decoded Zarr chunks that one open volume keeps: neighbouring windows share them."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How an array is read.

    Attributes:
        remote: time-out and retries of a URL, None = the defaults.
        disk_cache: where chunks of a URL are kept; None keeps none.
        fill: value of chunks that were never written; None = what the array says.
        cache_bytes: decoded slices or chunks kept in memory; None = 256 MiB of slices or 32 MiB of
            chunks, of which a window needs few.
    """

    remote: RemoteSettings | None = None
    disk_cache: DiskCache | None = None
    fill: int | None = None
    cache_bytes: int | None = None

    @property
    def slice_bytes(self) -> int:
        """Bytes of decoded TIFF slices kept."""
        return SLICE_CACHE_BYTES if self.cache_bytes is None else self.cache_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes of decoded Zarr chunks kept."""
        return CHUNK_CACHE_BYTES if self.cache_bytes is None else self.cache_bytes


class _ChunkBackend:
    """Local Zarr v3 array read without zarr-python."""

    def __init__(self, path: Path, voxel_size: VoxelSize, options: ReadOptions) -> None:
        self._reader = ChunkReader(path, ChunkCache(options.chunk_bytes), fill=options.fill)
        self.shape_zyx = three_axes(self._reader.shape, path)
        self.dtype = self._reader.dtype
        self.voxel_size_zyx_um = voxel_size
        self.chunk_zyx = three_axes(self._reader.chunk_shape, path)
        self.file_zyx = three_axes(self._reader.shard_shape, path)
        self.place: Path | str = path
        self.metadata = (path / "zarr.json").read_text(encoding="utf-8")

    def file_key(self, cell_zyx: Zyx) -> str:
        return "c/" + "/".join(map(str, cell_zyx))

    def read(self, start: Zyx, stop: Zyx) -> Array:
        return self._reader.read(start, stop)


class _ZarrBackend:
    """Any Zarr array through zarr-python, its axes brought into z, y, x order."""

    def __init__(
        self, data: Any, axes: str | None, voxel_size: VoxelSize, path: Path | str
    ) -> None:
        self._data = data
        self._axes = axes or "zyx"
        if axes is None:
            self.shape_zyx = three_axes(data.shape, path)
        else:
            self.shape_zyx = _named_axes(data.shape, axes, path)
        self.dtype = np.dtype(data.dtype)
        self.voxel_size_zyx_um = voxel_size
        self._path = path
        self.chunk_zyx = self._spatial(data.chunks)
        self.file_zyx = self._spatial(data.shards or data.chunks)
        self.place = path
        self.metadata = json.dumps(data.metadata.to_dict(), sort_keys=True, default=str)

    def _spatial(self, sizes: tuple[int, ...]) -> Zyx:
        z, y, x = (int(sizes[self._axes.index(axis)]) for axis in "zyx")
        return (z, y, x)

    def file_key(self, cell_zyx: Zyx) -> str:
        cells = dict(zip("zyx", cell_zyx, strict=True))
        key: str = self._data.metadata.encode_chunk_key(
            tuple(cells.get(axis, 0) for axis in self._axes)
        )
        return key

    def read(self, start: Zyx, stop: Zyx) -> Array:
        box = dict(zip("zyx", map(slice, start, stop), strict=True))
        try:
            data = np.asarray(self._data[tuple(box.get(axis, 0) for axis in self._axes)])
        except VesuviusError:
            raise
        except Exception as error:  # codecs raise their own unrelated classes
            raise VolumeFormatError(f"{self._path}: damaged Zarr array ({error})") from error
        spatial = [axis for axis in self._axes if axis in "zyx"]
        return np.ascontiguousarray(data.transpose([spatial.index(axis) for axis in "zyx"]))


def is_zarr(path: Path) -> bool:
    """Tell whether the folder is a Zarr array or group."""
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def open_zarr(
    path: Path | str, level: int, array: str | None, options: ReadOptions
) -> "_ChunkBackend | _ZarrBackend":
    """Return the array of a Zarr folder or URL; arguments and errors as `volume.Volume`."""
    import zarr

    try:
        node = zarr.open(_store(path, options), mode="r")
    except VesuviusError:
        raise
    except FileNotFoundError as error:
        raise VolumeNotFoundError(f"{path}: holds no Zarr array or group") from error
    except Exception as error:  # malformed metadata raises many classes
        raise VolumeFormatError(f"{path}: not a readable Zarr ({error})") from error
    axes: str | None = None
    voxel_size = None
    name = ""
    if isinstance(node, zarr.Group):
        scales = _multiscales(node.attrs.asdict())
        if scales is not None and array is None:
            name, axes, voxel_size = _pick_level(scales, level, path)
        else:
            name, voxel_size = _pick_array(node, array, level, path)
        if name not in node or not isinstance(node[name], zarr.Array):
            raise VolumeFormatError(f"{path}: its metadata name an array {name!r} that is missing")
        node = node[name]
    elif level != 0 or array is not None:
        raise ConfigError(f"{path}: is one array; level={level}, array={array!r} do not apply")
    if isinstance(path, Path) and axes in (None, "zyx") and ChunkReader.supports(path / name):
        return _ChunkBackend(path / name, voxel_size, options)
    place = path / name if isinstance(path, Path) else f"{path}/{name}".rstrip("/")
    return _ZarrBackend(_filled(node, options.fill), axes, voxel_size, place)


def _store(path: Path | str, options: ReadOptions) -> Any:
    """Return what zarr opens: a folder as it is, a URL with retries and the cache."""
    if isinstance(path, Path):
        return path
    from vesuvius.data.remote_store import CachedStore, remote_store  # imports zarr

    store = remote_store(path, options.remote or RemoteSettings())
    cache = options.disk_cache
    return store if cache is None else CachedStore(store, path, cache)


def _filled(array: Any, fill: int | None) -> Any:
    """Return the array with another value for chunks that were never written."""
    import zarr

    if fill is None:
        return array
    metadata = dataclasses.replace(array.metadata, fill_value=np.dtype(array.dtype).type(fill))
    return zarr.Array(
        zarr.AsyncArray(
            metadata=metadata, store_path=array.store_path, config=array.async_array.config
        )
    )


def _pick_array(
    group: Any, array: str | None, level: int, path: Path | str
) -> tuple[str, VoxelSize]:
    names = _array_names(group, array, path)
    if level != 0:
        raise ConfigError(f"{path}: level={level}, but the group is no OME-Zarr multiscale")
    size = group.attrs.asdict().get("voxel_size_zyx_um")
    voxel_size = (float(size[0]), float(size[1]), float(size[2])) if size else None
    if array is not None:
        if array not in names:
            raise ConfigError(f"{path}: has no array {array!r}; it holds {names} (array)")
        return array, voxel_size
    if "image" in names:
        return "image", voxel_size
    if len(names) != 1:
        raise VolumeFormatError(
            f"{path}: group with arrays {names}; expected one array, one called 'image', or "
            "OME-Zarr multiscales"
        )
    return names[0], voxel_size


def _array_names(group: Any, array: str | None, path: Path | str) -> list[str]:
    """Return the arrays of a group; of a URL, which cannot be listed, the one that is wanted."""
    if isinstance(path, Path):
        return sorted(name for name, _ in group.arrays())
    wanted = array or "image"
    if wanted not in group:
        raise VolumeFormatError(
            f"{path}: is no OME-Zarr multiscale and has no array {wanted!r}; give the URL of the "
            "array itself"
        )
    return [wanted]


def _multiscales(attributes: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first multiscale image of OME-Zarr 0.4 (top level) or 0.5 (under `ome`)."""
    found = attributes.get("ome", attributes)
    scales = found.get("multiscales") if isinstance(found, dict) else None
    return scales[0] if scales else None


_UNIT_UM = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}


def _pick_level(
    scales: dict[str, Any], level: int, path: Path | str
) -> tuple[str, str | None, VoxelSize]:
    """Return array name, axis letters and voxel size of one level of a multiscale image."""
    datasets = scales.get("datasets", [])
    if not 0 <= level < len(datasets):
        raise ConfigError(f"{path}: level={level}; expected 0 to {len(datasets) - 1} (level)")
    raw_axes = scales.get("axes")
    if not raw_axes:
        return datasets[level]["path"], None, None
    axes = [a if isinstance(a, str) else a["name"] for a in raw_axes]
    units = [None if isinstance(a, str) else a.get("unit") for a in raw_axes]
    scale = [1.0] * len(axes)
    found = False
    for source in (scales, datasets[level]):
        for transform in source.get("coordinateTransformations", []):
            if transform.get("type") == "scale":
                scale = [a * float(b) for a, b in zip(scale, transform["scale"], strict=True)]
                found = True
    sizes = {
        axis: s * _UNIT_UM[unit]
        for axis, s, unit in zip(axes, scale, units, strict=True)
        if unit in _UNIT_UM
    }
    known = found and all(axis in sizes for axis in "zyx")
    voxel_size = (sizes["z"], sizes["y"], sizes["x"]) if known else None
    # One letter an axis: anything that is not z, y, x must have length one.
    letters = "".join(axis if axis in ("z", "y", "x") else "?" for axis in axes)
    return datasets[level]["path"], letters, voxel_size


def three_axes(shape: tuple[int, ...], path: Path | str) -> Zyx:
    """Return the shape if it has three axes, else raise `VolumeFormatError`."""
    if len(shape) != 3:
        raise VolumeFormatError(
            f"{path}: is {len(shape)}-D of shape {shape}; expected 3-D (z, y, x)"
        )
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _named_axes(shape: tuple[int, ...], axes: str, path: Path | str) -> Zyx:
    sizes = dict(zip(axes, shape, strict=True))
    extra = [size for axis, size in zip(axes, shape, strict=True) if axis == "?"]
    if sorted(a for a in axes if a != "?") != ["x", "y", "z"] or any(n != 1 for n in extra):
        raise VolumeFormatError(
            f"{path}: is {len(shape)}-D of shape {shape} with axes {axes!r}; expected z, y, x and "
            "every other axis of length 1"
        )
    return (int(sizes["z"]), int(sizes["y"]), int(sizes["x"]))
