"""Is a month there when it is due? Every monthly asset has a deadline, and people are told once what has passed its own.

Dagster's freshness policy takes an asset as fresh that was made at all since the month began, of whichever month, and says
of everything behind a missing table that it is stale. So the UI shows what the policy says, and people are told by month:
what did not come although all that it is made of is there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import time
from typing import Final

import dagster as dg

# What the graph of a repository has no public name.
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from matching_platform.defs.common import PlatformParam
from matching_platform.ledger.months import first_day, next_month
from matching_platform.monitoring.notify import Message

# The day on which a month is due, of the month after it: rows come first, most tags by the tenth, then what needs them.
DAYS: Final = {
    "raw_invoices": 5,
    "raw_transfers": 5,
    "invoices": 6,
    "transfers": 6,
    "proposals": 7,
    "drift_report": 7,
    "raw_matches": 11,
    "matches": 12,
    "labelled_pairs": 13,
    "train_set": 13,
    "model": 14,
    "evaluation_report": 14,
    "realised_quality": 15,
}
# Nobody has to decide anything at the desk.
NEVER_DUE: Final = frozenset(("raw_decisions", "decisions"))
# Where people tag at the desk, the finance system may have nothing to export.
INSTEAD: Final = {"raw_matches": "raw_decisions"}
_LAST_DAY: Final = 15
HOUR: Final = 6  # UTC

# So long after all that it is made of is there, a month is still being made, also where that came late.
GRACE: Final = timedelta(days=1)


@dataclass(frozen=True)
class Late:
    """A month of an asset that has not come by its deadline; `ready` is when the last of what it is made of came."""

    asset: str
    month: str
    due: datetime
    ready: datetime | None

    def message(self, ui: str) -> Message:
        if self.ready is None:
            advice = (
                "Nothing of the month is proposed or learned before it comes: see whether the finance system has "
                "exported it, and whether the sensor raw_months runs."
            )
        else:
            advice = (
                f"All that it is made of is there since {_told(self.ready)}: see in Dagster why its last run failed, or "
                "whether the sensor automation runs, and materialize it."
            )
        return Message(
            f"late/{self.asset}/{self.month}",
            f"It was due on {_told(self.due)}. {advice}",
            title=f"{self.asset} of {self.month} is late",
            level="bad",
            links={"The asset": f"{ui}/assets/{self.asset}"} if ui else {},
        )


def due(asset: str, month: str) -> datetime:
    """When a month of an asset is due (UTC)."""
    after = first_day(next_month(month))
    return datetime(after.year, after.month, DAYS.get(asset, _LAST_DAY), HOUR, tzinfo=UTC)


def policy(asset: str) -> dg.FreshnessPolicy:
    """What Dagster shows: stale is what was not made between the beginning of a month and its deadline, until it is."""
    day = DAYS.get(asset, _LAST_DAY)
    return dg.FreshnessPolicy.cron(f"0 {HOUR} {day} * *", lower_bound_delta=timedelta(days=day - 1, hours=HOUR))


def with_deadline(spec: dg.AssetSpec, now: datetime) -> dg.AssetSpec:
    """`spec` with its policy, where it is monthly and due; where its months have ended, nothing new is due."""
    months = spec.partitions_def
    if spec.key.to_user_string() in NEVER_DUE:
        return spec
    if not isinstance(months, dg.MonthlyPartitionsDefinition) or (months.end and _month(months.end) < _month(now)):
        return spec
    return spec.replace_attributes(freshness_policy=policy(spec.key.to_user_string()))


def late(instance: dg.DagsterInstance, graph: AssetGraph, now: datetime) -> Iterator[Late]:
    """Of each asset with a policy, the newest month that is due, where it is not there and nothing else is the cause."""
    watched = sorted(key for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy)
    for key in watched:
        asset = key.to_user_string()
        month = newest_due(asset, now)
        months = graph.get(key).partitions_def
        if months is None or month not in months.get_partition_keys(now) or _came(instance, key, month):
            continue
        made_of = [_came(instance, parent, month) for parent in graph.get(key).parent_keys & set(watched)]
        times = [each for each in made_of if each]
        if len(times) == len(made_of) and all(each + GRACE <= now for each in times):
            yield Late(asset, month, due(asset, month), max(times, default=None))


def newest_due(asset: str, now: datetime) -> str:
    """The newest month of an asset that is due."""
    last = next_month(_month(now), -1)
    return last if due(asset, last) <= now else next_month(last, -1)


@dg.sensor(
    description="A month has not come by its deadline, though all that it is made of has. It is told once.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=600,
)
def late_months(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SkipReason:
    repository = context.repository_def
    if repository is None:
        return dg.SkipReason("there is no repository around this sensor")
    found = list(late(context.instance, repository.asset_graph, datetime.fromtimestamp(time(), UTC)))
    ui = (platform.settings.ui or "").rstrip("/")
    # What is not delivered is late at the next tick as well.
    told = [platform.notifier.notify(each.message(ui)) for each in found]
    names = ", ".join(f"{each.asset} of {each.month}" for each in found)
    return dg.SkipReason(f"late: {names}; {told.count(False)} could not be told" if found else "nothing is late")


def _came(instance: dg.DagsterInstance, key: dg.AssetKey, month: str) -> datetime | None:
    """When a month of an asset, or of what does in its place, was made last; None where it never was."""
    asset = key.to_user_string()
    names = (asset, INSTEAD[asset]) if asset in INSTEAD else (asset,)
    return max((made for name in names if (made := _made(instance, dg.AssetKey(name), month))), default=None)


def _made(instance: dg.DagsterInstance, key: dg.AssetKey, month: str) -> datetime | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[month])
    records = instance.fetch_materializations(wanted, limit=1).records
    return datetime.fromtimestamp(records[0].timestamp, UTC) if records else None


def _month(moment: datetime) -> str:
    return f"{moment:%Y-%m}"


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


defs = dg.Definitions(sensors=[late_months])
