"""Functions over arrays that are compiled on their first call, and kept compiled on disk where there is a place for them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import ParamSpec, TypeVar

from numba import njit
from numba.core import config
from numba.core.caching import UserWideCacheLocator

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class ByContent(UserWideCacheLocator):
    """Keeps machine code by what the source says, not by where it lies: all copies of one source share it, and a folder
    that must not change, as that of a stored bento, is not written to."""

    def __init__(self, function: FunctionType, file: str) -> None:
        super().__init__(function, file)
        told: str = config.CACHE_DIR  # type: ignore[attr-defined]
        cache = Path(told or Path(self._cache_path).parent)
        self._cache_path = str(cache / f"matching_{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}")


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function` as machine code, beside which other threads run."""
    before = config.CACHE_LOCATOR_CLASSES  # type: ignore[attr-defined]
    config.CACHE_LOCATOR_CLASSES = f"{__name__}.{ByContent.__name__}"  # type: ignore[attr-defined]
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep it, as in a container whose file system is read-only
        return njit(nogil=True)(function)
    finally:
        config.CACHE_LOCATOR_CLASSES = before  # type: ignore[attr-defined]
