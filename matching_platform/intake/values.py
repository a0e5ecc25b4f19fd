"""Amounts and dates as people write them, a column at a time: what one value leaves open, the others may tell."""

from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

Decimal = Literal["", ",", "."]
Order = Literal["", "DMY", "MDY"]

# Currencies, blanks of any kind and apostrophes are no part of a number.
_BESIDE: Final = r"(?i)^\p{Sc}|\p{Sc}$|^[A-Z]{3}\b|[A-Z]{3}$|zł\.?$|kč$|[\s\u00a0\u202f\u2009'’]"
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
    bare = texts.str.replace_all(_BESIDE, "").str.replace_all("[−–]", "-").str.strip_chars()
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


def dates(texts: pl.Series, order: Order = "") -> pl.Series:
    """Days of dates in one form: year first, day first, month first, or with the month's English name.

    UnreadableError where a column could mean either of two orders (03/04/2024) and `order` does not say.
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
    day_first, month_first = _day(parts[2], parts[1], parts[0]), _day(parts[2], parts[0], parts[1])
    read = {"DMY": day_first, "MDY": month_first}
    if order:
        return _whole(texts, read[order], f"is not a date ({order})")
    fitting = [days for days in read.values() if days.null_count() == texts.null_count()]
    points = bare.str.contains(".", literal=True).all()
    if len(fitting) == 2 and not points and not day_first.equals(month_first):
        at = int((day_first != month_first).arg_true()[0])
        raise UnreadableError(
            f"'{texts[at]}' can be two dates, and no value of the column tells which",
            "say whether the day (DMY) or the month (MDY) comes first",
            at,
        )
    return fitting[0] if fitting else _whole(texts, _fullest(day_first, month_first, year_first), "is not a date")


_NAMES: Final = {",": "comma", ".": "point"}


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
