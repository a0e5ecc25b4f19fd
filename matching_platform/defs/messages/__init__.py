"""People are told what happens: Dagster's event log and the records are read, each event once, and put into words.

A tick tells what happened up to the tick before. So what writers were still about to commit is not overlooked, and a tick
that is killed finds the same events again, makes the same messages of them, and tells those that were not told. What no
channel takes waits in the cursor, behind newer messages, and is given up after a week.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import dagster as dg
from pydantic import BaseModel

from matching_platform.defs.common import PlatformParam
from matching_platform.defs.messages.backfills import Backfills
from matching_platform.defs.messages.events import Events
from matching_platform.defs.messages.records import Records
from matching_platform.defs.messages.runs import Runs
from matching_platform.environment import Platform
from matching_platform.monitoring.notify import Message, Notifier

_TELLING_SECONDS: Final = 30  # of a tick, which has 60
_KEPT_SECONDS: Final = 7 * 24 * 3600
_KEPT: Final = 200

Positions = Mapping[str, int]  # by log: the number of its last entry


class Pending(BaseModel):
    """A message that is to be told, since when (seconds since the epoch), and when it was tried last."""

    message: Message
    since: float
    tried: float = 0.0


class Cursor(BaseModel):
    """What is told already, what is to be told next, and what has not come to an end.

    `retrying` are failed runs that Dagster said it would retry; `backfills` say whether the tick before found them ended.
    """

    told: dict[str, int]
    seen: dict[str, int]
    retrying: list[str] = []
    backfills: dict[str, bool] = {}
    pending: list[Pending] = []


@dg.sensor(
    description="Something happened that people want to know: a training, the gate, an image, staging, a rollout or a "
    "rollback, a freeze, a failed check or run. Each is told once.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
def happenings(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SkipReason:
    look = Look(context.instance, platform)
    began, present = time.monotonic(), look.positions()
    if not context.cursor:
        context.update_cursor(Cursor(told=present, seen=present).model_dump_json())
        return dg.SkipReason("people are told what happens from now on")
    found, cursor = look.after(Cursor.model_validate_json(context.cursor), present)
    left = tell(platform.notifier, cursor.pending, found, until=began + _TELLING_SECONDS)
    kept = [one for one in left if time.time() - one.since < _KEPT_SECONDS][-_KEPT:]
    for one in left:
        if one not in kept:
            context.log.error("'%s' could not be told, and is given up: %s", one.message.key, one.message.plain)
    context.update_cursor(cursor.model_copy(update={"pending": kept}).model_dump_json())
    return dg.SkipReason(f"{len(found)} events are news; {len(kept)} messages wait to be told")


def tell(notifier: Notifier, pending: Sequence[Pending], found: Sequence[Message], *, until: float) -> list[Pending]:
    """Tells what is new, then what waited, that tried longest ago first; what is left afterwards, the oldest first."""
    waiting = {one.message.key: one for one in pending}
    fresh = {message.key: Pending(message=message, since=time.time()) for message in found}
    left = []
    for one in sorted((fresh | waiting).values(), key=lambda one: one.tried):
        if time.monotonic() > until:
            left.append(one)
        elif not notifier.notify(one.message):
            left.append(one.model_copy(update={"tried": time.time()}))
    return sorted(left, key=lambda one: one.since)


@dataclass(frozen=True)
class Look:
    """A look at what an instance and a platform have recorded."""

    instance: dg.DagsterInstance
    platform: Platform

    def positions(self) -> dict[str, int]:
        """Where the event log and the records end now."""
        return {"events": self._events.end(), **self._records.ends()}

    def after(self, before: Cursor, present: Positions) -> tuple[list[Message], Cursor]:
        """What is news since `before`, up to what was seen then, and the cursor that follows it."""
        # A log that is shorter than it was is another log, and begins anew.
        told = {name: min(before.told.get(name, end), end) for name, end in present.items()}
        upto = {name: min(before.seen.get(name, end), end) for name, end in present.items()}
        events = self._events
        entries, upto["events"] = events.between(told["events"], upto["events"])
        failures, retrying = events.failures(entries, before.retrying)
        found = [
            *events.started(),
            *events.made(entries),
            *events.checked(entries),
            *failures,
            *self._records.between(told, upto),
        ]
        summaries, backfills = Backfills(self._runs).ended(before.backfills, entries)
        cursor = Cursor(told=upto, seen=dict(present), retrying=retrying, backfills=backfills, pending=before.pending)
        return [message for message in (*found, *summaries) if message], cursor

    @cached_property
    def _runs(self) -> Runs:
        return Runs(self.instance, (self.platform.settings.ui or "").rstrip("/"))

    @cached_property
    def _events(self) -> Events:
        return Events(self._runs)

    @cached_property
    def _records(self) -> Records:
        return Records(self.platform, self._runs)


defs = dg.Definitions(sensors=[happenings])
