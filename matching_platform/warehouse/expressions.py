"""What is asked of a warehouse, as Ibis expressions that every backend shares."""

from typing import TYPE_CHECKING, Final

from matching_platform.ledger.months import first_day, next_month
from matching_platform.warehouse.tables import MONTH, NUMBER

if TYPE_CHECKING:
    import ibis.expr.types as ir


_AROUND: Final = r"^[\t-\r\x{85}\p{Z}]+|[\t-\r\x{85}\p{Z}]+$"
_HASH_BITS: Final = 2**40 - 1  # a million rows a month still sum up within int64
_BETWEEN: Final = "\x1f"
_NULL: Final = "\x00"


def fingerprints(table: "ir.Table") -> "ir.Table":
    """One row a month: its number of rows and the sum of their hashes, whatever the order of the rows.

    Values are hashed as text, so that widening a column's type changes no month in which the values stayed the same.
    """
    import ibis

    values = [table[name].cast("string").fill_null(_NULL) for name in sorted(table.columns) if name != MONTH]
    hashed = table.mutate(hash=ibis.literal(_BETWEEN).join(values).hash() & _HASH_BITS)
    return hashed.group_by(MONTH).agg(rows=hashed.count(), hash=hashed.hash.sum())


def rows_of(table: "ir.Table", month: str) -> "ir.Table":
    """The rows that `month` delivered, without the partition."""
    return table.filter(table[MONTH] == month).drop(MONTH)


def keys(table: "ir.Table", key: str) -> "ir.Table":
    """The distinct keys of a table, without the blanks around them that validation takes away, of any alphabet."""
    return table.select(key=table[key].cast("string").re_replace(_AROUND, "")).distinct()


def with_keys(table: "ir.Table", wanted: "ir.Table", key: str) -> "ir.Table":
    """The rows whose key is among `wanted.key`."""
    return table.semi_join(wanted, table[key].cast("string").re_replace(_AROUND, "") == wanted.key)


def taken(rows: "ir.Table", earlier: "ir.Table", key: str) -> "ir.Table":
    """The keys of `rows` that `earlier` ones have already."""
    return keys(rows, key).semi_join(keys(earlier, key), "key")


def unknown(matches: "ir.Table", invoices: "ir.Table") -> "ir.Table":
    """The invoice ids that `matches` name and no invoice has."""
    named = keys(matches, "invoice_id")
    return named.filter(named.key.notnull()).anti_join(keys(invoices, "invoice_id"), "key")


def within(table: "ir.Table", column: str, month: str) -> "ir.Table":
    """The rows whose date lies in `month`."""
    return table.filter(table[column] >= first_day(month), table[column] < first_day(next_month(month)))


def growth(table: "ir.Table", column: str) -> "ir.Table":
    """One row a month of a table that only grows: its number of rows, and the last of their numbers."""
    dated = table.mutate(month=table[column].strftime("%Y-%m"))
    return dated.group_by("month").agg(rows=dated.count(), last=dated[NUMBER].max())
