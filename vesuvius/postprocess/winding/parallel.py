"""Slabs of a volume over threads: the compiled loops release the interpreter lock.

Threads and not numba's own parallel mode: it costs compile time in every kernel, and its
thread pools do not survive the fork of a data loader.
"""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from vesuvius.errors import ConfigError


def resolve_threads(threads: int | None) -> int:
    """Return a thread count: the argument, or the cores this process may use.

    Raises:
        ConfigError: `threads` is below 1.
    """
    if threads is None:
        return len(os.sched_getaffinity(0))
    if threads < 1:
        raise ConfigError(f"threads is {threads}; expected at least 1, or None for all cores")
    return threads


@functools.cache
def _pool(process: int, helpers: int) -> ThreadPoolExecutor:  # noqa: ARG001 - the key of the cache
    """Return the helpers of a process; a forked child has none of its parent's threads."""
    return ThreadPoolExecutor(helpers, thread_name_prefix="winding")


def over_slabs(work: Callable[[int, int], None], length: int, threads: int) -> None:
    """Call `work(start, stop)` on ranges that cover `length`, several at a time.

    The ranges are smaller than length / threads, so that an uneven load still balances. `work`
    writes only inside its own range. The caller's thread is one of the workers.
    """
    if threads <= 1 or length < 2 * threads:
        work(0, length)
        return
    pieces = min(length, 4 * threads)
    cuts = [length * i // pieces for i in range(pieces + 1)]
    ranges = iter(list(itertools.pairwise(cuts)))  # shared: whoever is free takes the next

    def drain() -> None:
        for start, stop in ranges:
            work(start, stop)

    jobs = [_pool(os.getpid(), threads - 1).submit(drain) for _ in range(threads - 1)]
    drain()
    for job in jobs:
        job.result()
