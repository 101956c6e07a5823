"""Zarr folders of the winding solver: reading predictions, writing fields and labels."""

import math
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zarr

from vesuvius.errors import StorageError, VolumeFormatError, VolumeNotFoundError
from vesuvius.postprocess.winding.numbering import NO_LEVEL
from vesuvius.postprocess.winding.plan import Box
from vesuvius.postprocess.winding.result import WindingResult
from vesuvius.postprocess.winding.settings import FieldSettings, MaskSettings
from vesuvius.storage.block_store import CHUNK, BlockStore, remove_leftovers
from vesuvius.storage.files import plain_json, reading, storage_errors
from vesuvius.storage.ome import BlockArray
from vesuvius.types import FloatVolume, LabelVolume, Report

LABELS = "labels/sheets/0"
"""Where the numbers lie in a finished store: viewers look for segmentations under `labels`."""


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
    """Return a part of a prediction as float32: uint8 / 255, int8 / 127.

    Raises:
        VolumeFormatError: a chunk is damaged.
    """
    with reading(probability.store_path):
        values = np.asarray(probability[box])
    volume = values.astype(np.float32)
    if np.issubdtype(values.dtype, np.integer):
        volume /= np.float32(np.iinfo(values.dtype).max)
    if normals is None:
        return volume, None
    with reading(normals.store_path):
        vectors = np.asarray(normals[(slice(None), *box)])
    out = vectors.astype(np.float32)
    if np.issubdtype(vectors.dtype, np.integer):
        out /= np.float32(127)
    return volume, out


class SheetStore(BlockStore):
    """Mask, labels and field of one prediction in the making; see `BlockStore`.

    Args:
        path: Zarr folder, made by `finish`.
        source: the prediction; voxel size and place in the scan come from its OME metadata.
        settings: what decides the result; unfinished work with other settings is refused.
        provenance: facts for the reader.
        shard: edge of what is written at once, a multiple of 64 voxels.

    Raises:
        StorageError: `path` exists already, or the disk refuses.
        ConfigError: unfinished work with other settings.
        VolumeNotFoundError, VolumeFormatError: no readable prediction at `source`.
    """

    def __init__(
        self, path: Path, source: Path, *, settings: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None, shard: int = 256,
    ) -> None:  # fmt: skip
        refuse_existing(path)
        size, origin = _place(source)
        super().__init__(
            path,
            [
                # a mean would drop thin sheets
                BlockArray("mask", "uint8", pick=True, window=(0, 1)),
                BlockArray("labels", "int32", pick=True, label="sheets"),
                BlockArray("field", "float32", pick=True),
            ],
            shape_zyx=open_probability(source)[0].shape,
            attributes={
                "settings": plain_json(settings), "provenance": plain_json(provenance or {}),
            },
            block=shard, voxel_size_zyx_um=size, origin_zyx=origin,
        )  # fmt: skip

    def write_whole(self, result: WindingResult) -> None:
        """Write what one solve of the whole volume gave, and finish."""
        for index in self.unfinished_blocks():
            box = self.box(index)
            self.write(
                index,
                {
                    "mask": result.mask[box],
                    "labels": result.labels[box],
                    "field": result.field[box],
                },
            )
        kept = {k: v for k, v in result.report.items() if not k.startswith("seconds")}
        self.finish(more=kept)  # no times: the same work gives the same bytes

    def figures(self, values: Mapping[str, npt.NDArray[Any]]) -> Report:
        """Return the number of surface voxels of one shard."""
        return {"surface_voxels": int(np.count_nonzero(values["mask"]))}

    def report(self, total: Mapping[str, int]) -> Report:
        """Return figures of the whole volume; blocks of the solver are counted elsewhere."""
        voxels = math.prod(self.shape_zyx)
        return {
            "surface_voxels": total["surface_voxels"],
            "surface_share": total["surface_voxels"] / voxels,
        }


def decisive_settings(
    source: Path, device: str, settings: FieldSettings, mask_settings: MaskSettings
) -> dict[str, Any]:
    """Return what decides a result, as compared when unfinished work goes on."""
    return {
        "source": str(source),
        "device": device,
        **{f"field.{key}": value for key, value in asdict(settings).items()},
        **{f"mask.{key}": value for key, value in asdict(mask_settings).items()},
    }


def refuse_existing(path: Path) -> None:
    """Raise StorageError if there is something at `path`; drop what a killed run left beside it."""
    remove_leftovers(path)
    if path.exists():
        raise StorageError(f"{path} exists already; remove it or choose another --out")


def _place(source: Path) -> tuple[tuple[float, ...] | None, tuple[int, ...]]:
    """Return voxel size in micrometres, if known, and first voxel in the scan of a prediction."""
    node = zarr.open(source, mode="r")
    ome = dict(node.attrs).get("ome") if isinstance(node, zarr.Group) else None
    if not isinstance(ome, Mapping) or not ome.get("multiscales"):
        return None, (0, 0, 0)
    image = cast("list[dict[str, Any]]", ome["multiscales"])[0]
    steps = {
        step["type"]: step[step["type"]]
        for step in image["datasets"][0]["coordinateTransformations"]
    }
    size = steps.get("scale", [1.0] * 3)[-3:]
    shift = steps.get("translation", [0.0] * 3)[-3:]
    origin = tuple(round(t / s) for t, s in zip(shift, size, strict=True))
    known = all(axis.get("unit") == "micrometer" for axis in image["axes"][-3:])
    return (tuple(size) if known else None), origin


def save_arrays(folder: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as a Zarr group that appears whole; where one is already, it stays.

    Numbers like NO_LEVEL that fill most of an array take no room.

    Raises:
        StorageError: the disk is full.
    """
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        with storage_errors(folder):
            partial.mkdir(parents=True)
            group = zarr.open_group(partial, mode="w")
            for name, data in arrays.items():
                chunks = tuple(min(CHUNK, n) for n in data.shape)
                group.create_array(
                    name, shape=data.shape, chunks=chunks, dtype=data.dtype,
                    shards=tuple(-(-n // c) * c for n, c in zip(data.shape, chunks, strict=True)),
                    fill_value=NO_LEVEL if name == "level" else 0,
                )[:] = data  # fmt: skip
            try:
                partial.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_solved(path: Path) -> tuple[FloatVolume, LabelVolume]:
    """Return the field and the labels that `vesuvius winding` wrote.

    Raises:
        VolumeNotFoundError: nothing there.
        VolumeFormatError: one of the arrays is missing or damaged.
    """
    if not path.exists():
        raise VolumeNotFoundError(f"no labels at {path}; write them with `vesuvius winding`")
    try:
        group = zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise VolumeFormatError(f"{path} is not a readable Zarr group: {error}") from error
    found = [group.get(name) for name in ("field", LABELS)]
    if not all(isinstance(array, zarr.Array) for array in found):
        raise VolumeFormatError(
            f"{path} holds the arrays {sorted(name for name, _ in group.arrays())}; expected "
            f"'field' and '{LABELS}' as `vesuvius winding` writes them"
        )
    with reading(path):
        field, labels = (np.asarray(array) for array in found)
    return field.astype(np.float32, copy=False), labels.astype(np.int32, copy=False)
