"""Every fault of a table ends in one line that names source, row and column; everything sound passes unchanged."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.ledger.schema import TABLES
from matching_platform.ledger.validation import LedgerError, check_references, validate

ROWS: dict[str, dict[str, Any]] = {
    "invoices": {
        "invoice_id": "i1",
        "number": "FV/2024/05/0007",
        "direction": "sale",
        "counterparty_id": "c1",
        "counterparty_name": "Müller GmbH",
        "counterparty_tax_id": None,
        "counterparty_account": None,
        "issued_on": "2024-05-01",
        "due_on": "2024-05-15",
        "amount": "123.45",
        "currency": "EUR",
        "reference": None,
    },
    "transfers": {
        "transfer_id": "t1",
        "booked_on": "2024-05-28",
        "amount": "123.45",
        "currency": "EUR",
        "direction": "in",
        "counterparty_name": "MUELLER",
        "counterparty_account": None,
        "title": "FV 7",
    },
    "matches": {"transfer_id": "t1", "invoice_id": "i1", "amount": "123.45", "tagged_on": "2024-05-30"},
    "audit": {"transfer_id": "t1", "invoice_id": "i1", "amount": "123.45"},
}


def table(name: str, *changes: dict[str, Any]) -> pl.DataFrame:
    """A table of text, one sound row for each of `changes`, which are put into it; keys are numbered."""
    key = TABLES[name].key
    rows = [ROWS[name] | ({key: f"{key[0]}{n}"} if key else {}) | change for n, change in enumerate(changes, start=1)]
    return pl.DataFrame(rows, schema=dict.fromkeys(ROWS[name], pl.String))


@pytest.mark.parametrize("name", ROWS)
def test_a_sound_row_passes(name: str) -> None:
    frame = validate(name, table(name, {}, {}))
    assert frame.schema == TABLES[name].schema
    assert frame["amount"].to_list() == [12345, 12345]


@pytest.mark.parametrize("name", ROWS)
def test_an_empty_table_passes_in_any_types(name: str) -> None:
    for dtype in (pl.String, pl.Null):
        frame = validate(name, pl.DataFrame(schema=dict.fromkeys(ROWS[name], dtype)))
        assert frame.is_empty()
        assert frame.schema == TABLES[name].schema


@pytest.mark.parametrize(("name", "column"), [(name, column) for name, row in ROWS.items() for column in row])
def test_a_missing_column_is_named(name: str, column: str) -> None:
    with pytest.raises(LedgerError) as error:
        validate(name, table(name, {}).drop(column), source="data/x.csv")
    assert str(error.value) == f"data/x.csv: column {column}: the column is missing"
    assert error.value.rows.is_empty()


NO_AMOUNT = "is not an amount with at most two decimal places"
NO_DATE = "is not a date (YYYY-MM-DD)"
NO_CURRENCY = "is not an ISO 4217 currency"
HALF = "must be given with an invoice, and only then,"
FAULTS = [
    ("invoices", {"invoice_id": None}, "invoice_id: is missing"),
    ("invoices", {"invoice_id": "  "}, "invoice_id: '' is missing"),
    ("invoices", {"counterparty_id": None}, "counterparty_id: is missing"),
    ("invoices", {"direction": "sales"}, "direction: 'sales' is not 'purchase' or 'sale'"),
    ("invoices", {"direction": None}, "direction: is missing"),
    ("invoices", {"currency": "EURO"}, f"currency: 'EURO' {NO_CURRENCY}"),
    ("invoices", {"currency": "eur"}, f"currency: 'eur' {NO_CURRENCY}"),
    ("invoices", {"currency": "XXX"}, f"currency: 'XXX' {NO_CURRENCY}"),
    ("invoices", {"currency": None}, "currency: is missing"),
    ("invoices", {"amount": "12,50"}, f"amount: '12,50' {NO_AMOUNT}"),
    ("invoices", {"amount": "1 000.00"}, f"amount: '1 000.00' {NO_AMOUNT}"),
    ("invoices", {"amount": "12.505"}, f"amount: '12.505' {NO_AMOUNT}"),
    ("invoices", {"amount": "1e3"}, f"amount: '1e3' {NO_AMOUNT}"),
    ("invoices", {"amount": "NaN"}, f"amount: 'NaN' {NO_AMOUNT}"),
    ("invoices", {"amount": "twelve"}, f"amount: 'twelve' {NO_AMOUNT}"),
    ("invoices", {"amount": None}, "amount: is missing"),
    ("invoices", {"amount": ""}, "amount: '' is missing"),
    ("invoices", {"issued_on": "2024-02-30"}, f"issued_on: '2024-02-30' {NO_DATE}"),
    ("invoices", {"issued_on": "01.05.2024"}, f"issued_on: '01.05.2024' {NO_DATE}"),
    ("invoices", {"issued_on": None}, "issued_on: is missing"),
    ("invoices", {"due_on": "soon"}, f"due_on: 'soon' {NO_DATE}"),
    ("invoices", {"due_on": "2023-05-05garbage"}, f"due_on: '2023-05-05garbage' {NO_DATE}"),
    ("invoices", {"due_on": "2023-05-051"}, f"due_on: '2023-05-051' {NO_DATE}"),
    ("invoices", {"due_on": "2023-05-05 noon"}, f"due_on: '2023-05-05 noon' {NO_DATE}"),
    ("invoices", {"due_on": "2023-5-5"}, f"due_on: '2023-5-5' {NO_DATE}"),
    ("transfers", {"transfer_id": None}, "transfer_id: is missing"),
    ("transfers", {"booked_on": "2024-13-01"}, f"booked_on: '2024-13-01' {NO_DATE}"),
    ("transfers", {"amount": "0"}, "amount: '0' is not above zero"),
    ("transfers", {"amount": "-1.00"}, "amount: '-1.00' is not above zero"),
    ("transfers", {"amount": "abc"}, f"amount: 'abc' {NO_AMOUNT}"),
    ("transfers", {"direction": "sale"}, "direction: 'sale' is not 'in' or 'out'"),
    ("matches", {"transfer_id": None}, "transfer_id: is missing"),
    ("matches", {"tagged_on": ""}, "tagged_on: '' is missing"),
    ("matches", {"invoice_id": None}, f"amount: '123.45' {HALF}"),
    ("matches", {"amount": None}, f"amount: {HALF}"),
    ("audit", {"invoice_id": None}, f"amount: '123.45' {HALF}"),
]


@pytest.mark.parametrize(("name", "change", "problem"), FAULTS)
def test_a_fault_names_source_row_and_column(name: str, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(LedgerError) as error:
        validate(name, table(name, {}, change, {}), source="data/x.csv")
    assert str(error.value) == f"data/x.csv: row 2, column {problem}"
    assert (error.value.row, error.value.source) == (2, "data/x.csv")
    assert error.value.column == problem.split(":")[0]
    assert error.value.rows["_row"].to_list() == [2]


@pytest.mark.parametrize("name", ["invoices", "transfers"])
@pytest.mark.parametrize(
    ("keys", "told", "refused"),
    [
        (["a", "b", "a"], "row 3, column {key}: 'a'", [1, 3]),
        (["a", "a", "a"], "row 2, column {key}: 'a'", [1, 2, 3]),
        (["a", "b", "b", "a"], "row 3, column {key}: 'b'", [1, 2, 3, 4]),
        (["a", " a "], "row 2, column {key}: 'a'", [1, 2]),
    ],
)
def test_a_duplicate_key_names_the_first_row_that_repeats_one(
    name: str, keys: list[str], told: str, refused: list[int]
) -> None:
    column = str(TABLES[name].key)
    with pytest.raises(LedgerError) as error:
        validate(name, table(name, *({column: key} for key in keys)))
    more = f"appears more than once ({len(refused)} rows are refused)"
    assert str(error.value) == f"{name}: {told.format(key=column)} {more}"
    assert error.value.rows["_row"].to_list() == refused


def test_the_first_of_many_faults_is_told_and_all_are_kept_for_quarantine() -> None:
    faulty = table("transfers", {}, {"currency": "??"}, {"amount": "x", "title": "kept as it came"}, {"currency": None})
    with pytest.raises(LedgerError) as error:
        validate("transfers", faulty)
    assert (
        str(error.value) == "transfers: row 2, column currency: '??' is not an ISO 4217 currency (3 rows are refused)"
    )
    kept = error.value.rows.sort("_row")
    assert kept["_row"].to_list() == [2, 3, 4]
    assert kept["title"].to_list()[1] == "kept as it came"
    assert kept["problem"].to_list()[0] == "currency is not an ISO 4217 currency"


def test_an_error_of_many_rows_and_odd_text_stays_one_line() -> None:
    with pytest.raises(LedgerError) as error:
        validate("invoices", table("invoices", {"currency": "E\nU\rR" + "x" * 10_000}))
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(["12.30", "-4", "0.00"], id="text"),
        pytest.param([" 12.300 ", "-4.0", "+0"], id="text with zeros and space"),
        pytest.param([12.3, -4.0, 0.0], id="float"),
        pytest.param([Decimal("12.30"), Decimal("-4.00"), Decimal("0.00")], id="decimal"),
    ],
)
def test_amounts_of_every_type_become_minor_units(values: list[Any]) -> None:
    frame = table("invoices", {}, {}, {}).with_columns(amount=pl.Series(values))
    assert validate("invoices", frame)["amount"].to_list() == [1230, -400, 0]


def test_whole_amounts_may_be_integers() -> None:
    frame = table("invoices", {}, {}).with_columns(amount=pl.Series([12, -4]))
    assert validate("invoices", frame)["amount"].to_list() == [1200, -400]


@pytest.mark.parametrize("value", [0.125, 1e300, float("inf"), float("nan"), -1e17])
def test_a_float_that_is_no_amount_is_refused(value: float) -> None:
    frame = table("invoices", {}, {}).with_columns(amount=pl.Series([1.0, value]))
    with pytest.raises(LedgerError, match=r"row 2, column amount: .* is not an amount"):
        validate("invoices", frame)


@given(st.lists(st.integers(-(10**13), 10**13), min_size=1))
def test_no_float_of_two_places_is_lost(minor: list[int]) -> None:
    frame = table("invoices", *({} for _ in minor)).with_columns(amount=pl.Series([value / 100 for value in minor]))
    assert validate("invoices", frame)["amount"].to_list() == minor


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([date(2024, 5, 1), date(2024, 2, 29)], id="date"),
        pytest.param([datetime(2024, 5, 1, 23, 59), datetime(2024, 2, 29)], id="datetime"),
        pytest.param(["2024-05-01", " 2024-02-29"], id="text"),
        pytest.param(["2024-05-01T10:00:00", "2024-02-29 00:00:00"], id="text with time"),
        pytest.param(["2024-05-01T23:00:00.123Z", "2024-02-29 10:00:00+02"], id="text with offset"),
        pytest.param(["2024-05-01 10:00:00 UTC", "2024-02-29T10:00"], id="text as warehouses export it"),
    ],
)
def test_dates_of_every_type_become_dates(values: list[Any]) -> None:
    frame = table("invoices", {}, {}).with_columns(issued_on=pl.Series(values))
    assert validate("invoices", frame)["issued_on"].to_list() == [date(2024, 5, 1), date(2024, 2, 29)]


def test_a_zoned_timestamp_keeps_its_own_calendar_day() -> None:
    moments = pl.Series([datetime(2024, 5, 1, 22, 30)]).dt.replace_time_zone("UTC").dt.convert_time_zone("UTC")
    frame = table("invoices", {}).with_columns(issued_on=moments)
    assert validate("invoices", frame)["issued_on"].to_list() == [date(2024, 5, 1)]


WRONG_TYPES = [
    ("invoices", "issued_on", [["2024-05-01"]], pl.List(pl.String), "List(String), which is no date"),
    ("invoices", "issued_on", [{"a": 1}], pl.Struct({"a": pl.Int64}), "Struct({'a': Int64}), which is no date"),
    ("invoices", "issued_on", [19844], pl.Int64, "Int64, which is no date"),
    ("invoices", "issued_on", [1.5], pl.Float64, "Float64, which is no date"),
    ("invoices", "issued_on", [True], pl.Boolean, "Boolean, which is no date"),
    ("invoices", "issued_on", [time(1)], pl.Time, "Time, which is no date"),
    ("invoices", "amount", [True], pl.Boolean, "Boolean, which is no amount"),
    ("invoices", "amount", [b"1"], pl.Binary, "Binary, which is no amount"),
    ("invoices", "amount", [date(2024, 5, 1)], pl.Date, "Date, which is no amount"),
    ("invoices", "amount", [[1, 2]], pl.Array(pl.Int64, 2), "Array(Int64, shape=(2,)), which is no amount"),
    ("invoices", "invoice_id", [b"i1"], pl.Binary, "Binary, which is no text"),
    ("invoices", "invoice_id", [object()], pl.Object, "Object, which is no text"),
    ("invoices", "number", [["a", "b"]], pl.List(pl.String), "List(String), which is no text"),
    ("invoices", "reference", [timedelta(1)], pl.Duration("us"), "Duration(time_unit='us'), which is no text"),
    ("invoices", "currency", [time(1)], pl.Time, "Time, which is no text"),
]


@pytest.mark.parametrize(("name", "column", "values", "dtype", "problem"), WRONG_TYPES)
def test_a_column_of_an_unexpected_type_is_named(
    name: str, column: str, values: list[Any], dtype: pl.DataType, problem: str
) -> None:
    frame = table(name, {}).with_columns(pl.Series(column, values, dtype=dtype))
    with pytest.raises(LedgerError) as error:
        validate(name, frame, source="x.parquet")
    assert str(error.value) == f"x.parquet: column {column}: has the type {problem}"


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum(["2024-05-01", "123.45", "EUR", "i1"])])
@pytest.mark.parametrize("column", ["issued_on", "amount", "currency", "invoice_id"])
def test_categories_are_read_as_text(column: str, dtype: pl.DataType) -> None:
    frame = table("invoices", {})
    categories = frame.with_columns(pl.col(column).cast(dtype))
    assert validate("invoices", categories).equals(validate("invoices", frame))


def test_columns_beyond_the_contract_are_dropped_and_their_order_is_free() -> None:
    frame = table("matches", {}).select("tagged_on", "amount", "invoice_id", "transfer_id", extra=pl.lit(1))
    assert validate("matches", frame).columns == list(TABLES["matches"].schema)


def test_text_may_be_any_unicode_or_missing_and_numeric_ids_become_text() -> None:
    frame = table("transfers", {"title": "Zażółć 株式会社 🧾 \u202e"}, {"title": None}).with_columns(
        transfer_id=pl.Series([7, 8])
    )
    read = validate("transfers", frame)
    assert read["title"].to_list() == ["Zażółć 株式会社 🧾 \u202e", ""]
    assert read["transfer_id"].to_list() == ["7", "8"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"transfer_id": "t9"}, "row 2, column transfer_id: 't9' there is no such transfer"),
        ({"invoice_id": "i9"}, "row 2, column invoice_id: 'i9' there is no such invoice"),
    ],
)
def test_a_match_to_what_does_not_exist_is_refused(change: dict[str, Any], problem: str) -> None:
    matches = validate("matches", table("matches", {}, change))
    with pytest.raises(LedgerError) as error:
        check_references(matches, pl.Series(["t1"]), pl.Series(["i1"]), source="matches.csv")
    assert str(error.value) == f"matches.csv: {problem}"


def test_a_match_to_nothing_needs_no_invoice() -> None:
    matches = validate("matches", table("matches", {"invoice_id": None, "amount": None}))
    check_references(matches, pl.Series(["t1"]), pl.Series([], dtype=pl.String))
