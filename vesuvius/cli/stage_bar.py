"""Progress of long work in stages on standard error: a bar, or a line now and then in a log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

log = logging.getLogger(__name__)

LOG_EVERY_S = 30.0
"""Seconds between two lines where nobody watches."""


class Stage(Protocol):
    """State of one stage; as a text it also tells speed and time left."""

    @property
    def stage(self) -> str:
        """Name."""
        ...

    @property
    def done(self) -> int:
        """Pieces finished."""
        ...

    @property
    def total(self) -> int:
        """Pieces."""
        ...


@contextmanager
def stage_bar() -> Iterator[Callable[[Stage], None]]:
    """Yield a function that shows the state of a stage."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _logged()
        return
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(state: Stage) -> None:
            bar.update(task, completed=state.done, total=state.total, description=str(state))

        yield show


def _logged() -> Callable[[Stage], None]:
    last = time.monotonic()

    def show(state: Stage) -> None:
        nonlocal last
        if state.done == state.total or time.monotonic() - last >= LOG_EVERY_S:
            last = time.monotonic()
            log.info("%s", state)

    return show
