"""Waiting for what happens meanwhile elsewhere: in a thread, a process or a server."""

import time
from collections.abc import Callable
from typing import Final

import httpx

# Far more than it ever takes, so that a slow machine fails nothing.
DEADLINE: Final = 60.0


def until(holds: Callable[[], object], told: Callable[[], object] = lambda: "it did not happen") -> None:
    """Returns as soon as it holds; AssertionError, with what is told then, where it does not in time."""
    deadline = time.monotonic() + DEADLINE
    while not _holds(holds):
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)


def _holds(holds: Callable[[], object]) -> bool:
    try:
        return bool(holds())
    except httpx.TransportError:
        return False  # It has only just been started.
