"""The competition's submission: a zip of one TIFF of {0, 1} a test volume, read again to check."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from vesuvius.errors import PairingError, ShapeMismatchError, StorageError, VolumeFormatError
from vesuvius.storage.files import whole_file
from vesuvius.types import ByteVolume

Zyx = tuple[int, int, int]
LIMIT_BYTES = 20 * 2**30
"""Kaggle keeps at most 20 GiB of a notebook's output."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What a checked zip holds.

    Attributes:
        path: the zip.
        num_bytes: its size.
        shapes: volume id -> (z, y, x).
        mask_share: volume id -> share of voxels that are 1.
    """

    path: Path
    num_bytes: int
    shapes: Mapping[str, Zyx]
    mask_share: Mapping[str, float]


def write_submission(
    path: Path, expected: Mapping[str, Zyx], read_mask: Callable[[str], ByteVolume]
) -> Submission:
    """Write one `<id>.tif` a test volume (LZW, a page a slice), read the zip again, check it.

    The zip appears under its name only if all of it is written.

    Args:
        path: the zip.
        expected: test volume id -> (z, y, x).
        read_mask: returns the (z, y, x) mask of {0, 1} of a volume id.

    Raises:
        VolumeFormatError: a mask that is not 3-D, or holds other values.
        ShapeMismatchError: a mask of another shape than its volume.
        StorageError: the zip cannot be written.
    """
    with (
        whole_file(path, alone=True) as partial,
        # LZW is compressed already: storing it is as small and takes no time
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for volume_id in sorted(expected):
            content = _tiff(volume_id, read_mask(volume_id), expected[volume_id])
            # a fixed date: the same masks give the same bytes
            archive.writestr(zipfile.ZipInfo(f"{volume_id}.tif"), content)
    return check_submission(path, expected)


def _tiff(volume_id: str, mask: ByteVolume, shape: Zyx) -> bytes:
    problem = mask_problem(mask)
    if problem:
        raise VolumeFormatError(f"mask of {volume_id}: {problem}")
    if mask.shape != shape:
        raise ShapeMismatchError(
            f"mask of {volume_id} has shape {mask.shape}; the test volume has {shape}"
        )
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        mask.astype(np.uint8, copy=False),
        compression="lzw",
        predictor=False,
        photometric="minisblack",
        rowsperstrip=mask.shape[-2],
        metadata=None,
    )
    return buffer.getvalue()


def check_submission(path: Path, expected: Mapping[str, Zyx]) -> Submission:
    """Re-read a submission and compare it with the test volumes.

    Args:
        path: the zip.
        expected: test volume id -> (z, y, x).

    Raises:
        VolumeFormatError: no zip, damaged, a mask that is not 3-D uint8 of {0, 1}.
        PairingError: files missing, or others than `<id>.tif`.
        ShapeMismatchError: a mask of another shape than its volume.
        StorageError: larger than Kaggle keeps.
    """
    shapes: dict[str, Zyx] = {}
    shares: dict[str, float] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(path, archive.namelist(), expected)
            damaged = archive.testzip()
            if damaged is not None:
                raise VolumeFormatError(f"{path}: {damaged} is damaged (checksum)")
            for volume_id, shape in expected.items():
                mask = _read_member(archive, f"{volume_id}.tif", path)
                if mask.shape != shape:
                    raise ShapeMismatchError(
                        f"{path}: {volume_id}.tif has shape {mask.shape}; the test volume has "
                        f"{shape}"
                    )
                shapes[volume_id] = shape
                shares[volume_id] = float(mask.mean())
    except (OSError, zipfile.BadZipFile) as error:
        raise VolumeFormatError(f"{path}: not a readable zip ({error})") from error
    size = path.stat().st_size
    if size > LIMIT_BYTES:
        raise StorageError(f"{path}: {size / 2**30:.1f} GiB; Kaggle keeps at most 20 GiB")
    return Submission(path, size, shapes, shares)


def _check_names(path: Path, names: list[str], expected: Mapping[str, Zyx]) -> None:
    wanted = {f"{volume_id}.tif" for volume_id in expected}
    missing, extra = sorted(wanted - set(names)), sorted(set(names) - wanted)
    if missing or extra or len(names) != len(set(names)):
        parts = []
        if missing:
            parts.append(f"{len(missing)} of {len(wanted)} missing, e.g. {missing[0]}")
        if extra:
            parts.append(f"{len(extra)} that are no test volume, e.g. {extra[0]}")
        if len(names) != len(set(names)):
            parts.append("a name twice")
        raise PairingError(f"{path}: {'; '.join(parts)}; expected one <id>.tif a test volume")


def _read_member(archive: zipfile.ZipFile, name: str, path: Path) -> ByteVolume:
    try:
        mask: ByteVolume = tifffile.imread(io.BytesIO(archive.read(name)))
    except (ValueError, tifffile.TiffFileError) as error:
        raise VolumeFormatError(f"{path}: {name} is no readable TIFF ({error})") from error
    problem = mask_problem(mask)
    if problem or mask.dtype != np.uint8:
        raise VolumeFormatError(f"{path}: {name}: {problem or f'dtype {mask.dtype}, not uint8'}")
    return mask


def mask_problem(mask: ByteVolume) -> str:
    """Return what keeps an array from being a (z, y, x) mask of {0, 1}; '' if nothing."""
    if mask.ndim != 3 or mask.size == 0:
        return f"shape {mask.shape}; expected (z, y, x)"
    if mask.dtype.kind not in "ub":
        return f"dtype {mask.dtype}; expected uint8"
    if mask.dtype != np.bool_ and int(mask.max()) > 1:
        return f"values up to {int(mask.max())}; expected 0 and 1"
    return ""
