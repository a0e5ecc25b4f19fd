"""What is in force now, at hand without asking the store: a server looks at it with every request."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Final

from matching_platform.store.files import StoreError
from matching_platform.store.unattended import Change, Permission, Unattended, permission

_STOP_SECONDS: Final = 1.0

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """The record as it was at a moment of the monotonic clock."""

    at: float
    history: Sequence[Change]
    permission: Permission


class Watch:
    """Reads the record again `every` so many seconds, in a thread of its own.

    Where it was never read, or not for `stale_after` seconds, all is frozen: nobody knows then what people have decided.
    """

    def __init__(self, unattended: Unattended, every: float = 10.0, stale_after: float = 300.0) -> None:
        self._unattended, self._every, self._stale_after = unattended, every, stale_after
        self._seen: _Seen | None = None
        self._problem = ""
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="unattended", daemon=True)

    def start(self) -> None:
        """Begins to read, once; until the first reading has ended all is frozen."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the reading; one that hangs is left behind."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def permission(self) -> Permission:
        """What is in force, as far as is known here; never waits."""
        seen, age = self._seen, self.age()
        if seen is None or age > self._stale_after:
            return Permission(self._unknown(age), seen.permission.thresholds if seen else {})
        return seen.permission

    def age(self) -> float:
        """Seconds since the record was seen last; infinite where it never was."""
        return time.monotonic() - self._seen.at if self._seen else math.inf

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._read()
            self._stopped.wait(self._every)

    def _read(self) -> None:
        began, seen = time.monotonic(), self._seen
        try:
            self._unattended.check()
            history = self._unattended.history(seen.history if seen else ())
        except (OSError, StoreError) as error:
            problem = str(error) or type(error).__name__
            if not self._problem:
                _log.warning("the record of freezes cannot be read, and is tried again: %s", problem)
            self._problem = problem
            return
        if self._problem:
            _log.warning("the record of freezes is read again")
        self._problem = ""
        self._seen = _Seen(began, history, permission(history))

    def _unknown(self, age: float) -> Change:
        """The freeze that not knowing is; no line of the record."""
        never = math.isinf(age)
        since = datetime.now(UTC) - timedelta(seconds=0 if never else age)
        told = (
            "the record of freezes was never read" if never else f"the record of freezes was not read for {age:.0f} s"
        )
        problem = f" ({self._problem})" if self._problem else ""
        return Change(0, since, "platform", f"{told}{problem}; see that the store can be read from here", "freeze")
