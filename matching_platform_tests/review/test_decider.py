"""What may be decided, what is refused and why, and what of it counts."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from matching_platform.database import connect, writing
from matching_platform.review import decider as deciding
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
from matching_platform_tests.review.bench import accept, books, change, decider, invoice, proposal, transfer, undo

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


def held_by(desk: Decider) -> dict[tuple[str, str], int]:
    """What the journal leaves booked."""
    held: Counter[tuple[str, str]] = Counter()
    for one in desk.bookings.read():
        held[one.transfer_id, one.invoice_id] += one.amount if one.entry == "book" else -one.amount
    return {part: amount for part, amount in held.items() if amount}


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
        (change("USD", ("BIG", 400_00)), "say in a note what it was"),
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
        # Nobody knows the rate but the person.
        change("USD", ("BIG", 500_00), note="1.16 dollars for a euro"),
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
    assert ": accepted" in str(conflict.value)
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
    undone = undo(desk, 1, "anna")
    assert undo(desk, 1, "anna") == undone
    with pytest.raises(ConflictError):
        undo(desk, 1, "ben")
    assert len(desk.decisions.read()) == 3


def test_undo_brings_back_what_was_before(desk: Decider) -> None:
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.decide([change("T1", ("I2", 60_00), expected=1)], "ben")
    assert (open_on(desk, "I1"), open_on(desk, "I2")) == (100_00, 0)
    undone = undo(desk, 2, "anna")
    assert (undone.action, undone.supersedes, undone.allocations) == (Action.WITHDRAW, 2, ())
    assert (open_on(desk, "I1"), open_on(desk, "I2")) == (0, 60_00)
    undo(desk, 1, "anna")
    assert status(desk, "T1") is Status.WAITING
    assert open_on(desk, "I1") == 100_00
    with pytest.raises(DecisionError, match="there is no decision 9"):
        undo(desk, 9, "anna")
    sums: dict[str, int] = {}
    for one in desk.bookings.read():
        sums[one.invoice_id] = sums.get(one.invoice_id, 0) + (one.amount if one.entry == "book" else -one.amount)
    assert set(sums.values()) == {0}


def test_undo_is_refused_where_somebody_took_what_would_come_back(desk: Decider) -> None:
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.decide([change("T1", ("I2", 60_00), expected=1)], "anna")
    desk.decide([change("T2", ("I1", 100_00))], "ben")
    with pytest.raises(OverSettledError, match="decided by ben"):
        undo(desk, 2, "anna")


@pytest.mark.parametrize(("days", "counts"), [(-1, False), (0, False), (1, True)])
def test_a_later_tag_of_finance_counts_more(tmp_path: Path, held: Books, days: int, counts: bool) -> None:
    desk = decider(tmp_path, held)
    (made,) = desk.decide([accept("T1", ("I1", 100_00))], "anna")
    tagged_on = made.stands_until + timedelta(days=days)
    desk.replace(books(TRANSFERS, INVOICES, PROPOSALS, [*TAGS, ("T1", "I2", 60_00, tagged_on)]))
    assert status(desk, "T1") is (Status.TAGGED if counts else Status.DECIDED)
    assert open_on(desk, "I1") == (100_00 if counts else 0)
    assert open_on(desk, "I2") == (0 if counts else 60_00)
    assert held_by(desk) == ({} if counts else {("T1", "I1"): 100_00})


def test_a_decision_that_came_back_as_a_tag_is_undone_all_the_same(tmp_path: Path, held: Books) -> None:
    desk = decider(tmp_path, held)
    (made,) = desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.replace(books(TRANSFERS, INVOICES, PROPOSALS, [*TAGS, ("T1", "I1", 100_00, made.decided_at.date())]))
    undo(desk, 1, "anna")
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
    undo(again, 1, "anna")
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
    undo(there, made.number, "ben")
    assert [one.number for one in here.catch_up()] == [2]
    assert open_on(here, "I1") == 100_00


def test_a_desk_starts_while_another_one_writes(tmp_path: Path, desk: Decider) -> None:
    (made,) = desk.decide([accept("T1", ("I1", 100_00))], "anna")
    url = f"sqlite:///{tmp_path / 'desk.sqlite'}"
    with writing(connect(url)):
        assert Decider(connect(url)).decisions.read() == [made]


@pytest.mark.parametrize("table", ["decisions", "bookings"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET actor = 'eve'",
        "DELETE FROM {}",
        "INSERT OR REPLACE INTO {} SELECT * FROM {}",
        "INSERT INTO {} SELECT * FROM {} WHERE true ON CONFLICT (number) DO UPDATE SET actor = 'eve'",
    ],
)
def test_nothing_is_ever_changed_or_deleted(desk: Decider, tmp_path: Path, table: str, statement: str) -> None:
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    with (
        pytest.raises(DBAPIError, match=f"rows of {table} are never changed or deleted"),
        writing(connect(f"sqlite:///{tmp_path / 'desk.sqlite'}")) as connection,
    ):
        connection.execute(text(statement.replace("{}", table)))
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


ONE = [transfer("T1", 100_00)]
AUTO = proposal("T1", ("I1", 100_00), confidence=0.99, decision="auto")
RENAMED = proposal("T1", ("NEW", 100_00), confidence=0.99, decision="auto")


def booking(desk: Decider, held: Books) -> list[Booking]:
    """The new entries where all that the model is sure of may be booked."""
    return desk.replace(held, held.proposals.decision == 0)


def test_a_transfer_whose_invoice_is_corrected_is_never_booked_twice(tmp_path: Path) -> None:
    held = books(ONE, [invoice("I1", 100_00)], [AUTO])
    desk = decider(tmp_path, held)
    booking(desk, held)
    there = decider(tmp_path, held)
    renamed = books(ONE, [invoice("NEW", 100_00)], [RENAMED])
    entries = booking(desk, renamed)
    assert [(one.invoice_id, one.currency, one.entry, one.actor) for one in entries] == [
        ("I1", "EUR", "reverse", "corrected data"),
        ("NEW", "EUR", "book", "m1"),
    ]
    assert held_by(desk) == {("T1", "NEW"): 100_00}
    assert booking(desk, renamed) == []
    there.replace(renamed)
    assert status(there, "T1") is Status.BOOKED
    # The bank has taken the transfer back, and told it under another id.
    booking(
        desk,
        books([transfer("T2", 100_00)], [invoice("NEW", 100_00)], [proposal("T2", ("NEW", 100_00), decision="auto")]),
    )
    assert held_by(desk) == {("T2", "NEW"): 100_00}


def test_books_without_anything_reverse_nothing(tmp_path: Path) -> None:
    held = books(ONE, [invoice("I1", 100_00)], [AUTO])
    desk = decider(tmp_path, held)
    booking(desk, held)
    assert desk.replace(Books.empty()) == []
    desk.replace(held)
    assert status(desk, "T1") is Status.BOOKED


def test_what_a_person_undid_the_machine_does_not_book(tmp_path: Path) -> None:
    held = books(ONE, [invoice("I1", 100_00)], [AUTO])
    desk = decider(tmp_path, held)
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    undo(desk, 1, "anna")
    assert booking(desk, held) == []
    assert status(desk, "T1") is Status.WAITING


@pytest.mark.parametrize(
    "corrected",
    [
        books(ONE, [invoice("I2", 60_00)], [proposal("T1")]),
        books([transfer("T1", 10_00)], [invoice("I1", 100_00)], [proposal("T1")]),
        books(ONE, [invoice("I1", 30_00)], [proposal("T1")]),
        books(ONE, [invoice("I1", 100_00, "purchase")], [proposal("T1")]),
    ],
    ids=["invoice gone", "transfer shrunk", "invoice shrunk", "other side"],
)
def test_a_decision_that_newer_books_have_no_place_for_waits_again(tmp_path: Path, corrected: Books) -> None:
    desk = decider(tmp_path, books(ONE, [invoice("I1", 100_00)], [AUTO]))
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    (entry,) = desk.replace(corrected)
    assert (entry.entry, entry.currency, entry.amount, entry.decision) == ("reverse", "EUR", 100_00, 1)
    assert (status(desk, "T1"), len(desk.standing.past(0))) == (Status.WAITING, 1)
    assert held_by(desk) == {}
    undo(desk, 1, "ben")
    assert status(desk, "T1") is Status.WAITING
    assert len(desk.bookings.read()) == 2


def test_a_decision_on_a_transfer_that_is_gone_can_be_undone(tmp_path: Path, held: Books) -> None:
    desk = decider(tmp_path, held)
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.replace(books(TRANSFERS[1:], INVOICES, PROPOSALS[1:], TAGS))
    undo(desk, 1, "anna")
    desk.decide([change("T2", ("I1", 100_00))], "ben")
    assert held_by(desk) == {("T2", "I1"): 100_00}


@pytest.mark.parametrize("unattended", [False, True])
def test_what_finance_tagged_otherwise_is_free_for_others_and_stays_so(
    tmp_path: Path, unattended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposed = [AUTO, proposal("T2", ("I1", 100_00))]
    desk = decider(tmp_path, books(TRANSFERS, INVOICES, proposed))
    if unattended:
        booking(desk, desk.standing.books)
    else:
        desk.decide([accept("T1", ("I1", 100_00))], "anna")
    number = desk.standing.last
    later = datetime.now(UTC).date() + timedelta(days=2)
    desk.replace(books(TRANSFERS, INVOICES, proposed, [("T1", "I2", 60_00, later)]))
    assert held_by(desk) == {}
    desk.decide([accept("T2", ("I1", 100_00))], "ben")
    monkeypatch.setattr(deciding, "datetime", clock(days=3))
    (changed,) = desk.decide([change("T1", ("BIG", 100_00), expected=number)], "anna")
    assert held_by(desk) == {("T2", "I1"): 100_00, ("T1", "BIG"): 100_00}
    undo(desk, changed.number, "anna")
    assert status(desk, "T1") is Status.TAGGED
    assert held_by(desk) == {("T2", "I1"): 100_00}


def test_finance_that_loads_a_decision_on_a_later_day_confirms_it(
    tmp_path: Path, held: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = decider(tmp_path, held)
    (made,) = desk.decide([accept("T1", ("I1", 100_00))], "anna")
    loaded = made.stands_until + timedelta(days=1)
    assert desk.replace(books(TRANSFERS, INVOICES, PROPOSALS, [*TAGS, ("T1", "I1", 100_00, loaded)])) == []
    assert status(desk, "T1") is Status.DECIDED
    monkeypatch.setattr(deciding, "datetime", clock(days=3))
    desk.decide([change("T1", ("I1", 100_00), expected=1, note="checked")], "ben")
    assert held_by(desk) == {("T1", "I1"): 100_00}
    undo(desk, 2, "ben")
    undo(desk, 1, "anna")
    assert (status(desk, "T1"), held_by(desk)) == (Status.WAITING, {})
    desk.decide([change("T2", ("I1", 100_00))], "ben")


def test_what_finance_settles_with_another_transfer_is_not_booked_as_well(tmp_path: Path, held: Books) -> None:
    desk = decider(tmp_path, held)
    desk.decide([accept("T1", ("I1", 100_00))], "anna")
    desk.replace(books(TRANSFERS, INVOICES, PROPOSALS, [*TAGS, ("T2", "I1", 60_00, date(2024, 3, 11))]))
    assert (status(desk, "T1"), held_by(desk), open_on(desk, "I1")) == (Status.WAITING, {}, 40_00)


def test_who_asks_later_brings_nothing_back_that_others_took(tmp_path: Path) -> None:
    desk = decider(tmp_path, books(TRANSFERS, INVOICES, PROPOSALS, [("T1", "I1", 100_00, date(2024, 3, 11))]))
    desk.decide([change("T1", ("I2", 60_00))], "anna")
    desk.decide([change("T2", ("I1", 100_00))], "ben")
    with pytest.raises(OverSettledError, match="decided by ben"):
        desk.decide([Wanted("T1", Action.LATER, expected=1)], "anna")


def test_another_part_of_the_same_invoice_corrects_nothing(desk: Decider) -> None:
    (made,) = desk.decide([change("T1", ("I1", 90_00))], "anna")
    assert not made.corrects


def clock(days: int) -> type[datetime]:
    """One that is ahead."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=days)

    return Ahead


def test_who_undoes_what_the_bank_moved_since_does_so_on_the_new_day(tmp_path: Path, held: Books) -> None:
    """The day tells in which month it counts."""
    desk = decider(tmp_path, held)
    (made,) = desk.decide([accept("T1", ("I1", 100_00))], "anna")
    moved = [{**one, "booked_on": date(2024, 5, 2)} for one in TRANSFERS]
    desk.replace(books(moved, INVOICES, PROPOSALS, TAGS))
    undone = undo(desk, 1, "anna")
    assert made.booked_on < date(2024, 5, 1)
    assert undone.booked_on == date(2024, 5, 2)
