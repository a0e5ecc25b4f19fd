"""Months as `YYYY-MM` strings, which sort as time does."""

import re
from collections.abc import Iterable
from datetime import date

import polars as pl

_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


def parse_month(text: str) -> str:
    """`text` itself when it is a month; ValueError that says what is expected otherwise."""
    if not _MONTH.fullmatch(text):
        raise ValueError(f"'{text}' is not a month; write it as YYYY-MM, for instance 2024-06")
    return text


def first_day(month: str) -> date:
    return date(int(month[:4]), int(month[5:7]), 1)


def next_month(month: str, count: int = 1) -> str:
    """The month `count` months after `month` (before it, where `count` is negative)."""
    year, index = divmod(int(month[:4]) * 12 + int(month[5:7]) - 1 + count, 12)
    return f"{year:04d}-{index + 1:02d}"


def months_between(first: str, last: str) -> list[str]:
    """All months from `first` to `last`, both included; empty where `first` is later."""
    months = []
    while first <= last:
        months.append(first)
        first = next_month(first)
    return months


def beyond(months: Iterable[str], first: str | None, last: str | None) -> list[str]:
    """Those of `months` before `first` or after `last`, where there are such ends; in order."""
    return sorted(month for month in months if month < (first or "") or (last and month > last))


def month_of(column: str) -> pl.Expr:
    """The month of a date column."""
    return pl.col(column).dt.strftime("%Y-%m")
