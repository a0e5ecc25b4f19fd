"""Are the sensors alive? A sensor cannot say so itself: a schedule, which another daemon evaluates, looks at its ticks.

The schedule judges in its own tick and makes no run, which would wait behind trainings for a place. Nobody but an eye
from outside sees that the process of all daemons is gone: `matching-platform doctor`, or what restarts its container.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Any, Final

import dagster as dg

# What the instance's public methods give has no public names.
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorTick,
    SensorInstigatorData,
    TickStatus,
)
from dagster._daemon.types import DaemonStatus

from matching_platform.defs.common import PlatformParam
from matching_platform.environment import Platform
from matching_platform.monitoring.notify import Message
from matching_platform.warehouse.tables import raw_name

CHECK: Final = "sensors_alive"

# A sensor hangs that misses this many ticks, and this many seconds on top, which a long tick may take.
_MISSED_TICKS: Final = 3
_GRACE_SECONDS: Final = 300
_USUAL_SECONDS: Final = 30  # between the ticks of a sensor that says nothing else

# A tick that is made up for later says nothing: the daemons were all away, and have only just come back.
_LATE_SECONDS: Final = 120

_ASSET: Final = dg.AssetKey(raw_name("transfers"))
_RUNNING: Final = (dg.DefaultSensorStatus.RUNNING, dg.DefaultScheduleStatus.RUNNING)
_GOOD: Final = [TickStatus.SUCCESS, TickStatus.SKIPPED]

Watched = dg.SensorDefinition | dg.ScheduleDefinition


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what to do about it; `key` is the same as long as it lasts, and another after a recovery."""

    key: str
    told: str
    advice: str

    @property
    def text(self) -> str:
        return f"{self.told}; {self.advice}."


def sensor_problems(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> list[Problem]:
    """What keeps the sensors and schedules of `repository` from their work; empty where all is well.

    Where two code locations of the instance have one of the same name, that which was active last is looked at.
    """
    daemons = instance.get_daemon_statuses().values()
    if daemons and not any(one.last_heartbeat for one in daemons):
        return [Problem("daemons/never", "No daemon has ever run on this instance", "start dagster-daemon")]
    dead = [_dead(one) for one in daemons if not one.healthy]
    states = {state.name: state for state in sorted(instance.all_instigator_state(), key=_active)}
    watched: list[Watched] = [*repository.sensor_defs, *repository.schedule_defs]
    found = [_problem(instance, one, states.get(one.name)) for one in watched]
    return [*dead, *(problem for problem in found if problem)]


@dg.asset_check(
    asset=_ASSET,
    name=CHECK,
    description="Every sensor and schedule that shall run does, and what it did last did not fail.",
)
def sensors_alive(context: dg.AssetCheckExecutionContext, platform: PlatformParam) -> dg.AssetCheckResult:
    found = sensor_problems(context.instance, context.repository_def)
    _tell(platform, found)
    return dg.AssetCheckResult(**_judged(found))


heartbeat_job = dg.define_asset_job(
    "look_after_sensors",
    selection=dg.AssetSelection.checks(sensors_alive),
    description="What the schedule `heartbeat` does every ten minutes, for somebody who cannot wait.",
)


@dg.schedule(
    job=heartbeat_job,
    cron_schedule="*/10 * * * *",
    description="Looks whether the sensors and schedules are alive, and tells people once where one is not.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def heartbeat(context: dg.ScheduleEvaluationContext, platform: PlatformParam) -> dg.SkipReason:
    if time() - context.scheduled_execution_time.timestamp() > _LATE_SECONDS:
        return dg.SkipReason("this tick comes late; the next one will see who came back")
    found = sensor_problems(context.instance, context.repository_def)
    judged = _judged(found)
    context.instance.report_runless_asset_event(dg.AssetCheckEvaluation(asset_key=_ASSET, check_name=CHECK, **judged))
    _tell(platform, found)
    return dg.SkipReason(judged["description"])


def _judged(found: Sequence[Problem]) -> dict[str, Any]:
    told = [problem.text for problem in found]
    return {
        "passed": not found,
        "severity": dg.AssetCheckSeverity.ERROR,
        "description": " ".join(told) or "all sensors and schedules are alive",
        "metadata": {"problems": dg.MetadataValue.md("\n".join(f"- {text}" for text in told))} if told else {},
    }


def _tell(platform: Platform, found: Sequence[Problem]) -> None:
    """Tells people until the channel fails; the next tick tells the rest."""
    for problem in found:
        if not platform.notifier.notify(Message(problem.key, problem.text)):
            return


def _problem(instance: dg.DagsterInstance, watched: Watched, state: InstigatorState | None) -> Problem | None:
    kind = "sensor" if isinstance(watched, dg.SensorDefinition) else "schedule"
    name, should_run = f"{kind} {watched.name}", watched.default_status in _RUNNING
    if state is None:
        return Problem(f"{name}/never", f"The {name} has never run", "start dagster-daemon") if should_run else None
    if state.status is InstigatorStatus.DECLARED_IN_CODE and not should_run:
        return None
    ticked = _time(_last(instance, state))
    if not state.is_running:
        told = f"The {name} is stopped (last tick: {_when(ticked)})"
        return Problem(f"{name}/stopped/{ticked}", told, "start it in the UI, under Automation")
    if isinstance(watched, dg.SensorDefinition) and _hangs(watched, state, ticked):
        told = f"The {name} hangs (last tick: {_when(ticked)})"
        return Problem(f"{name}/hangs/{ticked}", told, "restart dagster-daemon")
    finished = _last(instance, state, [*_GOOD, TickStatus.FAILURE])
    if finished is None or not finished.is_failure:
        return None
    good = _time(_last(instance, state, _GOOD))
    told = f"The {name} fails (last good tick: {_when(good)}): {_reason(finished)}"
    return Problem(f"{name}/fails/{good}", told, "mend that, and it goes on by itself")


def _dead(status: DaemonStatus) -> Problem:
    seen = status.last_heartbeat.timestamp if status.last_heartbeat else None
    told = f"The daemon {status.daemon_type} is dead (last sign of life: {_when(seen)})"
    return Problem(f"daemon {status.daemon_type}/dead/{seen}", told, "restart dagster-daemon")


def _hangs(watched: dg.SensorDefinition, state: InstigatorState, ticked: float | None) -> bool:
    """Whether a running sensor has not ticked for too long, since it was started or ticked last."""
    data = state.sensor_instigator_data
    started = data.last_sensor_start_timestamp if data else None
    every = watched.minimum_interval_seconds or _USUAL_SECONDS
    return time() - max(ticked or 0, started or 0) > _MISSED_TICKS * every + _GRACE_SECONDS


def _last(
    instance: dg.DagsterInstance, state: InstigatorState, statuses: list[TickStatus] | None = None
) -> InstigatorTick | None:
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1, statuses=statuses)
    return next(iter(ticks), None)


def _time(tick: InstigatorTick | None) -> float | None:
    return tick.timestamp if tick else None


def _reason(failed: InstigatorTick) -> str:
    """The first line of what went wrong, below what Dagster puts around it."""
    error = failed.error
    while error and error.cause and str(error.cls_name).endswith("ExecutionError"):
        error = error.cause
    return error.message.strip().partition("\n")[0].rstrip(".") if error else "it does not say why"


def _active(state: InstigatorState) -> float:
    """When a sensor or schedule last did something, 0 where it never did."""
    data = state.instigator_data
    if isinstance(data, SensorInstigatorData):
        return max(data.last_tick_start_timestamp or 0, data.last_sensor_start_timestamp or 0)
    return max(data.last_iteration_timestamp or 0, data.start_timestamp or 0) if data else 0


def _when(seconds: float | None) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if seconds else "never"


defs = dg.Definitions(asset_checks=[sensors_alive], jobs=[heartbeat_job], schedules=[heartbeat])
