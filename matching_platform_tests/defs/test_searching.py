"""Where quality misses its bar, settings are searched once for the train set, and only then people are told."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import count

import dagster as dg
import numpy as np
import polars as pl
import pytest

from matching_platform.definitions import defs
from matching_platform.defs import searching
from matching_platform.defs.automation import search_job
from matching_platform.environment import Platform, Settings
from matching_platform.learning import examination, split, train_set, tuning
from matching_platform.learning.gate import Verdict
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.matcher import Matcher
from matching_platform.monitoring.notify import FOLDER, OncePerEvent, SlackNotifier, Sparing
from matching_platform.store.versions import Version
from matching_platform_tests.defs.conftest import LEARNED, MONTHS, NEWEST, TABLES, World

WORSE = "worse than the champion by more than anybody likes"
SPACE = {"pair_epochs": tuning.Span(4, 12, ""), "set_epochs": tuning.Span(4, 16, "")}


@pytest.fixture(autouse=True)
def small_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SPACE", SPACE)
    monkeypatch.setattr(searching, "SPACE", SPACE)
    monkeypatch.setenv("MATCHING_PLATFORM_SEARCH_TRIALS", "2")


class Sensor:
    """The sensor as its daemon calls it: the cursor that it leaves is there the next time."""

    def __init__(self, world: World) -> None:
        self.world, self.cursor = world, None

    def tick(self) -> dg.RunRequest | str:
        context = dg.build_sensor_context(
            instance=self.world.instance, cursor=self.cursor, resources={"platform": self.world.platform}
        )
        answer = searching.missed_quality(context)
        self.cursor = context.cursor
        return answer if isinstance(answer, dg.RunRequest) else str(answer.skip_message)


def run(world: World, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    code = dg.Definitions(assets=defs.assets, jobs=[search_job], resources={"platform": world.platform})
    return code.resolve_job_def("search").execute_in_process(
        instance=world.instance, partition_key=request.partition_key, tags=request.tags, raise_on_error=False
    )


def notices(world: World) -> int:
    return len(world.platform.store.files.names(FOLDER))


def miss(world: World, model: Version | None = None) -> Version:
    """Makes the newest evaluation one that misses the bar of quality; returns its train set."""
    store, catalog = world.platform.store, world.platform.catalog
    examined = examination.read(store, world.platform.current("evaluation_report", NEWEST))
    verdicts = [Verdict("quality", False, WORSE)]
    missed = replace(examined, verdicts=verdicts, model=model or examined.model)
    catalog.set("evaluation_report", NEWEST, examination.write(store, missed, ""), {})
    return examined.train_set


def test_a_model_that_is_good_enough_is_left_alone(world: World) -> None:
    assert "no model" in Sensor(world).tick()
    assert notices(world) == 0


@pytest.mark.parametrize("better", [True, False])
def test_quality_that_is_missed_is_searched_for_once_before_people_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    judged = count(0.5, 0.1 if better else -0.1)
    monkeypatch.setattr(tuning, "scores", lambda outcomes: np.full(2, next(judged)))
    assert world.make("champion").success
    matches = world.platform.warehouse.read_month("matches", MONTHS[0])
    world.platform.warehouse.write_month("matches", MONTHS[0], matches.head(matches.height - 4))
    assert world.make(*TABLES, month=MONTHS[0]).success
    strict = world.strict(minimum_gain=0.9)
    strict.make(*LEARNED, month=NEWEST)
    sensor, learned = Sensor(strict), strict.platform.current("train_set", NEWEST)
    before = strict.platform.current("model", NEWEST)
    asked = sensor.tick()
    assert isinstance(asked, dg.RunRequest)
    assert asked.partition_key == NEWEST
    assert notices(world) == 0

    searched = run(strict, asked)
    (made,) = searched.asset_materializations_for_node("model")
    found = searching.outcome(strict.platform, learned)
    assert found is not None
    assert made.metadata["settings"].value == found.told
    assert "a search of 2 trials found" in found.told
    assert strict.platform.store.read_frame(found.trials).height == 2
    model = strict.platform.current("model", NEWEST)
    card = Matcher.load(strict.platform.store.fetch(model)).card
    assert card["settings"] == asdict(searching.settings_for(strict.platform, learned))
    assert not (strict.platform.home / "searches" / learned.name).exists()
    assert (model != before) == better
    assert found.settings.keys() == (SPACE.keys() if better else set())
    after = strict.platform.current("evaluation_report", NEWEST)
    assert examination.read(strict.platform.store, after).model == model

    for _ in range(2):
        told = sensor.tick()
        assert "misses the bar of quality: not better than the champion" in told
        assert found.told in told
    assert notices(world) == 1
    again = run(strict, asked)
    assert [event.metadata["trained"].value[:6] for event in again.asset_materializations_for_node("model")] == [
        "before"
    ]
    assert searching._record(strict.platform, learned).count() == 1
    assert Sensor(strict).tick() == told, "also without its cursor"
    assert notices(world) == 1
    strict.instance.dispose()


def test_a_killed_search_is_asked_for_again_and_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    learned, sensor, real = miss(world), Sensor(world), tuning.train
    trainings: list[dict[str, object]] = []

    def killed(*given: object) -> Matcher:
        trainings.append(asdict(given[3]))
        if len(trainings) == 2:
            raise OSError("no more power")
        return real(*given)

    monkeypatch.setattr(tuning, "train", killed)
    asked = sensor.tick()
    assert not run(world, asked).success
    assert searching.outcome(world.platform, learned) is None
    again = sensor.tick()
    assert (asked.run_key, again.run_key) == (f"{learned.name} 0", f"{learned.name} 1")
    assert run(world, again).success
    first, second, *rest = trainings
    assert (first != second, rest) == (True, [second]), "what was done is not done again"
    assert searching.outcome(world.platform, learned).trials is not None


def test_a_search_that_never_ends_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*given: object, **named: object) -> None:
        raise OSError("no more power")

    monkeypatch.setattr(searching, "search", killed)
    miss(world)
    sensor = Sensor(world)
    for _ in range(searching.ATTEMPTS):
        assert notices(world) == 0
        assert not run(world, sensor.tick()).success
    assert "3 searches of settings came to no end" in sensor.tick()
    assert notices(world) == 1


def test_a_search_that_goes_on_is_waited_for(world: World) -> None:
    miss(world)
    asked = Sensor(world).tick()
    job = defs.resolve_job_def("search")
    world.instance.create_run_for_job(job, tags=asked.tags, status=dg.DagsterRunStatus.STARTED)
    assert Sensor(world).tick() == "its settings are being searched"


def test_a_search_whose_model_is_not_evaluated_yet_is_no_failure(world: World) -> None:
    """The process was killed between the outcome of the search and the evaluation."""
    learned = miss(world)
    searching._note(world.platform, learned, 0, searching.Outcome({"hidden": 40}, "found", None))
    asked = Sensor(world).tick()
    assert isinstance(asked, dg.RunRequest)
    assert run(world, asked).success
    assert Matcher.load(world.platform.store.fetch(world.platform.current("model", NEWEST))).card["settings"] == {
        **asdict(searching.settings_for(world.platform, learned)),
        "hidden": 40,
    }
    assert "no model" in Sensor(world).tick(), "it is good enough now"


def test_a_train_set_that_was_replaced_is_not_searched_for(world: World) -> None:
    miss(world)
    world.platform.catalog.set("train_set", NEWEST, world.platform.store.put_bytes("train_sets", "a", b"b"), {})
    assert "was replaced" in Sensor(world).tick()


def test_what_cannot_be_searched_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_little(*given: object) -> None:
        raise tuning.TooLittleError("one month is too little")

    monkeypatch.setattr(searching, "search", too_little)
    learned, sensor = miss(world), Sensor(world)
    assert run(world, sensor.tick()).success
    miss(world)
    assert "no search was possible: one month is too little" in sensor.tick()
    assert searching.outcome(world.platform, learned).settings == {}


def test_people_are_told_through_the_webhook_that_is_given() -> None:
    settings = Settings(store="memory://told", slack_webhook="http://127.0.0.1:1/s3cret")
    notifier = Platform(settings).notifier
    assert isinstance(notifier, OncePerEvent)
    assert isinstance(notifier.notifier, Sparing)
    assert notifier.notifier.notifier == SlackNotifier("http://127.0.0.1:1/s3cret")
    assert "s3cret" not in repr(settings) + repr(notifier.notifier)


def test_a_search_sees_nothing_that_is_withheld(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Mapping[str, pl.DataFrame], Ledger]] = []

    def spy(examples: Mapping[str, pl.DataFrame], ledger: Ledger, *_: object) -> None:
        seen.append((examples, ledger))
        raise tuning.TooLittleError("enough seen")

    monkeypatch.setattr(searching, "search", spy)
    miss(world)
    run(world, Sensor(world).tick())
    ((examples, ledger),) = seen
    platform = world.platform
    made = examination.read(platform.store, platform.current("evaluation_report", NEWEST)).train_set
    withheld = platform.store.read_frame(train_set.read(platform.store, made).withheld)
    assert set(withheld["why"]) == {"test", "newest"}
    assert list(examples) == MONTHS
    frozen = split.current(platform.store).transfers["transfer_id"]
    ids = set(withheld["id"]) | set(frozen)
    for frame in (*examples.values(), *vars(ledger).values()):
        for column in {"transfer_id", "invoice_id"} & set(frame.columns):
            assert not ids & set(frame[column].drop_nulls())


def asked(**settings: float) -> dict[str, object]:
    """What somebody types who wants a model of these settings."""
    return {"ops": {"model": {"config": {"settings": settings}}}}


def learned_with(world: World) -> dict[str, float]:
    model = world.platform.current("model", NEWEST)
    return Matcher.load(world.platform.store.fetch(model)).card["settings"]


def test_what_is_asked_for_comes_before_what_a_search_found_and_only_once(world: World) -> None:
    learned = world.platform.current("train_set", NEWEST)
    searching._note(world.platform, learned, 0, searching.Outcome({"hidden": 40, "pair_epochs": 5}, "found", None))
    found = asdict(searching.settings_for(world.platform, learned))
    made = world.make("model", month=NEWEST, config=asked(hidden=24))
    assert made.metadata("model")[searching.ASKED_FOR] == "hidden 24"
    assert learned_with(world) == {**found, "hidden": 24}
    made = world.make("model", month=NEWEST)
    assert searching.ASKED_FOR not in made.metadata("model")
    assert learned_with(world) == found


def test_a_model_as_it_was_asked_for_is_told_to_be_bad_and_nothing_is_searched_instead(world: World) -> None:
    assert world.make("model", month=NEWEST, config=asked(hidden=24, pair_epochs=5)).success
    miss(world, world.platform.current("model", NEWEST))
    sensor = Sensor(world)
    for _ in range(2):
        told = sensor.tick()
        assert "it learned with settings that were asked for: hidden 24, pair_epochs 5. It is not promoted" in told
    assert notices(world) == 1
    assert world.make("model", month=NEWEST).success
    miss(world, world.platform.current("model", NEWEST))
    assert isinstance(Sensor(world).tick(), dg.RunRequest), "nobody asked for this one"


def test_settings_that_cannot_be_are_refused_before_anything_is_trained(world: World) -> None:
    made = world.make("model", month=NEWEST, config=asked(hidden=0))
    assert made.failure == "nothing can be trained with these settings: hidden: Input should be greater than 0, not 0"
