"""The one numba decorator of the metrics, typed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return the function compiled at first use, cached on disk, run without the interpreter lock.

    The first call in a fresh installation compiles for some seconds; later processes load the
    result. Floating-point semantics stay strict.
    """
    return cast("F", njit(cache=True, nogil=True)(function))


def inlined(function: F) -> F:
    """Return the function to be pasted into its compiled callers.

    For small helpers of hot loops: a call touches the reference count of each array it is given.
    """
    return cast("F", njit(cache=True, nogil=True, inline="always")(function))


def is_cached(function: Callable[..., Any]) -> bool:
    """Return whether an earlier process left the compiled function on disk (also if in doubt)."""
    cache = getattr(getattr(function, "_cache", None), "_cache_file", None)
    index = getattr(cache, "_index_path", None)
    return True if index is None else Path(index).exists()
