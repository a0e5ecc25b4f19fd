"""What people decided at the desk, month by month, as it was written there: what tags are made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from time import time
from typing import Final

import dagster as dg
import polars as pl
from pydantic import TypeAdapter

from matching_platform.defs.automation import EVERY_MONTH
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
from matching_platform.defs.pods import op_tags
from matching_platform.defs.raw import arrival, recorded
from matching_platform.defs.refusal import refused
from matching_platform.environment import Platform
from matching_platform.ledger.validation import LedgerError
from matching_platform.review.tags import SCHEMA, validated
from matching_platform.warehouse.tables import raw_name

DECISIONS: Final = "decisions"
# Who decides all day long is not kept waiting for ever.
PATIENCE_SECONDS: Final = 24 * 3600

raw_decisions = dg.AssetSpec(
    raw_name(DECISIONS),
    description="A row is a part of what a person decided at the desk; nothing in it is ever changed.",
    group_name="raw",
    kinds={"table"},
    partitions_def=MONTHS,
)


@dataclass(frozen=True)
class Waiting:
    """A month whose decisions changed and that is not reported yet: how it was seen last, and when it changed first and
    last (seconds since 1970)."""

    fingerprint: str
    first: float
    last: float


@dataclass(frozen=True)
class Watch:
    """What a look remembers: the fingerprints that were reported, and the months that wait."""

    reported: Mapping[str, str]
    waiting: Mapping[str, Waiting]

    def looked(self, found: Mapping[str, str], now: float) -> "Watch":
        """What is known after a look: a month that is gone stays as it is known, since decisions are never taken away."""
        changed = {month: mark for month, mark in found.items() if self.reported.get(month) != mark}
        return replace(self, waiting={month: self._waits(month, mark, now) for month, mark in changed.items()})

    def due(self, now: float, quiet: float) -> list[str]:
        """The months on which nothing was decided for `quiet` seconds, and those that have waited long enough."""
        return sorted(
            month
            for month, one in self.waiting.items()
            if now - one.last >= quiet or now - one.first >= PATIENCE_SECONDS
        )

    def without(self, months: Iterable[str]) -> "Watch":
        """What is known after these months were reported."""
        told = {month: self.waiting[month].fingerprint for month in months}
        rest = {month: one for month, one in self.waiting.items() if month not in told}
        return Watch({**self.reported, **told}, rest)

    def _waits(self, month: str, mark: str, now: float) -> Waiting:
        before = self.waiting.get(month)
        if before is None:
            return Waiting(mark, now, now)
        return before if before.fingerprint == mark else Waiting(mark, before.first, now)


_WATCH: Final = TypeAdapter(Watch)


@dg.sensor(
    description="People have decided something about a month, and are done for the moment: each report reads the month's "
    "tags anew and may train, so it waits until nothing was decided for a while.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
)
def new_decisions(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SensorResult | dg.SkipReason:
    now = time()
    known = (
        _WATCH.validate_json(context.cursor)
        if context.cursor
        else Watch(recorded(context.instance, [DECISIONS])[DECISIONS], {})
    )
    # When it was seen to change, and not when it was decided: that would take reading the rows at every look.
    watch = known.looked(decided(platform), now)
    months = watch.due(now, platform.settings.desk.quiet_minutes * 60)
    events = [arrival(DECISIONS, month, watch.waiting[month].fingerprint) for month in months]
    return dg.SensorResult(
        asset_events=events,
        cursor=_WATCH.dump_json(watch.without(months)).decode(),
        skip_reason=None if events else dg.SkipReason(f"waiting for quiet: {', '.join(watch.waiting) or 'nothing'}"),
    )


def decided(platform: Platform) -> dict[str, str]:
    """The fingerprints of the configured months on which people have decided something."""
    configured = set(MONTHS.get_partition_keys())
    found = platform.warehouse.appended(DECISIONS)
    return {month: mark for month, mark in sorted(found.items()) if month in configured}


@dg.asset(
    description="A row is a part of what a person decided about a transfer booked in the month, or a decision without "
    "parts; what was decided otherwise later is there as well.",
    deps=[raw_decisions],
    partitions_def=MONTHS,
    backfill_policy=MONTH_BY_MONTH,
    automation_condition=EVERY_MONTH,
    group_name="tables",
    kinds={"polars", "parquet"},
    op_tags=op_tags(DECISIONS),
    code_version="1",
)
def decisions(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    month, warehouse = context.partition_key, charged(context, platform)
    # Before the rows: what is appended meanwhile is then found to be newer.
    mark = decided(platform).get(month, NONE)
    raw = warehouse.read_appended(DECISIONS, month)
    try:
        frame = validated(raw, source=f"{DECISIONS} of {month}")
    except LedgerError as error:
        raise refused(platform, DECISIONS, DECISIONS, month, raw, error) from error
    metadata = {
        "dagster/partition_row_count": frame.height,
        "rows": frame.height,
        "decisions": frame["number"].n_unique(),
        "people": frame["actor"].n_unique(),
        SOURCE: mark,
        "first rows": table(frame.drop("proposed"), 5),
    }
    made = keep(platform, DECISIONS, month, Made(platform.store.put_frame(DECISIONS, frame), metadata))
    return materialized(context, platform, made.costing(warehouse.costs()))


def decided_on(platform: Platform, month: str) -> pl.DataFrame:
    """What was decided on the transfers that are of a month now, in order: columns of `tags.SCHEMA`, and `version`, the
    name of the decisions of which a row is. The bank may have told another month when somebody decided."""
    transfers = platform.store.open_frame(platform.current("transfers", month))
    made = [one.version for one in platform.catalog.latest(DECISIONS).values() if one.metadata["rows"]]
    every = (platform.store.open_frame(version).with_columns(version=pl.lit(version.name)) for version in made)
    known = pl.concat([pl.LazyFrame(schema={**SCHEMA, "version": pl.String()}), *every])
    return known.join(transfers, on="transfer_id", how="semi").sort("number", "invoice_id").collect()


def versions_of(decisions: pl.DataFrame) -> list[str]:
    """The names of the versions that hold what was decided, see `decided_on`."""
    return decisions["version"].unique().sort().to_list()


defs = dg.Definitions(assets=[raw_decisions, decisions], sensors=[new_decisions])
