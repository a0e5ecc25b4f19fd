"""A watch over a store that works, fails, hangs and recovers; nobody waits for a timer."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from matching_platform.store.files import StoreError
from matching_platform.store.record import Record
from matching_platform.store.unattended import NEVER, Change, Unattended
from matching_platform.store.versions import Store
from matching_platform.store.watch import Watch
from matching_platform_tests.waiting import DEADLINE, until

ADA = {"actor": "Ada", "reason": "wrong bookings"}


class Shaky(Unattended):
    """A record on a store that can fail or hang; `read` counts readings that were begun."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.problem: Exception | None = None
        self.flowing = Event()
        self.flowing.set()
        self.read = 0

    def history(self, known=()) -> list[Change]:
        self.read += 1
        assert self.flowing.wait(DEADLINE)
        if self.problem:
            raise self.problem
        return super().history(known)


@pytest.fixture
def shaky(disk: Store) -> Shaky:
    record = Shaky(disk)
    record.open()
    return record


@pytest.fixture
def watch(shaky: Shaky) -> Iterator[Watch]:
    watch = Watch(shaky, every=0.01)
    yield watch
    shaky.flowing.set()
    watch.stop()


def read_again(shaky: Shaky) -> None:
    """Another reading began and ended."""
    before = shaky.read
    until(lambda: shaky.read >= before + 2)


def test_before_the_first_reading_all_is_frozen(watch: Watch) -> None:
    permission = watch.permission()
    assert "was never read" in permission.told
    assert permission.auto_from("m", 0.9) == NEVER
    assert math.isinf(watch.age())


def test_changes_are_seen(watch: Watch, shaky: Shaky) -> None:
    watch.start()
    until(lambda: watch.age() < DEADLINE)
    assert watch.permission().auto_from("m", 0.9) == 0.9
    shaky.book_from("m", 0.95, **ADA)
    until(lambda: watch.permission().auto_from("m", 0.9) == 0.95)
    shaky.freeze(**ADA)
    until(lambda: watch.permission().frozen)
    assert "Ada (wrong bookings)" in watch.permission().told
    shaky.unfreeze(**ADA)
    until(lambda: not watch.permission().frozen)
    assert watch.permission().auto_from("m", 0.9) == 0.95


def test_only_what_is_new_is_read(disk: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read, record = [], Unattended(disk)
    for _ in range(3):
        record.freeze(**ADA)
    entry = Record._read
    monkeypatch.setattr(Record, "_read", lambda self, number: read.append(number) or entry(self, number))
    known = record.history()
    assert sorted(read) == [1, 2, 3]
    known = record.history(known)
    assert sorted(read) == [1, 2, 3]
    record.unfreeze(**ADA)
    read.clear()
    assert len(record.history(known)) == 4
    assert read == [4]


def test_a_store_that_is_not_there_is_no_store_without_freezes(disk: Store, tmp_path: Path) -> None:
    """A volume that is not mounted, or another prefix, looks like an empty store."""
    record = Unattended(disk)
    record.freeze(**ADA)
    (tmp_path / "store").rename(tmp_path / "unmounted")
    watch = Watch(record, every=0.01)
    watch.start()
    until(lambda: "there is no record at" in watch.permission().told)
    assert watch.permission().auto_from("m", 0.9) == NEVER
    (tmp_path / "unmounted").rename(tmp_path / "store")
    until(lambda: "Ada (wrong bookings)" in watch.permission().told)
    record.unfreeze(**ADA)
    until(lambda: not watch.permission().frozen)
    (tmp_path / "store").rename(tmp_path / "unmounted")
    until(lambda: watch._problem)
    watch.stop()


@pytest.mark.parametrize("problem", [StoreError("the bucket is gone"), OSError("no route")])
def test_an_outage_is_told_once_and_what_is_known_stays_in_force(
    watch: Watch, shaky: Shaky, problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    watch.start()
    until(lambda: watch.age() < DEADLINE)
    for outage in (1, 2):
        shaky.problem = problem
        read_again(shaky)
        read_again(shaky)
        assert watch.permission().frozen is None
        shaky.problem = None
        age = watch.age()
        until(lambda: watch.age() < age)  # noqa: B023 - it is asked here and now
        read_again(shaky)
        told = [record.message for record in caplog.records]
        assert [str(problem) in one for one in told] == [True, False] * outage
        assert told[-1] == "the record of freezes is read again"


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_what_was_not_read_for_long_is_frozen_until_it_is_read(shaky: Shaky, trouble: str) -> None:
    shaky.book_from("m", 0.95, **ADA)
    watch = Watch(shaky, every=0.01, stale_after=1.0)
    watch.start()
    until(lambda: watch.age() < DEADLINE)
    if trouble == "fails":
        shaky.problem = StoreError("the bucket is gone")
        read_again(shaky)
    else:
        shaky.flowing.clear()
    until(lambda: watch.permission().frozen)
    frozen = watch.permission().frozen
    assert (frozen.number, frozen.actor) == (0, "platform")
    assert "was not read for" in frozen.reason
    assert ("the bucket is gone" in frozen.reason) is (trouble == "fails")
    shaky.problem = None
    shaky.flowing.set()
    until(lambda: not watch.permission().frozen)
    assert watch.permission().thresholds == {"m": 0.95}
    watch.stop()


def test_a_store_that_hangs_holds_nobody_up(watch: Watch, shaky: Shaky) -> None:
    shaky.flowing.clear()
    watch.start()
    until(lambda: shaky.read)
    assert "was never read" in watch.permission().told
    watch.stop()
    assert shaky.read == 1


def test_who_stops_it_ends_the_reading(watch: Watch, shaky: Shaky) -> None:
    watch.start()
    until(lambda: shaky.read)
    watch.stop()
    before = shaky.read
    assert not watch._thread.is_alive()
    assert shaky.read == before
