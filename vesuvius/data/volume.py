"""Opens scans of any supported format lazily: TIFF, .npy, Zarr v2/v3, OME-Zarr, prepared stores.

Axis order is always z, y, x on the way out, whatever the file says.
"""

import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vesuvius.data.chunk_cache import ChunkCache, ChunkReader
from vesuvius.data.tiff import TiffStack, is_tiff
from vesuvius.errors import ConfigError, VolumeFormatError, VolumeNotFoundError

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]
VoxelSize = tuple[float, float, float] | None

READ_CACHE_BYTES = 256 * 2**20
"""Decoded TIFF slices or Zarr chunks one open volume may keep: overlapping windows hit them."""


class _Backend(Protocol):
    """An open file; everything in z, y, x order."""

    shape_zyx: Zyx
    dtype: np.dtype[Any]
    voxel_size_zyx_um: VoxelSize

    def read(self, start: Zyx, stop: Zyx) -> Array: ...


class Volume:
    """A scan on disk, opened on first use and once per process; pickles to its path.

    Args:
        path: TIFF file, folder of 2-D TIFF slices, .npy file, Zarr array or group, OME-Zarr image.
        level: resolution level of an OME-Zarr, 0 = full.
        array: name of the array inside a Zarr group; None picks the multiscale level, an array
            called `image`, or the only array there is.

    Raises:
        VolumeNotFoundError: nothing there.
        VolumeFormatError: not a readable 3-D volume.
        ConfigError: no such level or array.
    """

    def __init__(self, path: str | Path, *, level: int = 0, array: str | None = None) -> None:
        self.path = Path(path)
        self.level = level
        self.array = array
        self._opened: _Backend | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @property
    def _backend(self) -> _Backend:
        if self._opened is None:
            self._opened = _open_backend(self.path, self.level, self.array)
        return self._opened

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
                f"{self.path}: box {tuple(start_zyx)} to {tuple(stop_zyx)} is empty or leaves the "
                f"volume of shape {shape} (start_zyx, stop_zyx)"
            )
        return self._backend.read(start_zyx, stop_zyx)

    def read_all(self) -> Array:
        """Return the whole volume as (z, y, x)."""
        return self.read((0, 0, 0), self.shape_zyx)


def open_volume(path: str | Path, *, level: int = 0, array: str | None = None) -> Volume:
    """Return the volume at `path`, checked to be readable; see `Volume` for what raises."""
    volume = Volume(path, level=level, array=array)
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

    def __init__(self, path: Path) -> None:
        self._stack = TiffStack(path)
        self._slices = ChunkCache(READ_CACHE_BYTES)
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

    def __init__(self, folder: Path) -> None:
        self._paths = slice_files(folder)
        first = TiffStack(self._paths[0])
        first.close()
        if first.shape_zyx[0] != 1:
            raise VolumeFormatError(
                f"{folder}: {self._paths[0].name} is a 3-D volume of shape {first.shape_zyx}; a "
                "folder is one volume only if it holds 2-D slices. Name one file instead"
            )
        self._slices = ChunkCache(READ_CACHE_BYTES)
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
        self.shape_zyx = _three_axes(self._data.shape, path)
        self.dtype = self._data.dtype

    def read(self, start: Zyx, stop: Zyx) -> Array:
        return np.array(self._data[tuple(map(slice, start, stop))])


class _ChunkBackend:
    """Local Zarr v3 array read without zarr-python."""

    def __init__(self, path: Path, voxel_size: VoxelSize) -> None:
        self._reader = ChunkReader(path, ChunkCache(READ_CACHE_BYTES))
        self.shape_zyx = _three_axes(self._reader.shape, path)
        self.dtype = self._reader.dtype
        self.voxel_size_zyx_um = voxel_size

    def read(self, start: Zyx, stop: Zyx) -> Array:
        return self._reader.read(start, stop)


class _ZarrBackend:
    """Any Zarr array through zarr-python, its axes brought into z, y, x order."""

    def __init__(self, data: Any, axes: str | None, voxel_size: VoxelSize, path: Path) -> None:
        self._data = data
        self._axes = axes or "zyx"
        if axes is None:
            self.shape_zyx = _three_axes(data.shape, path)
        else:
            self.shape_zyx = _named_axes(data.shape, axes, path)
        self.dtype = np.dtype(data.dtype)
        self.voxel_size_zyx_um = voxel_size
        self._path = path

    def read(self, start: Zyx, stop: Zyx) -> Array:
        box = dict(zip("zyx", map(slice, start, stop), strict=True))
        try:
            data = np.asarray(self._data[tuple(box.get(axis, 0) for axis in self._axes)])
        except Exception as error:  # codecs raise their own unrelated classes
            raise VolumeFormatError(f"{self._path}: damaged Zarr array ({error})") from error
        spatial = [axis for axis in self._axes if axis in "zyx"]
        return np.ascontiguousarray(data.transpose([spatial.index(axis) for axis in "zyx"]))


def slice_files(folder: Path) -> list[Path]:
    """Return the TIFFs of a folder ordered by the numbers in their names, then by name."""
    files = [p for p in folder.iterdir() if is_tiff(p) and not p.name.startswith(".")]
    if not files:
        raise VolumeNotFoundError(f"{folder}: holds no TIFF")
    return sorted(files, key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)], p.name))


def _open_backend(path: Path, level: int, array: str | None) -> _Backend:
    if not path.exists():
        raise VolumeNotFoundError(f"{path}: no such file or folder")
    if path.is_dir() and _is_zarr(path):
        return _open_zarr(path, level, array)
    if level != 0 or array is not None:
        raise ConfigError(
            f"{path}: level={level}, array={array!r} given, but only a Zarr group has levels or "
            "named arrays"
        )
    if path.is_dir():
        return _SliceFolderBackend(path)
    if is_tiff(path):
        return _TiffBackend(path)
    if path.suffix.lower() == ".npy":
        return _NpyBackend(path)
    raise VolumeFormatError(
        f"{path}: unknown format {path.suffix!r}; expected .tif, .tiff, .npy or a Zarr folder"
    )


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _open_zarr(path: Path, level: int, array: str | None) -> _Backend:
    import zarr

    try:
        node = zarr.open(path, mode="r")
    except Exception as error:  # malformed metadata raises many classes
        raise VolumeFormatError(f"{path}: not a readable Zarr ({error})") from error
    axes: str | None = None
    voxel_size = None
    location = path
    if isinstance(node, zarr.Group):
        scales = _multiscales(node.attrs.asdict())
        if scales is not None and array is None:
            name, axes, voxel_size = _pick_level(scales, level, path)
        else:
            name, voxel_size = _pick_array(node, array, level, path)
        if name not in node or not isinstance(node[name], zarr.Array):
            raise VolumeFormatError(f"{path}: its metadata name an array {name!r} that is missing")
        location, node = path / name, node[name]
    elif level != 0 or array is not None:
        raise ConfigError(f"{path}: is one array; level={level}, array={array!r} do not apply")
    if axes in (None, "zyx") and ChunkReader.supports(location):
        return _ChunkBackend(location, voxel_size)
    return _ZarrBackend(node, axes, voxel_size, location)


def _pick_array(group: Any, array: str | None, level: int, path: Path) -> tuple[str, VoxelSize]:
    names = sorted(name for name, _ in group.arrays())
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
    scales: dict[str, Any], level: int, path: Path
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


def _three_axes(shape: tuple[int, ...], path: Path) -> Zyx:
    if len(shape) != 3:
        raise VolumeFormatError(
            f"{path}: is {len(shape)}-D of shape {shape}; expected 3-D (z, y, x)"
        )
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _named_axes(shape: tuple[int, ...], axes: str, path: Path) -> Zyx:
    sizes = dict(zip(axes, shape, strict=True))
    extra = [size for axis, size in zip(axes, shape, strict=True) if axis == "?"]
    if sorted(a for a in axes if a != "?") != ["x", "y", "z"] or any(n != 1 for n in extra):
        raise VolumeFormatError(
            f"{path}: is {len(shape)}-D of shape {shape} with axes {axes!r}; expected z, y, x and "
            "every other axis of length 1"
        )
    return (int(sizes["z"]), int(sizes["y"]), int(sizes["x"]))
