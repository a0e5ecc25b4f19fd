"""What the finance system reads."""

import dagster as dg
import polars as pl

from matching_platform.defs.automation import every_month_ignoring
from matching_platform.defs.common import MANY_MONTHS, MONTHS, Made, PlatformParam, keep, materialized
from matching_platform.ledger.money import to_decimal
from matching_platform.matching.matcher import Matcher


@dg.asset(
    description="A row is an invoice that a transfer booked in the month settles, or a transfer that settles none: "
    "book it, or show it to a person.",
    deps=["transfers", "invoices", "champion"],
    partitions_def=MONTHS,
    backfill_policy=MANY_MONTHS,
    # A new champion speaks about the months to come; what was proposed stays proposed.
    automation_condition=every_month_ignoring("champion"),
    group_name="serving",
    kinds={"parquet"},
    code_version="1",
)
def proposals(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    promotion = platform.registry.champion()
    if promotion is None:
        raise dg.Failure("there is no champion yet to propose anything: materialize champion first")
    matcher = Matcher.load(platform.store.fetch(promotion.model))
    months = sorted(context.partition_keys)
    ledger = platform.ledger(months[-1])
    made = {}
    for month in months:
        rows = matcher.match(ledger, [month])
        by_decision = rows.unique("transfer_id")["decision"].value_counts()
        metadata = {
            "dagster/partition_row_count": rows.height,
            "rows": rows.height,
            "model": promotion.model.name,
            "trained until": matcher.card["trained_until"],
            **dict(by_decision.rows()),
        }
        version = platform.store.put_frame("proposals", rows.with_columns(to_decimal("amount")))
        made[month] = keep(platform, "proposals", month, Made(version, metadata))
    return materialized(context, platform, made)


def minor(proposed: pl.DataFrame) -> pl.DataFrame:
    """Stored proposals with amounts in minor units, as everything inside has them."""
    return proposed.with_columns((pl.col("amount") * 100).cast(pl.Int64))


defs = dg.Definitions(assets=[proposals])
