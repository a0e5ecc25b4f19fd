"""The log that a server writes: a queue in memory, and one thread that brings to the store, each second, what came in.

A part is a Parquet file `requests/<day>/<server>-<number>.parquet`, which appears whole or not at all. Whoever hands over
a request never waits, and never learns how the store is: while that fails, the queue grows to its limit, and then the
oldest requests are dropped and counted.
"""

import logging
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from threading import Event, Lock, Thread
from typing import Final

import psutil

from matching_platform.predictions import states
from matching_platform.predictions.masking import Masking
from matching_platform.predictions.served import Packed, Served, rows
from matching_platform.predictions.states import End, State
from matching_platform.store.files import Files, StoreError

REQUESTS: Final = "requests"
# An idle server says so often that it lives.
IDLE_SECONDS: Final = 30.0
# How long a clean end waits for the store.
CLOSE_SECONDS: Final = 10.0
# What is encoded at a time: it bounds the memory that this takes besides the queue.
_PART_BYTES: Final = 2 * 2**20
_LONGEST_PAUSE: Final = 30.0
# A server looks how so many before it on its host ended.
_PREDECESSORS: Final = 8

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figures:
    """How a log stands: requests that wait, and their bytes; requests written and dropped, and failures of the store, so
    far; and the moment before which nothing waits."""

    backlog: int
    backlog_bytes: int
    written: int
    dropped: int
    failures: int
    whole_until: datetime


@dataclass(frozen=True)
class _Batch:
    """What becomes one part."""

    requests: Sequence[Packed]
    size: int


class PredictionLog:
    """The log of this process, below the root of `files`; at most `limit` bytes of requests wait to be written."""

    def __init__(self, files: Files, masking: Masking, limit: int, every: float = 1.0) -> None:
        self._files, self._masking, self._limit, self._every = files, masking, limit, every
        self._lock, self._closing = Lock(), Event()
        self._queue: deque[Packed] = deque()
        self._in_hand: _Batch | None = None
        # Of the queue and of what is in hand.
        self._bytes = 0
        self._taken = self._written = self._dropped = self._failures = self._parts = 0
        self._state, self._said, self._failing = _opened(), float("-inf"), False
        self._thread = Thread(target=self._run, name="prediction log", daemon=True)

    @property
    def server(self) -> str:
        """What the log calls this process."""
        return self._state.server

    def start(self) -> None:
        """Begins to write, once."""
        self._thread.start()

    def take(self, request: Served) -> None:
        """Takes a request over; never waits for the store, and never fails."""
        packed = Packed.of(request)
        with self._lock:
            self._taken += 1
            self._queue.append(packed)
            self._bytes += packed.size
            while self._bytes > self._limit and self._queue:
                self._bytes -= self._queue.popleft().size
                self._dropped += 1

    def close(self) -> None:
        """Writes what is left and closes the log; a store that fails is waited for no longer than CLOSE_SECONDS."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        if lost := self.figures().backlog:
            _log.error("%s requests are lost to the prediction log: the store could not be written", lost)

    def figures(self) -> Figures:
        with self._lock:
            waiting = len(self._queue) + (len(self._in_hand.requests) if self._in_hand else 0)
            counted = self._bytes, self._written, self._dropped, self._failures
            return Figures(waiting, *counted, whole_until=self._state.whole_until)

    def _run(self) -> None:
        self._look_back()
        pause = 0.0
        while not self._closing.wait(pause):
            pause = self._every if self._attempt("open") else min(max(2 * pause, self._every), _LONGEST_PAUSE)
        deadline = time.monotonic() + CLOSE_SECONDS
        while not self._attempt("closed") and time.monotonic() < deadline:
            time.sleep(self._every)

    def _attempt(self, end: End) -> bool:
        """Writes all that waits, and says so; False where the store fails."""
        try:
            self._write(end)
        except Exception as error:  # noqa: BLE001 - whatever the store raises, it is tried again
            with self._lock:
                self._failures += 1
            if not self._failing:
                _log.warning("the prediction log cannot be written, and waits in memory: %s", error)
            self._failing = True
            return False
        if self._failing:
            _log.warning("the prediction log is written again; so far %s requests were dropped", self._dropped)
        self._failing = False
        return True

    def _write(self, end: End) -> None:
        moment, wrote = datetime.now(UTC), False
        with self._lock:
            due = self._taken
        # What comes in meanwhile is due the next time.
        while self._written + self._dropped < due and (batch := self._next()):
            self._put(batch)
            wrote = True
        state = replace(
            self._state,
            said_at=datetime.now(UTC),
            whole_until=moment,
            written=self._written,
            dropped=self._dropped,
            end=end,
        )
        if wrote or end == "closed" or time.monotonic() - self._said >= IDLE_SECONDS:
            states.save(self._files, state)
            self._said = time.monotonic()
        self._state = state

    def _next(self) -> _Batch | None:
        """What is in hand, or the oldest requests of one day, as many as make a part."""
        with self._lock:
            if self._in_hand is None and self._queue:
                day, size, batch = self._queue[0].received_on, 0, []
                while self._queue and self._queue[0].received_on == day and size < _PART_BYTES:
                    batch.append(self._queue.popleft())
                    size += batch[-1].size
                self._in_hand = _Batch(batch, size)
            return self._in_hand

    def _put(self, batch: _Batch) -> None:
        data = self._encoded(batch)
        if data is not None:
            # A new name each time: where an attempt that seemed to fail has written it, whoever reads takes a request once.
            self._parts += 1
            day = batch.requests[0].received_on
            self._files.create(f"{REQUESTS}/{day}/{self.server}-{self._parts:08d}.parquet", data)
        with self._lock:
            self._in_hand = None
            self._bytes -= batch.size
            self._written += len(batch.requests) if data is not None else 0
            self._dropped += len(batch.requests) if data is None else 0

    def _encoded(self, batch: _Batch) -> bytes | None:
        """The part's bytes; None where a fault of ours keeps it from being made, which must not keep the others."""
        try:
            file = BytesIO()
            requests = [packed.unpacked() for packed in batch.requests]
            rows(requests, self.server, self._masking).write_parquet(file, compression_level=1)
        except Exception:  # noqa: BLE001 - told with its traceback
            _log.exception("%s requests are dropped from the prediction log", len(batch.requests))
            return None
        return file.getvalue()

    def _look_back(self) -> None:
        """Tells which servers on this host ended without closing their logs."""
        try:
            here = [name for name in states.names(self._files) if name.startswith(f"{self._state.host}-")]
            for state in states.load(self._files, here[-_PREDECESSORS:]):
                if state.end == "open" and not _runs(state):
                    _log.warning("%s", states.mark_lost(self._files, state).told)
        except (OSError, StoreError) as error:
            _log.warning("how the servers before ended cannot be seen: %s", error)


def _opened() -> State:
    process, now, host = psutil.Process(), datetime.now(UTC), socket.gethostname()
    server = f"{host}-{now:%Y%m%dT%H%M%S}-{process.pid}"
    return State(server, host, process.pid, process.create_time(), now, now, now, 0, 0)


def _runs(state: State) -> bool:
    """Whether the process that wrote the state runs on this host; another may have got its number."""
    with suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(state.pid).create_time() - state.started) < 1.0
    return False
