"""Amounts and dates as people write them, a column at a time: what one value leaves open, the others may tell."""

import re
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from matching_platform.ledger.money import CURRENCIES

Decimal = Literal["", ",", "."]
Order = Literal["", "DMY", "MDY", "YMD"]

# Signs of currencies, and the codes that each may mean.
SIGNS: Final[dict[str, tuple[str, ...]]] = {
    **{
        sign: (code,)
        for sign, code in zip("€£₴₹₺₪₩₽₫₸₱฿", "EUR GBP UAH INR TRY ILS KRW RUB VND KZT PHP THB".split(), strict=True)
    },
    "zł": ("PLN",),
    "Kč": ("CZK",),
    "¥": ("CNY", "JPY"),
    "$": tuple(
        """ARS AUD BBD BMD BND BSD BZD CAD CLP COP CUP DOP FJD GYD HKD JMD KYD LRD MXN NAD NZD SBD SGD SRD TTD TWD USD
        UYU XCD""".split()
    ),
}

# Blanks of any kind and apostrophes are no part of a number.
_BLANKS: Final = r"[\s\u00a0\u202f\u2009'’]"
_CURRENCY: Final = "|".join([*sorted(CURRENCIES), r"zł\.?", *(re.escape(sign) for sign in SIGNS if sign != "zł")])
_BEFORE: Final = rf"(?i)^([-+(]?)({_CURRENCY})"
_BEHIND: Final = rf"(?i)({_CURRENCY})([-+)]?)$"
_MONTHS: Final = ("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y")
_DAY: Final = r"^(\d{1,4})[-./ ](\d{1,2})[-./ ](\d{2}|\d{4})$"
_TIME: Final = r"[T ]+\d{1,2}:\d{2}.*$"


class UnreadableError(ValueError):
    """A value that cannot be read, at `at` (from 0), or a column that can be read in two ways."""

    def __init__(self, problem: str, advice: str = "", at: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.advice, self.at = problem, advice, at


@dataclass(frozen=True)
class _Marks:
    """Which decimal sign values speak for: the rows where they do, and where they leave it open."""

    comma: pl.Series
    point: pl.Series
    open: pl.Series


def amounts(texts: pl.Series, decimal: Decimal = "") -> pl.Series:
    """Plain text such as -1234.50 of amounts with any signs and separators; null where a text is.

    UnreadableError where values disagree on the decimal sign, or none tells it (1,234) and `decimal` does not say.
    """
    bare = _bare(texts).str.replace(_BEFORE, "${1}").str.replace(_BEHIND, "${2}")
    negative = bare.str.contains(r"^-|-$|^\(.*\)$")
    digits = bare.str.replace_all(r"^[-+(]|[-+)]$", "")
    sign = decimal or _decimal_sign(digits, texts)
    other = "," if sign == "." else "."
    shape = rf"^(\d+|\d{{1,3}}(\{other}\d{{3}})+)(\{sign}\d*)?$"
    plain = (
        digits.str.replace_all(other, "", literal=True).str.replace(sign, ".", literal=True).str.strip_chars_end(".")
    )
    _refuse(texts, digits.str.contains(shape), f"is not an amount with a decimal {_NAMES[sign]}")
    return pl.select(pl.concat_str(pl.when(negative).then(pl.lit("-")).otherwise(pl.lit("")), plain)).to_series()


def currencies(texts: pl.Series) -> pl.Series:
    """The codes that what stands beside each amount may mean, apart by blanks; null where nothing does.

    UnreadableError where what stands before an amount and behind it means different currencies.
    """
    bare = _bare(texts)
    marks = pl.DataFrame({"before": bare.str.extract(_BEFORE, 2), "behind": bare.str.extract(_BEHIND, 1)})
    pairs = marks.unique()
    codes = pl.Series("codes", [_meant(*pair) for pair in pairs.rows()], dtype=pl.String)
    read = marks.join(pairs.with_columns(codes), on=marks.columns, how="left", nulls_equal=True, maintain_order="left")
    _refuse(texts, read["codes"].fill_null("none") != "", "is in two currencies")
    return read["codes"]


def _meant(*marks: str | None) -> str | None:
    """What all marks beside an amount may mean, '' where nothing."""
    meanings = [set(_MEANINGS[mark.upper().rstrip(".")]) for mark in marks if mark]
    return " ".join(sorted(set.intersection(*meanings))) if meanings else None


_MEANINGS: Final = {code: (code,) for code in CURRENCIES} | {sign.upper(): codes for sign, codes in SIGNS.items()}


def dates(texts: pl.Series, order: Order = "") -> pl.Series:
    """Days of dates in one form: year first, day first, month first, or with the month's English name.

    In a workbook, cells that are dates, which come with the year first, and texts such as 31.12.2024 may stand together.
    UnreadableError where a column could mean more than one order (03/04/2024, 24-01-15) and `order` does not say.
    """
    bare = texts.str.replace(_TIME, "").str.strip_chars()
    spelled = pl.select(pl.coalesce(bare.str.to_date(form, strict=False) for form in _MONTHS)).to_series()
    if texts.len() > texts.null_count() and spelled.null_count() == texts.null_count():
        return spelled
    whole = bare.str.contains(r"^\d{8}$").fill_null(False)
    parts = [bare.str.extract(_DAY, group) for group in (1, 2, 3)]
    year = parts[0].set(parts[0].str.len_chars() != 4, None)
    year_first = _day(year, *parts[1:]).zip_with(~whole, bare.str.to_date("%Y%m%d", strict=False))
    if year_first.null_count() == texts.null_count():
        return year_first
    day_first = _day(parts[2], parts[1], parts[0])
    pointed = day_first.set(~bare.str.contains(r"^\d{1,2}\.\d{1,2}\.\d{4}$").fill_null(False), None)
    mixed = year_first.fill_null(pointed)
    if year_first.null_count() < texts.len() and mixed.null_count() == texts.null_count():
        return mixed
    month_first, short_year_first = _day(parts[2], parts[0], parts[1]), _day(parts[0], parts[1], parts[2])
    read = {"DMY": day_first, "MDY": month_first, "YMD": short_year_first}
    if order:
        return _whole(texts, read[order], f"is not a date ({order})")
    # Years of two digits come first between hyphens alone (24-01-15).
    orders = read.values() if bare.str.contains("-", literal=True).any() else (day_first, month_first)
    fitting = [days for days in orders if days.null_count() == texts.null_count()]
    other = next((days for days in fitting[1:] if not days.equals(fitting[0])), None)
    if other is not None and not bare.str.contains(".", literal=True).all():
        at = int((fitting[0] != other).arg_true()[0])
        raise UnreadableError(
            f"'{texts[at]}' can be two dates, and no value of the column tells which",
            "say whether the day (DMY), the month (MDY) or the year (YMD) comes first",
            at,
        )
    return (
        fitting[0] if fitting else _whole(texts, _fullest(day_first, month_first, year_first, spelled), "is not a date")
    )


_NAMES: Final = {",": "comma", ".": "point"}


def _bare(texts: pl.Series) -> pl.Series:
    return texts.str.replace_all(_BLANKS, "").str.replace_all("[−–]", "-")


def _decimal_sign(digits: pl.Series, texts: pl.Series) -> str:
    marks = _marks(digits)
    if marks.comma.any() and marks.point.any():
        first, second = int(marks.comma.arg_true()[0]), int(marks.point.arg_true()[0])
        raise UnreadableError(
            f"'{texts[first]}' has a decimal comma, and '{texts[second]}' a decimal point",
            "write the column in one way",
            max(first, second),
        )
    if marks.open.any() and not marks.comma.any() and not marks.point.any():
        at = int(marks.open.arg_true()[0])
        raise UnreadableError(
            f"'{texts[at]}' can be two amounts, and no value of the column tells which",
            "say which sign is the decimal one",
            at,
        )
    return "," if marks.comma.any() else "."


def _marks(digits: pl.Series) -> _Marks:
    def of(sign: str, other: str) -> pl.Series:
        last = digits.str.contains(rf"\{other}.*\{sign}")
        short = digits.str.contains(rf"^\d*\{sign}(\d{{0,2}}|\d{{4,}})$") | digits.str.contains(rf"^0\{sign}")
        thousands = digits.str.contains(rf"\{other}.*\{other}")
        return (last | short | thousands).fill_null(False)

    comma, point = of(",", "."), of(".", ",")
    return _Marks(comma, point, digits.str.contains(r"^\d+[.,]\d+$").fill_null(False) & ~comma & ~point)


def _day(year: pl.Series, month: pl.Series, day: pl.Series) -> pl.Series:
    """Null where there is no such day; a year of two digits is of this century."""
    full = year.str.len_chars().is_in([2, 4]) & (day.str.len_chars() <= 2)
    century = pl.when(year.str.len_chars() == 2).then(pl.lit("20")).otherwise(pl.lit(""))
    written = pl.concat_str(century, year, pl.lit("-"), month.str.zfill(2), pl.lit("-"), day.str.zfill(2))
    return pl.select(pl.when(full).then(written).str.to_date("%Y-%m-%d", strict=False)).to_series()


def _fullest(*columns: pl.Series) -> pl.Series:
    return min(columns, key=lambda column: column.null_count())


def _whole(texts: pl.Series, days: pl.Series, problem: str) -> pl.Series:
    _refuse(texts, days.is_not_null(), problem)
    return days


def _refuse(texts: pl.Series, fits: pl.Series, problem: str) -> None:
    bad = texts.is_not_null() & ~fits.fill_null(False)
    if bad.any():
        at = int(bad.arg_true()[0])
        raise UnreadableError(f"'{texts[at]}' {problem}", "correct it, or map another column", at)
