"""Amounts, shares and dates in the reader's locale, and amounts as people type them."""

from datetime import UTC, date, datetime

import pytest
from babel import Locale
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.desk import formats
from matching_platform.desk.formats import AmountError
from matching_platform.desk.i18n import LOCALES

EN, GB, PL = (Locale.parse(name) for name in LOCALES)
NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("minor", "currency", "locale", "written"),
    [
        (123456, "PLN", EN, "PLN 1,234.56"),
        (123456, "PLN", PL, "1 234,56 zł"),
        (-1, "EUR", GB, "\u2212EUR 0.01"),
        (0, "EUR", PL, "0,00 €"),
        (10_000, "JPY", EN, "JPY 100.00"),
        (9_007_199_254_740_993, "EUR", EN, "EUR 90,071,992,547,409.93"),
    ],
)
def test_money_has_its_currency_and_every_cent(minor: int, currency: str, locale: Locale, written: str) -> None:
    assert formats.money(minor, currency, locale).replace(NBSP, " ") == written


@pytest.mark.parametrize(
    ("share", "english", "polish"),
    [
        (0.0, "0%", "0%"),
        (0.5, "50%", "50%"),
        (0.29, "29%", "29%"),
        (0.989, "98%", "98%"),
        (0.9949, "99.4%", "99,4%"),
        (0.99899, "99.8%", "99,8%"),
        (0.9996, "99.96%", "99,96%"),
        (0.99995, ">99.99%", ">99,99%"),
        (1.0, ">99.99%", ">99,99%"),
    ],
)
def test_shares_are_never_rounded_up(share: float, english: str, polish: str) -> None:
    assert formats.share(share, EN).replace(NBSP, "") == english
    assert formats.share(share, PL).replace(NBSP, "") == polish


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (0.5, 0.6, ("50%", "60%")),
        (0.9876, 0.9869, ("98.7%", "98.6%")),
        (0.98, 0.9804, ("98.00%", "98.04%")),
        (0.99921, 0.99929, ("99.921%", "99.929%")),
        (0.9, 0.9, ("90%", "90%")),
        (0.9804, 1.1, ("98%", ">99.99%")),
    ],
)
def test_shares_beside_each_other_are_told_apart(one: float, other: float, told: tuple[str, str]) -> None:
    written = formats.share(one, EN, beside=other), formats.share(other, EN, beside=one)
    assert tuple(text.replace(NBSP, "") for text in written) == told


@pytest.mark.parametrize(
    ("locale", "told"),
    [
        (EN, "Mar 5, 2024, 4:05 PM UTC"),
        (GB, "5 Mar 2024, 16:05 UTC"),
        (PL, "5 mar 2024, 16:05 UTC"),
    ],
)
def test_a_moment_is_told_as_a_day_is(locale: Locale, told: str) -> None:
    given = datetime(2024, 3, 5, 16, 5, 7, tzinfo=UTC)
    assert formats.moment(given, locale).replace("\u202f", " ") == told


@pytest.mark.parametrize(
    ("locale", "day", "short", "month"),
    [
        (EN, "Mar 5, 2024", "Mar 5", "March 2024"),
        (GB, "5 Mar 2024", "5 Mar", "March 2024"),
        (PL, "5 mar 2024", "5 mar", "marzec 2024"),
    ],
)
def test_days_and_months_read_as_in_the_locale(locale: Locale, day: str, short: str, month: str) -> None:
    given = date(2024, 3, 5)
    assert formats.day(given, locale) == day
    assert formats.short_day(given, locale) == short
    assert formats.month("2024-03", locale) == month


@pytest.mark.parametrize(
    ("typed", "locale", "minor"),
    [
        ("1234.56", PL, 123456),
        ("1 234,56", PL, 123456),
        ("1.234,56", PL, 123456),
        ("1,234.56", PL, 123456),
        ("1,234.56", EN, 123456),
        ("1.234,56", EN, 123456),
        ("1,234", EN, 123400),
        ("1,234,567", PL, 123456700),
        ("1'234.5", EN, 123450),
        (" 12 ", EN, 1200),
        ("-3,20", PL, -320),
        ("−3.20", EN, -320),
        ("0", PL, 0),
    ],
)
def test_what_is_typed_is_read(typed: str, locale: Locale, minor: int) -> None:
    assert formats.amount(typed, locale) == minor


@pytest.mark.parametrize(
    ("typed", "locale"),
    [
        ("", EN),
        ("abc", EN),
        ("1,234", PL),
        ("1.234", EN),
        ("1.2345", EN),
        ("12.3.4", PL),
        ("1e5", EN),
        ("--1", EN),
        ("1.", EN),
        ("99999999999999999999", EN),
        ("١٢", EN),
    ],
)
def test_what_may_mean_two_things_is_refused(typed: str, locale: Locale) -> None:
    with pytest.raises(AmountError):
        formats.amount(typed, locale)


@settings(deadline=None)
@given(st.integers(-(10**15), 10**15), st.sampled_from([EN, GB, PL]))
def test_what_is_written_is_read_again(minor: int, locale: Locale) -> None:
    assert formats.amount(formats.plain(minor, locale), locale) == minor


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from([EN, GB, PL]))
def test_nothing_else_goes_wrong(typed: str, locale: Locale) -> None:
    try:
        assert isinstance(formats.amount(typed, locale), int)
    except AmountError as error:
        assert str(error)
