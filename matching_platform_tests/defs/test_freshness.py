"""A month that does not come by its deadline is stale in Dagster, and told once, where it is the cause."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.test_utils import freeze_time
from dagster._daemon.freshness import FreshnessDaemon
from dagster._utils.schedules import get_latest_completed_cron_tick
from hypothesis import given
from hypothesis import strategies as st

from matching_platform import definitions
from matching_platform.definitions import defs
from matching_platform.defs import freshness
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.monitoring.notify import Message, OncePerEvent
from matching_platform_tests.defs.daemons import Daemons, daemons, local_instance

MONTHS: Final = dg.MonthlyPartitionsDefinition(start_date="2026-01", fmt="%Y-%m")
RAW: Final = dg.AssetKey("raw_transfers")
TABLE: Final = dg.AssetKey("transfers")
PROPOSALS: Final = dg.AssetKey("proposals")
CHAIN: Final = (RAW, TABLE, PROPOSALS)
DUE: Final = datetime(2026, 11, 5, 6, tzinfo=UTC)


def code(months: dg.PartitionsDefinition, now: datetime, platform: Platform) -> dg.Definitions:
    """Three tables that are made of each other, and `test_split`, which has no months."""
    specs = [dg.AssetSpec(RAW, partitions_def=months), dg.AssetSpec("test_split")]
    for upstream, key in ((RAW, TABLE), (TABLE, PROPOSALS)):
        specs.append(dg.AssetSpec(key, deps=[upstream, "test_split"], partitions_def=months))
    return dg.Definitions(
        assets=[freshness.with_deadline(spec, now) for spec in specs],
        sensors=[freshness.late_months],
        resources={"platform": platform},
    )


@dataclass
class Channel:
    """What people are told, as long as it works."""

    works: bool = True
    told: list[Message] = field(default_factory=list)

    def notify(self, message: Message) -> bool:
        self.told += [message] if self.works else []
        return self.works


@dataclass
class Watch:
    """An instance in which months come, its daemons, and what people are told."""

    daemons: Daemons
    channel: Channel
    monkeypatch: pytest.MonkeyPatch

    def comes(self, at: datetime, month: str, *keys: dg.AssetKey) -> None:
        with freeze_time(at):
            for key in keys:
                event = dg.AssetMaterialization(key, partition=month)
                self.daemons.instance.report_runless_asset_event(event)

    def look(self, at: datetime) -> list[str]:
        """The freshness daemon and the sensor look; the titles of all that was told so far."""
        self.daemons.live("FRESHNESS_DAEMON", at.timestamp())
        with freeze_time(at):
            list(FreshnessDaemon().run_iteration(self.daemons.workspace))
        self.monkeypatch.setattr(freshness, "time", at.timestamp)
        self.daemons.tick_sensors(at.timestamp())
        tick = self.daemons.ticks("late_months")[0]
        assert tick.error is None, tick.error
        return [message.title for message in self.channel.told]

    def states(self) -> dict[str, FreshnessState]:
        """What Dagster's UI shows."""
        records = self.daemons.instance.get_freshness_state_records([*CHAIN, dg.AssetKey("test_split")])
        return {key.to_user_string(): record.freshness_state for key, record in records.items()}


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(Settings(**{**DEFAULTS["local"], "store": str(tmp_path / "store"), "ui": "https://dagster.test/"}))


@pytest.fixture
def watch(tmp_path: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """September and before it is there; October is due on the fifth of November, and so on."""
    channel = Channel()
    vars(platform)["notifier"] = OncePerEvent(channel, platform.store.files)
    definitions = code(MONTHS, DUE, platform)
    with local_instance(tmp_path) as instance, daemons(instance, definitions) as running:
        watch = Watch(running, channel, monkeypatch)
        for month in ("2026-08", "2026-09"):
            watch.comes(datetime(2026, 10, 4, tzinfo=UTC), month, *CHAIN)
        yield watch


def states(raw: FreshnessState, table: FreshnessState, proposals: FreshnessState) -> dict[str, FreshnessState]:
    without = {"test_split": FreshnessState.NOT_APPLICABLE}
    return {"raw_transfers": raw, "transfers": table, "proposals": proposals} | without


PASS, FAIL = FreshnessState.PASS, FreshnessState.FAIL


def test_before_its_deadline_nothing_is_late(watch: Watch) -> None:
    assert watch.look(DUE - timedelta(minutes=1)) == []
    assert watch.states() == states(PASS, PASS, PASS)


def test_what_has_not_come_is_stale_and_told_once(watch: Watch) -> None:
    for hours in (0, 1, 24 * 20):
        assert watch.look(DUE + timedelta(hours=hours)) == ["raw_transfers of 2026-10 is late"]
    assert watch.states() == states(FAIL, FAIL, FAIL)  # All of it is stale, and one is the cause.
    (message,) = watch.channel.told
    assert message.text == (
        "It was due on 2026-11-05. Nothing of the month is proposed or learned before it comes: see whether the finance "
        "system has exported it, and whether the sensor raw_months runs."
    )
    assert message.links == {"The asset": "https://dagster.test/assets/raw_transfers"}
    assert message.level == "bad"


def test_what_is_made_of_it_is_told_a_day_after_it_came(watch: Watch) -> None:
    """A table that comes late takes its time to become proposals, and nobody is bothered meanwhile."""
    came = DUE + timedelta(days=4)
    watch.comes(came, "2026-10", RAW)
    assert watch.look(came + timedelta(hours=23)) == []
    assert watch.states() == states(PASS, FAIL, FAIL)
    assert watch.look(came + timedelta(hours=25)) == ["transfers of 2026-10 is late"]
    assert "there since 2026-11-09" in watch.channel.told[0].text
    watch.comes(came + timedelta(hours=26), "2026-10", TABLE)
    assert watch.look(came + timedelta(hours=49)) == ["transfers of 2026-10 is late"]
    assert watch.look(came + timedelta(hours=51))[1:] == ["proposals of 2026-10 is late"]


def test_a_month_that_came_in_time_is_fresh(watch: Watch) -> None:
    watch.comes(DUE - timedelta(days=2), "2026-10", *CHAIN)
    assert watch.look(DUE + timedelta(days=10)) == []
    assert watch.states() == states(PASS, PASS, PASS)


def test_an_old_month_that_was_corrected_hides_nothing(watch: Watch) -> None:
    """It satisfies Dagster's policy, which does not ask which month was made."""
    watch.comes(DUE - timedelta(days=2), "2026-08", *CHAIN)
    assert watch.look(DUE + timedelta(hours=1)) == ["raw_transfers of 2026-10 is late"]
    assert watch.states() == states(PASS, PASS, PASS)


def test_the_next_month_is_told_again(watch: Watch) -> None:
    watch.look(DUE)
    assert watch.look(datetime(2026, 12, 5, 7, tzinfo=UTC)) == [
        "raw_transfers of 2026-10 is late",
        "raw_transfers of 2026-11 is late",
    ]


def test_a_channel_that_failed_is_told_later(watch: Watch) -> None:
    watch.channel.works = False
    assert watch.look(DUE) == []
    assert "1 could not be told" in str(watch.daemons.ticks("late_months")[0].skip_reason)
    watch.channel.works = True
    assert watch.look(DUE + timedelta(hours=1)) == ["raw_transfers of 2026-10 is late"]


def test_where_the_months_have_an_end_nothing_is_due_after_it(tmp_path: Path, platform: Platform) -> None:
    """The demo's months end in 2024; its deadlines go with them, as soon as the code is loaded again."""
    ended = dg.MonthlyPartitionsDefinition(
        start_date="2026-01", end_date="2026-11", fmt="%Y-%m"
    )  # October is the last.
    graph = code(ended, DUE, platform).get_repository_def().asset_graph
    with local_instance(tmp_path) as instance:
        assert [each.month for each in freshness.late(instance, graph, DUE)] == ["2026-10"]
        assert list(freshness.late(instance, graph, datetime(2026, 12, 9, tzinfo=UTC))) == []
    for now, some in ((datetime(2026, 11, 30, tzinfo=UTC), True), (datetime(2026, 12, 1, tzinfo=UTC), False)):
        graph = code(ended, now, platform).get_repository_def().asset_graph
        assert bool(graph.get(RAW).freshness_policy) is some


def test_before_its_first_month_nothing_is_due(tmp_path: Path, platform: Platform) -> None:
    begun = dg.MonthlyPartitionsDefinition(start_date="2026-11", fmt="%Y-%m")
    graph = code(begun, DUE, platform).get_repository_def().asset_graph
    with local_instance(tmp_path) as instance:
        assert list(freshness.late(instance, graph, DUE)) == []


def test_where_people_tag_at_the_desk_nothing_has_to_come_from_the_finance_system(tmp_path: Path) -> None:
    """And what is made of both is late by what came."""
    tags = dg.AssetSpec("raw_matches", partitions_def=MONTHS)
    desk = dg.AssetSpec("raw_decisions", partitions_def=MONTHS)
    matches = dg.AssetSpec("matches", deps=[tags, desk], partitions_def=MONTHS)
    specs = [freshness.with_deadline(spec, DUE) for spec in (tags, desk, matches)]
    graph = dg.Definitions(assets=specs).get_repository_def().asset_graph
    with local_instance(tmp_path) as instance:

        def late(day: int) -> list[str]:
            found = freshness.late(instance, graph, datetime(2026, 11, day, 7, tzinfo=UTC))
            return [each.asset for each in found if each.month == "2026-10"]

        assert late(11) == ["raw_matches"]
        with freeze_time(datetime(2026, 11, 11, 12, tzinfo=UTC)):
            instance.report_runless_asset_event(dg.AssetMaterialization("raw_decisions", partition="2026-10"))
        assert late(12) == []
        assert late(13) == ["matches"]


@given(
    st.sampled_from([*freshness.DAYS, "another"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_the_sensor_and_the_policy_have_the_same_deadline(asset: str, now: datetime) -> None:
    policy: Any = freshness.policy(asset)
    tick = get_latest_completed_cron_tick(policy.deadline_cron, now, "UTC")
    assert freshness.due(asset, freshness.newest_due(asset, now)) == tick
    assert tick - policy.lower_bound_delta == tick.replace(day=1, hour=0)


def test_no_asset_of_the_demo_is_due() -> None:
    graph = defs.get_repository_def().asset_graph
    assert [key for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy] == []


def test_every_monthly_asset_has_a_deadline_after_what_it_is_made_of() -> None:
    """The root gives owners and deadlines together, the latter as long as months come."""
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    monthly = {key for key, spec in specs.items() if spec.partitions_def}
    given = {key: freshness.with_deadline(spec, datetime(2024, 6, 1, tzinfo=UTC)) for key, spec in specs.items()}
    due = {key for key, spec in given.items() if spec.freshness_policy}
    assert due | {dg.AssetKey(name) for name in freshness.NEVER_DUE} == monthly
    assert {key.to_user_string() for key in due} == freshness.DAYS.keys()
    endless = definitions._with_policies(dg.AssetSpec(RAW, partitions_def=MONTHS))
    assert endless.freshness_policy == freshness.policy("raw_transfers")
    assert endless.owners == definitions.OWNERS
    for key in due:
        for parent in {dependency.asset_key for dependency in specs[key].deps} & due:
            name, of = key.to_user_string(), parent.to_user_string()
            assert freshness.due(name, "2026-10") >= freshness.due(of, "2026-10")
