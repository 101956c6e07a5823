"""One process at a time makes the files that several jobs of a sweep want."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `.<folder>.lock` beside the folder; another job waits and then finds everything there.

    The system frees the lock of a process that dies.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another job is making %s; waiting", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
