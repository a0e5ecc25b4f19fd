"""What happens is told once: over a real event log, real records and runs that really fail."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, PARENT_RUN_ID_TAG, RETRY_NUMBER_TAG, ROOT_RUN_ID_TAG

from matching_platform.defs import heartbeat, messages, news
from matching_platform.defs.messages import Cursor, events, happenings
from matching_platform.defs.news import Failure, Source
from matching_platform.delivery.images.image import Image
from matching_platform.delivery.serving.releases import Releases
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.monitoring.notify import Message, OncePerEvent
from matching_platform.store.files import Files, StoreError
from matching_platform.store.registry import MODELS
from matching_platform.store.versions import Version
from matching_platform_tests.defs.daemons import daemons, local_instance

MONTHS = dg.MonthlyPartitionsDefinition("2024-01", end_date="2025-01", fmt="%Y-%m")
UI = "https://dagster.example"


@dataclass
class Channel:
    """What people are told, as long as it works; some things it never takes."""

    works: bool = True
    never: str = "nothing"
    told: list[Message] = field(default_factory=list)

    def notify(self, message: Message) -> bool:
        taken = self.works and self.never not in message.subject
        self.told += [message] if taken else []
        return taken

    @property
    def titles(self) -> list[str]:
        return [message.title for message in self.told]


@dataclass
class Scene:
    """An instance, a platform, and the sensor with its cursor."""

    instance: dg.DagsterInstance
    platform: Platform
    channel: Channel
    cursor: str | None = None

    def tick(self) -> None:
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"platform": self.platform}
        ) as context:
            happenings(context)
            self.cursor = context.cursor

    def told(self) -> list[str]:
        """The titles of what two more ticks tell: what happened before the first is told by the second, at the latest."""
        before = len(self.channel.told)
        self.tick()
        self.tick()
        return self.channel.titles[before:]

    def make(self, *assets: Any, month: str | None = None, **tags: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            list(assets), instance=self.instance, partition_key=month, tags=tags, raise_on_error=False
        )

    def backfill(self, name: str, status: BulkActionStatus) -> None:
        """A backfill as the UI asks for it, or as it is later."""
        known = self.instance.get_backfill(name)
        if known:
            self.instance.update_backfill(known.with_status(status))
            return
        asked = PartitionBackfill(
            backfill_id=name, status=status, from_failure=False, tags={}, backfill_timestamp=time.time()
        )
        self.instance.add_backfill(asked)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    platform, channel = (
        Platform(Settings(**DEFAULTS["local"] | {"store": str(tmp_path / "store"), "ui": UI})),
        Channel(),
    )
    vars(platform)["notifier"] = OncePerEvent(channel, platform.store.files)
    # The events of one machine's instance, in a file for each run, are read by the last test.
    settings = {"run_retries": {"enabled": True, "max_retries": 1}, "telemetry": {"enabled": False}}
    with dg.DagsterInstance.ephemeral(settings=settings) as instance:
        scene = Scene(instance, platform, channel)
        scene.tick()
        yield scene


def trains(body: Callable[[], object] = lambda: None, trained: str = "now") -> dg.AssetsDefinition:
    """A stand-in for a training: its metadata are those of `model`."""

    @dg.asset(partitions_def=MONTHS)
    def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        body()
        return dg.MaterializeResult(
            metadata={
                "version": f"m{context.partition_key}",
                "trained": trained,
                "transfers": 12_345,
                "cross_fitted_exact": 0.9411,
                "settings": "the defaults",
            }
        )

    return model


def examines(**passed: bool) -> dg.AssetsDefinition:
    """A stand-in for an examination, with the verdicts of its checks."""

    @dg.asset(
        partitions_def=MONTHS,
        check_specs=[dg.AssetCheckSpec(name, asset="evaluation_report", blocking=True) for name in passed],
    )
    def evaluation_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        results = [
            dg.AssetCheckResult(check_name=name, passed=held, description=f"{name} by 2 points")
            for name, held in passed.items()
        ]
        exact = 0.9 + int(context.partition_key[5:]) / 1000
        metadata = {"model": f"m{context.partition_key}", "path": "gs://bucket/evaluations/e 1", "test exact": exact}
        return dg.MaterializeResult(metadata=metadata, check_results=results)

    return evaluation_report


def fails(reason: str = "out of memory") -> Callable[[], None]:
    def fail() -> None:
        raise RuntimeError(reason)

    return fail


def test_a_training_and_the_gate(scene: Scene) -> None:
    run = scene.make(trains(), examines(quality=False, speed=True, segments=False), month="2024-03")
    assert scene.told() == ["Training of 2024-03 finished", "The gate stays closed for the model of 2024-03"]
    trained, gate = scene.channel.told
    assert trained.figures == {"Exact (cross-fitted)": "94.1%", "Settings": "the defaults"}
    assert "12,345 transfers up to 2024-03" in trained.text
    assert gate.text.startswith(
        "• quality: quality by 2 points\n• segments: segments by 2 points\n\nIt is not promoted;"
    )
    assert gate.level == "bad"
    assert gate.links == {
        "Run": f"{UI}/runs/{run.run_id}",
        "Report": "https://storage.cloud.google.com/bucket/evaluations/e%201/report.html",
    }
    assert scene.told() == []


def test_a_training_under_way_is_told_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "UNDERWAY_SECONDS", 0)
    meanwhile: list[list[str]] = []
    scene.make(trains(lambda: meanwhile.extend((scene.told(), scene.told()))), month="2024-03")
    assert meanwhile == [["Training of 2024-03 started"], []]
    assert scene.told() == ["Training of 2024-03 finished"]


def test_nothing_to_train_is_no_news(scene: Scene) -> None:
    meanwhile: list[list[str]] = []
    scene.make(trains(lambda: meanwhile.append(scene.told()), trained="before, from the same rows"), month="2024-03")
    assert meanwhile == [[]]
    assert scene.told() == []


def test_what_a_retry_finds_trained_is_told(scene: Scene) -> None:
    """The first attempt died between the training and its report."""
    tags = {RETRY_NUMBER_TAG: "1"}
    scene.make(trains(trained="before, from the same rows"), month="2024-03", **tags)
    assert scene.told() == ["Training of 2024-03 finished"]


def test_a_failed_check_is_told_also_where_the_run_is_green(scene: Scene) -> None:
    @dg.asset
    def proposals() -> None: ...

    @dg.asset_check(asset=proposals)
    def few_doubts() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="half are doubtful")

    result = dg.materialize([proposals, few_doubts], instance=scene.instance)
    assert result.success
    assert scene.told() == ["A check of proposals fails"]
    assert scene.channel.told[0].text.startswith("• few_doubts: half are doubtful\n\n")
    assert scene.channel.told[0].level == "news"


def test_checks_without_a_run(scene: Scene) -> None:
    for name in ("one", heartbeat.CHECK, "two"):
        scene.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=dg.AssetKey("raw_transfers"), check_name=name, passed=False)
        )
    assert len(scene.told()) == 2, "the heartbeat tells by itself what it finds"
    assert [message.text.split(":")[0] for message in scene.channel.told] == ["• one", "• two"]


def test_a_failed_run_is_told_with_its_reason(scene: Scene) -> None:
    run = scene.make(trains(fails()), month="2024-03", **{"dagster/max_retries": "0"})
    assert scene.told() == ["Training of 2024-03 failed"]
    (message,) = scene.channel.told
    assert message.text.startswith("RuntimeError: out of memory.\n\nThe champion serves on.")
    assert message.links == {"Run": f"{UI}/runs/{run.run_id}"}


def test_a_closed_gate_is_told_in_its_own_words(scene: Scene) -> None:
    @dg.asset
    def champion() -> None:
        raise dg.Failure("the gate is closed: the check 'quality' failed", allow_retries=False)

    scene.make(champion, **{"dagster/max_retries": "0"})
    assert scene.told() == ["Nothing is promoted"]
    assert scene.channel.told[0].text.startswith("the gate is closed: the check 'quality' failed.\n\n")


@pytest.mark.parametrize("heals", [True, False])
def test_one_message_for_all_attempts(scene: Scene, heals: bool) -> None:
    first = scene.make(trains(fails()), month="2024-03")
    assert scene.told() == [], "it is going to be retried"
    retry = {PARENT_RUN_ID_TAG: first.run_id, ROOT_RUN_ID_TAG: first.run_id, RETRY_NUMBER_TAG: "1"}
    second = dg.materialize(
        [trains() if heals else trains(fails())],
        instance=scene.instance,
        partition_key="2024-03",
        tags=retry | {"dagster/max_retries": "0"},
        raise_on_error=False,
    )
    scene.instance.add_run_tags(first.run_id, {AUTO_RETRY_RUN_ID_TAG: second.run_id})
    assert scene.told() == [f"Training of 2024-03 {'finished' if heals else 'failed'}"]
    assert scene.told() == []
    assert Cursor.model_validate_json(str(scene.cursor)).retrying == []


def test_a_retry_that_never_came_is_told_as_a_failure(scene: Scene) -> None:
    first = scene.make(trains(fails()), month="2024-03")
    assert scene.told() == []
    scene.instance.add_run_tags(first.run_id, {"dagster/will_retry": "false"})
    assert scene.told() == ["Training of 2024-03 failed"]


def test_one_reason_for_many_runs_is_one_message(scene: Scene) -> None:
    for month in ("2024-01", "2024-02", "2024-03"):
        scene.make(trains(fails("the warehouse is away")), month=month, **{"dagster/max_retries": "0"})
    assert scene.told() == ["Training of 3 months failed"]
    assert "The same in 3 runs, of 2024-01, 2024-02, 2024-03." in scene.channel.told[0].text


def test_a_dead_channel_is_told_later_and_once(scene: Scene) -> None:
    scene.channel.works = False
    scene.make(trains(), month="2024-03")
    for _ in range(4):
        scene.tick()
    assert scene.channel.told == []
    scene.channel.works = True
    assert scene.told() == ["Training of 2024-03 finished"]
    assert scene.told() == []


def test_a_message_that_nobody_takes_does_not_keep_the_others_waiting(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.channel.never = "finished"
    scene.make(trains(), month="2024-03")
    assert scene.told() == []
    scene.make(examines(quality=False), month="2024-03")
    assert scene.told() == ["The gate stays closed for the model of 2024-03"]
    waiting = Cursor.model_validate_json(str(scene.cursor)).pending
    assert [one.message.title for one in waiting] == ["Training of 2024-03 finished"]
    monkeypatch.setattr(messages, "_KEPT_SECONDS", 0)
    scene.tick()
    assert Cursor.model_validate_json(str(scene.cursor)).pending == []


def test_a_tick_that_was_killed_tells_nothing_twice(scene: Scene) -> None:
    scene.make(trains(), month="2024-03")
    scene.tick()
    before = scene.cursor
    scene.tick()
    scene.cursor = before  # What it told was told, but its cursor was never kept.
    assert scene.told() == []
    assert scene.channel.titles == ["Training of 2024-03 finished"]


def test_a_long_history_is_not_told(scene: Scene) -> None:
    for month in ("2024-01", "2024-02"):
        scene.make(trains(), month=month)
    scene.cursor = None
    scene.tick()
    assert scene.told() == []
    scene.make(trains(), month="2024-03")
    assert scene.told() == ["Training of 2024-03 finished"]


def test_more_events_than_a_tick_reads(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "AT_ONCE", 1)
    months = [f"2024-{number:02d}" for number in range(1, 3)]
    for month in months:
        scene.make(trains(), examines(quality=False), month=month)
    for _ in range(10):
        scene.tick()
    told = [f"Training of {month} finished" for month in months]
    gates = [f"The gate stays closed for the model of {month}" for month in months]
    assert sorted(scene.channel.titles) == sorted(told + gates)


def test_an_event_log_that_was_wiped_begins_anew(scene: Scene) -> None:
    assert scene.cursor
    far = Cursor.model_validate_json(scene.cursor).model_copy(
        update={"told": {"events": 9**9}, "seen": {"events": 9**9}}
    )
    scene.cursor = far.model_dump_json()
    assert scene.told() == []
    scene.make(trains(), month="2024-03")
    assert scene.told() == ["Training of 2024-03 finished"]


def test_a_backfill_is_one_story(scene: Scene) -> None:
    tags = {"dagster/backfill": "walk", "dagster/max_retries": "0"}
    scene.backfill("walk", BulkActionStatus.REQUESTED)
    for number in range(1, 13):
        month = f"2024-{number:02d}"
        body = fails(f"no memory for {month}") if number in (5, 9) else lambda: None
        scene.make(trains(body), examines(quality=number not in (4, 8)), month=month, **tags)
        scene.tick()
    scene.told()
    # What goes wrong is told when it happens first, and the rest at the end.
    assert scene.channel.titles == [
        "The gate stays closed for the model of 2024-04",
        "Training of 2024-05 failed",
    ]
    scene.backfill("walk", BulkActionStatus.COMPLETED_FAILED)
    assert scene.told() == ["Backfill ended: 12 months, 2024-01 to 2024-12"]
    summary = scene.channel.told[-1]
    assert summary.text.splitlines() == [
        "10 models were trained: 2024-01 to 2024-12.",
        "The checks refused 2:",
        "• 2024-04: quality: quality by 2 points",
        "• 2024-08: quality: quality by 2 points",
        "Runs failed for 2:",
        "• 2024-05: model: RuntimeError: no memory for 2024-05",
        "• 2024-09: model: RuntimeError: no memory for 2024-09",
        "Mend what is named, then run the backfill again for these months.",
    ]
    assert summary.figures == {
        "Exact on the frozen test, 2024-01": "90.1%",
        "Exact on the frozen test, 2024-12": "91.2%",
    }
    assert summary.links == {"Backfill": f"{UI}/runs/b/walk"}
    assert scene.told() == []


def test_a_backfill_of_tables_that_went_well_is_no_news(scene: Scene) -> None:
    @dg.asset(partitions_def=MONTHS)
    def invoices() -> None: ...

    scene.backfill("tables", BulkActionStatus.COMPLETED_SUCCESS)
    scene.make(invoices, month="2024-03", **{"dagster/backfill": "tables"})
    assert scene.told() + scene.told() == []


def test_promotions_rollouts_and_the_way_back(scene: Scene, tmp_path: Path) -> None:
    registry, releases = scene.platform.registry, Releases(scene.platform.store, "production")
    models = [_version(scene, tmp_path, MODELS, name) for name in ("first", "second")]
    evaluation = _version(scene, tmp_path, "evaluations", "evaluation")
    for model in models:
        registry.promote(model, evaluation, "ann", "3 points above the rules")
    image = Image("registry/matching", "t", "sha256:1", 1, models[1].name, "b", "base")
    releases.append("deploy", models[1].name, evaluation, image, reason="it came up")
    assert scene.told() == [
        f"New champion: {models[0].name}",
        f"New champion: {models[1].name}",
        f"Rollout: {models[1].name} serves in production",
    ]
    assert scene.channel.told[-1].figures == {"Image": "registry/matching@sha256:1"}
    registry.rollback(actor="bo", reason="odd bookings", check=lambda _: None)
    releases.append("rollback", models[0].name, evaluation, actor="bo", reason="odd bookings")
    assert scene.told() == [
        f"Rollback: {models[0].name} is champion again",
        f"Rollback: {models[0].name} serves in production again",
    ]
    assert "bo went back to it: odd bookings." in scene.channel.told[-1].text
    assert scene.told() == []


def test_an_image_and_staging(scene: Scene) -> None:
    digest = "sha256:" + "a" * 64

    def image(built: bool) -> dg.AssetsDefinition:
        @dg.asset(name="image")
        def builds() -> dg.MaterializeResult:
            told = {"model": "m1", "digest": digest, "MB in the registry": 400.2, "seconds": 61.5}
            return dg.MaterializeResult(metadata=told | {"built": built, "reference": f"r/m@{digest}"})

        return builds

    def staging(latency: bool) -> dg.AssetsDefinition:
        specs = [dg.AssetCheckSpec(name, asset="staging", blocking=True) for name in ("answers", "latency")]

        @dg.asset(name="staging", check_specs=specs)
        def accepts() -> dg.MaterializeResult:
            results = [
                dg.AssetCheckResult(check_name="answers", passed=latency, description="p99 is 2.1 s"),
                dg.AssetCheckResult(
                    check_name="latency", passed=latency, description="p99 is 2.1 s", metadata={"p99 (ms)": 2100.5}
                ),
            ]
            return dg.MaterializeResult(metadata={"model": "m1", "then": "m0 serves in staging"}, check_results=results)

        return accepts

    scene.make(image(built=True))
    scene.make(image(built=False))  # It was there already.
    scene.make(staging(latency=True))
    assert scene.told() == ["Image of m1 built", "Staging accepts m1"]
    assert scene.channel.told[0].figures == {"Digest": digest, "In the registry": "400 MB", "Built in": "62 s"}
    assert scene.channel.told[1].figures == {"p99 (ms)": "2,100"}
    scene.make(staging(latency=False))
    assert scene.told() == ["Staging refuses the model m1"]
    assert scene.channel.told[-1].text.startswith("• answers, latency: p99 is 2.1 s\n\nm0 serves in staging.\n\n")


def test_a_store_that_cannot_be_read_fails_the_tick_and_loses_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.make(trains(), month="2024-03")

    def unreadable(*_: object) -> None:
        raise StoreError("the object store could not be used")

    with monkeypatch.context() as patch:
        patch.setattr(Files, "names", unreadable)
        with pytest.raises(StoreError):
            scene.tick()
    assert scene.told() == ["Training of 2024-03 finished"]


def test_the_daemon_ticks_it(tmp_path: Path) -> None:
    """Under the real daemon, the cursor is kept between ticks, also where the code is loaded anew."""
    platform, channel = Platform(Settings(**DEFAULTS["local"] | {"store": str(tmp_path / "store")})), Channel()
    vars(platform)["notifier"] = OncePerEvent(channel, platform.store.files)
    code = dg.Definitions(sensors=[happenings], resources={"platform": platform})
    now = 1_795_000_000.0
    with local_instance(tmp_path) as instance:
        for tick in range(5):
            with daemons(instance, code) as running:
                running.tick_sensors(now + 60 * tick)
                last = running.ticks("happenings")[0]
                assert last.error is None, last.error
            if tick == 1:
                assets = [trains(), examines(quality=False)]
                dg.materialize(assets, instance=instance, partition_key="2024-03", raise_on_error=False)
                dg.materialize([trains(fails())], instance=instance, partition_key="2024-04", raise_on_error=False)
    assert channel.titles == [
        "Training of 2024-03 finished",
        "The gate stays closed for the model of 2024-03",
        "Training of 2024-04 failed",
    ]


def _made(asset: str, metadata: dict[str, Any]) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(asset, metadata=metadata)


def _check(passed: bool) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(asset_key=dg.AssetKey("staging"), check_name="latency", passed=passed)


ALONE = Source("1", "1", "2024-03")
IN_BACKFILL = Source("1", "1", "2024-03", "walk")
MODEL = {"version": "m1", "trained": "now"}
IMAGE = {"model": "m1", "built": True, "digest": "d", "reference": "r@d", "MB in the registry": 1.0, "seconds": 1.0}


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (news.trained(_made("model", MODEL), ALONE), "model/m1/trained"),
        (news.trained(_made("model", MODEL), IN_BACKFILL), None),
        (news.trained(_made("model", MODEL | {"trained": "before"}), ALONE), None),
        (news.trained(_made("model", MODEL | {"trained": "before"}), ALONE, retried=True), "model/m1/trained"),
        (news.built(_made("image", IMAGE), ALONE), "model/m1/image/d"),
        (news.built(_made("image", IMAGE), IN_BACKFILL), None),
        (news.built(_made("image", IMAGE | {"built": False}), ALONE), None),
        (news.accepted(_made("staging", IMAGE), [_check(passed=True)], ALONE), "model/m1/staging/1"),
        (news.accepted(_made("staging", IMAGE), [_check(passed=False)], ALONE), None),
        (news.started(ALONE), "training/1/2024-03/started"),
        (news.started(IN_BACKFILL), "backfill/walk/started"),
        (news.checks_failed("staging", [_check(passed=False)], ALONE), "checks/staging/2024-03/1"),
        (news.checks_failed("staging", [_check(passed=False)], IN_BACKFILL), "backfill/walk/checks/staging"),
        (news.checks_failed("rows", [_check(passed=False)], Source(), event="9"), "checks/rows/9"),
        (news.failed(Failure("model", "no memory"), [ALONE]), "run/1/failed"),
        (news.failed(Failure("", "its process died"), [IN_BACKFILL]), "backfill/walk/failed"),
    ],
)
def test_the_key_names_the_event(message: Message | None, key: str | None) -> None:
    """Not the attempt, and in a backfill not the month; None is no news."""
    assert (message.key if message else None) == key


def _version(scene: Scene, folder: Path, kind: str, content: str) -> Version:
    made = folder / content
    made.mkdir()
    (made / "content").write_text(content)
    return scene.platform.store.put(kind, made)


def test_freezes_and_thresholds_are_told_with_who_and_why(scene: Scene) -> None:
    record = scene.platform.unattended
    record.freeze(actor="Ada", reason="it booked nonsense")
    assert scene.told() == ["Automation is frozen"]
    record.freeze(actor="Bob", reason="a strange month")
    record.book_from("m1", 0.999, actor="platform", reason="realised precision 0.98 is below 0.995")
    record.book_from("m1", 1.1, actor="platform", reason="it is worse still")
    record.unfreeze(actor="Ada", reason="seen to")
    record.book_from_own("m1", actor="Ada", reason="trained again")
    assert scene.told() == [
        "Automation is frozen once more",
        "m1 books less unattended",
        "m1 books less unattended",
        "Automation runs again",
        "m1 books as it was trained to",
    ]
    assert scene.told() == []
    frozen, _, raised, nothing, lifted, own = scene.channel.told
    assert "Ada froze it: it booked nonsense." in frozen.text
    assert "lift it with `matching-platform unfreeze --reason …`" in frozen.text
    assert "from a confidence of 0.999 on, and booked from its own threshold on before" in raised.text
    assert "platform: realised precision 0.98 is below 0.995." in raised.text
    assert "It books nothing, and booked from a confidence of 0.999 on before" in nothing.text
    assert "Ada lifted the freeze: seen to." in lifted.text
    assert "by Ada (it booked nonsense)" in lifted.text
    assert "It books from its own threshold on, and booked nothing before" in own.text
    assert [one.level for one in scene.channel.told] == ["bad", "bad", "bad", "bad", "good", "news"]
