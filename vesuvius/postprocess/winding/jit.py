"""numba's compiler with a type that mypy understands."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function compiled on first use, cached on disk, run without the interpreter lock.

    No fastmath: the stages compare with NaN-free but signed-zero and infinite values.
    """
    return cast("Callable[P, R]", numba.njit(nogil=True, cache=True)(function))
