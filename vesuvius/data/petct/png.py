"""8-bit grey PNG files, checked by their header before anything is decoded."""

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from vesuvius.errors import ShapeMismatchError, VolumeFormatError, VolumeNotFoundError
from vesuvius.storage.files import write_bytes
from vesuvius.types import ByteVolume

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def png_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in pixels from the header alone.

    Raises:
        VolumeNotFoundError: no such file.
        VolumeFormatError: no PNG, truncated, or not 8-bit grey.
    """
    try:
        with path.open("rb") as file:
            head = file.read(33)
    except OSError as error:
        raise VolumeNotFoundError(f"{path}: cannot be opened ({error.strerror}).") from error
    if len(head) < 33 or not head.startswith(_SIGNATURE) or head[12:16] != b"IHDR":
        raise VolumeFormatError(f"{path} is no PNG file, or is truncated; expected 8-bit grey PNG.")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if (bits, colour) != (8, 0):
        raise VolumeFormatError(
            f"{path} is a {bits}-bit {_COLOURS.get(colour, 'unknown')} PNG; expected 8-bit grey, "
            "one channel. Convert it (window CT and PET to 0-255 first): the values of other kinds "
            "would be rescaled by guesswork."
        )
    return height, width


def read_png(path: Path) -> ByteVolume:
    """Return the (y, x) uint8 image.

    Raises:
        VolumeNotFoundError, VolumeFormatError: as `png_size`, or the data are damaged.
    """
    size = png_size(path)
    try:
        image = imagecodecs.png_decode(path.read_bytes())
    except (imagecodecs.PngError, ValueError) as error:
        raise VolumeFormatError(f"{path} is truncated or damaged ({error}).") from error
    if image.shape != size:
        raise ShapeMismatchError(f"{path} decodes to {image.shape}; its header says {size}.")
    return np.asarray(image, dtype=np.uint8)


def write_png(path: Path, image: np.ndarray[Any, np.dtype[np.uint8]], *, level: int = 1) -> None:
    """Write a (y, x) uint8 image whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    write_bytes(path, imagecodecs.png_encode(np.ascontiguousarray(image), level=level))
