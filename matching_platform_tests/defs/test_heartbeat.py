"""A sensor that fails, stops or hangs is noticed, and told once."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from matching_platform.definitions import defs
from matching_platform.defs import heartbeat
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.monitoring.notify import Message, OncePerEvent
from matching_platform_tests.defs.daemons import Daemons, daemons, local_instance

# Dagster 1.13 reads a property of its own schedules that it calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning")

KEY = dg.AssetCheckKey(dg.AssetKey("raw_transfers"), "sensors_alive")
TEN_MINUTES = 600


@dataclass
class Channel:
    """What people are told, as long as it works."""

    works: bool = True
    told: list[str] = field(default_factory=list)

    def notify(self, message: Message) -> bool:
        self.told += [message.text] if self.works else []
        return self.works


@dataclass
class Watch:
    """A sensor and two schedules over which the heartbeat watches, at a time that goes on in steps of ten minutes."""

    daemons: Daemons
    code: dg.Definitions
    channel: Channel
    outcome: SimpleNamespace
    now: float = 1_795_000_230.0  # half a minute after a tick of the schedule

    def ticks(self, breaks: str = "", ago: float = 60.0) -> str:
        """The sensor ticks, and fails with `breaks`, so many seconds before the next look; returns when that is."""
        self.outcome.breaks = breaks
        at = self.now + TEN_MINUTES - ago
        self.daemons.tick_sensors(at)
        return heartbeat._when(at)

    def look(self) -> str:
        """The heartbeat ticks ten minutes later; returns what the check came to, '' where it passed."""
        self.now += TEN_MINUTES
        self.daemons.beat(self.now)
        self.daemons.tick_schedules(self.now)
        tick = self.daemons.ticks("heartbeat")[0]
        assert tick.error is None, tick.error
        (record,) = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([KEY]).values()
        assert record.evaluation.severity is dg.AssetCheckSeverity.ERROR
        assert tick.skip_reason == record.evaluation.description
        return "" if record.evaluation.passed else record.evaluation.description

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.daemons.instance


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    outcome, channel = SimpleNamespace(breaks=""), Channel()
    platform = Platform(Settings(**{**DEFAULTS["local"], "store": str(tmp_path / "store")}))
    vars(platform)["notifier"] = OncePerEvent(channel, platform.store.files)

    @dg.sensor(target="*", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=60)
    def watcher() -> dg.SkipReason:
        if outcome.breaks:
            try:
                raise OSError("at the bottom of it")
            except OSError as error:
                raise RuntimeError(outcome.breaks) from error
        return dg.SkipReason("nothing")

    @dg.sensor(target="*")
    def asleep() -> dg.SkipReason:
        return dg.SkipReason("nobody has started it")

    @dg.schedule(target="*", cron_schedule="*/10 * * * *")
    def monthly() -> dg.SkipReason:
        raise RuntimeError("no month")

    code = dg.Definitions(
        assets=[dg.AssetSpec("raw_transfers")],
        asset_checks=heartbeat.defs.asset_checks,
        jobs=heartbeat.defs.jobs,
        schedules=[*heartbeat.defs.schedules, monthly],
        sensors=[watcher, asleep],
        resources={"platform": platform},
        executor=dg.in_process_executor,
    )
    with local_instance(tmp_path) as instance, daemons(instance, code) as running:
        watch = Watch(running, code, channel, outcome)
        monkeypatch.setattr(heartbeat, "time", lambda: watch.now)
        watch.daemons.tick_schedules(watch.now)  # A schedule counts from the moment it is first seen.
        yield watch


def test_while_all_is_well_nobody_is_told(watch: Watch) -> None:
    watch.ticks()
    assert watch.look() == ""
    assert watch.channel.told == []
    assert watch.instance.get_runs() == [], "a run would wait behind trainings"


def test_a_sensor_that_fails_is_told_once_until_it_fails_again(watch: Watch) -> None:
    good = watch.ticks()
    watch.look()
    for _ in range(2):
        watch.ticks("no connection\nto anywhere")
        told = watch.look()
    assert told == (
        f"The sensor watcher fails (last good tick: {good}): RuntimeError: no connection; "
        "mend that, and it goes on by itself."
    )
    assert watch.channel.told == [told]
    watch.ticks()
    assert watch.look() == ""
    watch.ticks("no connection")
    again = watch.look()
    assert again != told
    assert watch.channel.told == [told, again]


def test_a_sensor_that_never_worked_is_told_once(watch: Watch) -> None:
    for _ in range(2):
        watch.ticks("no connection")
        assert "The sensor watcher fails (last good tick: never): RuntimeError: no connection;" in watch.look()
    assert len(watch.channel.told) == 1


def test_a_sensor_that_somebody_stopped_is_named(watch: Watch) -> None:
    good = watch.ticks()
    watch.daemons.stop("watcher")
    for _ in range(2):
        told = watch.look()
        assert told.startswith(f"The sensor watcher is stopped (last tick: {good}); start it in the UI")
    assert watch.channel.told == [told]
    watch.daemons.start("watcher")
    watch.ticks()
    assert watch.look() == ""
    watch.daemons.stop("watcher")
    assert "is stopped" in watch.look()
    assert len(watch.channel.told) == 2


def test_a_sensor_that_hangs_is_named(watch: Watch) -> None:
    """Its last tick is long ago, whatever it came to, and its daemon says that it lives."""
    good = watch.ticks(ago=500)
    told = f"The sensor watcher hangs (last tick: {good}); restart dagster-daemon."
    assert watch.look() == told
    assert watch.look() == told
    assert watch.channel.told == [told]
    watch.ticks()
    assert watch.look() == ""


def test_a_sensor_that_takes_its_time_does_not_hang(watch: Watch) -> None:
    watch.ticks(ago=450)
    assert watch.look() == ""


def test_a_sensor_that_was_started_a_moment_ago_does_not_hang(watch: Watch) -> None:
    watch.ticks(ago=500)
    watch.daemons.stop("watcher")
    with freeze_time(watch.now + TEN_MINUTES):
        watch.daemons.start("watcher")
    assert watch.look() == ""


def test_a_sensor_that_never_ran_is_named(watch: Watch) -> None:
    assert watch.look() == "The sensor watcher has never run; start dagster-daemon."


def test_a_sensor_that_was_started_by_hand_is_looked_after_too(watch: Watch) -> None:
    watch.daemons.start("asleep")
    watch.ticks()
    watch.daemons.stop("asleep")
    assert "The sensor asleep is stopped" in watch.look()


def test_a_daemon_that_died_is_named(watch: Watch) -> None:
    watch.ticks()
    watch.look()
    died = watch.now - 4 * TEN_MINUTES
    watch.daemons.live("SENSOR", died)
    with freeze_time(watch.now):
        found = heartbeat.sensor_problems(watch.instance, watch.code.get_repository_def())
    told = f"The daemon SENSOR is dead (last sign of life: {heartbeat._when(died)}); restart dagster-daemon."
    assert [one.text for one in found] == [told]


def test_after_all_daemons_were_away_they_get_time_to_come_back(watch: Watch) -> None:
    watch.ticks()
    assert watch.look() == ""
    watch.now += 6 * TEN_MINUTES + 300
    watch.daemons.beat(watch.now)
    watch.daemons.tick_schedules(watch.now)
    assert (
        watch.daemons.ticks("heartbeat")[0].skip_reason == "this tick comes late; the next one will see who came back"
    )
    assert watch.channel.told == []


def test_an_instance_without_daemons_is_one_problem_not_many(tmp_path: Path) -> None:
    with local_instance(tmp_path) as instance:
        (problem,) = heartbeat.sensor_problems(instance, defs.get_repository_def())
    assert problem.text == "No daemon has ever run on this instance; start dagster-daemon."


def test_a_schedule_that_fails_is_named(watch: Watch) -> None:
    with freeze_time(watch.now):
        watch.daemons.start_schedule("monthly")
    for _ in range(2):
        watch.ticks()
        told = watch.look()
    assert (
        told
        == "The schedule monthly fails (last good tick: never): RuntimeError: no month; mend that, and it goes on by itself."
    )


def test_a_channel_that_failed_is_told_later(watch: Watch) -> None:
    watch.channel.works = False
    watch.ticks("no connection")
    told = watch.look()
    assert watch.channel.told == []
    watch.channel.works = True
    watch.ticks("no connection")
    watch.look()
    assert watch.channel.told == [told]


def test_somebody_who_cannot_wait_gets_the_same(watch: Watch) -> None:
    watch.ticks("no connection")
    watch.daemons.beat(time.time())
    job = watch.daemons.job("look_after_sensors")
    with dg.execute_job(job, instance=watch.instance) as result:
        (evaluation,) = result.get_asset_check_evaluations()
    assert result.success
    assert not evaluation.passed
    assert "The sensor watcher fails" in evaluation.description
    assert watch.channel.told == [evaluation.description]


def test_all_sensors_and_schedules_of_the_platform_are_watched(tmp_path: Path) -> None:
    repository = defs.get_repository_def()
    with local_instance(tmp_path) as instance, daemons(instance, dg.Definitions()) as running:
        running.beat(time.time())
        keys = {problem.key for problem in heartbeat.sensor_problems(instance, repository)}
    sensors = {"automation", "late_labels", "missed_quality", "raw_months"}
    assert {*(f"sensor {name}/never" for name in sensors), "schedule heartbeat/never"} <= keys
