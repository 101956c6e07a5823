"""Fetched chunks on the local disk: bounded in bytes, shared by processes, safe against kills.

Each entry is one file, written under a temporary name and renamed, with a checksum: what a reader
gets is whole or a miss. An entry that was never on the server is kept as such. Writers hold one
lock, count what lies there and drop the least recently read files before the bound would be
passed; readers take no lock, and a file that is dropped while it is read stays readable.

Source: own. Looked at and not taken: diskcache 5.6.3 (unmaintained since 2023, unpickles what lies
in its folder, CVE-2025-69872, without a fix; every read writes to SQLite); zarr 3.1's CacheStore
(counts per process and forgets at exit, keeps byte ranges, so all of a sharded array, in memory);
fsspec's caches (no bound).
"""

import hashlib
import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
from filelock import FileLock

from vesuvius.errors import ConfigError
from vesuvius.storage.files import drop

log = logging.getLogger(__name__)

_MAGIC = b"VCC1"
_HELD, _ABSENT = b"\x01", b"\x00"
_HEADER = len(_MAGIC) + 5
"""Bytes before the content: magic, held or absent (1), crc32c of name, that byte, content (4)."""
_KEEP = 0.9
"""Part of the bound that is filled after dropping, so that not every new entry needs it."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The server said that there is no such chunk."""


ABSENT = Absent()


@dataclass
class DiskCache:
    """Bytes by name; pickles to its settings.

    Args:
        folder: on a local disk; made on first use. Any number of processes may share it.
        max_bytes: of all its files together.
        tag: part of every name: another tag finds nothing of this one.

    Raises:
        ConfigError: max_bytes below 1.
    """

    folder: Path
    max_bytes: int
    tag: str = ""
    _threads: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _warned: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigError(
                f"a disk cache of {self.max_bytes} bytes; expected 1 or more (data.disk_cache_gb; "
                "0 there switches it off)"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (DiskCache, (self.folder, self.max_bytes, self.tag))

    def tagged(self, tag: str) -> "DiskCache":
        """Return the same cache for names of another tag."""
        return DiskCache(self.folder, self.max_bytes, tag)

    def get(self, name: str) -> bytes | Absent | None:
        """Return what is stored, ABSENT, or None if nothing is known."""
        path = self._path(name)
        try:
            content = path.read_bytes()
            os.utime(path)  # what least recently used means
        except OSError:
            return None
        if len(content) < _HEADER or content[: len(_MAGIC)] != _MAGIC:
            return None
        if content[_HEADER - 4 : _HEADER] != self._checksum(name, content):
            return None  # a power cut in the middle of writing: fetched again, written over
        return ABSENT if content[len(_MAGIC) : _HEADER - 4] == _ABSENT else content[_HEADER:]

    def put(self, name: str, content: bytes | Absent) -> None:
        """Store; what is larger than the whole bound is not kept.

        A disk that cannot be written to is reported once, and reading goes on without the cache.
        """
        held = not isinstance(content, Absent)
        body = content if isinstance(content, bytes) else b""
        entry = _MAGIC + (_HELD if held else _ABSENT) + bytes(4) + body
        entry = entry[: _HEADER - 4] + self._checksum(name, entry) + body
        if len(entry) > self.max_bytes:
            return
        try:
            with self._threads:
                self._write(self._path(name), entry)
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s: the chunk cache cannot be written (%s); chunks are fetched again each "
                    "time. Free space, lower data.disk_cache_gb or choose another "
                    "data.cache_folder",
                    *(self.folder, error.strerror or error),
                )

    def _write(self, path: Path, entry: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        with FileLock(self.folder / ".lock"):
            total = self._counted()
            if total + len(entry) > self.max_bytes:
                total = self._drop(len(entry))
            # Booked before it is there: a kill in between counts too much, never too little.
            self._book(total + len(entry))
            # no `whole_file`: the lock is held, and `put` goes on without what fails here
            partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
            try:
                partial.write_bytes(entry)
                partial.replace(path)
            finally:
                drop(partial)

    def _counted(self) -> int:
        """Return the bytes on disk as last booked, an upper bound; counted anew if unknown."""
        try:
            return int((self.folder / ".bytes").read_bytes())
        except (OSError, ValueError):
            return sum(size for _, size, _ in self._entries())

    def _book(self, total: int) -> None:
        # In place, always as long: renaming over a file makes ext4 write it out, 1 ms each time.
        file = os.open(self.folder / ".bytes", os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(file, b"%020d" % total, 0)
        finally:
            os.close(file)

    def _drop(self, wanted: int) -> int:
        """Delete the least recently read entries until `wanted` bytes fit; return what is left."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        bound = max(0.0, _KEEP * self.max_bytes - wanted)
        for _, size, path in entries:
            if total <= bound:
                break
            with suppress(FileNotFoundError):
                path.unlink()
            total -= size
        return total

    def _entries(self) -> list[tuple[int, int, Path]]:
        """Return (last read, bytes, path) of every entry and of what killed writers left."""
        found = []
        for folder in os.scandir(self.folder):
            if not folder.is_dir(follow_symlinks=False) or len(folder.name) != 2:
                continue
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    facts = entry.stat(follow_symlinks=False)
                    found.append((facts.st_mtime_ns, facts.st_size, Path(entry.path)))
        return found

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(f"{self.tag}\0{name}".encode()).hexdigest()
        return self.folder / digest[:2] / digest[2:34]

    def _checksum(self, name: str, entry: bytes) -> bytes:
        crc = google_crc32c.value(f"{self.tag}\0{name}".encode())
        crc = google_crc32c.extend(crc, entry[len(_MAGIC) : _HEADER - 4])
        return int(google_crc32c.extend(crc, entry[_HEADER:])).to_bytes(4, "little")
