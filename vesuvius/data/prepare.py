"""Turns volumes of any format into prepared stores: parallel, resumable, each one atomic."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.data.process_pool import as_they_come
from vesuvius.data.sources import SourceItem
from vesuvius.data.store import (
    CHUNK,
    FORMAT_VERSION,
    TRUTH_DTYPES,
    PreparedVolume,
    ReadBox,
    StoreWriter,
    check_layout,
    index_label,
    writing,
)
from vesuvius.data.volume import Volume, check_float_range, open_volume
from vesuvius.errors import (
    ConfigError,
    LabelValueError,
    ShapeMismatchError,
    StorageError,
    VesuviusError,
    VolumeFormatError,
)
from vesuvius.types import BACKGROUND, IGNORE, SURFACE

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]

MAX_SURFACE_SHARE = 0.9
"""Above this share of the voxels a label is a solid mask, not a surface."""


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How stores are written.

    Attributes:
        chunk: edge of a chunk in voxels.
        codec: "lz4", "zstd" or "none".
        ignore_zero: partial labels: 0 means unlabelled and becomes 2.
        voxel_size_um: edge of a voxel if the files do not tell.
        overwrite: redo what is finished.
    """

    chunk: int = CHUNK
    codec: str = "lz4"
    ignore_zero: bool = False
    voxel_size_um: float | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one volume.

    Attributes:
        item: the volume.
        status: "done", "skipped" or "failed".
        error: message if failed.
        fatal: no further volume can succeed either (disk full).
    """

    item: SourceItem
    status: str
    error: str = ""
    fatal: bool = False


def target_path(out: Path, item: SourceItem) -> Path:
    """Return where the volume's store goes: OUT/<split>/<id>.zarr."""
    return out / item.split / f"{item.volume_id}.zarr"


def prepare_all(
    items: Sequence[SourceItem], out: Path, options: PrepareOptions, *, num_jobs: int = 1
) -> Iterator[Outcome]:
    """Prepare all volumes and yield each one's outcome as it comes.

    A bad volume does not stop the others; a full disk does.

    Args:
        items: what to prepare, from `sources.find_items`.
        out: root of the stores.
        options: how to write them.
        num_jobs: processes; 1 works in this one.

    Raises:
        ConfigError: an option out of range.
        StorageError: `out`, or a folder above it, is a file.
    """
    check_layout(options.chunk, options.codec)
    if num_jobs < 1:
        raise ConfigError(f"num_jobs is {num_jobs}; expected 1 or more (--jobs)")
    in_the_way = [path for path in (out, *out.parents) if path.exists() and not path.is_dir()]
    if in_the_way:
        raise StorageError(f"{out}: {in_the_way[0]} is a file; OUT must be a folder, or new")
    run = partial(attempt, out=out, options=options)
    with closing(as_they_come(run, items, num_jobs=num_jobs, if_killed=_killed)) as outcomes:
        for outcome in outcomes:
            yield outcome
            if outcome.fatal:
                return


def _killed(item: SourceItem) -> Outcome:
    return Outcome(
        item,
        "failed",
        "a worker process was killed, most likely out of memory; run again with --jobs 1",
    )


def attempt(item: SourceItem, out: Path, options: PrepareOptions) -> Outcome:
    """Prepare one volume unless it is finished; never raises on bad data."""
    try:
        done = prepare_volume(item, target_path(out, item), options)
    except StorageError as error:
        return Outcome(item, "failed", str(error), fatal=True)
    except VesuviusError as error:
        return Outcome(item, "failed", str(error))
    except MemoryError:
        return Outcome(item, "failed", f"{item.image}: out of memory; run with --jobs 1")
    except OSError as error:
        return Outcome(item, "failed", f"{item.image}: cannot be read ({error})")
    return Outcome(item, "done" if done else "skipped")


def prepare_volume(item: SourceItem, target: Path, options: PrepareOptions) -> bool:
    """Write one store; return False if it was already there and still matches its source.

    Raises:
        VesuviusError: bad input (format, shape, label values) or storage.
    """
    fingerprint = source_fingerprint(item, options)
    if not options.overwrite and _is_current(target, fingerprint):
        return False
    image = open_volume(item.image, array=item.image_array)
    label = None if item.label is None else open_volume(item.label, array=item.label_array)
    truth = {name: Volume(path) for name, path in item.truth.items() if name != "normals"}
    for other in [label, *truth.values()]:
        if other is not None and other.shape_zyx != image.shape_zyx:
            raise ShapeMismatchError(
                f"{other.path}: shape {other.shape_zyx}; its image {item.image.name} has "
                f"{image.shape_zyx}"
            )
    with writing(target, chunk=options.chunk, codec=options.codec) as writer:
        _write_arrays(writer, item, image, label, truth, options)
        writer.finish(
            {
                "source": item.image.name,
                "source_dtype": str(image.dtype),
                "shape": list(image.shape_zyx),
                "voxel_size_um": options.voxel_size_um or image.voxel_size_um,
                "voxel_size_zyx_um": _voxel_sizes(image, options),
                "scroll_id": item.scroll_id,
                "fingerprint": fingerprint,
            }
        )
    return True


def source_fingerprint(item: SourceItem, options: PrepareOptions) -> str:
    """Return a hash of the sources' names, sizes and times and of the options that matter."""
    facts: list[Any] = [
        *(FORMAT_VERSION, options.chunk, options.codec, options.ignore_zero),
        *(options.voxel_size_um, item.scroll_id),
    ]
    if item.image_array is not None:
        facts.append(item.image_array)
    for path in (item.image, item.label, *item.truth.values()):
        if path is not None:
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            for file in files:
                stat = file.stat()
                facts.append([str(file.relative_to(path.parent)), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def label_values(label: Array, where: str) -> npt.NDArray[np.uint8]:
    """Return the label as uint8.

    Args:
        label: any shape and dtype, values 0, 1, 2.
        where: named in the message.

    Raises:
        LabelValueError: other values.
    """
    if label.dtype == np.uint8:
        high = int(label.max(initial=0))
        if high <= IGNORE:
            return label
    else:
        with np.errstate(invalid="ignore"):
            small = label.astype(np.uint8)
            if np.array_equal(small, label) and int(small.max(initial=0)) <= IGNORE:
                return small
    odd = [v.item() for v in np.unique(label) if v not in (BACKGROUND, SURFACE, IGNORE)]
    hint = " (0/255 mask: divide it by 255)" if odd == [255] else ""
    raise LabelValueError(
        f"{where}: label values {odd[:8]}{hint}; expected only 0 background, 1 surface, 2 ignore"
    )


def check_surface_share(num_surface: int, num_voxels: int, where: str) -> None:
    """Raise `LabelValueError` if over 90 % of the voxels are surface."""
    if num_surface > MAX_SURFACE_SHARE * num_voxels:
        raise LabelValueError(
            f"{where}: {num_surface / num_voxels:.1%} of the voxels are surface; a surface label "
            "has about 5 %. This is a solid mask of the papyrus: export the surface, not its volume"
        )


def _write_arrays(
    writer: StoreWriter,
    item: SourceItem,
    image: Volume,
    label: Volume | None,
    truth: dict[str, Volume],
    options: PrepareOptions,
) -> None:
    shape = image.shape_zyx
    convert, dtype = _image_converter(image)
    writer.write("image", shape, dtype, convert)
    if label is not None:
        counts = np.zeros(3, np.int64)
        read = _label_reader(label, counts, ignore_zero=options.ignore_zero)
        writer.write("label", shape, np.uint8, read)
        check_surface_share(int(counts[SURFACE]), int(counts.sum()), str(label.path))
        silent = _label_reader(label, np.zeros(3, np.int64), ignore_zero=options.ignore_zero)
        writer.write_positive(index_label(silent, shape))
    for name, volume in truth.items():
        dtype = np.dtype(TRUTH_DTYPES[name])
        writer.write(name, shape, dtype, _caster(volume, dtype))
    if "normals" in item.truth:
        _write_normals(writer, item.truth["normals"], shape)


def _caster(volume: Volume, dtype: np.dtype[Any]) -> ReadBox:
    return lambda start, stop: volume.read(start, stop).astype(dtype, copy=False)


def _image_converter(image: Volume) -> tuple[ReadBox, np.dtype[Any]]:
    """Return a reader that yields uint8 or uint16, and which; floats in [0, 1] become uint16."""
    if image.dtype in (np.uint8, np.uint16):
        return image.read, image.dtype
    if image.dtype.kind != "f":
        raise VolumeFormatError(
            f"{image.path}: dtype {image.dtype}; expected uint8, uint16 or a float in [0, 1]"
        )

    def read(start: Zyx, stop: Zyx) -> Array:
        box = image.read(start, stop)
        check_float_range(box, str(image.path))
        return np.rint(box.astype(np.float64) * 65535).astype(np.uint16)

    return read, np.dtype(np.uint16)


def _label_reader(
    label: Volume, counts: npt.NDArray[np.int64], *, ignore_zero: bool
) -> Callable[[Zyx, Zyx], Array]:
    """Return a checked reader that adds the number of 0, 1, 2 it saw to `counts`."""

    def read(start: Zyx, stop: Zyx) -> Array:
        box = label_values(label.read(start, stop), str(label.path))
        if ignore_zero:
            box = np.where(box == BACKGROUND, np.uint8(IGNORE), box)
        counts[:] += np.bincount(box.ravel(), minlength=3)
        return box

    return read


def _write_normals(writer: StoreWriter, path: Path, shape: Zyx) -> None:
    normals = np.load(path, mmap_mode="r", allow_pickle=False) if path.suffix == ".npy" else None
    if normals is None or normals.shape != (3, *shape) or normals.dtype != np.int8:
        found = "another format" if normals is None else f"{normals.shape} {normals.dtype}"
        raise ShapeMismatchError(f"{path}: {found}; expected .npy of (3, {shape}) int8")
    writer.write(
        "normals",
        (3, *shape),
        np.int8,
        lambda start, stop: np.asarray(normals[(slice(None), *map(slice, start, stop))]),
    )


def _is_current(target: Path, fingerprint: str) -> bool:
    try:
        return bool(PreparedVolume(target).attributes.get("fingerprint") == fingerprint)
    except (VesuviusError, OSError):
        return False


def _voxel_sizes(image: Volume, options: PrepareOptions) -> list[float] | None:
    if options.voxel_size_um:
        return [options.voxel_size_um] * 3
    size = image.voxel_size_zyx_um
    return None if size is None else list(size)
