"""The tables of the contract as data: one line a column, read by validation, warehouse, service and documentation."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import polars as pl

from matching_platform.ledger.money import CURRENCIES, DECIMAL


class Kind(StrEnum):
    """What a column's values are; `TEXT` may be missing in the source and is then empty."""

    KEY = "key"
    TEXT = "text"
    CHOICE = "choice"
    DATE = "date"
    AMOUNT = "amount"
    SHARE = "share"
    STATEMENTS = "statements"


@dataclass(frozen=True)
class Column:
    """A column of a raw table."""

    name: str
    kind: Kind
    nullable: bool = False
    choices: frozenset[str] | None = None
    positive: bool = False

    @property
    def dtype(self) -> pl.DataType:
        """The type inside: amounts are int64 minor units."""
        types: dict[Kind, pl.DataType] = {
            Kind.DATE: pl.Date(),
            Kind.AMOUNT: pl.Int64(),
            Kind.SHARE: pl.Float64(),
            Kind.STATEMENTS: pl.List(pl.String()),
        }
        return types.get(self.kind, pl.String())

    @property
    def external_dtype(self) -> pl.DataType:
        """The type at the edges: amounts are DECIMAL(18, 2)."""
        return DECIMAL if self.kind is Kind.AMOUNT else self.dtype


@dataclass(frozen=True)
class Table:
    """A raw table: its columns, its key where rows have one, and the date whose month is its partition."""

    name: str
    columns: tuple[Column, ...]
    key: str | None
    partitioned_by: str

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema({column.name: column.dtype for column in self.columns})


def _currency() -> Column:
    return Column("currency", Kind.CHOICE, choices=CURRENCIES)


INVOICES: Final = Table(
    "invoices",
    (
        Column("invoice_id", Kind.KEY),
        Column("number", Kind.TEXT),
        Column("direction", Kind.CHOICE, choices=frozenset({"sale", "purchase"})),
        Column("counterparty_id", Kind.KEY),
        Column("counterparty_name", Kind.TEXT),
        Column("counterparty_tax_id", Kind.TEXT, nullable=True),
        Column("counterparty_account", Kind.TEXT, nullable=True),
        Column("issued_on", Kind.DATE),
        Column("due_on", Kind.DATE),
        Column("amount", Kind.AMOUNT),
        _currency(),
        Column("reference", Kind.TEXT, nullable=True),
    ),
    key="invoice_id",
    partitioned_by="issued_on",
)

TRANSFERS: Final = Table(
    "transfers",
    (
        Column("transfer_id", Kind.KEY),
        Column("booked_on", Kind.DATE),
        Column("amount", Kind.AMOUNT, positive=True),
        _currency(),
        Column("direction", Kind.CHOICE, choices=frozenset({"in", "out"})),
        Column("counterparty_name", Kind.TEXT),
        Column("counterparty_account", Kind.TEXT, nullable=True),
        Column("title", Kind.TEXT),
    ),
    key="transfer_id",
    partitioned_by="booked_on",
)

MATCHES: Final = Table(
    "matches",
    (
        Column("transfer_id", Kind.KEY),
        Column("invoice_id", Kind.KEY, nullable=True),
        Column("amount", Kind.AMOUNT, nullable=True),
        Column("tagged_on", Kind.DATE),
    ),
    key=None,
    partitioned_by="booked_on",
)

# Test data only: the truth, with nothing missing and nothing wrong.
AUDIT: Final = Table("audit", MATCHES.columns[:-1], key=None, partitioned_by="booked_on")

# What the service is sent: an invoice with its open balance, where that differs from `amount`.
OPEN_INVOICES: Final = Table(
    "open_invoices",
    (*INVOICES.columns, Column("open_amount", Kind.AMOUNT, nullable=True)),
    key="invoice_id",
    partitioned_by="issued_on",
)

# What matching answers; a null invoice where a transfer settles nothing.
PROPOSED: Final = Table(
    "proposals",
    (
        *AUDIT.columns,
        Column("confidence", Kind.SHARE),
        Column("decision", Kind.CHOICE, choices=frozenset({"auto", "review", "none"})),
        Column("evidence", Kind.STATEMENTS),
    ),
    key=None,
    partitioned_by="booked_on",
)
PROPOSALS: Final = PROPOSED.schema

TABLES: Final = {table.name: table for table in (INVOICES, TRANSFERS, MATCHES, AUDIT, OPEN_INVOICES, PROPOSED)}
RAW_TABLES: Final = ("invoices", "transfers", "matches")
