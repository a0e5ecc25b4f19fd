from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.ledger.money import CURRENCIES, DECIMAL, to_decimal, to_minor
from matching_platform.ledger.months import first_day, month_of, months_between, next_month, parse_month

LARGEST = 10**15 - 1  # ten trillion of any currency


@given(st.lists(st.integers(-LARGEST, LARGEST)))
def test_minor_units_survive_the_way_to_decimals_and_back(minor: list[int]) -> None:
    frame = pl.DataFrame({"amount": minor}, schema={"amount": pl.Int64})
    decimal = frame.select(to_decimal("amount"))
    assert decimal.schema["amount"] == DECIMAL
    assert [int(value * 100) for value in decimal["amount"]] == minor
    assert decimal.select(to_minor("amount"))["amount"].to_list() == minor


@pytest.mark.parametrize(
    ("value", "minor"),
    [(0.1 + 0.2, 30), (1.005, None), (0.001, None), (None, None), (float("nan"), None), (1e16, None), (-0.01, -1)],
)
def test_only_exact_amounts_have_minor_units(value: float | None, minor: int | None) -> None:
    frame = pl.DataFrame({"amount": [value]}, schema={"amount": pl.Float64})
    assert frame.select(to_minor("amount"))["amount"].to_list() == [minor]


def test_currencies_are_three_capitals() -> None:
    assert all(len(code) == 3 and code.isalpha() and code.isupper() for code in CURRENCIES)
    assert {"EUR", "PLN", "USD", "JPY"} <= CURRENCIES
    assert not {"XXX", "XTS", "DEM"} & CURRENCIES


@pytest.mark.parametrize(
    "text", ["2024-13", "2024-00", "2024-1", "202401", "2024-01-01", "", " 2024-01", "x", "２０２４-01"]
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="YYYY-MM"):
        parse_month(text)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2024-01", "2024-01", ["2024-01"]),
        ("2023-11", "2024-02", ["2023-11", "2023-12", "2024-01", "2024-02"]),
        ("2024-02", "2024-01", []),
    ],
)
def test_months_between(first: str, last: str, expected: list[str]) -> None:
    assert months_between(first, last) == expected


@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.integers(-500, 500))
def test_months_go_as_the_calendar_does(day: date, count: int) -> None:
    month = pl.DataFrame({"day": [day]}).select(month_of("day")).item()
    assert month == parse_month(month) == day.isoformat()[:7]
    assert first_day(month) == day.replace(day=1)
    assert next_month(next_month(month, count), -count) == month
    assert (next_month(month, count) < month) == (count < 0)
