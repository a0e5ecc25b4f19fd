from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.ledger.schema import OPEN_INVOICES, PROPOSALS, TRANSFERS
from matching_platform.ledger.validation import LedgerError
from matching_platform.ledger.wire import from_rows, proposal_rows, to_rows

TRANSFER = {
    "transfer_id": "t1",
    "booked_on": "2024-05-28",
    "amount": "12.30",
    "currency": "EUR",
    "direction": "in",
    "counterparty_name": "A",
    "counterparty_account": None,
    "title": "FV 1",
}


def test_rows_become_the_table() -> None:
    frame = from_rows("transfers", [TRANSFER])
    assert frame.schema == TRANSFERS.schema
    assert frame.row(0) == ("t1", date(2024, 5, 28), 1230, "EUR", "in", "A", None, "FV 1")


def test_no_rows_are_an_empty_table() -> None:
    frame = from_rows("open_invoices", [])
    assert frame.schema == OPEN_INVOICES.schema
    assert frame.is_empty()


@pytest.mark.parametrize(
    ("amount", "minor"),
    [
        ("12.3", 1230),
        ("12", 1200),
        (12, 1200),
        (12.3, 1230),
        (0.1 + 0.2, 30),
        (" 7.50 ", 750),
        (9999999999999.99, 10**15 - 1),
    ],
)
def test_amounts_are_text_or_numbers(amount: Any, minor: int) -> None:
    assert from_rows("transfers", [{**TRANSFER, "amount": amount}])["amount"].to_list() == [minor]


def test_no_float_of_two_places_is_lost() -> None:
    minor = list(range(1, 1_000_000, 173))
    rows = [{**TRANSFER, "transfer_id": str(amount), "amount": amount / 100} for amount in minor]
    assert from_rows("transfers", rows)["amount"].to_list() == minor


@pytest.mark.parametrize(
    ("rows", "row", "column", "problem"),
    [
        (None, None, None, "is not a list of rows"),
        ({}, None, None, "is not a list of rows"),
        ([TRANSFER, 3], 2, None, "is not an object"),
        ([TRANSFER, {}], 2, "transfer_id", "is missing"),
        ([{**TRANSFER, "title": 5}], 1, "title", "is not text"),
        ([{**TRANSFER, "title": "\udfff"}], 1, "title", "is not text"),
        ([{**TRANSFER, "booked_on": 5}], 1, "booked_on", "is not a date"),
        ([{**TRANSFER, "amount": True}], 1, "amount", "is not an amount"),
        ([{**TRANSFER, "amount": 1.234}], 1, "amount", "is not an amount"),
        ([TRANSFER, TRANSFER], 2, "transfer_id", "appears more than once"),
    ],
)
def test_a_problem_is_told_with_row_and_column(rows: Any, row: int | None, column: str | None, problem: str) -> None:
    with pytest.raises(LedgerError, match=problem) as refused:
        from_rows("transfers", rows, source="request")
    assert (refused.value.source, refused.value.row, refused.value.column) == ("request", row, column)


CELL = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=1)


@given(st.lists(st.fixed_dictionaries({name: CELL | st.just(value) for name, value in TRANSFER.items()}), max_size=3))
def test_any_rows_are_a_table_or_a_ledger_error(rows: list[dict[str, Any]]) -> None:
    try:
        frame = from_rows("transfers", rows)
    except LedgerError:
        return
    assert frame.schema == TRANSFERS.schema
    assert len(frame) == len(rows)
    assert from_rows("transfers", to_rows(frame)).equals(frame)


def test_proposals_are_told_in_major_units() -> None:
    rows = [("t1", "i1", -1230, 0.9, "auto", ["number"]), ("t2", None, None, 0.8, "none", [])]
    told = proposal_rows(pl.DataFrame(rows, schema=PROPOSALS, orient="row"))
    assert [list(row) for row in told] == [list(PROPOSALS)] * 2
    assert [row["amount"] for row in told] == [-12.3, None]
    assert Decimal(str(told[0]["amount"])) == Decimal("-12.30")
