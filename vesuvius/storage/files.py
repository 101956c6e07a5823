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


def write_json(
    path: str | os.PathLike[str], content: Mapping[str, Any], *, shared: bool = False
) -> Path:
    """Write strict JSON atomically; numbers that are not finite become null.

    Args:
        path: of the file; its folder is made if missing.
        content: anything `plain_json` knows.
        shared: several processes may write this file at once; the last one stays.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    target = Path(path)
    own = f".{uuid.uuid4().hex}" if shared else ""
    partial = target.with_name(f"{target.name}{own}.partial")
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(plain_json(content), indent=2) + "\n", encoding="utf-8")
            partial.replace(target)
    finally:
        drop(partial)
    return target


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names the path."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the error of a path that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    free = "free disk space or " if full else ""
    return StorageError(
        f"cannot write {path}: {error.strerror or error}; {free}choose another output folder. "
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
