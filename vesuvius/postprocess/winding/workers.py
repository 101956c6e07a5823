"""Who runs the tasks of a large solve: this process, or the workers of a Dask cluster."""

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from vesuvius.errors import ConfigError, SolverError

log = logging.getLogger(__name__)

RETRIES = 2
"""Times a task is run again after an error; Dask itself gives it three workers to die with."""
CONNECT_S = 30.0
"""Seconds within which the scheduler and a first worker must answer."""

T = TypeVar("T")
R = TypeVar("R")


class Workers(Protocol):
    """Runs a function on items, any order, several at a time."""

    def each(self, run: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Yield item and result as they are ready; the first error that stays ends it."""
        ...


class ThisProcess:
    """One item after the other."""

    def each(self, run: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """See `Workers`."""
        for item in items:
            yield item, run(item)


class DaskWorkers:
    """The workers of a cluster.

    Args:
        client: of `distributed`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def each(self, run: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """See `Workers`; a task whose worker dies is run by another one.

        Raises:
            SolverError: a task took its worker with it several times, or the scheduler is gone.
        """
        futures = self._client.map(run, items, pure=False, retries=RETRIES)
        item_of = {future.key: item for future, item in zip(futures, items, strict=True)}
        for future in _dask().as_completed(futures):  # the rest is dropped with the client
            yield item_of[future.key], _result(future)


def _dask() -> Any:
    """Return the module `distributed`; it is slow to import and an extra."""
    return importlib.import_module("distributed")


def _result(future: Any) -> Any:
    """Return the result of a task, or raise its error."""
    dask = _dask()
    try:
        return future.result()
    except dask.KilledWorker as error:
        raise SolverError(
            f"a block ended its Dask worker several times ({error}); if memory ran out, take a "
            "smaller --block or fewer --workers. What is finished is kept: run again to go on"
        ) from error
    except (CancelledError, dask.comm.CommClosedError) as error:
        raise SolverError(
            f"the Dask scheduler is gone ({error}). What is finished is kept: run again to go on"
        ) from error


@contextmanager
def make_workers(number: int = 1, address: str | None = None) -> Iterator[Workers]:
    """Yield the workers: of the scheduler at `address`, else `number` processes of this machine.

    One process and no address is this process, without Dask.

    Raises:
        ConfigError: Dask is not installed, a bad number, or no scheduler answers.
    """
    if number < 1 or (number > 1 and address is not None):
        raise ConfigError(
            f"workers is {number} and dask {address!r}; expected at least 1 worker of this "
            "machine, or the address of a cluster, not both (--workers, --dask)"
        )
    if number == 1 and address is None:
        yield ThisProcess()
        return
    try:
        distributed = _dask()
    except ImportError as error:
        raise ConfigError(
            f"workers={number}, dask={address} need Dask: pip install 'vesuvius[dask]', or solve "
            "in this process (--workers 1)"
        ) from error
    logging.getLogger("distributed").setLevel(logging.WARNING)  # a line a connection otherwise
    if address is None:
        opened = distributed.LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port; nobody else's business
            memory_limit=None,  # blocks do not travel through Dask: it has nothing to spill
        )
        with opened as cluster, distributed.Client(cluster) as client:
            yield _said(client)
        return
    with _connected(distributed, address) as client:
        yield _said(client)


def _connected(distributed: Any, address: str) -> Any:
    """Return the client of a running cluster that has workers."""
    try:
        client = distributed.Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"dask={address}: no scheduler answers ({error}); start one with `dask scheduler` and "
            "workers with `dask worker ADDRESS --nthreads 1`"
        ) from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError as error:
        client.close()
        raise ConfigError(
            f"dask={address}: the scheduler has no worker after {CONNECT_S:.0f} s; start some with "
            f"`dask worker {address} --nthreads 1`"
        ) from error
    return client


def _said(client: Any) -> DaskWorkers:
    log.info("Dask dashboard: %s", client.dashboard_link)
    return DaskWorkers(client)
