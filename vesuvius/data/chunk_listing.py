"""Which chunk files of a Zarr array exist, and which version of them, without reading any."""

import hashlib
import logging
import os
from pathlib import Path

from vesuvius.data.volume import Volume

log = logging.getLogger(__name__)

LISTABLE = ("s3", "s3a", "gs", "az", "abfs", "abfss")
"""Schemes of stores that can list what they hold; plain HTTP cannot."""


def list_chunk_files(volume: Volume) -> dict[str, str] | None:
    """Return the names of an array's files below its place, each with what changes when it does.

    Returns:
        None where the files cannot be listed: over HTTP, or if the bucket does not allow it.

    Raises:
        RemoteReadError: listing failed after every retry.
        VolumeFormatError: the volume is no Zarr.
    """
    place = volume.chunked.place
    if isinstance(place, Path):
        return _local_files(place)
    if place.split(":", 1)[0].lower() not in LISTABLE:
        return None
    from vesuvius.data.remote_store import list_objects

    found = list_objects(place, volume.options.remote)
    if found is None:
        log.info("%s: may be read but not listed; every chunk is asked for", place)
    return found


def digest(files: dict[str, str] | None) -> str:
    """Return 16 hex digits that change when a file comes, goes or changes; "" of None."""
    if files is None:
        return ""
    lines = "\n".join(f"{name} {files[name]}" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def identity(volume: Volume) -> str:
    """Return 16 hex digits of where an array lies and of its metadata (shape, chunks, codecs)."""
    chunked = volume.chunked
    place = chunked.place.resolve() if isinstance(chunked.place, Path) else chunked.place
    return hashlib.sha256(f"{place}\0{chunked.metadata}".encode()).hexdigest()[:16]


def _local_files(folder: Path) -> dict[str, str]:
    files = {}
    for here, _, names in os.walk(folder):
        below = Path(here).relative_to(folder).as_posix()
        for name in names:
            facts = Path(here, name).stat()
            key = name if below == "." else f"{below}/{name}"
            files[key] = f"{facts.st_size} {facts.st_mtime_ns}"
    return files
