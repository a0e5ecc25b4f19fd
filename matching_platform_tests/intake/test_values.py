"""Amounts and dates as people write them: read where a column tells how, refused where it could mean two things."""

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.intake.values import UnreadableError, amounts, currencies, dates


def column(*texts: str | None) -> pl.Series:
    return pl.Series(texts, dtype=pl.String)


@pytest.mark.parametrize(
    ("texts", "read"),
    [
        pytest.param(["1 234,50", "-3,00 zł"], ["1234.50", "-3.00"], id="Polish"),
        pytest.param(["1.234,5", "2,1"], ["1234.5", "2.1"], id="German"),
        pytest.param(["1,234", "5.00"], ["1234", "5.00"], id="English, told by another value"),
        pytest.param(["1'234.50", None], ["1234.50", None], id="Swiss"),
        pytest.param(["EUR 12.30", "€12.30", "12.30EUR"], ["12.30"] * 3, id="currencies"),
        pytest.param(
            ["-$1,234.50", "($1,234.50)", "-€1,234.50", "1,234.50 usd-"], ["-1234.50"] * 4, id="minus and sign"
        ),
        pytest.param(["(12.30)", "12.30-", "−12.30"], ["-12.30"] * 3, id="three kinds of minus"),
        pytest.param(["1\u00a0234\u202f567,89"], ["1234567.89"], id="blanks that do not break"),
        pytest.param(["1.234.567"], ["1234567"], id="points can only part thousands"),
        pytest.param(["12", "7"], ["12", "7"], id="whole"),
        pytest.param([None, None], [None, None], id="nothing"),
    ],
)
def test_amounts(texts: list[str | None], read: list[str | None]) -> None:
    assert amounts(column(*texts)).to_list() == read


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["1,234"], "two amounts"),
        (["1.5", "1,5"], "decimal comma.*decimal point"),
        (["abc"], "'abc' is not an amount"),
        (["1,23,456.00"], "is not an amount"),
        (["--5"], "is not an amount"),
        (["5-5"], "is not an amount"),
        (["12.30 PLN EUR"], "is not an amount"),
        (["12.30 DBT"], "is not an amount"),
    ],
)
def test_amounts_that_are_none_or_two(texts: list[str], problem: str) -> None:
    with pytest.raises(UnreadableError, match=problem):
        amounts(column(*texts))


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("1 100,00 PLN", ["PLN"]),
        ("eur 5", ["EUR"]),
        ("-5,00 €", ["EUR"]),
        ("(£5)", ["GBP"]),
        ("5,00 zł.", ["PLN"]),
        ("5 Kč", ["CZK"]),
        ("¥5", ["CNY", "JPY"]),
        ("$5.00 CAD", ["CAD"]),
        ("5,00", None),
        (None, None),
    ],
)
def test_the_currency_beside_an_amount(text: str | None, codes: list[str] | None) -> None:
    (told,) = currencies(column(text))
    assert (told and told.split()) == codes


def test_a_dollar_is_that_of_many_countries_and_one_amount_has_one_currency() -> None:
    (told,) = currencies(column("-$1.00"))
    assert {"USD", "CAD", "AUD"} < set(told.split())
    with pytest.raises(UnreadableError, match="'€5 USD' is in two currencies"):
        currencies(column("€5", "€5 USD"))


def test_what_a_column_leaves_open_a_person_says() -> None:
    assert amounts(column("1,234"), ",").to_list() == ["1.234"]
    assert amounts(column("1,234"), ".").to_list() == ["1234"]
    assert dates(column("03/04/2024"), "DMY").to_list() == [date(2024, 4, 3)]
    assert dates(column("03/04/2024"), "MDY").to_list() == [date(2024, 3, 4)]
    assert dates(column("24-01-15"), "YMD").to_list() == [date(2024, 1, 15)]
    assert dates(column("24-01-15"), "DMY").to_list() == [date(2015, 1, 24)]


SIGNS = [(",", "."), (",", " "), (",", "\u00a0"), (".", ","), (".", "'")]


@given(st.lists(st.integers(-(10**11), 10**11), min_size=1), st.sampled_from(SIGNS))
def test_no_amount_is_misread(minor: list[int], signs: tuple[str, str]) -> None:
    decimal, thousands = signs
    written = [f"{value / 100:,.2f}".replace(",", "x").replace(".", decimal).replace("x", thousands) for value in minor]
    assert [round(float(text) * 100) for text in amounts(column(*written))] == minor


@pytest.mark.parametrize(
    ("texts", "day"),
    [
        (["2024-06-30"], date(2024, 6, 30)),
        (["2024-06-30 12:00:00"], date(2024, 6, 30)),
        (["2024-06-30T12:00:00Z"], date(2024, 6, 30)),
        (["20240630"], date(2024, 6, 30)),
        (["30.06.2024"], date(2024, 6, 30)),
        (["3.4.24"], date(2024, 4, 3)),
        (["30/06/2024"], date(2024, 6, 30)),
        (["06/30/2024"], date(2024, 6, 30)),
        (["03/04/2024", "13/04/2024"], date(2024, 4, 3)),
        (["03/04/2024", "03/14/2024"], date(2024, 3, 4)),
        (["05/05/2024"], date(2024, 5, 5)),
        (["30 Jun 2024"], date(2024, 6, 30)),
        (["2024/06/30"], date(2024, 6, 30)),
        (["15/01/24"], date(2024, 1, 15)),
        (["32-01-15"], date(2032, 1, 15)),
        (["2024-06-30 00:00:00", "16.01.2024"], date(2024, 6, 30)),
        (["16.01.2024", "2024-06-30 00:00:00"], date(2024, 1, 16)),
    ],
)
def test_dates(texts: list[str], day: date) -> None:
    assert dates(column(*texts, None)).to_list()[0] == day


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["03/04/2024"], "'03/04/2024' can be two dates"),
        (["01/01/2024", "03-04-24"], "'03-04-24' can be two dates"),
        (["24-01-15", "24-01-16"], "'24-01-15' can be two dates"),
        (["2024-06-30", "16/01/2024"], "'2024-06-30' is not a date"),
        (["30/06/2024", "06/30/2024"], "'06/30/2024' is not a date"),
        (["31.06.2024"], "is not a date"),
        (["2024-06-30", "soon"], "'soon' is not a date"),
        (["45000"], "is not a date"),
    ],
)
def test_dates_that_are_none_or_two(texts: list[str], problem: str) -> None:
    with pytest.raises(UnreadableError, match=problem):
        dates(column(*texts))


FORMS = ["%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%y", "%Y%m%d"]


@given(st.lists(st.dates(date(2000, 1, 1), date(2099, 12, 31)), min_size=1), st.sampled_from(FORMS))
def test_no_date_is_misread(days: list[date], form: str) -> None:
    try:
        read = dates(column(*(day.strftime(form) for day in days))).to_list()
    except UnreadableError as error:
        assert "two dates" in str(error)
        # A year of two digits may be a day, and stand first.
        assert form == "%d-%m-%y" or all(day.day <= 12 for day in days), "the last one tells"
    else:
        assert read == days


def test_the_error_names_the_value() -> None:
    texts = column(*((date(2024, 1, 1) + timedelta(days=day)).isoformat() for day in range(100)), "n/a")
    with pytest.raises(UnreadableError) as refused:
        dates(texts)
    assert refused.value.at == 100
