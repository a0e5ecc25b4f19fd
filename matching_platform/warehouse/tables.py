"""The tables of a warehouse as data: the raw ones, and those in which people and the finance system read results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from matching_platform.ledger.money import DECIMAL, to_decimal
from matching_platform.ledger.schema import TABLES, Column

# The partition that delivered a raw row. It is kept apart from the dates, which a bad month may not be able to tell.
MONTH: Final = "month"


@dataclass(frozen=True)
class Published:
    """A table of results: `columns` with their types at the edges, the date whose month is the partition, and the columns by
    which rows lie together."""

    name: str
    columns: Mapping[str, pl.DataType] = field(hash=False)
    partitioned_by: str
    clustered_by: tuple[str, ...]


def raw_name(table: str) -> str:
    """The name of a table of the contract in a warehouse."""
    return f"raw_{table}"


def _typed(columns: tuple[Column, ...]) -> dict[str, pl.DataType]:
    return {column.name: column.external_dtype for column in columns}


_BOOKED: Final[dict[str, pl.DataType]] = {"booked_on": pl.Date()}
_LABELLED: Final[dict[str, pl.DataType]] = {
    "transfer_id": pl.String(),
    "invoice_id": pl.String(),
    "open_amount": DECIMAL,
    "rules": pl.List(pl.String()),
    "label": pl.Boolean(),
}
# What was answered, with what had been told of the transfer; masked, as it was kept.
_SERVED: Final[dict[str, pl.DataType]] = {
    "request_id": pl.String(),
    "received_on": pl.Date(),
    "received_at": pl.Datetime("us", "UTC"),
    "model": pl.String(),
    "milliseconds": pl.Float64(),
    "booked_from": pl.Float64(),
    "open_invoices": pl.Int64(),
    **_typed(TABLES["transfers"].columns),
    "transfer_amount": DECIMAL,
    "invoice_id": pl.String(),
    "amount": DECIMAL,
    "confidence": pl.Float64(),
    "decision": pl.String(),
}
PUBLISHED: Final = {
    table.name: table
    for table in (
        Published("invoices", _typed(TABLES["invoices"].columns), "issued_on", ("counterparty_id", "invoice_id")),
        Published("transfers", _typed(TABLES["transfers"].columns), "booked_on", ("transfer_id",)),
        Published("matches", _typed(TABLES["matches"].columns) | _BOOKED, "booked_on", ("transfer_id", "invoice_id")),
        Published("labelled_pairs", _LABELLED | _BOOKED, "booked_on", ("transfer_id", "invoice_id")),
        Published(
            "proposals",
            _typed(TABLES["proposals"].columns) | {"model": pl.String()} | _BOOKED,
            "booked_on",
            ("decision", "transfer_id"),
        ),
        Published("predictions", _SERVED, "received_on", ("decision", "transfer_id")),
    )
}

# Which row comes after which, in a table that only grows.
NUMBER: Final = "number"
# Tables that only grow, in the order of NUMBER. A decision has a row per allocation, and one with a null invoice where it
# has none; `proposed` is a JSON list of {"invoice_id", "amount"}.
APPENDED: Final = {
    table.name: table
    for table in (
        Published(
            "decisions",
            {
                NUMBER: pl.Int64(),
                "transfer_id": pl.String(),
                **_BOOKED,
                "decided_at": pl.Datetime("us", "UTC"),
                "actor": pl.String(),
                "action": pl.String(),
                "invoice_id": pl.String(),
                "amount": DECIMAL,
                "note": pl.String(),
                "model": pl.String(),
                "proposed_decision": pl.String(),
                "confidence": pl.Float64(),
                "proposed": pl.String(),
                "supersedes": pl.Int64(),
            },
            "booked_on",
            ("transfer_id",),
        ),
        Published(
            "bookings",
            {
                NUMBER: pl.Int64(),
                "booked_at": pl.Datetime("us", "UTC"),
                "transfer_id": pl.String(),
                **_BOOKED,
                "invoice_id": pl.String(),
                "amount": DECIMAL,
                "currency": pl.String(),
                "entry": pl.String(),
                "by": pl.String(),
                "actor": pl.String(),
                "decision": pl.Int64(),
            },
            "booked_on",
            ("transfer_id", "invoice_id"),
        ),
    )
}


def publishable(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of result table `name` in its types; amounts of `frame` are in minor units or decimals already."""
    columns = (PUBLISHED | APPENDED)[name].columns
    minor = [column for column, dtype in columns.items() if dtype == DECIMAL and frame.schema[column] == pl.Int64]
    return frame.with_columns(to_decimal(column) for column in minor).select(
        pl.col(column).cast(dtype) for column, dtype in columns.items()
    )


def grown(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of a table that only grows in its columns, types and order."""
    columns = APPENDED[name].columns
    return frame.select(pl.col(column).cast(dtype) for column, dtype in columns.items()).sort(NUMBER, "invoice_id")
