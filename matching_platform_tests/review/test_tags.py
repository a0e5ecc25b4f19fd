"""Decisions become tags: the last one that nobody withdrew counts, and finance has the last word where it is later."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.ledger.money import MINOR_UNITS
from matching_platform.ledger.schema import MATCHES
from matching_platform.ledger.validation import LedgerError
from matching_platform.review import decisions as one_by_one
from matching_platform.review.decisions import TAGS, Action, Allocation, Decision, Proposed
from matching_platform.review.tags import SCHEMA, against_proposals, in_force, naming_others, tags, validated
from matching_platform.warehouse.tables import APPENDED

BOOKED: Final = date(2024, 2, 3)
DAY: Final = date(2024, 3, 1)
NAMES: Final = ("t1", "t2", "t3")
INVOICES: Final = ("i1", "i2", "i3")

amounts = st.integers(-(10**9), 10**9).filter(bool)
allocations = st.dictionaries(st.sampled_from(INVOICES), amounts, min_size=1).map(
    lambda parts: tuple(Allocation(invoice, amount) for invoice, amount in sorted(parts.items()))
)


@st.composite
def histories(draw: st.DrawFn) -> list[Decision]:
    """Decisions on a few transfers as a desk records them."""
    made: list[Decision] = []
    last: dict[str, int] = {}
    for number in range(1, draw(st.integers(0, 12)) + 1):
        transfer, action = draw(st.sampled_from(NAMES)), draw(st.sampled_from(list(Action)))
        parts = draw(allocations) if action in (Action.ACCEPT, Action.CHANGE) else ()
        shown = draw(
            st.none() | st.builds(Proposed, st.just("m"), st.just("review"), st.just(0.5), allocations | st.just(()))
        )
        at = datetime(2024, 3, 1, 23, tzinfo=UTC) + timedelta(hours=draw(st.integers(0, 72)))
        made.append(Decision(number, transfer, BOOKED, at, "anna", action, parts, shown, last.get(transfer), note=""))
        last[transfer] = number
    return made


def written(parts: tuple[Allocation, ...]) -> str:
    return json.dumps(
        [{"invoice_id": one.invoice_id, "amount": f"{Decimal(one.amount) / MINOR_UNITS:.2f}"} for one in parts]
    )


def rows(history: list[Decision]) -> pl.DataFrame:
    """The decisions as the warehouse holds them."""
    told: list[dict[str, Any]] = []
    for one in history:
        shared = {
            "number": one.number,
            "transfer_id": one.transfer_id,
            "booked_on": one.booked_on,
            "decided_at": one.decided_at,
            "actor": one.actor,
            "action": one.action.value,
            "note": one.note,
            "model": one.proposed and one.proposed.model,
            "proposed_decision": one.proposed and one.proposed.decision,
            "confidence": one.proposed and one.proposed.confidence,
            "proposed": one.proposed and written(one.proposed.allocations),
            "supersedes": one.supersedes,
        }
        parts = [(part.invoice_id, Decimal(part.amount) / MINOR_UNITS) for part in one.allocations] or [(None, None)]
        told += [{**shared, "invoice_id": invoice, "amount": amount} for invoice, amount in parts]
    return pl.DataFrame(told, schema=APPENDED["decisions"].columns)


def read(history: list[Decision]) -> pl.DataFrame:
    return validated(rows(history), source="decisions of 2024-02")


def standing(history: list[Decision]) -> dict[str, Decision]:
    """The decision in force of each transfer, one decision after the other."""
    found = {name: one_by_one.in_force([one for one in history if one.transfer_id == name]) for name in NAMES}
    return {name: one for name, one in found.items() if one}


by_finance = st.lists(
    st.tuples(st.sampled_from((*NAMES, "t4")), st.none() | st.sampled_from(INVOICES), st.integers(0, 6)), max_size=6
)


def tagged(given_tags: list[tuple[str, str | None, int]]) -> pl.DataFrame:
    told = [(name, invoice, invoice and 7, DAY + timedelta(days=days)) for name, invoice, days in given_tags]
    return pl.DataFrame(told, schema=MATCHES.schema, orient="row")


@settings(deadline=None)
@given(histories())
def test_what_is_in_force_is_what_the_desk_says(history: list[Decision]) -> None:
    found = in_force(read(history))
    assert dict(found.select("transfer_id", "number").unique().iter_rows()) == {
        name: one.number for name, one in standing(history).items()
    }
    parts = sum(max(1, len(one.allocations)) for one in standing(history).values())
    assert found.height == parts


@settings(deadline=None)
@given(histories(), by_finance)
def test_tags_are_those_of_a_naive_replay(history: list[Decision], finance: list[tuple[str, str | None, int]]) -> None:
    raw, expected = tagged(finance), []
    decided = {name: one for name, one in standing(history).items() if one.is_tag}
    for name in (*NAMES, "t4"):
        own = raw.filter(transfer_id=name)
        one = decided.get(name)
        if one is None or any(day > one.stands_until for day in own["tagged_on"]):
            expected += own.rows()
        else:
            parts = [(part.invoice_id, part.amount) for part in one.allocations] or [(None, None)]
            expected += [(name, *part, one.decided_at.date()) for part in parts]
    found = tags(raw, read(history))
    assert found.schema == MATCHES.schema
    assert sorted(found.rows(), key=str) == sorted(expected, key=str)


@settings(deadline=None)
@given(histories())
def test_a_correction_names_other_invoices_than_were_proposed(history: list[Decision]) -> None:
    decisions = read(history)
    judged = against_proposals(decisions, tags(tagged([]), decisions))
    shown = {name: one for name, one in standing(history).items() if one.is_tag and one.proposed}
    expected = {
        name: {part.invoice_id for part in one.allocations} != {part.invoice_id for part in one.proposed.allocations}
        for name, one in shown.items()
        if one.proposed
    }
    assert dict(judged.iter_rows()) == expected


@settings(deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_rows_is_of_no_matter(history: list[Decision], random: Any) -> None:
    raw = rows(history)
    order = list(range(raw.height))
    random.shuffle(order)
    assert validated(raw[order], source="decisions").equals(read(history))


def test_who_asks_later_or_takes_back_has_tagged_nothing() -> None:
    assert set(TAGS) == {action for action in Action if decided("t1", action).is_tag}
    assert set(Action) - set(TAGS) == {Action.LATER, Action.WITHDRAW}


def decided(transfer: str, action: Action, *parts: Allocation, number: int = 1) -> Decision:
    at = datetime(2024, 3, 1, 12, tzinfo=UTC)
    return Decision(number, transfer, BOOKED, at, "anna", action, parts, Proposed("m", "auto", 0.9, ()), None)


def test_what_finance_tags_later_than_a_correction_is_not_the_persons() -> None:
    """It is judged by the tags in force: here finance came back to what was proposed."""
    history = read([decided("t1", Action.CHANGE, Allocation("i1", 700))])
    later = tagged([("t1", None, 2)])
    assert tags(later, history).equals(later)
    assert against_proposals(history, tags(later, history)).rows() == [("t1", False)]
    assert against_proposals(history, tags(tagged([]), history)).rows() == [("t1", True)]


@pytest.mark.parametrize(
    ("decided_at", "days", "stands"),
    [
        (datetime(2024, 3, 1, 9, 59, tzinfo=UTC), 0, True),
        (datetime(2024, 3, 1, 9, 59, tzinfo=UTC), 1, False),
        (datetime(2024, 3, 1, 10, 0, tzinfo=UTC), 1, True),  # the first moment of the second of March, somewhere
        (datetime(2024, 3, 1, 23, 30, tzinfo=UTC), 1, True),  # half past midnight in Warsaw
        (datetime(2024, 3, 1, 23, 30, tzinfo=UTC), 2, False),
        (datetime(2024, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-8))), 1, True),
    ],
)
def test_in_doubt_about_the_day_the_person_at_the_desk_counts(decided_at: datetime, days: int, stands: bool) -> None:
    made = replace(decided("t1", Action.CHANGE, Allocation("i1", 700)), decided_at=decided_at)
    finance = tagged([("t1", None, days)])
    assert (finance["tagged_on"][0] <= made.stands_until) == stands
    found = tags(finance, read([made]))
    assert found["invoice_id"].to_list() == (["i1"] if stands else [None])
    assert not stands or found["tagged_on"].to_list() == [made.decided_at.astimezone(UTC).date()]


def test_what_names_no_invoice_is_found_among_what_is_in_force() -> None:
    history = [
        decided("t1", Action.CHANGE, Allocation("gone", 700)),
        decided("t1", Action.CHANGE, Allocation("i1", 700), number=2),
        decided("t2", Action.CHANGE, Allocation("i1", 700), Allocation("gone", 5), number=3),
        decided("t3", Action.NOTHING, number=4),
    ]
    found = naming_others(read(history), pl.Series(INVOICES))
    assert found.select("number", "invoice_id").rows() == [(3, "gone")]
    assert naming_others(read(history), pl.Series([], dtype=pl.String))["number"].to_list() == [2, 3, 3]


GOOD: Final = [
    decided("t1", Action.CHANGE, Allocation("i1", 700), Allocation("i2", -50)),
    decided("t2", Action.NOTHING, number=2),
]


def put(**values: Any) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The first row has other values."""
    first = pl.int_range(pl.len()) == 0
    return lambda frame: frame.with_columns(
        pl.when(first).then(pl.lit(value)).otherwise(pl.col(name)).cast(frame.schema[name]).alias(name)
        for name, value in values.items()
    )


FAULTS: Final = [
    (lambda frame: frame.drop("actor"), "column actor: the column is missing"),
    (put(transfer_id=None), "row 1, column transfer_id: is missing"),
    (put(decided_at=None), "row 1, column decided_at: is missing"),
    (put(action="accepted"), "row 1, column action: 'accepted' is none of accept, change"),
    (put(amount=None), "row 1, column amount: is given with an invoice, and only then"),
    (put(invoice_id="i2"), "row 1, column invoice_id: 'i2' is named more than once by its decision"),
    (put(invoice_id=None, amount=None), "row 1, column invoice_id: is missing in a decision that has other rows"),
    (put(actor="ben"), "row 1, column number: '1' has rows that differ in more than the invoice"),
    (lambda frame: frame.with_columns(supersedes=2), "column supersedes: '2' is not an earlier decision"),
    (lambda frame: frame.with_columns(action=pl.lit("later")), "'i1' is named by a decision that settles nothing"),
    (lambda frame: frame.with_columns(proposed=pl.lit("{")), "column proposed: is not a JSON list"),
    (put(proposed='[{"invoice_id": "i1"}]'), "row 1, column proposed: .* is not a JSON list"),
    (put(proposed='[{"invoice_id": "i1", "amount": "1.234"}]'), "row 1, column proposed: .* is not a JSON list"),
]


@pytest.mark.parametrize(("spoil", "told"), FAULTS)
def test_rows_that_no_desk_writes_are_refused(spoil: Callable[[pl.DataFrame], pl.DataFrame], told: str) -> None:
    raw = rows(GOOD)
    assert validated(raw, source="decisions").schema == SCHEMA
    with pytest.raises(LedgerError, match=f"^decisions of 2024-02: .*{told}") as refused:
        validated(spoil(raw), source="decisions of 2024-02")
    assert refused.value.rows.is_empty() == ("the column is missing" in told)
