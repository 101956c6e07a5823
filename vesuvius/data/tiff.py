"""Reads and writes 3-D TIFF stacks, strictly: a damaged file raises, it never yields zeros."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from vesuvius.errors import StorageError, VolumeFormatError, VolumeNotFoundError
from vesuvius.storage.files import whole_file

SUFFIXES = (".tif", ".tiff")
"""File name endings taken for TIFF, compared in lower case."""


def is_tiff(path: Path) -> bool:
    """Tell whether the name ends like a TIFF's."""
    return path.suffix.lower() in SUFFIXES


class TiffStack:
    """One open TIFF seen as a (z, y, x) array, pages decoded one at a time.

    A 2-D TIFF is one slice: (1, y, x). Only the header is read on opening.

    Raises:
        VolumeNotFoundError: no such file.
        VolumeFormatError: not a TIFF, damaged, colour, 4-D, or several series.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise VolumeNotFoundError(f"{path}: no such file")
        with _strict(path):
            self._file = tifffile.TiffFile(path)
            try:
                self.shape_zyx, self.dtype = self._describe()
            except BaseException:
                self._file.close()
                raise

    def __del__(self) -> None:
        """Close the file with the last reference; absent if opening failed."""
        if hasattr(self, "_file"):
            self._file.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, z_start: int, z_stop: int) -> npt.NDArray[Any]:
        """Return slices [z_start, z_stop) as (z, y, x)."""
        out = np.empty((z_stop - z_start, *self.shape_zyx[1:]), self.dtype)
        for z in range(z_start, z_stop):
            out[z - z_start] = self.read_slice(z)
        return out

    def read_slice(self, z: int) -> npt.NDArray[Any]:
        """Return slice z as (y, x)."""
        with _strict(self.path):
            if self._whole is None:
                page = self._pages[z]
                if page is None:
                    raise VolumeFormatError(f"{self.path}: slice {z} is missing")
                return np.asarray(page.asarray()).reshape(self.shape_zyx[1:])
            return np.asarray(self._whole[z])

    def _describe(self) -> tuple[tuple[int, int, int], np.dtype[Any]]:
        num_series = len(self._file.series)
        if num_series != 1:
            shapes = [series.shape for series in self._file.series]
            raise VolumeFormatError(
                f"{self.path}: holds {num_series} image series of shapes {shapes[:4]}; expected "
                "one stack of equal slices"
            )
        series = self._file.series[0]
        shape = tuple(int(n) for n in series.shape)
        if "S" in series.axes and series.shape[series.axes.index("S")] > 1:
            raise VolumeFormatError(
                f"{self.path}: is a colour image of shape {shape}; expected one grey value a voxel"
            )
        shape = _to_three_axes(shape, self.path)
        self._pages = list(series.pages)
        size = self.path.stat().st_size
        for z, page in enumerate(self._pages):
            _check_strips(page, size, f"{self.path}: slice {z}")
        self._whole = None
        if len(self._pages) != shape[0]:  # one block under a single header, as ImageJ writes > 4 GB
            self._whole = self._block(series, shape)
        return shape, np.dtype(series.dtype)

    def _block(self, series: Any, shape: tuple[int, int, int]) -> npt.NDArray[Any]:
        """Return a series without a header a slice, mapped and not read where it lies in one piece.

        Raises:
            VolumeFormatError: the file ends before the block does.
        """
        if series.dataoffset is None:
            return np.asarray(series.asarray()).reshape(shape)
        dtype = np.dtype(series.dtype).newbyteorder(self._file.byteorder)
        end, size = series.dataoffset + series.size * dtype.itemsize, self.path.stat().st_size
        if end > size:
            raise VolumeFormatError(
                f"{self.path}: its slices end at byte {end} of a file of {size}; the file is "
                "truncated"
            )
        return np.memmap(self.path, dtype, mode="r", offset=series.dataoffset, shape=shape)


def read_tiff(path: Path) -> npt.NDArray[Any]:
    """Return the whole TIFF as (z, y, x) in its own dtype; see `TiffStack` for what raises."""
    stack = TiffStack(path)
    try:
        return stack.read(0, stack.shape_zyx[0])
    finally:
        stack.close()


def write_tiff(path: Path, volume: npt.NDArray[Any]) -> None:
    """Write (z, y, x) as an LZW multi-page TIFF, one strip a page, as the competition does.

    The file appears under its name only when it is complete.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    with whole_file(path, alone=True) as partial:
        tifffile.imwrite(
            partial,
            volume,
            compression="lzw",
            predictor=False,
            photometric="minisblack",
            rowsperstrip=volume.shape[-2],
            metadata=None,
        )


def _to_three_axes(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    if len(shape) == 2:
        return (1, shape[0], shape[1])
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    raise VolumeFormatError(
        f"{path}: is {len(shape)}-D of shape {shape}; expected 3-D (z, y, x) or one 2-D slice"
    )


def _check_strips(page: Any, file_size: int, where: str) -> None:
    if page is None:
        raise VolumeFormatError(f"{where} is missing; the file is truncated or damaged")
    ends = [
        offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    if not ends or max(ends) > file_size or min(page.databytecounts) == 0:
        raise VolumeFormatError(
            f"{where} ends at byte {max(ends, default=0)} of a file of {file_size}; "
            "the file is truncated"
        )


class _Collector(logging.Handler):
    """Keeps tifffile's complaints: it logs damage and goes on with zeros."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _strict(path: Path) -> Iterator[None]:
    """Turn tifffile's exceptions and logged damage into `VolumeFormatError`."""
    collector = _Collector()
    logger = logging.getLogger("tifffile")
    propagate = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield
    except VolumeFormatError:
        raise
    except PermissionError as error:
        raise StorageError(f"{path}: cannot be read ({error})") from error
    except Exception as error:  # codecs raise their own unrelated classes
        raise VolumeFormatError(
            f"{path}: not a readable TIFF, truncated or damaged ({error})"
        ) from error
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
    if collector.messages:
        raise VolumeFormatError(f"{path}: truncated or damaged TIFF ({collector.messages[0]})")
