"""One task an item, in this process or in several: results as they come, dead workers told."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def as_they_come(
    run: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_jobs: int,
    if_killed: Callable[[Item], Result],
) -> Generator[Result, None, None]:
    """Yield every item's result: in order with one process, else as they come.

    Closing the generator cancels what no process has begun.

    Args:
        run: item -> result; picklable, and so are items and results, if num_jobs is above 1.
        items: what to work on.
        num_jobs: processes; 1 works in this one.
        if_killed: item -> result of an item whose process was killed (out of memory) or never
            started (a script without `if __name__ == "__main__"`).
    """
    if num_jobs == 1 or len(items) < 2:
        yield from map(run, items)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy threads and open files
    with ProcessPoolExecutor(min(num_jobs, len(items)), mp_context=context) as pool:
        futures = {pool.submit(run, item): item for item in items}
        try:
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool:
                    result = if_killed(futures[future])
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


def default_jobs() -> int:
    """Return the number of usable cores; 1 in a worker process.

    A pool inside a job of the joblib launcher cannot start: its processes look for a main module
    that is not there.
    """
    if multiprocessing.current_process().name != "MainProcess":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
