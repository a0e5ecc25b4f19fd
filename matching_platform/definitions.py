"""The root: everything in defs/, with the policies that hold for all assets."""

from typing import Any, Final

import dagster as dg

from matching_platform.defs import (
    automation,
    heartbeat,
    learning,
    messages,
    monitoring,
    pods,
    promotion,
    proposals,
    raw,
    requests,
    rollback,
    searching,
    serving,
    tables,
)
from matching_platform.defs.common import PLATFORM

ROOMS: Final = (
    raw,
    tables,
    learning,
    searching,
    requests,
    promotion,
    serving,
    rollback,
    proposals,
    monitoring,
    automation,
    messages,
    heartbeat,
)
OWNERS: Final = ["team:finance-data"]


def _all(kind: str) -> list[Any]:
    return [each for room in ROOMS for each in getattr(room.defs, kind) or []]


defs = dg.Definitions(
    assets=list(dg.map_asset_specs(lambda spec: spec.replace_attributes(owners=OWNERS), _all("assets"))),
    asset_checks=_all("asset_checks"),
    jobs=_all("jobs"),
    schedules=_all("schedules"),
    sensors=_all("sensors"),
    resources={"platform": PLATFORM},
    executor=pods.executor(),
)
