"""What was asked of the service and what it answered: the days that are over become files, and a table."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from matching_platform.defs.common import Made, PlatformParam, charged, keep, materialized, table
from matching_platform.defs.pods import op_tags
from matching_platform.environment import Platform
from matching_platform.predictions import reading
from matching_platform.store.versions import Version
from matching_platform.warehouse.warehouse import Warehouse

CHECK: Final = "log_is_whole"
TABLE: Final = "predictions"
# Half an hour after a day has ended, in UTC.
DAILY: Final = "30 0 * * *"
# The check speaks of servers that wrote within these days.
WEEK: Final = timedelta(days=7)

_KIND: Final = "prediction_logs"


@dg.asset(
    description="A row is a request that was served, with what was answered: the days that are over, each a file. "
    "Its proposals become rows of the table `predictions`.",
    deps=["deployment"],
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset="prediction_log",
            description="In the last week no server ended without closing its log, and none dropped a request.",
        )
    ],
    # By the clock alone: what is served goes on, whatever is deployed.
    automation_condition=dg.AutomationCondition.on_cron(DAILY).without(
        dg.AutomationCondition.all_deps_updated_since_cron(DAILY)
    ),
    group_name="monitoring",
    kinds={"parquet"},
    op_tags=op_tags("prediction_log"),
    code_version="1",
)
def prediction_log(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    now, log = datetime.now(UTC), platform.predictions
    reading.forget_before(log, now.date() - timedelta(days=platform.settings.predictions.days))
    reading.compact_before(log, now.date())
    found, warehouse = _by_month(reading.finished(log)), charged(context, platform)
    for month in sorted({*found, *platform.catalog.months("prediction_log")}):
        _publish(platform, warehouse, month, found.get(month, {}))
    report = reading.report(log, now, now - WEEK)
    counted = {month: current.metadata for month, current in platform.catalog.latest("prediction_log").items()}
    metadata = {
        "requests": sum(one["requests"] for one in counted.values()),
        "transfers": sum(one["transfers"] for one in counted.values()),
        "days": sum(len(days) for days in found.values()),
        "servers that write": report.open,
        "ended without closing": len(report.lost),
        "dropped": report.dropped,
        "months": table(_months(counted)),
    }
    version = platform.store.put_bytes(_KIND, "files.json", json.dumps(found, sort_keys=True, indent=2).encode())
    made = Made(version, metadata).costing(warehouse.costs())
    return materialized(context, platform, made, [_judged(report)])


def _publish(platform: Platform, warehouse: Warehouse, month: str, days: Mapping[str, Sequence[str]]) -> None:
    """Brings the proposals of a month into the warehouse, where its files are others than when that was done last."""
    files = json.dumps(days, sort_keys=True, indent=2).encode()
    version: Version = platform.store.put_bytes(_KIND, "files.json", files)
    current = platform.catalog.get("prediction_log", month)
    if current and current.version == version:
        return
    rows, requests, transfers = [reading.proposed(reading.nothing())], 0, 0
    # Only what becomes a row of the table is held together.
    for day, name in [(day, name) for day, names in sorted(days.items()) for name in names]:
        asked = reading.asked(reading.piece(platform.predictions, day, name))
        rows.append(reading.proposed(asked))
        requests += asked.height
        transfers += int(asked["transfers"].list.len().sum())
    warehouse.publish(TABLE, month, pl.concat(rows))
    keep(platform, "prediction_log", month, Made(version, {"requests": requests, "transfers": transfers}))


def _by_month(days: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Sequence[str]]]:
    found: dict[str, dict[str, Sequence[str]]] = defaultdict(dict)
    for day, files in days.items():
        found[day[:7]][day] = files
    return dict(found)


def _months(counted: Mapping[str, Mapping[str, int]]) -> pl.DataFrame:
    rows = [(month, one["requests"], one["transfers"]) for month, one in sorted(counted.items(), reverse=True)]
    return pl.DataFrame(rows, schema=["month", "requests", "transfers"], orient="row")


def _judged(report: reading.Report) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not report.problems,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(report.problems)
        or "every server closed its log or writes it, and none dropped a request",
        metadata={"ended without closing": len(report.lost), "dropped": report.dropped},
    )


defs = dg.Definitions(assets=[prediction_log])
