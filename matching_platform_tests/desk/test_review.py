"""The review room over a platform: what waits, what is shown, what follows from a decision."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from itertools import permutations
from pathlib import Path
from shutil import rmtree
from typing import Any

import duckdb
import polars as pl
import pytest

from matching_platform.desk.books import Shelf
from matching_platform.desk.outbox import OtherDatabaseError
from matching_platform.desk.review import Review
from matching_platform.environment import Platform
from matching_platform.ledger.money import to_minor
from matching_platform.ledger.schema import RAW_TABLES
from matching_platform.review.cases import Case, Filter, Page, Status
from matching_platform.review.decider import Decider
from matching_platform.review.decisions import Action, Allocation, DecisionError, Wanted
from matching_platform_tests.desk.companies import MODEL, MONTHS, OPEN, bare_platform, desk_company, propose, store, tag
from matching_platform_tests.waiting import until

ALL = Filter(frozenset(Status))


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return desk_company(tmp_path)


@pytest.fixture
def review(platform: Platform) -> Iterator[Review]:
    review = Review(platform)
    yield review
    review.close()
    platform.database.dispose()


def accepting(case: Case) -> Wanted:
    parts = tuple(Allocation(part.invoice.invoice_id, part.amount) for part in case.proposal.parts)
    return Wanted(case.row.transfer_id, Action.ACCEPT, parts, case.expected)


def broken(*_: object) -> None:
    raise MemoryError


def minor(rows: pl.DataFrame) -> pl.DataFrame:
    """Amounts in minor units."""
    return rows.with_columns(to_minor("amount"))


def paying(review: Review, status: Status = Status.WAITING) -> list[Case]:
    """The cases of transfers for which one invoice is proposed, the most valuable first."""
    rows = review.queue(OPEN, Filter(frozenset({status})), size=500).rows
    return [review.case(row.transfer_id) for row in rows if row.invoices == 1]


def test_the_most_valuable_doubt_comes_first(review: Review) -> None:
    assert review.months() == [OPEN]
    rows = review.queue(OPEN, size=500).rows
    stakes = [row.stake for row in rows]
    assert stakes == sorted(stakes, reverse=True)
    assert {row.status for row in rows} == {Status.WAITING}
    main = next(row for row in rows if row.currency == review.summary(OPEN).currency)
    assert main.stake == round(main.amount * (1 - main.confidence))
    foreign = next(row for row in rows if row.currency != review.summary(OPEN).currency)
    assert foreign.stake != round(foreign.amount * (1 - foreign.confidence))


def test_pages_and_neighbours_follow_the_list(review: Review) -> None:
    every = [row.transfer_id for row in review.queue(OPEN, size=500).rows]
    first, last = review.queue(OPEN, size=10), review.queue(OPEN, page=99, size=10)
    assert [row.transfer_id for row in first.rows] == every[:10]
    assert (last.number, last.pages, last.total) == (first.pages, -(-len(every) // 10), len(every))
    assert [row.transfer_id for row in last.rows] == every[(last.pages - 1) * 10 :]
    assert review.neighbours(every[0], Filter()) == (None, every[1])
    assert review.neighbours(every[5], Filter()) == (every[4], every[6])
    assert review.neighbours(every[-1], Filter()) == (every[-2], None)
    review.decide([Wanted(every[5], Action.LATER)], "anna")
    assert review.neighbours(every[5], Filter()) == (every[4], every[6])
    with pytest.raises(LookupError, match="there is no transfer 'T9'"):
        review.neighbours("T9", Filter())


def test_the_numbers_of_a_month_add_up(review: Review) -> None:
    before = review.summary(OPEN)
    assert before.transfers == before.booked + before.waiting == review.queue(OPEN, ALL).total
    assert before.doubtful_money == sum(row.stake for row in review.queue(OPEN, size=500).rows)
    assert before.booked == review.booked(OPEN).total == len({one.transfer_id for one in review.bookings()})
    first, second = paying(review)[:2]
    review.decide([accepting(first), Wanted(second.row.transfer_id, Action.LATER)], "anna")
    after = review.summary(OPEN)
    assert (after.waiting, after.decided, after.later) == (before.waiting - 2, 1, 1)
    assert after.waiting_money < before.waiting_money


@pytest.mark.parametrize("of", ["payer", "title", "transfer_id", "counterparty"])
def test_a_transfer_is_found_by_its_texts(review: Review, of: str) -> None:
    row = paying(review)[0].row
    found = review.queue(OPEN, Filter(text=getattr(row, of).lower()), size=500).rows
    assert row.transfer_id in {one.transfer_id for one in found}
    assert len(found) < review.queue(OPEN).total


def test_a_transfer_is_found_by_its_amount_as_people_write_it(review: Review) -> None:
    row = next(case.row for case in paying(review) if case.row.amount >= 1000_00)
    shown = f"{row.amount / 100:,.2f}"
    for text in (shown, shown.replace(",", " ").replace(".", ","), shown.replace(",", "")):
        assert row.transfer_id in {one.transfer_id for one in review.queue(OPEN, Filter(text=text), size=500).rows}
    assert review.queue(OPEN, Filter(text="no such text")).rows == []


def test_what_is_alike_is_found_together(review: Review) -> None:
    rows = review.queue(OPEN, size=500).rows
    row = next(row for row in rows if sum(one.alike == row.alike for one in rows) > 1)
    group = {one.transfer_id for one in review.alike(row.transfer_id)}
    assert group == {one.transfer_id for one in rows if one.alike == row.alike}
    assert {one.transfer_id for one in review.queue(OPEN, Filter(alike=row.alike), size=500).rows} == group
    assert review.queue(OPEN, Filter(alike="nonsense")).rows == []


def test_a_case_shows_what_is_in_force(review: Review) -> None:
    case = paying(review)[0]
    assert (case.model, case.booked_from, case.expected, case.settled) == (MODEL, 0.95, 0, None)
    (part,) = case.proposal.parts
    assert part.invoice == review.invoice(part.invoice.invoice_id)
    (made,) = review.decide([accepting(case)], "anna")
    after = review.case(case.row.transfer_id)
    assert after.settled == case.proposal.parts
    assert (after.history, after.expected, after.row.last) == ((made,), 1, made)
    assert review.invoice(part.invoice.invoice_id).open == part.invoice.open - part.amount
    review.undo(1, "anna")
    assert review.case(case.row.transfer_id).settled is None
    assert [one.number for one in review.decisions().rows] == [2, 1]
    assert review.decisions(text=part.invoice.invoice_id.lower()).rows == [made]
    assert review.decisions("2020-01").total == review.decisions(actor="ben").total == 0
    assert [one.number for one in review.decisions_after(1)] == [2]


@pytest.mark.parametrize("text", ["lodz", " ŁÓDŹ ", "Zolta"])
def test_decisions_are_found_whatever_the_case_and_the_diacritics(review: Review, text: str) -> None:
    case, other = paying(review)[:2]
    (made,) = review.decide([replace(accepting(case), note="żółta koperta z Łodzi, ul. Łódź 3")], "anna")
    review.decide([replace(accepting(other), note="as agreed")], "anna")
    assert review.decisions(text=text).rows == [made]


def test_the_payers_own_open_invoices_are_offered_first(review: Review) -> None:
    for case in paying(review)[:5]:
        found = review.search(case.row.transfer_id, limit=500)
        theirs = [one.counterparty_id == case.proposal.parts[0].invoice.counterparty_id for one in found]
        assert theirs[0]
        assert all(one.open != 0 for one in found)
        assert {one.direction for one in found} == {"sale" if case.row.direction == "in" else "purchase"}
        number = found[-1].number
        assert found[-1] in review.search(case.row.transfer_id, number.lower(), 500)
    assert len(review.search(case.row.transfer_id, limit=3)) == 3


def test_what_was_settled_meanwhile_is_not_proposed_any_more(review: Review) -> None:
    """Without a champion; with one it is proposed anew."""
    review.proposer.start()
    cases = paying(review)
    case, other = next(
        (one, other)
        for one, other in permutations(cases, 2)
        if one.row.direction == other.row.direction
        and one.row.currency == other.row.currency == one.proposal.parts[0].invoice.currency
    )
    (part,) = case.proposal.parts
    allocations = (Allocation(part.invoice.invoice_id, min(part.amount, other.row.amount)),)
    (made,) = review.decide([Wanted(other.row.transfer_id, Action.CHANGE, allocations, other.expected)], "anna")
    now = review.case(case.row.transfer_id)
    assert now.proposal.parts == ()
    assert now.row.decision == "none"
    assert "against: 1 of the proposed invoices are settled meanwhile" in now.evidence
    with pytest.raises(DecisionError, match="not what is proposed"):
        review.decide([accepting(case)], "ben")
    review.undo(made.number, "anna")
    assert review.case(case.row.transfer_id).proposal == case.proposal


def test_what_changed_in_the_platform_is_seen(platform: Platform, review: Review) -> None:
    case = paying(review)[0]
    (part,) = case.proposal.parts
    tag(platform, OPEN, [(case.row.transfer_id, part.invoice.invoice_id, part.amount, date(2024, 4, 2))])
    review.look()
    assert review.case(case.row.transfer_id).row.status is Status.TAGGED
    assert review.invoice(part.invoice.invoice_id).open == part.invoice.open - part.amount
    assert review.summary(OPEN).tagged == 1


def test_a_freeze_is_told_and_nothing_more_is_booked(tmp_path: Path) -> None:
    platform = desk_company(tmp_path)
    change = platform.unattended.freeze(actor="anna", reason="the bank changed its titles")
    review = Review(platform)
    summary = review.summary(OPEN)
    assert change.signed in summary.frozen
    assert (summary.booked, review.bookings()) == (0, [])
    platform.unattended.unfreeze(actor="anna", reason="all is well")
    review.look()
    assert review.summary(OPEN).booked > 0
    assert review.summary(OPEN).frozen == ""
    booked = review.bookings()
    platform.unattended.freeze(actor="anna", reason="again")
    review.look()
    assert review.bookings() == booked
    assert review.summary(OPEN).booked == len({one.transfer_id for one in booked})
    platform.database.dispose()


def test_what_a_model_says_of_a_month_that_it_has_learned_from_is_not_booked(tmp_path: Path) -> None:
    platform = desk_company(tmp_path, unattended=0.0)
    rows = platform.read("proposals", OPEN).with_columns((pl.col("amount") * 100).cast(pl.Int64))
    sure = rows.with_columns(
        decision=pl.when(pl.col("invoice_id").is_null()).then(pl.lit("none")).otherwise(pl.lit("auto")),
        confidence=pl.lit(0.99),
    )
    first = sure["transfer_id"][0]
    # Of one transfer nothing was known in advance.
    propose(platform, OPEN, rows.filter(pl.col("transfer_id") != first))
    propose(platform, OPEN, sure, trained_until=OPEN)
    review = Review(platform)
    assert review.case(first).row.status is Status.WAITING
    assert review.case(first).row.decision in ("review", "none")
    assert first not in {one.transfer_id for one in review.bookings()}
    platform.database.dispose()


def test_nothing_is_decided_while_the_warehouse_holds_what_others_decided(platform: Platform, review: Review) -> None:
    case, other = paying(review)[:2]
    (made,) = review.decide([accepting(case)], "anna")
    review.outbox.carry()
    with duckdb.connect(str(platform.settings.warehouse)) as connection:
        connection.execute("UPDATE decisions SET actor = 'ben'")
    restarted = Review(Platform(platform.settings))
    with pytest.raises(OtherDatabaseError):
        restarted.outbox.carry()
    with pytest.raises(DecisionError, match="restore the newer database, or name another warehouse"):
        restarted.decide([accepting(other)], "anna")
    with pytest.raises(DecisionError, match="restore the newer database, or name another warehouse"):
        restarted.undo(made.number, "anna")
    assert restarted.case(case.row.transfer_id).row.status is Status.DECIDED, "all can be read"
    with duckdb.connect(str(platform.settings.warehouse)) as connection:
        connection.execute("UPDATE decisions SET actor = 'anna'")
    restarted.outbox.carry()
    restarted.undo(made.number, "anna")


@pytest.mark.parametrize("failing", [(Shelf, "books"), (Decider, "replace"), (Review, "_warm")])
def test_a_look_that_failed_is_made_again(
    tmp_path: Path, failing: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full, platform = desk_company(tmp_path / "full"), bare_platform(tmp_path, MONTHS)
    review = Review(platform)
    for name in RAW_TABLES:
        for month in MONTHS:
            store(platform, name, month, minor(full.read(name, month)))
    propose(platform, OPEN, minor(full.read("proposals", OPEN)))
    with monkeypatch.context() as patch:
        patch.setattr(*failing, broken)
        with pytest.raises(MemoryError):
            review.look()
    review.look()
    assert review.months() == [OPEN]
    assert review.summary(OPEN).booked > 0


def test_a_freeze_that_was_lifted_while_the_database_was_away_is_seen(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.unattended.freeze(actor="anna", reason="the bank changed its titles")
    review = Review(platform)
    platform.unattended.unfreeze(actor="anna", reason="all is well")
    with monkeypatch.context() as patch:
        patch.setattr(Decider, "replace", broken)
        with pytest.raises(MemoryError):
            review.look()
    review.look()
    assert review.summary(OPEN).booked > 0


def test_many_are_taken_back_at_once_by_who_made_them(review: Review) -> None:
    first, second = paying(review)[:2]
    (mine,) = review.decide([accepting(first)], "anna")
    (theirs,) = review.decide([accepting(second)], "ben")
    with pytest.raises(DecisionError, match=f"decision {theirs.number} was made by ben"):
        review.undo_all([theirs.number, mine.number], "anna")
    with pytest.raises(DecisionError, match="there is no decision 3 to undo"):
        review.undo_all([3], "anna")
    assert len(review.decisions_after()) == 2
    review.undo(theirs.number, "anna")
    review.undo_all([mine.number], "anna")


def test_a_platform_without_data_has_no_months(tmp_path: Path) -> None:
    empty = bare_platform(tmp_path, ["2024-01"])
    review = Review(empty)
    assert review.months() == []
    with pytest.raises(LookupError):
        review.case("T1")
    with pytest.raises(LookupError):
        review.invoice("I1")
    assert review.summary("2024-01").transfers == 0
    assert review.queue("2024-01").rows == []
    empty.database.dispose()


def test_another_desk_is_seen_and_its_decisions_are_carried_on(platform: Platform, review: Review) -> None:
    review.start()
    other = Review(Platform(platform.settings))
    case = paying(other)[0]
    other.decide([accepting(case)], "ben")
    review.refresh()
    assert review.case(case.row.transfer_id).row.status is Status.DECIDED
    until(lambda: review.outbox.backlog() == {"decisions": 0, "bookings": 0})
    assert platform.warehouse.last_appended("decisions") == 1
    assert platform.warehouse.read_appended("bookings", OPEN).height == len(review.bookings())


def judge(platform: Platform, folder: Path, month: str, exact: dict[str, bool]) -> None:
    """Makes `exact`, by transfer, what realised quality found of a month's unattended bookings."""
    folder.mkdir()
    pl.DataFrame({"transfer_id": [*exact], "exact": [*exact.values()]}).write_parquet(folder / "bookings.parquet")
    platform.catalog.set("realised_quality", month, platform.store.put("realised_quality", folder), {})


def counted(review: Review, month: str = OPEN) -> tuple[int, int] | None:
    """How many unattended bookings held, of how many."""
    precision = review.summary(month).precision
    return precision and (precision.right, precision.judged)


def test_precision_is_of_what_was_judged_and_of_what_people_decide(
    platform: Platform, review: Review, tmp_path: Path
) -> None:
    assert counted(review) is None
    judge(platform, tmp_path / "first", MONTHS[0], {"T-a": True, "T-b": False})
    judge(platform, tmp_path / "last", OPEN, {"T-c": True})
    review.look()
    assert [counted(review, month) for month in MONTHS] == [(1, 2), (1, 2), (2, 3)]
    judge(platform, tmp_path / "again", MONTHS[0], {"T-a": True, "T-b": True})
    review.look()
    booked = paying(review, Status.BOOKED)[0]
    review.decide([Wanted(booked.row.transfer_id, Action.NOTHING)], "anna")
    assert counted(review) == (3, 4)


def test_a_month_may_be_judged_while_precision_is_counted(
    platform: Platform, review: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(platform, tmp_path / "first", MONTHS[0], {"T-a": True})
    review.look()
    judge(platform, tmp_path / "second", MONTHS[1], {"T-b": True})
    rows = pl.DataFrame.iter_rows

    with monkeypatch.context() as patch:

        def looking(frame: pl.DataFrame) -> Iterator[tuple[Any, ...]]:
            patch.undo()
            review.look()
            return rows(frame)

        patch.setattr(pl.DataFrame, "iter_rows", looking)
        assert counted(review) == (1, 1)
        assert pl.DataFrame.iter_rows is rows, "the second month came meanwhile"
    assert counted(review) == (2, 2)


def test_ten_thousand_rows_are_asked_about_without_reading_anything(tmp_path: Path) -> None:
    platform = desk_company(tmp_path, transfers=10_000, unattended=0.0)
    known = platform.read("transfers", OPEN)
    review = Review(platform)
    # What is not there is not read.
    rmtree(tmp_path / "store")
    (tmp_path / "warehouse.duckdb").unlink(missing_ok=True)
    every = [row for page in range(1, 12) for row in review.queue(OPEN, page=page, size=1000).rows]
    assert len(every) == review.summary(OPEN).waiting == len(known) > 10_000
    assert {row.transfer_id for row in every} == set(known["transfer_id"])
    assert [row.stake for row in every] == sorted((row.stake for row in every), reverse=True)
    page = review.queue(OPEN, page=7)
    assert page == Page(every[300:350], 7, -(-len(every) // 50), len(every))
    sought = every[4321].transfer_id
    assert sought in {row.transfer_id for row in review.queue(OPEN, Filter(text=sought.lower())).rows}
    assert review.neighbours(sought, Filter()) == (every[4320].transfer_id, every[4322].transfer_id)
    case = review.case(sought)
    assert case.row == every[4321]
    assert review.search(sought, limit=3)
    review.decide([Wanted(sought, Action.LATER)], "anna")
    assert review.queue(OPEN).total == len(every) - 1
    platform.database.dispose()
