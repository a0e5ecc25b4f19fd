"""Rows as JSON: what the service is sent, what it answers, and what a client sends."""

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from matching_platform.ledger.money import MINOR_UNITS, to_decimal
from matching_platform.ledger.schema import TABLES, Column, Kind
from matching_platform.ledger.validation import LedgerError, validate

_EXPECTED: Final = {Kind.AMOUNT: "is not an amount", Kind.DATE: "is not a date (YYYY-MM-DD)"}
# A thousandth of a minor unit, in decimal places of a major one: as far as `money.to_minor` trusts a float.
_FLOAT_PLACES: Final = 5


def from_rows(name: str, rows: Any, *, source: str | None = None) -> pl.DataFrame:
    """The validated table `name` from `rows` as a JSON parser returns them: a list of objects.

    Amounts are numbers or text, in major units; everything else is text or null. Keys the contract does not know are
    dropped, and a column that may be null may be left out. Raises LedgerError, with row (from 1) and column.
    """
    table, source = TABLES[name], source or name
    if not isinstance(rows, list):
        raise LedgerError(source, "is not a list of rows", rows=pl.DataFrame())
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise LedgerError(source, "is not an object", row=number, rows=pl.DataFrame())
    columns = {column.name: _texts(column, rows, source) for column in table.columns}
    return validate(name, pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)), source=source)


def to_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of a validated table as JSON: amounts as text with two places, dates as YYYY-MM-DD."""
    amounts = [name for name in ("amount", "open_amount") if name in frame.columns]
    return frame.with_columns(
        *(to_decimal(name).cast(pl.String) for name in amounts), pl.selectors.date().dt.to_string("%Y-%m-%d")
    ).to_dicts()


def proposal_rows(proposals: pl.DataFrame) -> list[dict[str, Any]]:
    """Proposals (schema PROPOSALS) as JSON: amounts as numbers in major units, which have at most two places."""
    return proposals.with_columns(pl.col("amount") / MINOR_UNITS).to_dicts()


def _texts(column: Column, rows: Sequence[dict[str, Any]], source: str) -> list[str | None]:
    texts: list[str | None] = []
    for number, row in enumerate(rows, start=1):
        if column.name not in row and not column.nullable:
            raise LedgerError(source, "is missing", row=number, column=column.name, rows=pl.DataFrame())
        value = row.get(column.name)
        text = _number_as_text(value) if column.kind is Kind.AMOUNT else value
        if text is not None and not (isinstance(text, str) and _is_unicode(text)):
            problem = _EXPECTED.get(column.kind, "is not text")
            raise LedgerError(source, problem, row=number, column=column.name, rows=pl.DataFrame())
        texts.append(text)
    return texts


def _number_as_text(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return repr(round(value, _FLOAT_PLACES))


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can carry and no file can."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
