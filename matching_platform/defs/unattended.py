"""What follows from the record of freezes and thresholds: decisions are made anew, and what waited is asked again."""

from time import time
from typing import Final

import dagster as dg

# What tells the runs of a month that are under way has no public names.
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG

from matching_platform.defs import gate
from matching_platform.defs.common import PlatformParam
from matching_platform.defs.releasing import candidate, failed, serves
from matching_platform.delivery.serving.place import RolloutError
from matching_platform.environment import PRODUCTION, STAGING, Platform
from matching_platform.review.proposed import OBEYS
from matching_platform.store.unattended import permission

_SECONDS: Final = 30
AGAIN_SECONDS: Final = 600


@dg.sensor(
    target=dg.AssetSelection.assets("proposals"),
    description="What may be booked unattended has changed: by a freeze, its end, or a threshold. The newest month is "
    "proposed again, so that nothing more is booked than may be, and nothing less.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=_SECONDS,
)
def more_careful(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.RunRequest | dg.SkipReason:
    months = platform.catalog.months("proposals")
    made = platform.catalog.get("proposals", months[-1]) if months else None
    if made is None:
        return dg.SkipReason("nothing was proposed yet")
    changes = platform.unattended.history()
    if made.metadata.get(OBEYS, 0) >= len(changes):
        return dg.SkipReason("the newest month is proposed as the record allows")
    under_way = dg.RunsFilter(tags={PARTITION_NAME_TAG: months[-1]}, statuses=NOT_FINISHED_STATUSES)
    if context.instance.get_runs(under_way, limit=1):
        return dg.SkipReason(f"{months[-1]} is being worked on")
    # A run that began before the change may still end after the one that is asked for here; one that failed is tried again.
    key = f"{months[-1]} {len(changes)} {made.since.isoformat()} {int(time() // AGAIN_SECONDS)}"
    return dg.RunRequest(key, partition_key=months[-1])


@dg.sensor(
    target=dg.AssetSelection.assets("champion", "staging", "deployment"),
    description="A freeze was lifted: the newest model that waited for it is promoted, or rolled out, if the gate is open.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=_SECONDS,
)
def freeze_lifted(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SensorResult | dg.SkipReason:
    changes = platform.unattended.history()
    lifted = next((change for change in reversed(changes) if change.action == "unfreeze"), None)
    if lifted is None or permission(changes).frozen:
        return dg.SkipReason("no freeze was lifted")
    if context.cursor == str(lifted.number):
        return dg.SkipReason(f"what waited for the end of the freeze has been asked for (change {lifted.number})")
    waiting = [dg.AssetKey(asset) for asset in _waiting(platform, context.instance)]
    request = dg.RunRequest(f"freeze lifted {lifted.number}", asset_selection=waiting)
    return dg.SensorResult(run_requests=[request] if waiting else [], cursor=str(lifted.number))


def _waiting(platform: Platform, instance: dg.DagsterInstance) -> list[str]:
    """What would have been made, had nothing been frozen; what else follows then is asked for by their conditions."""
    asked, champion = gate.newest(platform), platform.registry.champion()
    another = asked and not (champion and champion.model == asked.examined.model)
    if asked and another and not gate.hurdles(platform, instance, asked.candidate):
        return ["champion"]
    if champion is None:
        return []
    try:
        chosen = candidate(platform, champion.model)
    except RolloutError:
        return []
    refused = any(failed(platform, place, chosen) for place in (STAGING, PRODUCTION))
    return [] if refused or serves(platform, PRODUCTION, chosen) else ["staging", "deployment"]


defs = dg.Definitions(sensors=[more_careful, freeze_lifted])
