"""The root: everything in defs/, with the policies that hold for all assets."""

from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from matching_platform.defs import (
    automation,
    broken_promise,
    decisions,
    drift,
    freshness,
    heartbeat,
    learning,
    messages,
    pods,
    predictions,
    promotion,
    proposals,
    raw,
    realised,
    requests,
    rollback,
    searching,
    serving,
    tables,
    unattended,
)
from matching_platform.defs.common import PLATFORM

ROOMS: Final = (
    raw,
    decisions,
    tables,
    learning,
    searching,
    requests,
    promotion,
    serving,
    rollback,
    proposals,
    drift,
    realised,
    broken_promise,
    predictions,
    unattended,
    automation,
    messages,
    heartbeat,
    freshness,
)
OWNERS: Final = ["team:finance-data"]


def _with_policies(spec: dg.AssetSpec) -> dg.AssetSpec:
    return freshness.with_deadline(spec.replace_attributes(owners=OWNERS), datetime.now(UTC))


def _all(kind: str) -> list[Any]:
    return [each for room in ROOMS for each in getattr(room.defs, kind) or []]


defs = dg.Definitions(
    assets=list(dg.map_asset_specs(_with_policies, _all("assets"))),
    asset_checks=_all("asset_checks"),
    jobs=_all("jobs"),
    schedules=_all("schedules"),
    sensors=_all("sensors"),
    resources={"platform": PLATFORM},
    executor=pods.executor(),
)
