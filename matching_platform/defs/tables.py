"""The validated tables, month by month: a bad month is refused as a whole and quarantined, never half taken."""

from typing import Any, Final

import dagster as dg
import polars as pl

from matching_platform.defs.automation import EVERY_MONTH, every_month_with_any
from matching_platform.defs.common import (
    MONTH_BY_MONTH,
    MONTHS,
    NONE,
    SOURCE,
    Made,
    PlatformParam,
    charged,
    keep,
    materialized,
    table,
)
from matching_platform.defs.decisions import DECISIONS, decided_on, versions_of
from matching_platform.defs.pods import op_tags
from matching_platform.defs.raw import Fingerprints, watched
from matching_platform.defs.refusal import refused
from matching_platform.environment import Platform
from matching_platform.ledger.months import month_of
from matching_platform.ledger.schema import TABLES
from matching_platform.ledger.validation import ROW, LedgerError, check_references, validate
from matching_platform.review.tags import naming_others, tags
from matching_platform.warehouse.tables import raw_name
from matching_platform.warehouse.warehouse import Warehouse

MATCHES: Final = "matches"
# Metadata: how many rows the finance system tagged.
BY_FINANCE: Final = "tagged by finance"
# Metadata: how many decisions count no more, since what they name is gone.
LOST: Final = "decisions on invoices that are gone"

_ROWS: Final = {
    "invoices": "A row is a valid invoice or credit note issued in the month, its amount in minor units.",
    "transfers": "A row is a valid bank transfer booked in the month, its amount in minor units.",
}


def _table(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        description=_ROWS[name],
        deps=[raw_name(name)],
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
        marks = warehouse.months()
        mark = marks.get(name, {}).get(month, NONE)
        if mark == NONE and _may_be_empty(platform, name, month, marks):
            frame = pl.DataFrame(schema=TABLES[name].schema)
        else:
            frame = _accepted(platform, warehouse, name, month, warehouse.read_month(name, month))
        return _made(context, platform, warehouse, name, frame, {SOURCE: mark})

    return build


@dg.asset(
    description="A row is a tag on a transfer booked in the month: an invoice it settles, or none. What people decided at "
    "the desk stands in place of what the finance system says, unless that is newer.",
    # A match is judged by the transfers of its month; its invoices may be of any month, so it only waits for this one's.
    deps=[raw_name(MATCHES), DECISIONS, "invoices", "transfers"],
    partitions_def=MONTHS,
    backfill_policy=MONTH_BY_MONTH,
    # Where people tag only at the desk, or only elsewhere, the other never comes.
    automation_condition=every_month_with_any(raw_name(MATCHES), DECISIONS),
    group_name="tables",
    kinds={"polars", "parquet"},
    op_tags=op_tags(MATCHES),
    code_version="3",
)
def matches(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    month, warehouse = context.partition_key, charged(context, platform)
    mark, decisions = warehouse.months().get(MATCHES, {}).get(month, NONE), decided_on(platform, month)
    if mark == NONE and not _had_rows(platform, MATCHES, month):
        by_finance = pl.DataFrame(schema=TABLES[MATCHES].schema)
    else:
        by_finance = _accepted(platform, warehouse, MATCHES, month, warehouse.read_month(MATCHES, month))
    lost = _naming_no_invoice(platform, warehouse, decisions)
    known = decisions.join(lost, on="transfer_id", how="anti", maintain_order="left")
    frame = tags(by_finance, known).sort(pl.all())
    metadata = {
        SOURCE: source_of_matches(mark, decisions),
        BY_FINANCE: by_finance.height,
        "transfers decided on": known["transfer_id"].n_unique(),
        LOST: lost["number"].n_unique(),
        **_first_lost(lost),
    }
    return _made(context, platform, warehouse, MATCHES, frame, metadata)


def source_of_matches(mark: str, decisions: pl.DataFrame) -> str:
    """What the matches of a month are made of: the finance system's tags of that fingerprint, and what people decided."""
    return " ".join([mark, *versions_of(decisions)])


def _naming_no_invoice(platform: Platform, warehouse: Warehouse, decisions: pl.DataFrame) -> pl.DataFrame:
    """The rows in force that name an invoice that nobody has, neither accepted nor in a month that is yet to be read."""
    if decisions["invoice_id"].is_null().all():
        return decisions.clear()
    accepted = platform.catalog.latest("invoices")
    held = [pl.DataFrame(schema={"invoice_id": pl.String()})]
    held += [platform.store.open_frame(one.version).select("invoice_id").collect() for one in accepted.values()]
    read = {month: one.metadata.get(SOURCE) for month, one in accepted.items()}
    changed = (month for month, mark in watched(platform)[0].get("invoices", {}).items() if read.get(month) != mark)
    raw = (warehouse.read_month("invoices", month) for month in changed)
    held += [frame.select(pl.col("invoice_id").cast(pl.String)) for frame in raw if "invoice_id" in frame.columns]
    return naming_others(decisions, pl.concat(held)["invoice_id"])


def _first_lost(lost: pl.DataFrame) -> dict[str, str]:
    if lost.is_empty():
        return {}
    first = lost.row(0, named=True)
    told = f"decision {first['number']} on transfer {first['transfer_id']} names invoice {first['invoice_id']}"
    return {"first of them": f"{told}, which there is no more; decide on the transfer anew"}


def _may_be_empty(platform: Platform, name: str, month: str, found: Fingerprints) -> bool:
    """Whether a month has no invoices and never had any, but transfers: whose invoices are of other months, or come late.

    Nobody asks for it by himself before the monthly job does: most often they are on their way.
    """
    return name == "invoices" and month in found.get("transfers", {}) and not _had_rows(platform, name, month)


def _had_rows(platform: Platform, name: str, month: str) -> bool:
    """Whether the finance system had something of the month; it does not take all of that away."""
    before = platform.catalog.get(name, month)
    return bool(before and before.metadata.get(BY_FINANCE, before.metadata["rows"]))


def _made(
    context: dg.AssetExecutionContext,
    platform: Platform,
    warehouse: Warehouse,
    name: str,
    frame: pl.DataFrame,
    metadata: dict[str, Any],
) -> dg.MaterializeResult:
    """Stores and publishes the rows of the run's month."""
    month, version = context.partition_key, platform.store.put_frame(name, frame)
    warehouse.publish(name, month, _dated(platform, name, month, frame))
    told = {
        "dagster/partition_row_count": frame.height,
        "rows": frame.height,
        **metadata,
        "first rows": table(frame, 5),
    }
    kept = keep(platform, name, month, Made(version, told))
    return materialized(context, platform, kept.costing(warehouse.costs()))


def _accepted(platform: Platform, warehouse: Warehouse, name: str, month: str, raw: pl.DataFrame) -> pl.DataFrame:
    """The valid rows of a month, sorted; a Failure where one is not what the contract says, with all such rows kept."""
    try:
        return accepted(platform, warehouse, name, month, raw)
    except LedgerError as error:
        raise refused(platform, name, raw_name(name), month, raw, error) from error


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


defs = dg.Definitions(assets=[*(_table(name) for name in _ROWS), matches])
