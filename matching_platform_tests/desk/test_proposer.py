"""The list of transfers that are to be proposed anew."""

from collections.abc import Iterator
from queue import Queue
from threading import Event, Thread

import pytest

from matching_platform.desk.proposing import Proposer
from matching_platform_tests.waiting import DEADLINE, until

NAMES = [f"T{number}" for number in range(100)]


class Work:
    """Notes what is worked on, and ends when it may; T13 is bad luck."""

    def __init__(self) -> None:
        self.begun: Queue[list[str]] = Queue()
        self.may_go_on = Event()

    def __call__(self, transfers: list[str]) -> None:
        self.begun.put(transfers)
        self.may_go_on.wait(DEADLINE)
        if "T13" in transfers:
            raise RuntimeError("bad luck")


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def proposer(work: Work) -> Iterator[Proposer]:
    proposer = Proposer(work)
    proposer.start()
    yield proposer
    work.may_go_on.set()
    proposer.close()


def test_all_come_in_their_order_some_at_once(work: Work, proposer: Proposer) -> None:
    work.may_go_on.set()
    proposer.ask(NAMES)
    until(lambda: proposer.backlog == 0)
    batches = [work.begun.get() for _ in range(work.begun.qsize())]
    assert [name for batch in batches for name in batch] == NAMES
    assert 1 < len(batches) < len(NAMES) / 10


def test_what_somebody_waits_for_comes_next(work: Work, proposer: Proposer) -> None:
    proposer.ask(NAMES)
    first = work.begun.get()
    waited: list[bool] = []
    waiting = Thread(target=lambda: waited.append(proposer.wait([NAMES[-1], "T-unknown"], DEADLINE)))
    waiting.start()
    until(lambda: proposer._waiting and next(iter(proposer._waiting)) == NAMES[-1])
    work.may_go_on.set()
    assert work.begun.get()[0] == NAMES[-1]
    waiting.join()
    assert waited == [True]
    assert NAMES[-1] not in first
    until(lambda: proposer.backlog == 0)


def test_nobody_waits_for_ever(work: Work, proposer: Proposer) -> None:
    proposer.ask(NAMES[:1])
    assert not proposer.wait(NAMES[:1], 0.0)
    assert proposer.wait(NAMES[1:], 0.0)


def test_what_fails_is_told_and_the_rest_goes_on(
    work: Work, proposer: Proposer, caplog: pytest.LogCaptureFixture
) -> None:
    work.may_go_on.set()
    proposer.ask(["T13"])
    until(lambda: proposer.backlog == 0)
    proposer.ask(["T14"])
    until(lambda: proposer.backlog == 0)
    assert [work.begun.get(), work.begun.get()] == [["T13"], ["T14"]]
    assert "could not propose anew for T13" in caplog.text


class Held(dict[str, None]):
    """A list that stops whoever has just taken something off it."""

    def __init__(self) -> None:
        self.is_taken, self.may_go_on = Event(), Event()

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.is_taken.set()
        self.may_go_on.wait(DEADLINE)


def test_what_is_taken_off_the_list_is_still_waited_for(work: Work) -> None:
    proposer, held = Proposer(work), Held()
    proposer._waiting = held
    proposer.start()
    proposer.ask(NAMES[:2])
    assert held.is_taken.wait(DEADLINE)
    assert all(proposer.is_pending(name) for name in NAMES[:2])
    assert proposer.backlog >= 2
    held.may_go_on.set()
    work.may_go_on.set()
    assert proposer.wait(NAMES[:2], DEADLINE)
    proposer.close()
