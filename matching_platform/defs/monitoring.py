"""Did the world move, and did what was booked hold?"""

from typing import Final

import dagster as dg
import polars as pl

from matching_platform.defs.automation import EVERY_MONTH
from matching_platform.defs.common import MANY_MONTHS, MONTHS, Made, PlatformParam, keep, link, materialized
from matching_platform.defs.pods import op_tags
from matching_platform.defs.proposals import made_in_advance, minor
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.monitoring.drift import drift
from matching_platform.monitoring.realised import realised_quality as realised

_REPORT: Final = "report.html"


@dg.asset(
    description="A row is a property of transfers, and how far the month's lie from those of the months before.",
    deps=["transfers"],
    partitions_def=MONTHS,
    backfill_policy=MANY_MONTHS,
    automation_condition=EVERY_MONTH,
    group_name="monitoring",
    kinds={"evidently"},
    op_tags=op_tags("drift_report"),
    code_version="1",
)
def drift_report(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    months = sorted(context.partition_keys)
    ledger = platform.ledger(months[-1])
    made = {}
    for month in months:
        current, before = _described(ledger, month)
        # The first month has nothing before it, and is compared with itself.
        report = drift(before if before.height else current, current)
        version = platform.store.put_bytes("drift_reports", _REPORT, report.html.encode())
        metadata = {
            "share_moved": report.figures["share_moved"],
            "moved": ", ".join(report.moved) or "nothing",
            "report": link(platform, version, _REPORT),
            **{f"distance of {name}": report.figures[name] for name in current.columns if name in report.figures},
        }
        made[month] = keep(platform, "drift_report", month, Made(version, metadata))
    return materialized(context, platform, made)


@dg.asset(
    description="A row is a figure of what was proposed for the month, judged by what has been tagged since. "
    "Proposals of a model that had learned from the month do not count.",
    deps=["proposals", "matches"],
    partitions_def=MONTHS,
    backfill_policy=MANY_MONTHS,
    automation_condition=EVERY_MONTH,
    group_name="monitoring",
    kinds={"polars"},
    op_tags=op_tags("realised_quality"),
    code_version="1",
)
def realised_quality(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    made = {}
    for month in sorted(context.partition_keys):
        proposed, advance = platform.read("proposals", month), made_in_advance(platform, month)
        counted = platform.store.read_frame(advance.version) if advance else proposed.clear()
        counted = counted.join(proposed, on="transfer_id", how="semi", maintain_order="left")
        figures = realised(minor(counted), platform.read("matches", month))
        left_out = proposed["transfer_id"].n_unique() - counted["transfer_id"].n_unique()
        frame = pl.DataFrame({"figure": list(figures), "value": list(figures.values())})
        version = platform.store.put_frame("realised_quality", frame)
        metadata = {**figures, "left out as in-sample": left_out}
        made[month] = keep(platform, "realised_quality", month, Made(version, metadata))
    return materialized(context, platform, made)


def _described(ledger: Ledger, month: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What can move about transfers, of the month and of all before it."""
    described = ledger.transfers.select(
        month=month_of("booked_on"),
        direction="direction",
        currency="currency",
        log_amount=pl.col("amount").log10(),
        day=pl.col("booked_on").dt.day(),
        title_length=pl.col("title").str.len_chars(),
        digits_in_title=pl.col("title").str.count_matches(r"\d"),
        has_account=pl.col("counterparty_account").is_not_null(),
    )
    return described.filter(month=month).drop("month"), described.filter(pl.col("month") < month).drop("month")


defs = dg.Definitions(assets=[drift_report, realised_quality])
