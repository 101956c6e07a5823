"""Atomic files and folders, JSON that compares equal after reading, errors that name the path."""

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vesuvius.errors import StorageError, VesuviusError, VolumeFormatError


@contextlib.contextmanager
def whole_file(
    path: Path, *, alone: bool = False, cure: str = "", also: type[Exception] = OSError
) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; renamed to it once the block is through.

    A block that fails leaves an older file as it was and no temporary one, and its own error is
    the one that is seen.

    Args:
        path: of the file; its folder is made if missing.
        alone: no other process writes this file now. The temporary name is then `<name>.partial`:
            what a killed run left of a large file is written over.
        cure: what to do, instead of another output folder.
        also: what a library raises instead of an OSError (torch: RuntimeError).

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    own = "" if alone else f".{uuid.uuid4().hex[:12]}"
    partial = path.with_name(f"{path.name}{own}.partial")
    with storage_errors(path, cure=cure, also=also):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(path)
        finally:
            drop(partial)


def write_bytes(path: Path, content: bytes | bytearray) -> Path:
    """Write a file, whole or not at all; see `whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file, whole or not at all; see `whole_file`."""
    return write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Write strict JSON, whole or not at all; numbers that are not finite become null.

    Args:
        path: of the file; its folder is made if missing.
        content: anything `plain_json` knows.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    return write_text(Path(path), json.dumps(plain_json(content), indent=2) + "\n")


@contextlib.contextmanager
def storage_errors(
    path: Path, *, cure: str = "", also: type[Exception] = OSError
) -> Iterator[None]:
    """Turn an OSError (or `also`) of the block into a StorageError that names the path."""
    try:
        yield
    except VesuviusError:  # among them are OSErrors: a volume that is not there
        raise
    except (OSError, also) as error:
        raise storage_error(path, error, cure=cure) from error


def storage_error(path: Path, error: Exception, *, cure: str = "") -> StorageError:
    """Return the error of a path that cannot be written."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), repr(error))
    free = "free disk space or " if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
    return StorageError(
        f"cannot write {path}: {reason}; {cure or f'{free}choose another output folder'}. "
        "Nothing half-written is left; run again to resume"
    )


_PLACE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EEXIST,
    errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EFBIG,
)  # fmt: skip


def place_message(error: OSError) -> str | None:
    """Return what to tell about a path or disk that cannot be used; None: the error is a bug."""
    if error.errno not in _PLACE_ERRORS:
        return None
    place = f"'{error.filename}'" if error.filename else "a file"
    return (
        f"cannot read or write {place}: {error.strerror}. Give another path, free space or "
        "set its permissions; what was finished is kept"
    )


@contextlib.contextmanager
def reading(path: object) -> Iterator[None]:
    """Turn what a damaged or missing chunk, shard or metadata raises into one error.

    Raises:
        VolumeFormatError: names `path`.
    """
    try:
        yield
    except VesuviusError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # codecs raise RuntimeError
        raise VolumeFormatError(
            f"{path}: cannot be read, damaged or incomplete ({error}); delete it and write it again"
        ) from error


def drop(partial: Path) -> None:
    """Remove a temporary file if there is one; the first error is the one to report."""
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)


def replace_folder(source: Path, target: Path) -> None:
    """Rename a folder into place; an older one there steps aside first."""
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def plain_json(value: Any) -> Any:
    """Return a copy of JSON types only, so that what is stored compares equal to what is read."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, np.generic):
        return plain_json(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)
