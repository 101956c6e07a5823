"""Predictions on disk: one Zarr v3 group per volume and the mask as TIFF, both all or nothing."""

import errno
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import tifffile
import zarr
from zarr.codecs import BloscCodec

from vesuvius.errors import ConfigError, VolumeFormatError
from vesuvius.inference.accumulate import (
    CHANNELS,
    NORMALS,
    PROBABILITY,
    STORED_AS,
    STORED_MAX,
    OutputArray,
)
from vesuvius.storage.block_store import ATTRIBUTE, CHUNK
from vesuvius.storage.files import (
    plain_json,
    reading,
    replace_folder,
    storage_error,
    storage_errors,
    whole_file,
)
from vesuvius.storage.files import write_json as write_json
from vesuvius.storage.ome import BlockArray, multiscale
from vesuvius.types import ByteVolume, FloatVolume, Report

_LOG = logging.getLogger(__name__)

FORMAT_VERSION = 1
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that only writing gives; others in the block may come from reading the image."""


def prediction_path(folder: str | os.PathLike[str], volume_id: str) -> Path:
    """Return `<folder>/<volume_id>.zarr`."""
    if not volume_id or Path(volume_id).name != volume_id:
        raise ConfigError(f"volume_id must be a plain file stem, got {volume_id!r}")
    return Path(folder) / f"{volume_id}.zarr"


def finished_prediction(
    folder: str | os.PathLike[str], volume_id: str, settings: Mapping[str, Any]
) -> bool:
    """Return whether a complete prediction made with exactly these settings lies in `folder`."""
    path = prediction_path(folder, volume_id)
    if not path.exists():
        return False
    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
    except (OSError, ValueError, KeyError) as error:
        _LOG.warning("%s is not a readable prediction (%s); it is made again", path, error)
        return False
    stored = attributes.get(ATTRIBUTE)
    if isinstance(stored, Mapping) and stored.get("settings") == plain_json(settings):
        return True
    _LOG.info("%s was made with other settings; it is made again", path)
    return False


def output_names(outputs: Sequence[str]) -> list[str]:
    """Return what to store in the order of the channels.

    Raises:
        ConfigError: an unknown name, or no probability.
    """
    if PROBABILITY not in outputs or not set(outputs) <= set(CHANNELS):
        msg = f"outputs must hold 'probability' and may hold {list(CHANNELS)}, got {outputs!r}"
        raise ConfigError(msg)
    return [name for name in CHANNELS if name in outputs]


def group_attributes(
    names: Sequence[str], settings: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a group says under ATTRIBUTE from the start: how to read it, what made it."""
    return {
        "format_version": FORMAT_VERSION,
        "stored_max": {name: STORED_MAX[name] for name in names},
        "value": "stored / stored_max; normals ordered nz, ny, nx",
        "settings": plain_json(settings),
        "provenance": plain_json(provenance),
    }


def block_arrays(names: Sequence[str]) -> list[BlockArray]:
    """Return outputs as arrays of an OME-Zarr group; the mean of normals n and -n is no normal."""
    return [
        BlockArray(
            name,
            np.dtype(STORED_AS[name]).name,
            components=CHANNELS[name] if name == NORMALS else 0,
            pick=name == NORMALS,
            window=None if name == NORMALS else (0, STORED_MAX[name]),
        )
        for name in names
    ]


class PredictionWriter:
    """Writes one volume's prediction to `<folder>/<volume_id>.zarr` under a temporary name.

    Use it as a context manager: `arrays` goes to `predict_volume(out=...)`, `finish` records the
    report, and leaving the block without an exception renames the group into place. After an
    exception nothing is left.

    Args:
        folder: made if missing.
        volume_id: file stem.
        shape_zyx: volume in voxels.
        outputs: names of what to store: "probability", "normals", "density".
        settings: what decides the result (weights, window, overlap, ...); compared on resume.
        provenance: free facts for the reader (versions, date, source file, voxel size).
        voxel_size_zyx_um: edge lengths of a voxel in micrometres, None if unknown.
        origin_zyx: first voxel of the region in its volume: becomes the OME translation.

    Raises:
        ConfigError: unknown output.
        StorageError: the folder cannot be written, or the disk is full.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        volume_id: str,
        *,
        shape_zyx: Sequence[int],
        outputs: Sequence[str] = (PROBABILITY, NORMALS),
        settings: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        voxel_size_zyx_um: Sequence[float] | None = None,
        origin_zyx: Sequence[int] = (0, 0, 0),
    ) -> None:
        self._names = output_names(outputs)
        self.path = prediction_path(folder, volume_id)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._shape = tuple(int(n) for n in shape_zyx)
        self._attributes = group_attributes(self._names, settings or {}, provenance or {})
        self._ome = multiscale(
            block_arrays(self._names), 1, voxel_size_zyx_um=voxel_size_zyx_um,
            origin_zyx=origin_zyx, name=volume_id,
        )  # fmt: skip
        self.arrays: dict[str, OutputArray] = {}
        self._group: zarr.Group | None = None

    def __enter__(self) -> Self:
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._partial, ignore_errors=True)
            self._group = zarr.open_group(self._partial, mode="w", zarr_format=3)
            for name in self._names:
                lead: tuple[int, ...] = (3,) if name == NORMALS else ()
                chunk = tuple(min(CHUNK, n) for n in self._shape)
                self.arrays[name] = self._group.create_array(
                    name,
                    shape=(*lead, *self._shape),
                    chunks=(*lead, *chunk),
                    dtype=np.dtype(STORED_AS[name]).name,
                    compressors=BloscCodec(cname="zstd", clevel=3, shuffle="noshuffle"),
                    dimension_names=(("c",) if lead else ()) + ("z", "y", "x"),
                )
        return self

    def finish(self, report: Report) -> None:
        """Record the figures of the run with the prediction."""
        self._attributes["report"] = plain_json(report)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._group is not None:
                with storage_errors(self.path):
                    self._group.attrs.update({"ome": self._ome, ATTRIBUTE: self._attributes})
                    replace_folder(self._partial, self.path)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in WRITE_ERRORS:
            raise storage_error(self.path, error) from error


def read_prediction(
    path: str | os.PathLike[str],
) -> tuple[dict[str, zarr.Array[Any]], dict[str, Any]]:
    """Return the arrays and the attributes of a finished prediction, without loading voxels.

    Raises:
        VolumeFormatError: the folder is no prediction of this package.
    """
    with reading(path):
        group = zarr.open_group(Path(path), mode="r")
        attributes = group.attrs.get(ATTRIBUTE)
    if not isinstance(attributes, Mapping):
        msg = f"{path} is not a prediction: it has no {ATTRIBUTE!r} attribute; run infer.py"
        raise VolumeFormatError(msg)
    arrays = {name: array for name, array in group.arrays() if name in CHANNELS}
    return arrays, dict(attributes)


def load_prediction(
    path: str | os.PathLike[str],
) -> tuple[FloatVolume, FloatVolume | None]:
    """Return probability (z, y, x) in [0, 1] and normals (3, z, y, x) in [-1, 1] or None, float32.

    Raises:
        VolumeFormatError: the folder is no prediction of this package, or it is damaged.
    """
    arrays, attributes = read_prediction(path)

    def values(name: str) -> FloatVolume:
        with reading(f"{path}/{name}"):
            array = np.asarray(arrays[name]).astype(np.float32)
        array /= attributes["stored_max"][name]
        return array

    return values(PROBABILITY), values(NORMALS) if NORMALS in arrays else None


def write_mask(
    path: str | os.PathLike[str],
    mask: ByteVolume,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write a (z, y, x) mask as an LZW TIFF of uint8 in {0, 1}, under a temporary name first.

    Args:
        path: file to write.
        mask: (z, y, x), 0 and 1.
        provenance: written as JSON into the image description, key "vesuvius".

    Raises:
        VolumeFormatError: not 3-D, or values other than 0 and 1.
        StorageError: the disk is full or the folder cannot be written.
    """
    target = Path(path)
    array = np.asarray(mask)
    if array.ndim != 3 or array.size == 0:
        msg = f"mask must be a non-empty 3-D volume (z, y, x), got shape {array.shape}"
        raise VolumeFormatError(msg)
    if array.dtype != np.bool_ and (array.min() < 0 or array.max() > 1 or array.dtype.kind == "f"):
        msg = (
            f"mask must hold the integers 0 and 1, got {array.dtype} from {array.min()} to "
            f"{array.max()}; threshold the probability first"
        )
        raise VolumeFormatError(msg)
    facts = {} if provenance is None else {ATTRIBUTE: plain_json(provenance)}
    with whole_file(target, alone=True) as partial:
        tifffile.imwrite(
            partial,
            array.astype(np.uint8, copy=False),
            compression="lzw",
            photometric="minisblack",
            bigtiff=array.size >= 2**31,
            metadata={"axes": "ZYX", **facts},
        )
    return target
