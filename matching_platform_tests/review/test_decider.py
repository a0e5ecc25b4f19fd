"""What may be decided, what is refused and why, and what of it counts."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from matching_platform.database import connect, writing
from matching_platform.review.bookings import Booking
from matching_platform.review.books import Books
from matching_platform.review.cases import Status
from matching_platform.review.decider import Decider
from matching_platform.review.decisions import (
    Action,
    Allocation,
    ConflictError,
    DecisionError,
    OverSettledError,
    Wanted,
)
from matching_platform_tests.review.bench import accept, books, change, decider, invoice, proposal, transfer

TRANSFERS = [
    transfer("T1", 100_00),
    transfer("T2", 100_00),
    transfer("OUT", 50_00, "out"),
    transfer("PLN", 430_00, currency="PLN"),
    transfer("RATE", 430_00, currency="PLN"),
    transfer("USD", 430_00, currency="USD"),
]
INVOICES = [
    invoice("I1", 100_00),
    invoice("I2", 60_00),
    invoice("I3", 112_00),
    invoice("BIG", 500_00),
    invoice("CREDIT", -20_00),
    invoice("BUY", 50_00, "purchase"),
    invoice("RATED", 100_00),
]
PROPOSALS = [
    proposal("T1", ("I1", 100_00)),
    proposal("T2", ("I3", 112_00)),
    proposal("OUT", ("BUY", 50_00)),
    proposal("PLN", ("BIG", 100_00)),
    proposal("USD"),
]
# Four PLN for a euro.
TAGS = [("RATE", "RATED", 100_00, date(2024, 3, 12))]


@pytest.fixture
def held() -> Books:
    return books(TRANSFERS, INVOICES, PROPOSALS, TAGS)


@pytest.fixture
def desk(tmp_path: Path, held: Books) -> Decider:
    return decider(tmp_path, held)


def status(desk: Decider, name: str) -> Status:
    return desk.standing.status_of(desk.standing.at(name))


def open_on(desk: Decider, name: str) -> int:
    return desk.standing.open(desk.standing.books.invoice_at[name])


def journal(entries: Iterable[Booking]) -> list[tuple[str, str, int, str]]:
    return [(one.transfer_id, one.invoice_id, one.amount, one.entry) for one in entries]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (change("T9", ("I1", 1)), "there is no transfer 'T9'"),
        (change("T1", ("I9", 1)), "there is no invoice 'I9'"),
        (change("T1", ("I1", 50_00), ("I1", 50_00)), "stands twice"),
        (change("T1", ("BUY", 50_00)), "is a purchase, which no incoming transfer settles"),
        (change("OUT", ("I1", 50_00)), "is a sale, which no outgoing transfer settles"),
        (change("T1", ("I1", 0)), "cannot be settled by 0.00"),
        (change("T1", ("I1", -1)), "cannot be settled by -0.01; give it one above 0"),
        (change("T1", ("CREDIT", 20_00)), "a credit note is netted with a negative amount"),
        (change("T1", ("CREDIT", -20_00)), "the parts come to -20.00 EUR"),
        (change("T1"), "no invoice is chosen"),
        (Wanted("T1", Action.NOTHING, (Allocation("I1", 1),)), "the decision is 'nothing'"),
        (Wanted("T1", Action.LATER, (Allocation("I1", 1),)), "the decision is 'later'"),
        (Wanted("T1", Action.WITHDRAW), "use undo"),
        (change("T1", ("I1", 1), note="x" * 2001), "make it shorter"),
        (change("T1", ("I2", 60_01)), "has 60.00 EUR open, less than 60.01"),
        (change("T1", ("I1", 100_00), ("I2", 60_00)), "the parts come to 160.00 EUR"),
        (change("T1", ("I3", 112_00)), "say in a note why up to 12 % may be missing"),
        (change("T1", ("BIG", 120_00), note="discount"), "take less"),
        (accept("T1", ("I2", 60_00)), "are not what is proposed"),
        (accept("T1"), "are not what is proposed"),
        (accept("T1", ("I1", 100_00), expected=7), "nobody has decided on transfer T1 yet"),
        (change("PLN", ("BIG", 200_00)), "the parts come to 860.00 PLN"),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(desk: Decider, wanted: Wanted, told: str) -> None:
    fine = change("T2", ("BIG", 100_00))
    with pytest.raises(DecisionError) as error:
        desk.decide([fine, wanted], "anna")
    assert told in str(error.value)
    assert desk.decisions.read() == []
    assert desk.bookings.read() == []
    assert open_on(desk, "BIG") == 500_00


@pytest.mark.parametrize(
    "wanted",
    [
        accept("T1", ("I1", 100_00)),
        # As proposed, 10.7 % short.
        accept("T2", ("I3", 112_00)),
        change("T1", ("I3", 112_00), note="skonto"),
        change("T1", ("I1", 100_00), ("CREDIT", -20_00)),
        change("T1", ("BIG", 105_00)),
        change("T1", ("BIG", 1)),
        change("OUT", ("BUY", 50_00)),
        change("PLN", ("BIG", 101_00)),
        # Nobody knows the rate.
        change("USD", ("BIG", 500_00)),
        Wanted("T1", Action.NOTHING),
        Wanted("T1", Action.LATER),
    ],
)
def test_what_is_taken_is_in_force_at_once(desk: Decider, wanted: Wanted) -> None:
    (made,) = desk.decide([wanted], "anna")
    assert made.number == 1
    assert made.proposed is not None
    assert status(desk, wanted.transfer_id) is (Status.LATER if wanted.action is Action.LATER else Status.DECIDED)
    for part in wanted.allocations:
        worth = next(one["amount"] for one in INVOICES if one["invoice_id"] == part.invoice_id)
        assert open_on(desk, part.invoice_id) == worth - part.amount
    expected = [(made.transfer_id, part.invoice_id, part.amount, "book") for part in wanted.allocations]
    assert journal(desk.bookings.read()) == expected
    assert desk.decisions.read() == [made]


def test_who_comes_second_sees_what_the_first_did(desk: Decider) -> None:
    (first,) = desk.decide([accept("T1", ("I1", 100_00))], "anna")
    with pytest.raises(ConflictError) as conflict:
        desk.decide([change("T1", ("I2", 60_00))], "ben")
    assert conflict.value.theirs == first
    assert "anna decided 'accept'" in str(conflict.value)
    with pytest.raises(OverSettledError) as over:
        desk.decide([change("T2", ("I1", 100_00))], "ben")
    assert over.value.invoice_id == "I1"
    assert "decided by anna" in str(over.value)


def test_two_of_one_go_share_what_is_open(desk: Decider) -> None:
    with pytest.raises(OverSettledError, match="another transfer of the same decision"):
        desk.decide([accept("T1", ("I1", 100_00)), change("T2", ("I1", 1))], "anna")
    made = desk.decide([change("T1", ("I1", 60_00)), change("T2", ("I1", 40_00))], "anna")
    assert [one.number for one in made] == [1, 2]
    with pytest.raises(DecisionError, match="decided twice in one go"):
        desk.decide([change("T1", ("I2", 1), expected=1), change("T1", ("I2", 2), expected=1)], "anna")


def test_a_part_that_a_transfer_gives_up_is_free_for_the_next_of_one_go(desk: Decider) -> None:
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.decide([change("T1", ("I2", 60_00), expected=1), change("T2", ("I1", 100_00))], "anna")
    assert open_on(desk, "I1") == 0
    assert journal(desk.bookings.read(1)) == [
        ("T1", "I1", 100_00, "reverse"),
        ("T1", "I2", 60_00, "book"),
        ("T2", "I1", 100_00, "book"),
    ]


def test_a_second_click_makes_no_second_decision(desk: Decider) -> None:
    wanted = [accept("T1", ("I1", 100_00)), Wanted("USD", Action.NOTHING)]
    made = desk.decide(wanted, "anna")
    assert desk.decide(wanted, "anna") == made
    assert desk.decide(wanted[:1], "anna") == made[:1]
    with pytest.raises(ConflictError):
        desk.decide(wanted, "ben")
    undone = desk.undo(1, "anna")
    assert desk.undo(1, "anna") == undone
    with pytest.raises(ConflictError):
        desk.undo(1, "ben")
    assert len(desk.decisions.read()) == 3


def test_undo_brings_back_what_was_before(desk: Decider) -> None:
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.decide([change("T1", ("I2", 60_00), expected=1)], "ben")
    assert (open_on(desk, "I1"), open_on(desk, "I2")) == (100_00, 0)
    undone = desk.undo(2, "anna")
    assert (undone.action, undone.supersedes, undone.allocations) == (Action.WITHDRAW, 2, ())
    assert (open_on(desk, "I1"), open_on(desk, "I2")) == (0, 60_00)
    desk.undo(1, "anna")
    assert status(desk, "T1") is Status.WAITING
    assert open_on(desk, "I1") == 100_00
    with pytest.raises(DecisionError, match="there is no decision 9"):
        desk.undo(9, "anna")
    sums: dict[str, int] = {}
    for one in desk.bookings.read():
        sums[one.invoice_id] = sums.get(one.invoice_id, 0) + (one.amount if one.entry == "book" else -one.amount)
    assert set(sums.values()) == {0}


def test_undo_is_refused_where_somebody_took_what_would_come_back(desk: Decider) -> None:
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.decide([change("T1", ("I2", 60_00), expected=1)], "anna")
    desk.decide([change("T2", ("I1", 100_00))], "ben")
    with pytest.raises(OverSettledError, match="decided by ben"):
        desk.undo(2, "anna")


@pytest.mark.parametrize(("days", "counts"), [(-1, False), (0, False), (1, True)])
def test_a_later_tag_of_finance_counts_more(tmp_path: Path, held: Books, days: int, counts: bool) -> None:
    desk = decider(tmp_path, held)
    (made,) = desk.decide([accept("T1", ("I1", 100_00))], "anna")
    tagged_on = made.decided_at.date() + timedelta(days=days)
    desk.replace(books(TRANSFERS, INVOICES, PROPOSALS, [*TAGS, ("T1", "I2", 60_00, tagged_on)]))
    assert status(desk, "T1") is (Status.TAGGED if counts else Status.DECIDED)
    assert open_on(desk, "I1") == (100_00 if counts else 0)
    assert open_on(desk, "I2") == (0 if counts else 60_00)


def test_a_decision_that_came_back_as_a_tag_is_undone_all_the_same(tmp_path: Path, held: Books) -> None:
    desk = decider(tmp_path, held)
    (made,) = desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.replace(books(TRANSFERS, INVOICES, PROPOSALS, [*TAGS, ("T1", "I1", 100_00, made.decided_at.date())]))
    desk.undo(1, "anna")
    assert status(desk, "T1") is Status.WAITING
    assert open_on(desk, "I1") == 100_00


def test_who_asks_later_has_not_said_that_finance_was_wrong(tmp_path: Path) -> None:
    desk = decider(tmp_path, books(TRANSFERS, INVOICES, PROPOSALS, [("T1", "I1", 100_00, date(2024, 3, 11))]))
    assert status(desk, "T1") is Status.TAGGED
    desk.decide([Wanted("T1", Action.LATER)], "anna")
    assert status(desk, "T1") is Status.LATER
    assert open_on(desk, "I1") == 0


def test_what_may_be_booked_is_booked_once_and_by_its_model(tmp_path: Path) -> None:
    proposed = [
        proposal("T1", ("I1", 100_00), confidence=0.99, decision="auto"),
        # What is open does not suffice for both.
        proposal("T2", ("I1", 100_00), confidence=0.99, decision="auto"),
        proposal("OUT", ("BUY", 50_00), confidence=0.99, decision="auto", advance=False),
        proposal("USD"),
    ]
    held = books(TRANSFERS, INVOICES, proposed, TAGS)
    desk = decider(tmp_path, held)
    may = (held.proposals.decision == 0) & held.proposals.advance
    assert not may[held.transfer_at["OUT"]]
    assert [(one.transfer_id, one.by, one.actor) for one in desk.replace(held, may)] == [("T1", "unattended", "m1")]
    assert desk.replace(held, may) == []
    assert [status(desk, name) for name in ("T1", "T2", "OUT")] == [Status.BOOKED, Status.WAITING, Status.WAITING]
    again = Decider(connect(f"sqlite:///{tmp_path / 'desk.sqlite'}"))
    again.replace(held, may)
    assert status(again, "T1") is Status.BOOKED
    again.decide([change("T1", ("I2", 60_00))], "anna")
    again.undo(1, "anna")
    assert status(again, "T1") is Status.BOOKED
    assert journal(again.bookings.read()) == [
        ("T1", "I1", 100_00, "book"),
        ("T1", "I1", 100_00, "reverse"),
        ("T1", "I2", 60_00, "book"),
        ("T1", "I2", 60_00, "reverse"),
        ("T1", "I1", 100_00, "book"),
    ]


def test_what_finance_has_tagged_before_is_not_booked_again(tmp_path: Path) -> None:
    proposed = [proposal(name, ("I1", 100_00), decision="auto") for name in ("T1", "T2")]
    tags = [("T1", "I1", 100_00, date(2024, 3, 11)), ("T2", "I2", 60_00, date(2024, 3, 11))]
    held = books(TRANSFERS, INVOICES, proposed, tags)
    desk = decider(tmp_path, held)
    assert desk.replace(held, np.ones(len(TRANSFERS), bool)) == []
    # It said the same of one, and otherwise of the other.
    assert [status(desk, name) for name in ("T1", "T2")] == [Status.BOOKED, Status.TAGGED]


def test_two_desks_see_each_other(tmp_path: Path, held: Books) -> None:
    here, there = decider(tmp_path, held), decider(tmp_path, held)
    (made,) = here.decide([accept("T1", ("I1", 100_00))], "anna")
    with pytest.raises(OverSettledError):
        there.decide([change("T2", ("I1", 100_00))], "ben")
    assert open_on(there, "I1") == 0
    there.undo(made.number, "ben")
    assert [one.number for one in here.catch_up()] == [2]
    assert open_on(here, "I1") == 100_00


@pytest.mark.parametrize("table", ["decisions", "bookings"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET actor = 'eve'", "DELETE FROM {}"])
def test_nothing_is_ever_changed_or_deleted(desk: Decider, tmp_path: Path, table: str, statement: str) -> None:
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    with (
        pytest.raises(DBAPIError, match=f"rows of {table} are never changed or deleted"),
        writing(connect(f"sqlite:///{tmp_path / 'desk.sqlite'}")) as connection,
    ):
        connection.execute(text(statement.format(table)))
    assert desk.decisions.read()[0].actor == desk.bookings.read()[0].actor == "anna"


def test_a_decision_comes_back_as_it_was_made(desk: Decider) -> None:
    before = datetime.now(UTC)
    (made,) = desk.decide([change("T1", ("I2", 60_00), note=" the rest is missing ")], "Żaneta")
    (read,) = desk.decisions.read()
    assert read == made
    assert before <= read.decided_at <= datetime.now(UTC)
    assert read.note == "the rest is missing"
    assert read.corrects
    with pytest.raises(DecisionError, match="nobody is named"):
        desk.decide([Wanted("USD", Action.NOTHING)], " ")
