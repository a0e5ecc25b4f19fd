"""The validated tables, month by month: a bad month is refused as a whole and quarantined, never half taken."""

from typing import Final

import dagster as dg
import polars as pl

from matching_platform.defs.automation import EVERY_MONTH
from matching_platform.defs.common import (
    MONTH_BY_MONTH,
    MONTHS,
    SOURCE,
    Made,
    PlatformParam,
    charged,
    keep,
    materialized,
    table,
)
from matching_platform.defs.pods import op_tags
from matching_platform.environment import Platform
from matching_platform.ledger.months import month_of
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.ledger.validation import ROW, LedgerError, check_references, validate
from matching_platform.warehouse.tables import raw_name
from matching_platform.warehouse.warehouse import Warehouse

QUARANTINE: Final = "quarantine"

_ROWS: Final = {
    "invoices": "A row is a valid invoice or credit note issued in the month, its amount in minor units.",
    "transfers": "A row is a valid bank transfer booked in the month, its amount in minor units.",
    "matches": "A row is a tag on a transfer booked in the month: an invoice it settles, or none.",
}
# A match is judged by the transfers of its month; its invoices may be of any month, so it only waits for this one's.
_BESIDE: Final = {"invoices": [], "transfers": [], "matches": ["invoices", "transfers"]}


def _table(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        description=_ROWS[name],
        deps=[raw_name(name), *_BESIDE[name]],
        partitions_def=MONTHS,
        backfill_policy=MONTH_BY_MONTH,
        automation_condition=EVERY_MONTH,
        group_name="tables",
        kinds={"polars", "parquet"},
        op_tags=op_tags(name),
        code_version="1",
    )
    def build(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
        month, warehouse = context.partition_key, charged(context, platform)
        mark = warehouse.months().get(name, {}).get(month, "none")
        raw = warehouse.read_month(name, month)
        try:
            frame = accepted(platform, warehouse, name, month, raw)
        except LedgerError as error:
            raise _refused(platform, name, month, raw, error) from error
        version = platform.store.put_frame(name, frame)
        warehouse.publish(name, month, _dated(platform, name, month, frame))
        metadata = {
            "dagster/partition_row_count": frame.height,
            "rows": frame.height,
            SOURCE: mark,
            "first rows": table(frame, 5),
        }
        kept = keep(platform, name, month, Made(version, metadata))
        return materialized(context, platform, kept.costing(warehouse.costs()))

    return build


def accepted(platform: Platform, warehouse: Warehouse, name: str, month: str, raw: pl.DataFrame) -> pl.DataFrame:
    """The valid rows of a month, sorted; LedgerError where one is not what the contract says."""
    source = f"{raw_name(name)} of {month}"
    if raw.is_empty():
        raise LedgerError(source, "has no rows", rows=raw)
    frame = validate(name, raw, source=source)
    if name == "matches":
        _check_matches(platform, warehouse, month, frame, source)
    else:
        _check_dated(warehouse, name, month, frame, source)
    return frame.sort(pl.all())


def _dated(platform: Platform, name: str, month: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with the date by which they are partitioned; a match has that of its transfer."""
    if TABLES[name].partitioned_by in frame.columns:
        return frame
    booked = platform.read("transfers", month).select("transfer_id", TABLES[name].partitioned_by)
    return frame.join(booked, on="transfer_id", maintain_order="left")


def _check_dated(warehouse: Warehouse, name: str, month: str, frame: pl.DataFrame, source: str) -> None:
    dated = TABLES[name].partitioned_by
    key = str(TABLES[name].key)
    taken = warehouse.taken(name, month)
    rows = frame.with_row_index(ROW, offset=1)
    _refuse_any(rows.filter(month_of(dated) != month), dated, f"is not in {month}", source)
    _refuse_any(rows.filter(pl.col(key).is_in(taken.implode())), key, "is in an earlier month already", source)


def _check_matches(platform: Platform, warehouse: Warehouse, month: str, frame: pl.DataFrame, source: str) -> None:
    transfers = platform.read("transfers", month)["transfer_id"]
    unknown = warehouse.unknown_invoices(month)
    known = frame["invoice_id"].filter(~frame["invoice_id"].is_in(unknown.implode())).drop_nulls()
    check_references(frame, transfers, known, source=source)


def _refuse_any(bad: pl.DataFrame, column: str, problem: str, source: str) -> None:
    if not bad.is_empty():
        rows = bad.cast(pl.String).with_columns(problem=pl.lit(f"{column} {problem}"))
        raise LedgerError(source, f"'{bad[column][0]}' {problem}", row=bad[ROW][0], column=column, rows=rows)


def _refused(platform: Platform, name: str, month: str, raw: pl.DataFrame, error: LedgerError) -> dg.Failure:
    """The offending rows, all where no single one is at fault, go to quarantine; the month stays as it was."""
    rows = raw.cast(pl.String) if error.rows.is_empty() else error.rows
    version = platform.store.put_frame(QUARANTINE, rows)
    platform.catalog.set(f"{QUARANTINE}_{name}", month, version, {"problem": str(error), "rows": rows.height})
    place = platform.store.files.path(version.folder)
    return dg.Failure(
        f"{error}. The month is refused as a whole; correct {raw_name(name)} and materialize {name} of {month} again.",
        metadata={
            "table": raw_name(name),
            "row": error.row or 0,
            "column": error.column or "",
            "quarantine": dg.MetadataValue.path(place),
            "refused rows": table(rows),
        },
        allow_retries=False,
    )


defs = dg.Definitions(assets=[_table(name) for name in RAW_TABLES])
