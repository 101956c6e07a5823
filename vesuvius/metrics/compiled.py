"""The one numba decorator of the metrics, typed."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return the function compiled at first use, cached on disk, run without the interpreter lock.

    The first call in a fresh installation compiles for some seconds; later processes load the
    result. Floating-point semantics stay strict.
    """
    return cast("F", njit(cache=True, nogil=True)(function))
