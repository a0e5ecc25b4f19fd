"""Amounts, shares and dates as the reader writes them, and amounts as he types them. Amounts are int64 minor units."""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from babel import Locale
from babel.dates import format_date, format_skeleton, format_time, get_datetime_format
from babel.numbers import format_currency, format_decimal, format_percent, get_decimal_symbol, get_group_symbol

from matching_platform.desk.i18n import mark
from matching_platform.ledger.months import parse_month

_HUNDRED: Final = 100
# English knows many dollars and no złoty; a code is never wrong there.
_PATTERNS: Final = {"en": "¤¤\u00a0#,##0.00;\u2212¤¤\u00a0#,##0.00"}
_PLAIN: Final = "#,##0.00"
_RATE: Final = "@@@@@"
# Upper bounds of a share, and with how many digits it is written below them.
_DIGITS: Final = ((0.99, 0), (0.999, 1), (1.0, 2))
_MOST: Final = 0.9999
_LEAST: Final = 0.01
_FINEST: Final = 5  # digits of a percentage after the point; what agrees in all of them is the same to people
_LONGEST: Final = 40
_AMOUNT: Final = re.compile(r"-?[0-9]+(?:\.[0-9]{1,2})?")
_SPACES: Final = re.compile(r"[\s'’]")
# int64 holds more, but no ledger does.
_LARGEST: Final = 10**17


class AmountError(ValueError):
    """What was typed is no amount; the message says how to write one, and is marked for translation."""


def money(amount: int, currency: str, locale: Locale) -> str:
    """An amount with its currency, such as `PLN 1,234.56` or `1 234,56 zł`."""
    return str(
        format_currency(_decimal(amount), currency, _PATTERNS.get(locale.language), locale, currency_digits=False)
    )


def plain(amount: int, locale: Locale) -> str:
    """An amount without its currency, such as `1,234.56`."""
    return str(format_decimal(_decimal(amount), _PLAIN, locale))


def count(number: int, locale: Locale) -> str:
    return str(format_decimal(number, locale=locale))


def share(given: float, locale: Locale, beside: float | None = None) -> str:
    """A share as a percentage, with more digits the nearer it is to one, and never rounded up to more than it is.

    `beside` is another one that stands near it: as many digits are told as tell the two apart.
    """
    if 0 < given < _LEAST:
        return f"<\u00a0{_percent(_LEAST, 0, locale)}"
    if given >= _MOST:
        return f">\u00a0{_percent(_MOST, 2, locale)}"
    digits = next(digits for bound, digits in _DIGITS if given < bound)
    if beside is not None and beside != given:
        apart = (more for more in range(digits, _FINEST) if _floored(given, more) != _floored(beside, more))
        digits = next(apart, digits)
    return _percent(given, digits, locale)


def rate(given: float, locale: Locale) -> str:
    """A rate between currencies, with five digits that count."""
    return str(format_decimal(Decimal(repr(given)), _RATE, locale))


def day(given: date, locale: Locale) -> str:
    return str(format_date(given, "medium", locale))


def short_day(given: date, locale: Locale) -> str:
    """A day without its year."""
    return str(format_skeleton("MMMd", datetime(given.year, given.month, given.day), locale=locale))


def minute(given: datetime, locale: Locale) -> str:
    """A moment to the minute."""
    told = str(get_datetime_format("medium", locale)).replace("'", "")
    return told.format(format_time(given, "short", locale=locale), day(given, locale))


def moment(given: datetime, locale: Locale) -> str:
    """A moment, UTC."""
    return f"{minute(given, locale)} UTC"


def month(given: str, locale: Locale) -> str:
    """A month YYYY-MM in words."""
    first = date.fromisoformat(f"{parse_month(given)}-01")
    return str(format_skeleton("yMMMM", datetime(first.year, first.month, 1), locale=locale))


def amount(text: str, locale: Locale) -> int:
    """What a person typed, in minor units: `1 234,56`, `1,234.56`, `1234.5`; AmountError where it may mean two things."""
    typed = _SPACES.sub("", text[:_LONGEST]).replace("−", "-")
    decimal, group = get_decimal_symbol(locale), get_group_symbol(locale)
    last = max(typed.rfind("."), typed.rfind(","))
    if last >= 0 and not _is_group(typed, last, group):
        decimal = typed[last]
        typed = typed[:last].replace("," if decimal == "." else ".", "") + "." + typed[last + 1 :]
    else:
        typed = typed.replace(".", "").replace(",", "")
    if not _AMOUNT.fullmatch(typed) or abs(minor := int(Decimal(typed) * _HUNDRED)) > _LARGEST:
        raise AmountError(mark("This is no amount; write it with two places, such as 1234.56."))
    return minor


def _is_group(typed: str, at: int, group: str) -> bool:
    """Whether the last separator groups thousands: three digits follow, and it is the locale's, or not the only one."""
    separator = typed[at]
    return len(typed) - at == 4 and (separator == group or typed.count(separator) > 1)


def _percent(given: float, digits: int, locale: Locale) -> str:
    return str(format_percent(_floored(given, digits), "0." + "0" * digits + "%" if digits else "0%", locale))


def _floored(given: float, digits: int) -> Decimal:
    scale = 10 ** (digits + 2)
    return Decimal(int(given * scale + 1e-9)) / scale


def _decimal(amount: int) -> Decimal:
    return Decimal(amount) / _HUNDRED
