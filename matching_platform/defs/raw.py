"""The company's raw tables, which the platform only watches."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final

import dagster as dg

from matching_platform.defs.automation import learn_job
from matching_platform.defs.common import MONTHS, PlatformParam
from matching_platform.environment import Platform
from matching_platform.learning import train_set
from matching_platform.ledger.schema import RAW_TABLES
from matching_platform.warehouse.tables import raw_name

Fingerprints = Mapping[str, Mapping[str, str]]  # by table and month

_GONE: Final = "0-gone"
DATA_VERSION: Final = "dagster/data_version"  # the tag under which Dagster keeps the data version of an event
_ROWS: Final = {
    "invoices": "A row is an invoice or credit note as the finance system wrote it.",
    "transfers": "A row is a bank transfer as the bank reported it.",
    "matches": "A row is what the finance team tagged: a transfer and an invoice that it settles, or none.",
}

raw_tables = [
    dg.AssetSpec(raw_name(name), description=_ROWS[name], group_name="raw", kinds={"table"}, partitions_def=MONTHS)
    for name in RAW_TABLES
]


@dg.sensor(
    description="A month of a raw table came or changed: its rows, however old, differ from those last seen.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
)
def raw_months(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SensorResult | dg.SkipReason:
    known = json.loads(context.cursor) if context.cursor else recorded(context.instance)
    found, outside = watched(platform)
    for name, before in known.items():
        if any(mark != _GONE for mark in before.values()) and not found.get(name):
            # Dropped, and perhaps about to be made anew: thousands of rows do not vanish in a minute.
            context.log.warning("%s has no month any more; what is known of it is kept", raw_name(name))
            found[name] = dict(before)
    if outside:
        context.log.warning(
            "rows of %s lie outside the configured months; set MATCHING_PLATFORM_FIRST_MONTH and _LAST_MONTH", outside
        )
    events = list(arrivals(known, found))
    if not events:
        return dg.SkipReason("no month came or changed")
    return dg.SensorResult(asset_events=events, cursor=json.dumps(found))


@dg.sensor(
    job=learn_job,
    description="The newest train set no longer holds the labels in force: an old month was corrected, or healed.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
)
def late_labels(platform: PlatformParam) -> dg.RunRequest | dg.SkipReason:
    made = platform.catalog.months("train_set")
    if not made:
        return dg.SkipReason("there is no train set yet")
    newest = made[-1]
    in_force = platform.in_force(newest)
    if train_set.read(platform.store, platform.current("train_set", newest)).months == in_force:
        return dg.SkipReason("the newest train set is of what is in force")
    # The same versions are asked for once, however often the sensor looks.
    key = hashlib.sha256(repr(in_force).encode()).hexdigest()[:16]
    return dg.RunRequest(run_key=f"{newest} {key}", partition_key=newest)


def watched(platform: Platform) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The fingerprints of the configured months, by table, and the months with rows that are not configured."""
    configured = set(MONTHS.get_partition_keys())
    found = platform.warehouse.months()
    inside = {
        name: {month: mark for month, mark in months.items() if month in configured} for name, months in found.items()
    }
    return inside, sorted({month for months in found.values() for month in months} - configured)


def arrivals(known: Fingerprints, found: Fingerprints) -> Iterable[dg.AssetMaterialization]:
    """An event for each month whose fingerprint is not the known one; a month that was there and is not has _GONE."""
    configured = set(MONTHS.get_partition_keys())
    for name in RAW_TABLES:
        before, now = known.get(name, {}), found.get(name, {})
        for month in sorted((before.keys() | now.keys()) & configured):
            fingerprint = now.get(month, _GONE)
            if before.get(month, _GONE) != fingerprint:
                yield arrival(name, month, fingerprint)


def arrival(name: str, month: str, fingerprint: str) -> dg.AssetMaterialization:
    """The event that a month of a raw table has come, with its rows of that fingerprint."""
    return dg.AssetMaterialization(
        raw_name(name),
        partition=month,
        metadata={"rows": int(fingerprint.partition("-")[0]), "fingerprint": fingerprint},
        tags={DATA_VERSION: fingerprint},
    )


def recorded(instance: dg.DagsterInstance, names: Iterable[str] = RAW_TABLES) -> dict[str, dict[str, str]]:
    """The fingerprints that Dagster has recorded: what is known where a cursor is not, so that nothing comes twice."""
    storage = instance.event_log_storage
    events = dg.DagsterEventType.ASSET_MATERIALIZATION
    return {
        name: {
            month: tags[DATA_VERSION]
            for month, tags in storage.get_latest_tags_by_partition(
                dg.AssetKey(raw_name(name)), events, [DATA_VERSION]
            ).items()
        }
        for name in names
    }


defs = dg.Definitions(assets=raw_tables, sensors=[raw_months, late_labels])
