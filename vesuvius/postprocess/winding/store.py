"""Zarr folders of the winding solver: reading predictions, writing fields and labels."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from vesuvius.errors import StorageError, VolumeFormatError, VolumeNotFoundError
from vesuvius.types import FloatVolume, LabelVolume

Box = tuple[slice, slice, slice]


def open_probability(path: Path) -> tuple[zarr.Array[Any], zarr.Array[Any] | None]:
    """Return the arrays `probability` and `normals` (or None) of a prediction.

    A Zarr array alone counts as the probability.

    Raises:
        VolumeNotFoundError: nothing there.
        VolumeFormatError: a group without `probability`, or not 3-D.
    """
    if not path.exists():
        raise VolumeNotFoundError(f"no prediction at {path}; expected a Zarr folder")
    try:
        node = zarr.open(path, mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise VolumeFormatError(f"{path} is not a readable Zarr folder: {error}") from error
    if isinstance(node, zarr.Array):
        arrays: dict[str, zarr.Array[Any]] = {"probability": node}
    else:
        arrays = dict(node.arrays())
    if "probability" not in arrays:
        raise VolumeFormatError(
            f"{path} holds the arrays {sorted(arrays)}; expected 'probability' (and 'normals')"
        )
    found = arrays["probability"]
    if found.ndim != 3:
        raise VolumeFormatError(f"{path}: probability has shape {found.shape}; expected (z, y, x)")
    return found, arrays.get("normals")


def read_box(
    probability: zarr.Array[Any], normals: zarr.Array[Any] | None, box: Box
) -> tuple[FloatVolume, FloatVolume | None]:
    """Return a part of a prediction as float32: uint8 / 255, int8 / 127."""
    values = np.asarray(probability[box])
    volume = values.astype(np.float32)
    if np.issubdtype(values.dtype, np.integer):
        volume /= np.float32(np.iinfo(values.dtype).max)
    if normals is None:
        return volume, None
    vectors = np.asarray(normals[(slice(None), *box)])
    out = vectors.astype(np.float32)
    if np.issubdtype(vectors.dtype, np.integer):
        out /= np.float32(127)
    return volume, out


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a `.partial` sibling that becomes `path` when the body ends without an error.

    Raises:
        StorageError: `path` exists already, or the disk refuses.
    """
    if path.exists():
        raise StorageError(f"{path} exists already; remove it or choose another --out")
    partial = path.with_name(path.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def create_outputs(
    folder: Path, shape_zyx: tuple[int, ...], chunk: int = 64
) -> dict[str, zarr.Array[Any]]:
    """Create the arrays field (float32), labels (int32) and mask (uint8) and return them."""
    group = zarr.open_group(folder, mode="w")
    chunks = tuple(min(chunk, n) for n in shape_zyx)
    dtypes: dict[str, npt.DTypeLike] = {"field": "f4", "labels": "i4", "mask": "u1"}
    return {
        name: group.create_array(name, shape=shape_zyx, chunks=chunks, dtype=dtype)
        for name, dtype in dtypes.items()
    }


def open_solved(path: Path) -> tuple[FloatVolume, LabelVolume]:
    """Return the field and the labels that `vesuvius winding` wrote.

    Raises:
        VolumeNotFoundError: nothing there.
        VolumeFormatError: one of the arrays is missing.
    """
    if not path.exists():
        raise VolumeNotFoundError(f"no labels at {path}; write them with `vesuvius winding`")
    try:
        arrays = dict(zarr.open_group(path, mode="r").arrays())
    except (FileNotFoundError, ValueError) as error:
        raise VolumeFormatError(f"{path} is not a readable Zarr group: {error}") from error
    if not {"field", "labels"} <= arrays.keys():
        raise VolumeFormatError(
            f"{path} holds the arrays {sorted(arrays)}; expected 'field' and 'labels' as "
            "`vesuvius winding` writes them"
        )
    return (
        np.asarray(arrays["field"][:], dtype=np.float32),
        np.asarray(arrays["labels"][:], dtype=np.int32),
    )
