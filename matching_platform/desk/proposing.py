"""Proposes anew, in the background, for transfers that a decision concerns."""

import logging
import time
from collections.abc import Callable, Iterable
from itertools import islice
from threading import Condition, Thread
from typing import Final

# Transfers: those of one payer together, so that no two are given the same invoice, and the one that somebody waits for not
# behind many.
_AT_ONCE: Final = 32
# Who has just decided gets his next page before the work begins that it caused.
_HEAD_START_SECONDS: Final = 0.3
_LOG: Final = logging.getLogger(__name__)


class Proposer:
    """A thread with a list of transfers. `work` proposes anew for some of them; where it fails they stay as they are."""

    def __init__(self, work: Callable[[list[str]], None]) -> None:
        self._work = work
        self._waiting: dict[str, None] = {}
        self._at_work: set[str] = set()
        self._begins = 0.0
        self._is_waited_for = False
        self._changed = Condition()
        self._ends = False
        self._thread = Thread(target=self._run, name="proposing anew", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends after what is being worked on."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def ask(self, transfers: Iterable[str]) -> None:
        """Puts transfers at the end of the list; one that is worked on comes again."""
        with self._changed:
            if not self._waiting:
                self._begins = time.monotonic() + (0 if self._at_work else _HEAD_START_SECONDS)
            self._waiting.update(dict.fromkeys(transfers))
            self._changed.notify_all()

    @property
    def backlog(self) -> int:
        """How many transfers are on the list."""
        return len(self._waiting) + len(self._at_work)

    def is_pending(self, transfer: str) -> bool:
        return transfer in self._waiting or transfer in self._at_work

    def wait(self, transfers: Iterable[str], seconds: float) -> bool:
        """Whether none of these transfers waits any more, within so many seconds; they come before all others."""
        wanted = [one for one in transfers if self.is_pending(one)]
        if not wanted or not self._thread.is_alive():
            return not wanted
        with self._changed:
            first = {one: None for one in wanted if one in self._waiting}
            if first:
                self._waiting, self._is_waited_for = {**first, **self._waiting}, True
                self._changed.notify_all()
            return (
                self._changed.wait_for(lambda: self._ends or not any(self.is_pending(one) for one in wanted), seconds)
                and not self._ends
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ends or self._waiting)
                left = self._begins - time.monotonic()
                if self._changed.wait_for(lambda: self._ends or self._is_waited_for, left) and self._ends:
                    return
                self._is_waited_for = False
                taken = [*islice(self._waiting, _AT_ONCE)]
                # First: who asks meanwhile, without the lock, always finds them in one of the two.
                self._at_work = set(taken)
                for transfer in taken:
                    del self._waiting[transfer]
            try:
                self._work(taken)
            except Exception:  # noqa: BLE001
                # What is shown is what was proposed before; the desk goes on.
                _LOG.exception("could not propose anew for %s and others", taken[0])
            with self._changed:
                self._at_work = set()
                self._changed.notify_all()
