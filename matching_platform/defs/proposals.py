"""What the finance system reads."""

from typing import Final

import dagster as dg
import polars as pl

from matching_platform.defs.automation import every_month_ignoring
from matching_platform.defs.common import MANY_MONTHS, MONTHS, Made, PlatformParam, charged, keep, materialized
from matching_platform.defs.pods import op_tags
from matching_platform.environment import Platform
from matching_platform.ledger.money import to_decimal
from matching_platform.matching.matcher import Matcher
from matching_platform.store.catalog import Current

# Metadata: proposals of a month up to this one are in-sample, but for those that were kept from an earlier model.
TRAINED_UNTIL: Final = "trained until"


@dg.asset(
    description="A row is an invoice that a transfer booked in the month settles, or a transfer that settles none: "
    "book it, or show it to a person.",
    deps=["transfers", "invoices", "champion"],
    partitions_def=MONTHS,
    backfill_policy=MANY_MONTHS,
    # A new champion speaks about the months to come; what was proposed stays proposed, also when he is asked again.
    automation_condition=every_month_ignoring("champion"),
    group_name="serving",
    kinds={"parquet"},
    op_tags=op_tags("proposals"),
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
        warehouse = charged(context, platform)
        rows, fresh = matcher.match(ledger, [month], candidates=platform.candidates(warehouse)), 0
        if month <= matcher.card["trained_until"]:
            rows, fresh = _beside(made_in_advance(platform, month), platform, rows)
        by_decision = rows.unique("transfer_id")["decision"].value_counts()
        metadata = {
            "dagster/partition_row_count": rows.height,
            "rows": rows.height,
            "model": promotion.model.name,
            TRAINED_UNTIL: matcher.card["trained_until"],
            "in-sample": fresh,
            **dict(by_decision.rows()),
        }
        version = platform.store.put_frame("proposals", rows.with_columns(to_decimal("amount")))
        booked = ledger.transfers.select("transfer_id", "booked_on")
        dated = rows.join(booked, on="transfer_id", maintain_order="left")
        warehouse.publish("proposals", month, dated.with_columns(model=pl.lit(promotion.model.name)))
        made[month] = keep(platform, "proposals", month, Made(version, metadata)).costing(warehouse.costs())
    return materialized(context, platform, made)


def made_in_advance(platform: Platform, month: str) -> Current | None:
    """The last proposals of `month` by a model that had not learned from it; None where there are none."""
    history = platform.catalog.history("proposals", month)
    return next((one for one in reversed(history) if one.metadata[TRAINED_UNTIL] < month), None)


def _beside(earlier: Current | None, platform: Platform, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """What was proposed in advance, and `rows` of the other transfers; and how many of these there are.

    `rows` are of a model that has seen the tags of the month, and would only repeat them.
    """
    if earlier is None:
        return rows, rows["transfer_id"].n_unique()
    proposed = minor(platform.store.read_frame(earlier.version))
    fresh = rows.join(proposed, on="transfer_id", how="anti", maintain_order="left")
    kept = proposed.join(rows, on="transfer_id", how="semi", maintain_order="left")
    return pl.concat([kept, fresh]), fresh["transfer_id"].n_unique()


def minor(proposed: pl.DataFrame) -> pl.DataFrame:
    """Stored proposals with amounts in minor units, as everything inside has them."""
    return proposed.with_columns((pl.col("amount") * 100).cast(pl.Int64))


defs = dg.Definitions(assets=[proposals])
