"""The desk's database as PostgreSQL, for real: what people do holds there as it does in SQLite."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import DatabaseError

from matching_platform.access import Access, LoginError, Role
from matching_platform.database import connect, writing
from matching_platform.desk.review import Review
from matching_platform.environment import Platform
from matching_platform.review.cases import Filter, Status
from matching_platform.review.decider import Decider
from matching_platform.review.decisions import (
    Action,
    Allocation,
    ConflictError,
    Decision,
    OverSettledError,
    Wanted,
)
from matching_platform_tests.desk.companies import OPEN, desk_company
from matching_platform_tests.desk.postgres import new_database, server
from matching_platform_tests.review import bench

APPEND_ONLY = ("decisions", "bookings", "audit")


@pytest.fixture(scope="module")
def socket() -> Iterator[str]:
    with server() as folder:
        yield folder


@pytest.fixture
def url(socket: str) -> str:
    return new_database(socket)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = connect(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return desk_company(tmp_path_factory.mktemp("company"))


@pytest.fixture
def platform(company: Platform, url: str) -> Iterator[Platform]:
    """The company, with an empty database."""
    desk = company.settings.desk.model_copy(update={"database": url})
    platform = Platform(company.settings.model_copy(update={"desk": desk}))
    yield platform
    platform.database.dispose()


def paying(review: Review) -> str:
    """A transfer that waits, and for which an invoice is proposed."""
    return next(row.transfer_id for row in review.queue(OPEN, Filter()).rows if row.invoices)


def accept(review: Review, transfer_id: str) -> Wanted:
    """What is proposed for the transfer, as a decision."""
    parts = review.case(transfer_id).proposal.parts
    return Wanted(transfer_id, Action.ACCEPT, tuple(Allocation(one.invoice.invoice_id, one.amount) for one in parts))


def test_two_who_start_at_once_make_the_tables_once(engine: Engine) -> None:
    together = Barrier(4)

    def begin(_: int) -> None:
        together.wait()
        Access(engine)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(4)))
    assert {"users", "tokens", "audit"} <= set(inspect(engine).get_table_names())


def test_users_sessions_and_tokens(engine: Engine) -> None:
    access = Access(engine)
    access.welcome(access.invite("ada", Role.BOOKER, "command line"), "a long enough pass phrase")
    with pytest.raises(LoginError):
        access.login("ada", "another pass phrase of hers", "192.0.2.1")
    key = access.login("ada", "a long enough pass phrase", "192.0.2.1")
    assert (user := access.session(key)) is not None
    assert (user.name, user.role) == ("ada", Role.BOOKER)
    access.logout(key)
    assert access.session(key) is None
    token = access.issue_token("finance", Role.READER, "ada")
    assert (program := access.bearer(token)) is not None
    assert (program.name, program.role) == ("token:finance", Role.READER)
    access.revoke_token("finance", "ada")
    assert access.bearer(token) is None
    assert {"login", "login refused", "token issued", "token refused"} <= {entry.action for entry in access.audit()}


def test_a_writer_waits_for_the_other(engine: Engine) -> None:
    """Each sees what the one before it wrote: no number is taken twice."""
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE numbers (number integer)"))

    def add(_: int) -> None:
        with writing(engine) as connection:
            last = connection.scalar(text("SELECT coalesce(max(number), 0) FROM numbers"))
            connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": last + 1})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    with engine.connect() as connection:
        found = connection.scalars(text("SELECT number FROM numbers ORDER BY number")).all()
    assert found == list(range(1, 41))


def test_decisions_undo_and_what_is_booked(platform: Platform) -> None:
    review = Review(platform)
    transfer = paying(review)
    (made,) = review.decide([accept(review, transfer)], "ada")
    assert review.case(transfer).row.status is Status.DECIDED
    assert review.undo(made.number, "ada").action is Action.WITHDRAW
    assert review.case(transfer).row.status is Status.WAITING
    entries = [(one.entry, one.by, one.amount) for one in review.bookings() if one.transfer_id == transfer]
    amounts = [part.amount for part in made.allocations]
    assert amounts
    assert entries == [(entry, "person", amount) for entry in ("book", "reverse") for amount in amounts]


def test_another_process_sees_the_decision_and_is_told_of_it(platform: Platform) -> None:
    """Two desks over one database, each with memory of its own."""
    first, second = Review(platform), Review(platform)
    transfer = paying(first)
    (made,) = first.decide([accept(first, transfer)], "ada")
    with pytest.raises(ConflictError) as refused:
        second.decide([Wanted(transfer, Action.NOTHING)], "ben")
    assert refused.value.theirs == made


def test_of_many_at_once_one_decides(platform: Platform) -> None:
    desks = [Review(platform) for _ in range(4)]
    transfer = paying(desks[0])
    together = Barrier(len(desks))

    def decide(place: int) -> Decision | ConflictError:
        together.wait()
        try:
            return desks[place].decide([Wanted(transfer, Action.NOTHING)], f"person {place}")[0]
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(len(desks)) as pool:
        outcomes = list(pool.map(decide, range(len(desks))))
    (won,) = (each for each in outcomes if isinstance(each, Decision))
    assert [each.theirs for each in outcomes if isinstance(each, ConflictError)] == [won] * 3


HELD = bench.books(
    [bench.transfer(name, 100_00) for name in ("X", "Y", "Z")],
    [bench.invoice(name, 100_00) for name in ("A", "B")],
    [bench.proposal(name, (one, 100_00), decision="auto") for name, one in (("X", "A"), ("Y", "A"), ("Z", "B"))],
)


def catch_up(desk: Decider, other: Decider) -> None:
    """After the other booked something."""
    other.decide([bench.accept("Z", ("B", 100_00))], "ada")
    desk.catch_up()


def book(desk: Decider, _: Decider) -> None:
    """Something unattended."""
    (entry,) = desk.replace(HELD, np.array([False, False, True]))
    assert entry.invoice_id == "B"


@pytest.mark.parametrize("read", [1, 2, 3])
@pytest.mark.parametrize("act", [catch_up, book])
def test_what_is_committed_between_two_reads_is_taken_in_by_the_next(
    url: str, act: Callable[[Decider, Decider], None], read: int
) -> None:
    engines = connect(url), connect(url)
    here, there = (Decider(engine) for engine in engines)
    for desk in (here, there):
        desk.replace(HELD)
    reads = count(1)

    def meanwhile(connection: Connection, *_: Any) -> None:
        writes = connection.get_execution_options().get("matching_platform_writes")
        if not writes and next(reads) == read:
            here.decide([bench.accept("X", ("A", 100_00))], "ben")

    event.listen(engines[1], "after_cursor_execute", meanwhile)
    act(there, here)
    assert next(reads) > read
    there.catch_up()
    assert there.standing.status_of(there.standing.at("X")) is Status.DECIDED
    assert there.standing.held == {"X": {"A": 100_00}, "Z": {"B": 100_00}}
    with pytest.raises(OverSettledError, match="decided by ben"):
        there.decide([bench.accept("Y", ("A", 100_00))], "eve")
    here.catch_up()
    assert here.standing.status.tolist() == there.standing.status.tolist()
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET actor = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
def test_nothing_that_was_recorded_is_changed(platform: Platform, table: str, statement: str) -> None:
    Access(platform.database).note("ada", "test", "a line")
    review = Review(platform)
    review.decide([accept(review, paying(review))], "ada")
    with platform.database.connect() as connection:
        before = connection.execute(text(f"SELECT * FROM {table}")).all()
    assert before
    with (
        pytest.raises(DatabaseError, match=f"rows of {table} are never changed or deleted"),
        writing(platform.database) as change,
    ):
        change.execute(text(statement.format(table)))
    with platform.database.connect() as connection:
        assert connection.execute(text(f"SELECT * FROM {table}")).all() == before
