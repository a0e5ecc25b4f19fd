"""Ticks as the daemons of Dagster make them: over the same code paths, at any time, in this process."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._daemon.types import DaemonHeartbeat
from dagster._scheduler.scheduler import launch_scheduled_runs

_LOG = logging.getLogger("daemons")
code: dg.Definitions | None = None


@dataclass(frozen=True)
class Daemons:
    """The daemons of an instance over one code location. Times are seconds since the epoch."""

    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext

    def tick_sensors(self, at: float) -> None:
        """Each running sensor ticks, unless it did within its interval."""
        self.live("SENSOR", at)
        with freeze_time(at):
            list(execute_sensor_iteration(self.workspace, _LOG, None, None))

    def tick_schedules(self, at: float) -> None:
        """Each running schedule ticks for the last time of its cron that is due."""
        self.live("SCHEDULER", at)
        with freeze_time(at):
            list(launch_scheduled_runs(self.workspace, _LOG, datetime.fromtimestamp(at, UTC), {}))

    def beat(self, at: float) -> None:
        """All daemons that the instance needs say that they live."""
        for daemon in self.instance.get_required_daemon_types():
            self.live(daemon, at)

    def state(self, name: str) -> InstigatorState:
        return next(state for state in self.instance.all_instigator_state() if state.name == name)

    def ticks(self, name: str) -> list[InstigatorTick]:
        """The ticks of a sensor or schedule, the newest first."""
        state = self.state(name)
        return list(self.instance.get_ticks(state.instigator_origin_id, state.selector_id))

    def stop(self, name: str) -> None:
        """Stops a sensor, as somebody does in the UI."""
        sensor = self._repository().get_sensor(name)
        self.instance.stop_sensor(sensor.get_remote_origin_id(), sensor.selector_id, sensor)

    def start(self, name: str) -> None:
        self.instance.start_sensor(self._repository().get_sensor(name))

    def start_schedule(self, name: str) -> None:
        self.instance.start_schedule(self._repository().get_schedule(name))

    def job(self, name: str) -> ReconstructableJob:
        """A job as a run that somebody launches knows it: with the repository around it."""
        return ReconstructableRepository.for_module(__name__, "code").get_reconstructable_job(name)

    def _repository(self) -> Any:
        (entry,) = self.workspace.create_request_context().get_code_location_entries().values()
        (repository,) = entry.code_location.get_repositories().values()
        return repository

    def live(self, daemon: str, at: float) -> None:
        """A daemon says that it lives."""
        self.instance.add_daemon_heartbeat(DaemonHeartbeat(at, daemon, "here"))


def local_instance(home: Path) -> dg.DagsterInstance:
    """An instance in a folder, whose runs stay in the queue: nobody takes them out of it."""
    return dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}})


@contextmanager
def daemons(instance: dg.DagsterInstance, definitions: dg.Definitions) -> Iterator[Daemons]:
    """The daemons over `definitions`, one code location at a time."""
    sys.modules[__name__].__dict__["code"] = definitions
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name=__name__, attribute="code"), location_name="platform"
    )
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace:
        yield Daemons(instance, workspace)
