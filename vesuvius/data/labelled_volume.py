"""A Zarr image of any size with labels beside it, near or far, read chunk by chunk for crops."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.data.chunk_cache import chunks_over
from vesuvius.data.crop_source import ChunkLoader, Fill
from vesuvius.data.volume import Volume
from vesuvius.errors import ConfigError, LabelValueError, ShapeMismatchError, VolumeFormatError
from vesuvius.types import IGNORE

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]


@dataclass(frozen=True)
class LabelledVolume:
    """A region of an image and of its labels, checked; each process opens both for itself.

    Attributes:
        volume_id: name, unique in its data set.
        image, label: unopened.
        origin_zyx: first voxel of the region.
        shape_zyx: voxels of the region.
        image_dtype: uint8 or uint16.
        factor: image voxels along an edge of one label voxel.
        index: file of the positive index, `label_index.build_index`.
        label_version: changes when a chunk of the labels does, where that can be listed.
    """

    volume_id: str
    image: Volume
    label: Volume
    origin_zyx: Zyx
    shape_zyx: Zyx
    image_dtype: np.dtype[Any]
    factor: int
    index: Path | None = None
    label_version: str = ""

    def open(self, loader: ChunkLoader) -> "LabelledReader":
        """Return the open volume; nothing is read before it is asked for."""
        return LabelledReader(self, loader)


class LabelledReader:
    """An open `LabelledVolume`; boxes are in voxels of its region.

    Args:
        volume: what is read.
        loader: its chunks go through it; those of a URL are asked for ahead.
    """

    def __init__(self, volume: LabelledVolume, loader: ChunkLoader) -> None:
        self.volume = volume
        self.volume_id = volume.volume_id
        self.shape_zyx = volume.shape_zyx
        self._loader = loader

    @cached_property
    def positive(self) -> Array:
        """(n, 3) int32, mapped into memory: processes share it."""
        if self.volume.index is None:
            raise ConfigError(f"{self.volume_id}: its positive index was not built")
        return np.asarray(np.load(self.volume.index, mmap_mode="r", allow_pickle=False))

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the data type of `image` or `label`."""
        return self.volume.image_dtype if name == "image" else np.dtype(np.uint8)

    def request(self, names: Sequence[str], start: Zyx, stop: Zyx) -> Fill:
        """Start fetching the chunks under a box; the returned function waits and copies."""
        origin = self.volume.origin_zyx
        low = _add(start, origin)
        high = _add(stop, origin)
        boxes = {name: _Box(self, name, low, high) for name in names}
        return lambda name, out: boxes[name].copy_into(out)

    def array(self, name: str) -> tuple[Volume, int]:
        """Return the volume of an array and its factor."""
        if name == "image":
            return self.volume.image, 1
        if name == "label":
            return self.volume.label, self.volume.factor
        raise ConfigError(
            f"{self.volume_id}: has no {name}; volumes that were not prepared hold image and label"
        )


class _Box:
    """The chunks under one box of one array, on their way."""

    def __init__(self, reader: LabelledReader, name: str, low: Zyx, high: Zyx) -> None:
        volume, self._factor = reader.array(name)
        self._low, self._high = low, high
        self._start = _each(low, lambda n: n // self._factor)
        self._stop = _each(high, lambda n: -(-n // self._factor))
        self._chunk = volume.chunked.chunk_zyx
        self._dtype = reader.dtype(name)
        self._loader = reader._loader
        ahead = isinstance(volume.source, str)
        place = str(volume.chunked.place)
        self._wanted = []
        for index in chunks_over(self._start, self._stop, self._chunk):
            cell = (index[0], index[1], index[2])
            key = (place, volume.options.fill, cell)
            read = partial(read_chunk, volume, cell, is_label=name == "label")
            self._wanted.append((cell, key, self._loader.want(key, read, ahead=ahead)))

    def copy_into(self, out: Array) -> None:
        """Wait for the chunks and copy the box."""
        if self._factor == 1:
            self._copy(out)
            return
        coarse = np.empty([b - a for a, b in zip(self._start, self._stop, strict=True)], np.uint8)
        self._copy(coarse)
        for axis in range(3):
            coarse = coarse.repeat(self._factor, axis)
        inner = tuple(
            slice(lo - s * self._factor, hi - s * self._factor)
            for lo, hi, s in zip(self._low, self._high, self._start, strict=True)
        )
        out[...] = coarse[inner]

    def _copy(self, out: Array) -> None:
        for cell, key, wanted in self._wanted:
            chunk = self._loader.take(key, wanted)
            source, target = [], []
            for i, size, lo, hi in zip(cell, self._chunk, self._start, self._stop, strict=True):
                first, last = max(lo, i * size), min(hi, (i + 1) * size)
                source.append(slice(first - i * size, last - i * size))
                target.append(slice(first - lo, last - lo))
            out[tuple(target)] = chunk[tuple(source)]


def read_chunk(volume: Volume, cell: Zyx, *, is_label: bool) -> Array:
    """Return one chunk, cut at the volume's faces; of labels checked and as uint8."""
    chunk = volume.chunked.chunk_zyx
    start = _each(zip(cell, chunk, strict=True), lambda pair: pair[0] * pair[1])
    ends = zip(start, chunk, volume.shape_zyx, strict=True)
    stop = _each(ends, lambda end: min(end[0] + end[1], end[2]))
    data = volume.read(start, stop)
    return as_label(data, f"{volume.source}: box {start} to {stop}") if is_label else data


def as_label(data: Array, where: str) -> npt.NDArray[np.uint8]:
    """Return label values as uint8.

    Raises:
        LabelValueError: anything but 0, 1 and 2.
    """
    if data.dtype == bool:
        return data.astype(np.uint8)
    if data.size and (data.max() > IGNORE or (data.dtype.kind != "u" and data.min() < 0)):
        odd = sorted({*np.unique(data).tolist()} - {0, 1, IGNORE})[:5]
        raise LabelValueError(
            f"{where} holds label values {odd}; expected 0 background, 1 surface, 2 ignore"
        )
    return data.astype(np.uint8, copy=False)


def label_factor(image: Volume, label: Volume) -> int:
    """Return how many image voxels an edge of a label voxel covers.

    Raises:
        ShapeMismatchError: no whole factor, or the labels are finer than the image.
    """
    fine, coarse = image.shape_zyx, label.shape_zyx
    what = (
        f"{label.source} has shape {coarse} at level {label.level}, {image.source} {fine} at "
        f"level {image.level}"
    )
    if any(c > f for c, f in zip(coarse, fine, strict=True)):
        raise ShapeMismatchError(
            f"{what}: labels finer than the image are not averaged; choose the label_level of the "
            "image's resolution"
        )
    factor = max(1, round(fine[0] / coarse[0]))
    # Pyramids round a level's size up or down.
    fits = all(c in (f // factor, -(-f // factor)) for c, f in zip(coarse, fine, strict=True))
    sizes = image.voxel_size_um, label.voxel_size_um
    if sizes[0] is not None and sizes[1] is not None:
        fits = fits and abs(sizes[1] / sizes[0] / factor - 1) < 0.01
    if not fits:
        raise ShapeMismatchError(
            f"{what} (voxels of {sizes[1]} and {sizes[0]} um): expected the same shape, or one "
            "smaller by the same whole factor along z, y and x (level, label_level)"
        )
    return factor


def check_image(image: Volume) -> np.dtype[Any]:
    """Return the image's dtype.

    Raises:
        VolumeFormatError: neither uint8 nor uint16, or no Zarr.
    """
    _ = image.chunked
    if image.dtype not in (np.uint8, np.uint16):
        raise VolumeFormatError(
            f"{image.source}: is {image.dtype}; training reads uint8 and uint16 as they are. "
            "Convert it with `vesuvius prepare`, which scales"
        )
    return image.dtype


def _each(parts: Iterable[Any], function: Callable[[Any], int]) -> Zyx:
    z, y, x = (function(part) for part in parts)
    return (z, y, x)


def _add(a: Zyx, b: Zyx) -> Zyx:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])
