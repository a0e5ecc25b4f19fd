"""The report of a month, its advisory checks, and the retraining that drift starts once."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from matching_platform.defs import drift as drifting
from matching_platform.defs.drift import CHECKS, COUNTS, DATA, DRIFT, MOVED, REASON, TOLD
from matching_platform.environment import Platform
from matching_platform.learning.train_set import LABELLED_PAIRS
from matching_platform.monitoring.drift import report
from matching_platform.monitoring.notify import Message
from matching_platform_tests.defs.conftest import MONTHS, NEWEST, World


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidently draws for seconds what one test looks at."""
    if request.function is not test_a_month_is_reported_before_there_is_a_champion:
        monkeypatch.setattr(report, "compare", lambda _: ("", {}))


def evaluations(made: Any) -> Mapping[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in made.result.get_asset_check_evaluations()}


def strangers(world: World, month: str) -> None:
    """All payers of the month are others than before."""
    rows = world.platform.warehouse.read_month("transfers", month)
    changed = rows.with_columns(
        counterparty_name="Somebody else " + pl.col("transfer_id"),
        counterparty_account="XX00" + pl.col("transfer_id"),
        title=pl.lit("nothing to see"),
    )
    world.platform.warehouse.write_month("transfers", month, changed)
    assert world.make("transfers", "matches", "labelled_pairs", month=month).success


class Told:
    """A notifier that remembers, and takes nothing while it is `deaf`."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.deaf = False

    def notify(self, message: Message) -> bool:
        if not self.deaf:
            self.messages.append(message)
        return not self.deaf


class Sensor:
    """The sensor as its daemon calls it: the cursor that it leaves is there the next time."""

    def __init__(self, world: World) -> None:
        self.world, self.cursor, self.told = world, None, Told()

    def tick(self) -> dg.RunRequest | str:
        platform = Platform(self.world.platform.settings)
        platform.__dict__["notifier"] = self.told
        context = dg.build_sensor_context(
            instance=self.world.instance, cursor=self.cursor, resources={"platform": platform}
        )
        answer = drifting.drifted(context)
        self.cursor = context.cursor
        return answer if isinstance(answer, dg.RunRequest) else str(answer.skip_message)


def test_the_first_months_have_nothing_to_compare_with(world: World) -> None:
    made = world.make("drift_report", month=MONTHS[0])
    assert made.success, made.failure
    shown = made.metadata("drift_report")
    assert "nothing to compare with yet" in shown[TOLD]
    assert shown["months compared with"] == 0
    assert shown[MOVED] == ""
    found = evaluations(made)
    assert found.keys() == CHECKS.keys()
    assert all(one.passed for one in found.values())


def test_a_month_is_reported_before_there_is_a_champion(world: World) -> None:
    made = world.make("drift_report", month=NEWEST)
    assert made.success, made.failure
    shown = made.metadata("drift_report")
    assert shown["months compared with"] == len(MONTHS) - 1
    assert 0 <= shown["share of transfers: no reference in the title"] <= 1
    assert 0 <= shown["distance of transfers: title length"] <= 1
    folder = world.platform.store.fetch(world.platform.current("drift_report", NEWEST))
    assert {path.name for path in Path(folder).iterdir()} >= {"report.html", DATA, COUNTS}
    told = json.loads((folder / DATA).read_text())
    assert told["reference"] == MONTHS[:-1]
    assert told["evidently"]["metrics"]


def test_a_month_that_moved_fails_its_check_and_nothing_else(world: World) -> None:
    strangers(world, NEWEST)
    made = world.make("drift_report", month=NEWEST)
    assert made.success, made.failure
    found = evaluations(made)
    assert not found["transfers_as_before"].passed
    assert found["transfers_as_before"].severity is dg.AssetCheckSeverity.WARN
    assert found["invoices_as_before"].passed
    assert "payers never seen" in str(found["transfers_as_before"].description)
    assert "payer never seen" in made.metadata("drift_report")[MOVED]


def test_the_limits_of_the_environment_are_obeyed(world: World) -> None:
    strangers(world, NEWEST)
    limits = world.platform.settings.drift.model_copy(update={"distance": 0.99, "rise": 0.99})
    lenient = replace(world, given={})
    settings = world.platform.settings.model_copy(update={"drift": limits})
    lenient.__dict__["platform"] = Platform(settings)
    lenient.__dict__["instance"] = world.instance
    assert all(one.passed for one in evaluations(lenient.make("drift_report", month=NEWEST)).values())


def test_a_month_is_compared_with_those_before_it_only(world: World) -> None:
    """A backfill: a month's own strangers, and later ones, are no part of what it is compared with."""
    strangers(world, NEWEST)
    assert world.make("drift_report", month=NEWEST).success
    made = world.make("drift_report", month=MONTHS[2])
    assert made.metadata("drift_report")["months compared with"] == 2
    # The checks speak of the newest month, also where an older one was made again.
    assert evaluations(made)["transfers_as_before"].metadata["month"].value == NEWEST


def test_an_earlier_month_counts_as_it_was_when_it_was_new(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for month in MONTHS[:-1]:
        assert world.make("drift_report", month=month).success
    described: list[str] = []
    describe = drifting.Describer.describe

    def watched(self: drifting.Describer, month: str) -> pl.DataFrame:
        described.append(month)
        return describe(self, month)

    monkeypatch.setattr(drifting.Describer, "describe", watched)
    assert world.make("drift_report", month=NEWEST).success
    assert described == [NEWEST]
    strangers(world, MONTHS[1])
    described.clear()
    assert world.make("drift_report", month=NEWEST).success
    assert described == [NEWEST, MONTHS[1]]


def test_a_champion_is_compared_with_what_it_learned_from(world: World) -> None:
    assert world.make("champion").success
    learned = drifting._reference(world.platform, "2024-05")
    assert learned == MONTHS
    assert drifting._reference(world.platform, MONTHS[2]) == MONTHS[:2]


def test_confidences_are_compared_where_they_were_proposed_in_advance(world: World) -> None:
    assert world.make("champion").success
    assert world.make("proposals", month=NEWEST).success
    assert "confidences" not in counted(world), "what the model had learned from is no prediction"
    made = world.platform.catalog.get("proposals", NEWEST)
    assert made is not None
    in_advance = {**made.metadata, "trained until": MONTHS[1]}
    for month in MONTHS[2:]:
        world.platform.catalog.set("proposals", month, made.version, in_advance)
    assert "confidences" in counted(world)


def counted(world: World) -> set[str]:
    assert world.make("drift_report", month=NEWEST).success
    folder = world.platform.store.fetch(world.platform.current("drift_report", NEWEST))
    return set(pl.read_parquet(folder / COUNTS)["table"])


def test_drift_starts_one_retraining(world: World) -> None:
    sensor = Sensor(world)
    assert "no report yet" in str(sensor.tick())
    strangers(world, NEWEST)
    made = world.make("drift_report", month=NEWEST)
    told = made.metadata("drift_report")[TOLD]
    sensor.told.deaf = True
    undelivered = sensor.tick()
    sensor.told.deaf = False
    asked = sensor.tick()
    assert isinstance(asked, dg.RunRequest)
    assert isinstance(undelivered, dg.RunRequest)
    assert undelivered.run_key == asked.run_key, "of one key, Dagster makes one run"
    assert asked.partition_key == NEWEST
    assert asked.tags[DRIFT] == NEWEST
    assert told.startswith(asked.tags[REASON])
    assert asked.run_config == {"ops": {"model": {"config": {"search": True}}}}
    assert [told in message.text for message in sensor.told.messages] == [True]
    assert "was asked for" in str(sensor.tick())
    assert len(sensor.told.messages) == 1


def test_a_month_waits_for_its_tags(world: World) -> None:
    strangers(world, NEWEST)
    assert world.make("drift_report", month=NEWEST).success
    few = world.platform.read("matches", NEWEST).head(3)
    world.platform.catalog.set("matches", NEWEST, world.platform.store.put_frame("matches", few), {})
    sensor = Sensor(world)
    assert "waits for its tags" in str(sensor.tick())
    assert not sensor.told.messages


def test_nothing_new_is_learned_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    strangers(world, NEWEST)
    assert world.make("drift_report", month=NEWEST).success
    assert world.make("train_set", month=NEWEST).success
    monkeypatch.setattr(drifting, "outcome", lambda *_: object())
    assert "nothing new to learn" in str(Sensor(world).tick())
    world.platform.catalog.set(LABELLED_PAIRS, NEWEST, world.platform.current(LABELLED_PAIRS, MONTHS[0]), {})
    assert isinstance(Sensor(world).tick(), dg.RunRequest)


def test_an_older_month_starts_nothing(world: World) -> None:
    strangers(world, MONTHS[2])
    assert world.make("drift_report", month=MONTHS[2]).success
    assert "no report yet" in str(Sensor(world).tick())


def test_a_backfill_starts_nothing_while_it_goes_on(world: World) -> None:
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

    strangers(world, NEWEST)
    assert world.make("drift_report", month=NEWEST).success
    backfill = PartitionBackfill(
        "b", BulkActionStatus.REQUESTED, False, {}, 0.0, partition_names=[], partition_set_origin=None
    )
    world.instance.add_backfill(backfill)
    assert "a backfill is under way" in str(Sensor(world).tick())
    world.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert isinstance(Sensor(world).tick(), dg.RunRequest)
