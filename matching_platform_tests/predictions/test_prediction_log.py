"""Whatever the store does, whoever hands a request over never waits, and what is lost is counted."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from matching_platform.predictions import log as log_module
from matching_platform.predictions import reading, states
from matching_platform.predictions.log import PredictionLog
from matching_platform.predictions.masking import Masking
from matching_platform.predictions.served import NESTED, Packed
from matching_platform.store.files import Files, StoreError
from matching_platform_tests.predictions.made import NOON, PLAIN, TRANSFERS, served
from matching_platform_tests.predictions.memory import in_a_process
from matching_platform_tests.waiting import until

EVERY = 0.01
SIZE = Packed.of(served("1234")).size


class FaultyFiles(Files):
    """A store on this disk that fails, or hangs, for as long as it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.fault: Callable[[], Any] = lambda: None
        self.attempts = 0

    def create(self, name: str, data: bytes) -> None:
        self.attempts += 1
        self.fault()
        super().create(name, data)

    def overwrite(self, name: str, data: bytes) -> None:
        self.fault()
        super().overwrite(name, data)


@pytest.fixture
def files(tmp_path: Path) -> FaultyFiles:
    return FaultyFiles(tmp_path)


@pytest.fixture
def start(files: FaultyFiles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PredictionLog]]:
    """Starts logs, which are closed at the end; the store is well by then."""
    monkeypatch.setattr(log_module, "_LONGEST_PAUSE", 2 * EVERY)
    started: list[PredictionLog] = []

    def started_log(limit: int = 2**20, masking: Masking = PLAIN) -> PredictionLog:
        log = PredictionLog(files, masking, limit, EVERY)
        log.start()
        started.append(log)
        return log

    yield started_log
    files.fault = lambda: None
    for log in started:
        log.close()


def state(files: Files) -> states.State:
    (found,) = states.load(files, states.names(files))
    return found


def kept(files: Files) -> list[str]:
    return [one for day in reading.days(files) for one in reading.read(files, day)["request_id"]]


def test_what_was_asked_and_answered_is_kept(files: FaultyFiles, start: Callable[..., PredictionLog]) -> None:
    log, given = start(), [served("one"), served("two", transfers=TRANSFERS.head(0))]
    for request in given:
        log.take(request)
    log.close()
    found = reading.read(files, "2024-05-28")
    assert found["request_id"].to_list() == ["one", "two"]
    assert set(found["server"]) == {log.server}
    for request, row in zip(given, found.iter_rows(named=True), strict=True):
        for name in ("received_at", "purpose", "model", "milliseconds", "booked_from"):
            assert row[name] == getattr(request, name)
        for name, table in NESTED.items():
            asked = getattr(request, name)
            rows = pl.DataFrame(row[name], schema={column.name: column.external_dtype for column in table.columns})
            minor = rows.with_columns((pl.selectors.decimal() * 100).cast(pl.Int64))
            assert minor.equals(asked.select(table.schema.names()))


def test_a_clean_end_writes_all_and_says_so(files: FaultyFiles, start: Callable[..., PredictionLog]) -> None:
    log = start(limit=2**26)
    for number in range(500):
        log.take(served(f"{number}", NOON + timedelta(hours=number)))
    log.close()
    assert len(kept(files)) == 500
    assert (state(files).end, state(files).written, state(files).dropped) == ("closed", 500, 0)
    assert log.figures().backlog == log.figures().backlog_bytes == 0


def test_what_was_taken_before_the_said_moment_is_written(
    files: FaultyFiles, start: Callable[..., PredictionLog]
) -> None:
    log, taken = start(), {}
    for number in range(300):
        log.take(served(f"{number}"))
        taken[f"{number}"] = datetime.now(UTC)
        if number % 30 == 0 and states.names(files):
            said = state(files).whole_until
            assert set(kept(files)) >= {one for one, at in taken.items() if at < said}
        time.sleep(0.001)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(StoreError("the object store could not be used"), id="it fails"),
        pytest.param(OSError(28, "No space left on device"), id="the disk is full"),
        pytest.param(None, id="it hangs"),
    ],
)
def test_a_store_that_fails_or_hangs_costs_nobody_a_moment(
    files: FaultyFiles, start: Callable[..., PredictionLog], fault: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    well = threading.Event()

    def fail() -> None:
        if fault:
            raise fault
        well.wait()

    limit = 100 * SIZE
    log = start(limit)
    until(lambda: bool(states.names(files)))
    files.fault = fail
    slowest = 0.0
    for number in range(1000):
        request, began = served(f"{number:04d}"), time.thread_time()
        log.take(request)
        slowest = max(slowest, time.thread_time() - began)
        assert log.figures().backlog_bytes <= limit + SIZE
    # The thread's own time, whatever else the machine does; half a second would be a wait.
    assert slowest < 0.1
    until(lambda: files.attempts > 2 or not fault)
    held = log.figures()
    assert held.dropped >= 1000 - 100 - 1 - held.written
    assert held.backlog + held.dropped + held.written == 1000
    files.fault = lambda: None
    well.set()
    until(lambda: log.figures().backlog == 0)
    log.close()
    done = log.figures()
    assert done.written == len(kept(files)) == 1000 - done.dropped
    assert "0999" in kept(files)  # The oldest are dropped, not the newest.
    assert (state(files).dropped, state(files).end) == (done.dropped, "closed")
    outages = [one for one in caplog.messages if "waits in memory" in one]
    assert len(outages) == (1 if fault else 0)
    assert (done.failures > 0) == bool(fault)


def test_what_an_attempt_that_seemed_to_fail_had_written_is_read_once(
    files: FaultyFiles, start: Callable[..., PredictionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = FaultyFiles.create
    answers = iter([StoreError("the answer was lost")])

    def lose_the_answer(self: FaultyFiles, name: str, data: bytes) -> None:
        create(self, name, data)
        if (lost := next(answers, None)) is not None:
            raise lost

    monkeypatch.setattr(FaultyFiles, "create", lose_the_answer)
    log = start()
    log.take(served("one"))
    log.close()
    assert kept(files) == ["one"]
    assert (log.figures().written, log.figures().failures) == (1, 1)


def test_a_request_larger_than_the_queue_is_dropped(files: FaultyFiles, start: Callable[..., PredictionLog]) -> None:
    log = start(limit=SIZE)
    log.take(served("1234", transfers=pl.concat([TRANSFERS] * 100)))
    log.take(served("5678"))
    log.close()
    assert kept(files) == ["5678"]
    assert log.figures().dropped == 1


def test_what_cannot_be_encoded_keeps_nothing_else_from_being_written(
    files: FaultyFiles, start: Callable[..., PredictionLog], caplog: pytest.LogCaptureFixture
) -> None:
    log = start()
    log.take(served("one", transfers=TRANSFERS.drop("title")))
    until(lambda: log.figures().dropped == 1)
    log.take(served("two"))
    log.close()
    assert kept(files) == ["two"]
    assert "1 requests are dropped from the prediction log" in caplog.messages


def test_a_successor_tells_of_a_server_that_did_not_close(
    files: FaultyFiles, start: Callable[..., PredictionLog], caplog: pytest.LogCaptureFixture
) -> None:
    first = start()
    until(lambda: bool(states.names(files)))
    # As a killed server leaves it: nobody has the process's number, or somebody else has.
    gone = state(files)
    first.close()
    states.save(files, gone.__class__(**{**vars(gone), "server": f"{gone.host}-20240101T000000-1", "started": 0.0}))
    with caplog.at_level(logging.WARNING):
        start().close()
    (told,) = [one for one in caplog.messages if "without closing" in one]
    assert f"requests after {gone.whole_until:%Y-%m-%d %H:%M:%S} UTC may be missing, those of its last second" in told
    caplog.clear()
    start().close()
    assert not caplog.messages


def test_a_request_is_handed_over_at_once(files: FaultyFiles) -> None:
    log, request = PredictionLog(files, PLAIN, 2**20), served("one")
    began = time.thread_time()
    for _ in range(1000):
        log.take(request)
    assert (time.thread_time() - began) / 1000 < 0.001


def test_the_limit_is_that_of_the_memory(tmp_path: Path) -> None:
    """A server whose store hangs, until its queue is full twice over; each request's frames are its own."""
    limit = 16 * 2**20
    grown, backlog, dropped = in_a_process("full_queue", tmp_path, limit)
    assert dropped > backlog > 1000
    assert grown < 2 * limit
