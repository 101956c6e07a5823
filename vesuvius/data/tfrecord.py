"""Reads volumes out of TFRecord files without TensorFlow: framing, checksums, tf.train.Example.

A record is: length (uint64), masked CRC-32C of it, data, masked CRC-32C of the data, all little
endian. The data is a protobuf message `Example`: a map from names to lists of bytes, floats or
integers. One record holds one volume: `image`, `label` if there is one, and their shapes in
`image_shape`, `label_shape` (or `shape`), as in the competition's public `*.tfrec` shards.

Source: TensorFlow, "TFRecord and tf.train.Example" (format description); protobuf encoding guide.
"""

import gzip
import io
import math
import mmap
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from vesuvius.errors import VolumeFormatError

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]
Features = dict[str, list[memoryview] | list[float] | list[int]]

SUFFIXES = (".tfrec", ".tfrecord", ".tfrecords")
IMAGE, LABEL = "image", "label"
_ID_NAMES = ("id", "image_id", "volume_id", "fragment_id", "name")
_HEADER, _FOOTER = 12, 4
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<f4")}
"""Voxel types by bytes a voxel, where the record does not name one."""


def is_tfrecord(path: Path) -> bool:
    """Tell whether a file is called like a TFRecord file."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


class RecordFile:
    """A TFRecord file, mapped; only the headers are read to number its records.

    Args:
        path: the file.

    Attributes:
        spans: (begin, length) of each record's data; length -1 if its header is damaged, which
            ends the list: nothing behind it can be found.

    Raises:
        VolumeFormatError: empty, or compressed as a whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            try:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise VolumeFormatError(f"{path}: empty file; expected TFRecords") from error
        if self._bytes[:2] == b"\x1f\x8b":
            raise VolumeFormatError(
                f"{path}: the whole file is gzip-compressed; unpack it first (gunzip)"
            )
        self.spans = list(self._find())

    def _find(self) -> Iterator[tuple[int, int]]:
        position, size = 0, len(self._bytes)
        while position < size:
            header = self._bytes[position : position + _HEADER]
            whole = len(header) == _HEADER
            if not whole or masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
                yield position, -1
                return
            length = struct.unpack("<Q", header[:8])[0]
            yield position + _HEADER, length
            position += _HEADER + length + _FOOTER

    def data(self, number: int, *, check: bool = True) -> memoryview:
        """Return the data of one record.

        Args:
            number: from 0.
            check: compare its checksum (reads all of it).

        Raises:
            VolumeFormatError: no such record, truncated, or damaged.
        """
        if not 0 <= number < len(self.spans):
            raise VolumeFormatError(
                f"{self.path}: no record {number}; it has {len(self.spans)} (0 to "
                f"{len(self.spans) - 1})"
            )
        begin, length = self.spans[number]
        where = f"{self.path}: record {number} of {len(self.spans)}"
        if length < 0:
            raise VolumeFormatError(
                f"{where}: damaged or truncated header at byte {begin}; this and all later "
                "records are lost. Copy the file again"
            )
        stop = begin + length
        if stop + _FOOTER > len(self._bytes):
            raise VolumeFormatError(
                f"{where}: truncated; it needs {stop + _FOOTER} bytes, the file has "
                f"{len(self._bytes)}. Copy the file again"
            )
        view = memoryview(self._bytes)[begin:stop]
        if check:
            (expected,) = struct.unpack("<I", self._bytes[stop : stop + _FOOTER])
            if masked_crc(bytes(view)) != expected:
                raise VolumeFormatError(
                    f"{where}: checksum does not match, the data is damaged. Copy the file again"
                )
        return view

    def features(self, number: int, *, check: bool = True) -> Features:
        """Return the features of one record; see `data`.

        Raises:
            VolumeFormatError: not an `Example` message, or what `data` raises.
        """
        data = self.data(number, check=check)
        try:
            return parse_example(data)
        except (ValueError, IndexError, struct.error) as error:
            raise VolumeFormatError(
                f"{self.path}: record {number} of {len(self.spans)} is no tf.train.Example "
                f"({error})"
            ) from error


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of `data` as records store it: rotated by 15 bits, plus a constant."""
    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def parse_example(data: memoryview) -> Features:
    """Return name -> values of a serialised `tf.train.Example`; bytes are views, not copies.

    Raises:
        ValueError: not that message.
    """
    found: Features = {}
    for number, features in _fields(data):
        if number != 1 or not isinstance(features, memoryview):
            raise ValueError(f"unexpected field {number}")
        for _, entry in _fields(features):
            pair = dict(_fields(_view(entry)))
            if 1 not in pair:
                raise ValueError("a feature without a name")
            name = bytes(_view(pair[1])).decode()
            found[name] = _values(_view(pair[2])) if 2 in pair else []
    return found


def _view(value: int | memoryview) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a number where a message was expected")  # noqa: TRY004 - bad data
    return value


def _values(feature: memoryview) -> list[memoryview] | list[float] | list[int]:
    """Return the values of a `Feature`: BytesList (1), FloatList (2) or Int64List (3)."""
    for kind, values in _fields(feature):
        parts = [value for _, value in _fields(_view(values))]
        if kind == 1:
            return [_view(part) for part in parts]
        if kind == 2:
            return [float(x) for p in parts for x in np.frombuffer(_view(p), "<f4")]
        if kind == 3:
            return [x for p in parts for x in ([p] if isinstance(p, int) else _varints(p))]
    return []


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of a protobuf message: integers, or views of bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(message, position)
            yield number, _signed(value)
            continue
        if wire == 2:
            length, position = _varint(message, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")
        if position + length > len(message):
            raise ValueError("a field reaches beyond its message")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return an unsigned number of 7-bit groups, lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number longer than 10 bytes")


def _varints(message: memoryview) -> Iterator[int]:
    position = 0
    while position < len(message):
        value, position = _varint(message, position)
        yield _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def volume_shape(features: Features, name: str, num_bytes: int) -> Zyx | None:
    """Return z, y, x of a feature from `<name>_shape` or `shape`; None if neither is there.

    A channel axis of length 1 at either end is dropped. Without a shape a cube is assumed, if the
    number of bytes is a cube.

    Raises:
        ValueError: not three axes.
    """
    for key in (f"{name}_shape", "shape"):
        if features.get(key):
            shape = [int(n) for n in features[key]]
            while len(shape) > 3 and 1 in (shape[0], shape[-1]):
                shape = shape[1:] if shape[0] == 1 else shape[:-1]
            if len(shape) != 3 or min(shape) < 1:
                raise ValueError(f"{key} is {[int(n) for n in features[key]]}; expected z, y, x")
            return (shape[0], shape[1], shape[2])
    edge = round(num_bytes ** (1 / 3))
    return (edge, edge, edge) if edge**3 == num_bytes and edge > 0 else None


def decode_volume(features: Features, name: str) -> Array:
    """Return the (z, y, x) array of a bytes feature.

    Accepts raw little-endian voxels (uint8, uint16 or float32 by their number of bytes, or as
    `<name>_dtype` says), the same compressed with gzip or zlib, and the content of a .npy file.

    Raises:
        ValueError: not there, of another kind, or of another size than its shape.
    """
    values = features.get(name) or []
    if len(values) != 1 or not isinstance(values[0], memoryview):
        raise ValueError(
            f"feature {name!r} is no single bytes value; the record has {sorted(features)}"
        )
    data = bytes(values[0])
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if data[:6] == b"\x93NUMPY":
        array = np.load(io.BytesIO(data), allow_pickle=False)
        return _three_axes(np.asarray(array), name)
    shape = volume_shape(features, name, len(data))
    if _is_zlib(data) and (shape is None or len(data) % math.prod(shape)):
        data = zlib.decompress(data)
        shape = volume_shape(features, name, len(data))
    if shape is None:
        raise ValueError(f"{name!r} has {len(data)} bytes and no {name}_shape feature")
    dtype = _dtype(features, name, len(data), shape)
    return np.frombuffer(data, dtype).reshape(shape)


def _is_zlib(data: bytes) -> bool:
    return len(data) > 2 and data[0] == 0x78 and (data[0] * 256 + data[1]) % 31 == 0


def _three_axes(array: Array, name: str) -> Array:
    squeezed = array.reshape([n for n in array.shape if n > 1]) if array.ndim > 3 else array
    if squeezed.ndim != 3:
        raise ValueError(f"{name!r} has shape {array.shape}; expected z, y, x")
    return squeezed


def _dtype(features: Features, name: str, num_bytes: int, shape: Sequence[int]) -> np.dtype[Any]:
    named = features.get(f"{name}_dtype") or features.get("dtype")
    num_voxels = math.prod(shape)
    if named and isinstance(named[0], memoryview):
        text = bytes(named[0]).decode(errors="replace")
        found = re.sub(r"[^a-z0-9]", "", text.split(".")[-1].lower())
        try:
            dtype: np.dtype[Any] = np.dtype(f"<{np.dtype(found).str[1:]}")
        except TypeError as error:
            raise ValueError(f"{name}_dtype is {text!r}") from error
        if dtype.itemsize * num_voxels == num_bytes:
            return dtype
    elif num_bytes % num_voxels == 0 and num_bytes // num_voxels in _DTYPES:
        return _DTYPES[num_bytes // num_voxels]
    raise ValueError(
        f"{name!r} has {num_bytes} bytes for shape {tuple(shape)} ({num_voxels} voxels); expected "
        "1 (uint8), 2 (uint16) or 4 (float32) a voxel"
    )


class RecordVolume:
    """One array of one record as a volume: `array` is "<record number>/<feature>"."""

    voxel_size_zyx_um: tuple[float, float, float] | None = None

    def __init__(self, path: Path, array: str | None) -> None:
        match = re.fullmatch(r"(\d+)/(\w+)", array or f"0/{IMAGE}")
        if match is None:
            raise VolumeFormatError(
                f"{path}: array={array!r}; a TFRecord file needs '<record number>/<feature>', "
                f"for example '0/{IMAGE}'"
            )
        number, name = int(match[1]), match[2]
        records = RecordFile(path)
        try:
            self._data = decode_volume(records.features(number), name)
        except (ValueError, EOFError, OSError, zlib.error) as error:
            if isinstance(error, VolumeFormatError):
                raise
            raise VolumeFormatError(f"{path}: record {number}: {error}") from error
        self.shape_zyx: Zyx = self._data.shape
        self.dtype = self._data.dtype

    def read(self, start: Zyx, stop: Zyx) -> Array:
        """Return a copy of the box [start, stop)."""
        return np.array(self._data[tuple(map(slice, start, stop))])


def record_names(path: Path) -> list[tuple[str, bool]]:
    """Return each record's name and whether it has a label, without reading its voxels.

    The name is a feature such as `id`, else `<file name>_<record number>`. A damaged record is
    listed too: reading it says what is wrong with it.
    """
    records = RecordFile(path)
    found = []
    for number in range(len(records.spans)):
        name, has_label = f"{path.stem}_{number:03d}", False
        try:
            features = records.features(number, check=False)
        except VolumeFormatError:
            features = {}
        has_label = bool(features.get(LABEL))
        for key in _ID_NAMES:
            values = features.get(key)
            if values:
                value = values[0]
                name = (
                    bytes(value).decode(errors="replace")
                    if isinstance(value, memoryview)
                    else str(value)
                )
                break
        found.append((name, has_label))
    return found
