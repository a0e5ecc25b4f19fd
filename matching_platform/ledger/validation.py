"""A raw frame becomes a valid table, or one clear error that names table, row and column."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from matching_platform.ledger.money import to_minor
from matching_platform.ledger.schema import TABLES, Column, Kind, Table

# The source's row, counted from 1, kept through conversion so that an error can name it.
ROW: Final = "_row"
_DUPLICATE: Final = "appears more than once"
_LONGEST_SHOWN: Final = 80  # characters of a refused value; a cell may hold a book
_AMOUNT_TEXT: Final = r"^\s*[+-]?(\d{1,13})(\.\d{1,2}0*)?\s*$"
# A day, alone or with the time and offset that exports of timestamps append.
_DATE_TEXT: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-2][0-9]:[0-5][0-9](:[0-6][0-9]([.,][0-9]+)?)?( ?(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?))?)?$"
)
_UNREADABLE: Final = {
    Kind.AMOUNT: "is not an amount with at most two decimal places",
    Kind.DATE: "is not a date (YYYY-MM-DD)",
    Kind.SHARE: "is not a number from 0 to 1",
    Kind.STATEMENTS: "holds a statement that is missing",
}
_TEXT: Final = (pl.String, pl.Categorical, pl.Enum)
# What a column of each kind is called, and which types it may come in; one without values may have no type.
_TYPES: Final[dict[Kind, tuple[str, Callable[[pl.DataType], bool]]]] = {
    Kind.AMOUNT: ("amount", lambda dtype: dtype in _TEXT or dtype.is_numeric()),
    Kind.DATE: ("date", lambda dtype: dtype in (*_TEXT, pl.Date, pl.Datetime)),
    Kind.SHARE: ("number", lambda dtype: dtype.is_numeric()),
    Kind.STATEMENTS: ("list of texts", lambda dtype: isinstance(dtype, pl.List) and dtype.inner in (*_TEXT, pl.Null)),
}
_PLAIN: Final = (
    "text",
    lambda dtype: dtype in (*_TEXT, pl.Boolean, pl.Date, pl.Datetime) or dtype.is_numeric(),
)


class LedgerError(ValueError):
    """Input that is not what the contract says.

    `str()` is one line naming source, row and column of the first problem. `rows` holds every offending row as it
    came, as text, with `_row` and `problem` beside it, for a quarantine; it is empty where no single row is at fault.
    """

    def __init__(
        self, source: str, problem: str, *, row: int | None = None, column: str | None = None, rows: pl.DataFrame
    ) -> None:
        where = [part for part in (row and f"row {row}", column and f"column {column}") if part]
        super().__init__(f"{source}: {', '.join(where) + ': ' if where else ''}{problem}")
        self.source, self.row, self.column, self.problem, self.rows = source, row, column, problem, rows


@dataclass(frozen=True)
class _Rule:
    """Rows where `bad` holds are refused, for the reason given."""

    column: str
    reason: str
    bad: pl.Expr


def validate(name: str, frame: pl.DataFrame, *, source: str | None = None) -> pl.DataFrame:
    """The rows of `frame` in the types and column order of table `name`; columns the contract does not know are dropped.

    Raises LedgerError at a missing column or one of another type, a null or duplicate key, a value that cannot be read,
    an unknown choice or currency, or a transfer that is not above zero. `source` names the file or table in the error.
    """
    table, source = TABLES[name], source or name
    for column in table.columns:
        if column.name not in frame.columns:
            raise LedgerError(source, "the column is missing", column=column.name, rows=frame.head(0))
    for column in table.columns:
        expected, fits = _TYPES.get(column.kind, _PLAIN)
        dtype = frame.schema[column.name]
        if not (dtype == pl.Null or fits(dtype)):
            problem = f"has the type {dtype}, which is no {expected}"
            raise LedgerError(source, problem, column=column.name, rows=pl.DataFrame())
    texts = pl.selectors.by_dtype(pl.Categorical, pl.Enum).cast(pl.String)
    raw = frame.select(list(table.schema)).with_columns(texts).with_row_index(ROW, offset=1)
    converted = raw.with_columns(_converted(column, raw.schema[column.name]) for column in table.columns)
    _refuse(source, raw, converted, list(_unreadable(table, raw)) + list(_invalid(table)))
    return converted.select(list(table.schema))


def check_references(
    matches: pl.DataFrame, transfers: pl.Series, invoices: pl.Series, *, source: str = "matches"
) -> None:
    """Raises LedgerError where a match names a transfer or an invoice that does not exist.

    `matches` is a validated table; `transfers` and `invoices` are the ids that exist.
    """
    numbered = matches.with_row_index(ROW, offset=1)
    rules = [
        _Rule("transfer_id", "there is no such transfer", ~pl.col("transfer_id").is_in(transfers.implode())),
        _Rule(
            "invoice_id",
            "there is no such invoice",
            pl.col("invoice_id").is_not_null() & ~pl.col("invoice_id").is_in(invoices.implode()),
        ),
    ]
    _refuse(source, numbered, numbered, rules)


def _converted(column: Column, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(column.name)
    if column.kind is Kind.AMOUNT:
        return _amount(column.name, dtype).alias(column.name)
    if column.kind is Kind.DATE:
        return _date(column.name, dtype).alias(column.name)
    if column.kind is Kind.SHARE:
        share = value.cast(pl.Float64, strict=False)
        return pl.when(share.is_between(0, 1)).then(share).alias(column.name)
    if column.kind is Kind.STATEMENTS:
        texts = value.cast(column.dtype)
        return pl.when(texts.list.drop_nulls().list.len() == texts.list.len()).then(texts).alias(column.name)
    text = value.cast(pl.String, strict=False)
    if column.kind in (Kind.KEY, Kind.CHOICE) or column.nullable:
        stripped = text.str.strip_chars()
        return pl.when(stripped != "").then(stripped).alias(column.name)
    return text.fill_null("").alias(column.name)


def _amount(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        exact = pl.when(pl.col(name).str.contains(_AMOUNT_TEXT)).then(pl.col(name).str.strip_chars())
        return (exact.cast(pl.Decimal(38, 2), strict=False) * 100).cast(pl.Int64, strict=False)
    return to_minor(name)


def _date(name: str, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    if dtype == pl.String:
        text = value.str.strip_chars()
        day = pl.when(text.str.contains(_DATE_TEXT)).then(text.str.slice(0, 10))
        return day.str.to_date("%Y-%m-%d", strict=False)
    if dtype == pl.Null:
        return value.cast(pl.Date)
    return value.cast(pl.Date, strict=False)


def _unreadable(table: Table, raw: pl.DataFrame) -> Iterable[_Rule]:
    """Values of a kind other than text that were there and did not survive conversion, or that were not there."""
    for column in table.columns:
        if column.kind in _UNREADABLE:
            given = raw[column.name].is_not_null()
            if raw.schema[column.name] == pl.String:
                given &= raw[column.name].str.strip_chars() != ""
            yield _Rule(column.name, _UNREADABLE[column.kind], pl.lit(given) & pl.col(column.name).is_null())
            if not column.nullable:
                yield _Rule(column.name, "is missing", pl.lit(~given))


def _invalid(table: Table) -> Iterable[_Rule]:
    for column in table.columns:
        value = pl.col(column.name)
        if not column.nullable and column.kind in (Kind.KEY, Kind.CHOICE):
            yield _Rule(column.name, "is missing", value.is_null())
        if column.choices:
            shown = "is not an ISO 4217 currency" if len(column.choices) > 9 else f"is not {_either(column.choices)}"
            yield _Rule(column.name, shown, value.is_not_null() & ~value.is_in(list(column.choices)))
        if column.positive:
            yield _Rule(column.name, "is not above zero", value <= 0)
    if table.key:
        yield _Rule(table.key, _DUPLICATE, pl.col(table.key).is_duplicated())
    if table.name in ("matches", "audit"):
        half = pl.col("invoice_id").is_null() != pl.col("amount").is_null()
        yield _Rule("amount", "must be given with an invoice, and only then,", half)
    if table.name == "proposals":
        again = ~pl.struct("transfer_id", "invoice_id").is_first_distinct()
        yield _Rule("invoice_id", "is proposed more than once for its transfer", again)


def _either(choices: frozenset[str]) -> str:
    return " or ".join(f"'{choice}'" for choice in sorted(choices))


def _as_text(raw: pl.DataFrame) -> pl.DataFrame:
    joined = raw.with_columns(pl.selectors.list().cast(pl.List(pl.String)).list.join("; "))
    return joined.with_columns(pl.all().exclude(ROW).cast(pl.String, strict=False))


def _refuse(source: str, raw: pl.DataFrame, converted: pl.DataFrame, rules: list[_Rule]) -> None:
    verdict = converted.select(rule.bad.fill_null(False).alias(str(i)) for i, rule in enumerate(rules))
    failed = [(rule, _as_text(raw.filter(verdict[str(i)]))) for i, rule in enumerate(rules) if verdict[str(i)].any()]
    if not failed:
        return
    rows = pl.concat(bad.with_columns(problem=pl.lit(f"{rule.column} {rule.reason}")) for rule, bad in failed)
    rule, bad = min(failed, key=lambda pair: pair[1][ROW][0])
    if rule.reason == _DUPLICATE:
        bad = bad.filter(~pl.col(rule.column).str.strip_chars().is_first_distinct())
    value, row = bad[rule.column][0], int(bad[ROW][0])
    shown = "" if value is None else f"'{' '.join(str(value).split())[:_LONGEST_SHOWN]}' "
    more = f" ({rows[ROW].n_unique()} rows are refused)" if rows[ROW].n_unique() > 1 else ""
    raise LedgerError(source, f"{shown}{rule.reason}{more}", row=row, column=rule.column, rows=rows)
