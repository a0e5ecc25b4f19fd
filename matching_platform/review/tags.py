"""Decisions as tags: what people decided, which of it is in force, and what that makes of the finance system's own tags."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from matching_platform.ledger.money import MINOR_UNITS, to_minor
from matching_platform.ledger.schema import TABLES
from matching_platform.ledger.validation import ROW, LedgerError
from matching_platform.review.decisions import FURTHEST_AHEAD, TAGS, Action
from matching_platform.warehouse.tables import APPENDED

_PARTS: Final = pl.List(pl.Struct({"invoice_id": pl.String(), "amount": pl.Int64()}))
_WRITTEN: Final = pl.List(pl.Struct({"invoice_id": pl.String(), "amount": pl.String()}))
_AMOUNT: Final = r"^[+-]?\d{1,13}(\.\d{1,2})?$"
# A row an allocation, amounts in minor units; a decision without any has one row with a null invoice.
SCHEMA: Final = pl.Schema({**APPENDED["decisions"].columns, "amount": pl.Int64(), "proposed": _PARTS})
# What all rows of a decision share.
_SHARED: Final = [name for name in SCHEMA if name not in ("number", "invoice_id", "amount")]
_REQUIRED: Final = ("number", "transfer_id", "booked_on", "decided_at", "actor", "action")


@dataclass(frozen=True)
class _Rule:
    """Rows where `bad` holds are refused, for the reason given."""

    column: str
    reason: str
    bad: pl.Expr


_PAIR: Final = pl.struct("number", "invoice_id")
_RULES: Final = (
    *(_Rule(name, "is missing", pl.col(name).is_null()) for name in _REQUIRED),
    _Rule("action", f"is none of {', '.join(Action)}", ~pl.col("action").is_in(list(Action))),
    _Rule(
        "amount",
        "is given with an invoice, and only then",
        pl.col("amount").is_null() != pl.col("invoice_id").is_null(),
    ),
    _Rule(
        "invoice_id",
        "is named by a decision that settles nothing",
        pl.col("invoice_id").is_not_null() & ~pl.col("action").is_in([Action.ACCEPT, Action.CHANGE]),
    ),
    _Rule(
        "invoice_id",
        "is named more than once by its decision",
        _PAIR.is_duplicated() & pl.col("invoice_id").is_not_null(),
    ),
    _Rule(
        "invoice_id",
        "is missing in a decision that has other rows",
        pl.col("invoice_id").is_null() & pl.col("number").is_duplicated(),
    ),
    _Rule("number", "has rows that differ in more than the invoice", pl.struct(_SHARED).n_unique().over("number") > 1),
    _Rule("supersedes", "is not an earlier decision", pl.col("supersedes") >= pl.col("number")),
)


def validated(raw: pl.DataFrame, *, source: str) -> pl.DataFrame:
    """Raw decisions as SCHEMA has them, in the order of their numbers; LedgerError where a row is not what it should be."""
    missing = next((name for name in SCHEMA if name not in raw.columns), None)
    if missing:
        raise LedgerError(source, "the column is missing", column=missing, rows=raw.head(0))
    rows = raw.select(list(SCHEMA)).with_row_index(ROW, offset=1)
    read = rows.with_columns(to_minor("amount"), proposed=_proposed(rows, source))
    for rule in _RULES:
        _refuse(rows.filter(read.select(rule.bad.fill_null(value=False)).to_series()), rule.column, rule.reason, source)
    return read.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()).sort("number", "invoice_id")


def in_force(decisions: pl.DataFrame) -> pl.DataFrame:
    """The rows of the decision that counts for each transfer: its last one that nobody has withdrawn, see
    `decisions.in_force`."""
    withdraws = pl.col("action") == Action.WITHDRAW
    # Decisions less withdrawals from here to the end, which is first one where no later withdrawal reaches back to it.
    standing = pl.when(withdraws).then(-1).otherwise(1).cum_sum(reverse=True).over("transfer_id", order_by="number")
    each = decisions.select("transfer_id", "number", "action").unique().filter(standing == 1)
    return decisions.filter(
        pl.col("number").is_in(each.group_by("transfer_id").agg(pl.col("number").max())["number"].implode())
    )


def tags(raw: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """The tags in force, columns of `matches`: for each transfer that somebody decided on what he decided, tagged on that
    day (UTC), unless the finance system surely tagged it later, see `Decision.stands_until`; for the others the finance
    system's, `raw`.

    Both are valid tables. Who asked to be asked later has tagged nothing.
    """
    decided = (
        in_force(decisions)
        .filter(pl.col("action").is_in(list(TAGS)))
        .with_columns(
            tagged_on=pl.col("decided_at").dt.date(), stands_until=(pl.col("decided_at") + FURTHEST_AHEAD).dt.date()
        )
    )
    newest = raw.group_by("transfer_id").agg(newest=pl.col("tagged_on").max())
    overruled = decided.join(newest, on="transfer_id").filter(pl.col("newest") > pl.col("stands_until"))
    decided = decided.join(overruled, on="transfer_id", how="anti", maintain_order="left")
    others = raw.join(decided, on="transfer_id", how="anti", maintain_order="left")
    return pl.concat(frame.select(list(TABLES["matches"].schema)) for frame in (others, decided))


def naming_others(decisions: pl.DataFrame, invoices: pl.Series) -> pl.DataFrame:
    """The rows in force that name an invoice that is none of `invoices`, its ids."""
    return in_force(decisions).filter(~pl.col("invoice_id").is_in(invoices.implode()))


def against_proposals(decisions: pl.DataFrame, matches: pl.DataFrame) -> pl.DataFrame:
    """transfer_id, corrected: the transfers that were decided upon when something was proposed, and whether the tags in
    force, `matches`, name other invoices than that. Which part of an invoice was meant makes no correction."""
    shown = (
        in_force(decisions)
        .filter(pl.col("action").is_in(list(TAGS)), pl.col("proposed").is_not_null())
        .select("transfer_id", proposed=_named(pl.col("proposed").list.eval(pl.element().struct["invoice_id"])))
        .unique()
    )
    tagged = matches.group_by("transfer_id").agg(pl.col("invoice_id").drop_nulls())
    return (
        shown.join(tagged, on="transfer_id")
        .select("transfer_id", corrected=pl.col("proposed") != _named(pl.col("invoice_id")))
        .sort("transfer_id")
    )


def _named(invoices: pl.Expr) -> pl.Expr:
    """A list of ids as a set, so that equal ones compare equal."""
    return invoices.list.unique().list.sort()


def _proposed(rows: pl.DataFrame, source: str) -> pl.Series:
    """What was proposed, from JSON; LedgerError where that is not a list of invoices with amounts."""
    reason = 'is not a JSON list of {"invoice_id": …, "amount": "0.00"}'
    try:
        written = rows["proposed"].str.json_decode(_WRITTEN)
    except pl.exceptions.PolarsError as error:
        raise LedgerError(source, reason, column="proposed", rows=rows.cast(pl.String)) from error
    part = pl.element().struct
    unfit = part["invoice_id"].is_null() | ~part["amount"].str.contains(_AMOUNT).fill_null(value=False)
    unread = written.list.eval(unfit).list.any().fill_null(value=False)
    _refuse(rows.filter(unread), "proposed", reason, source)
    minor = (part["amount"].cast(pl.Decimal(38, 2)) * MINOR_UNITS).cast(pl.Int64)
    return written.list.eval(pl.struct(part["invoice_id"], minor.alias("amount"))).cast(_PARTS)


def _refuse(bad: pl.DataFrame, column: str, reason: str, source: str) -> None:
    if not bad.is_empty():
        told = bad.cast(pl.String).with_columns(problem=pl.lit(f"{column} {reason}"))
        value = "" if bad[column][0] is None else f"'{told[column][0]}' "
        raise LedgerError(source, f"{value}{reason}", row=bad[ROW][0], column=column, rows=told)
