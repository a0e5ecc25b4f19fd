"""Functions over arrays that are compiled on their first call, and kept compiled on disk where there is a place for them."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function` as machine code that other threads run beside."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep it, as in a container whose file system is read-only
        return njit(nogil=True)(function)
