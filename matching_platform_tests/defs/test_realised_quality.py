"""A model that books wrongly slips through: it is found in its month, books less at once, and the one before comes back."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import torch

from matching_platform.definitions import defs
from matching_platform.defs import broken_promise, realised
from matching_platform.defs.broken_promise import COMPARISONS, due, reconsider_job
from matching_platform.defs.broken_promise import broken_promise as sensor
from matching_platform.matching.confidence import Confidence
from matching_platform.matching.matcher import Matcher
from matching_platform.monitoring.realised import Realised
from matching_platform.store.record import Record
from matching_platform.store.registry import MODELS
from matching_platform.store.unattended import NEVER
from matching_platform.store.versions import Version
from matching_platform_tests.defs.conftest import MONTHS, NEWEST, World

EARLIER = MONTHS[-2]

Change = Callable[[Matcher], None]


def as_it_is(_: Matcher) -> None:
    """The model as it was trained, but for the threshold that so few transfers never give."""


def contrary(matcher: Matcher) -> None:
    """It likes best what it should like least, and is sure of it."""
    with torch.no_grad():
        for weights in matcher.sets.parameters():
            weights.neg_()
    matcher.calibration = Confidence(8.0, {})


def later(matcher: Matcher) -> None:
    """It says that it has learned from the newest month."""
    matcher.card["trained_until"] = NEWEST


def store(world: World, trained: Version, folder: Path, change: Change, auto_from: float = 0.5) -> Version:
    """A changed model, which books from that confidence on."""
    matcher = Matcher.load(world.platform.store.fetch(trained))
    change(matcher)
    matcher.auto_from = auto_from
    matcher.save(folder)
    return world.platform.store.put(MODELS, folder)


def promote(world: World, model: Version) -> None:
    world.platform.registry.promote(
        model, world.platform.current("evaluation_report", NEWEST), "test", "it slips through"
    )


@pytest.fixture(scope="module")
def models(learned_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Version, Version]]:
    """A world with a good model and a contrary one, both trained on all but the newest month; neither is promoted."""
    home = tmp_path_factory.mktemp("models")
    shutil.copytree(learned_home, home / "world")
    world = World(home / "world")
    made = world.make("train_set", "model", month=EARLIER)
    assert made.success, made.failure
    trained = world.platform.current("model", EARLIER)
    yield world.home, *(store(world, trained, home / change.__name__, change) for change in (as_it_is, contrary))
    world.instance.dispose()


@pytest.fixture
def good(models: tuple[Path, Version, Version]) -> Version:
    return models[1]


@pytest.fixture
def bad(models: tuple[Path, Version, Version]) -> Version:
    return models[2]


@pytest.fixture
def world(models: tuple[Path, Version, Version], tmp_path: Path) -> Iterator[World]:
    shutil.copytree(models[0], tmp_path / "world")
    world = World(tmp_path / "world")
    yield world
    world.instance.dispose()


def propose(world: World, *models: Version) -> None:
    """The models become champion one after the other, and the last proposes the newest month."""
    for model in models:
        promote(world, model)
    made = world.make("proposals", month=NEWEST)
    assert made.success, made.failure


def judge(world: World) -> tuple[dict[str, Any], dict[str, dg.AssetCheckEvaluation]]:
    """The metadata of the figures, and the checks."""
    made = world.make("realised_quality", month=NEWEST)
    assert made.success, made.failure
    checks = {check.check_name: check for check in made.result.get_asset_check_evaluations()}
    return made.metadata("realised_quality"), checks


def tick(world: World, cursor: str | None = None) -> dg.SensorResult:
    result = sensor(dg.build_sensor_context(cursor=cursor, resources={"platform": world.platform}))
    assert isinstance(result, dg.SensorResult)
    return result


def reconsider(world: World, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
    return reconsider_job.execute_in_process(
        instance=world.instance, resources={"platform": world.platform}, raise_on_error=raise_on_error
    )


def comparisons(world: World) -> list[str]:
    return [entry.reason for entry in Record(world.platform.store, COMPARISONS).entries()]


def champion(world: World) -> Version:
    promotion = world.platform.registry.champion()
    assert promotion
    return promotion.model


def tagged(world: World, tags: pl.DataFrame) -> None:
    """So many of the newest month's tags have come."""
    world.platform.catalog.set("matches", NEWEST, world.platform.store.put_frame("matches", tags), {})


def test_a_bad_model_is_found_books_nothing_more_and_the_one_before_comes_back(
    world: World, good: Version, bad: Version
) -> None:
    propose(world, good, bad)
    figures, checks = judge(world)
    assert figures["exact_auto"] < 0.8
    assert figures["wrong"] > 5
    assert figures["exact_auto_low"] < figures["exact_auto"] < figures["exact_auto_high"]
    assert figures["models"] == bad.name
    assert "| kind |" in figures["by kind"]
    assert "| payer |" in figures["worst payers"]
    kept = checks[realised.KEPT]
    assert (kept.passed, kept.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "unattended bookings that could be judged were wrong" in str(kept.description)
    assert checks[realised.TAGGED].passed
    (change,) = world.platform.unattended.history()
    assert (change.actor, change.model, change.auto_from) == ("platform", bad.name, NEVER)
    assert f"({NEWEST}); it holds from no confidence on" in change.reason

    (request,) = tick(world).run_requests
    assert bad.name in str(request.run_key)
    assert reconsider(world).success
    assert champion(world) == good
    promotion = world.platform.registry.champion()
    assert (promotion.action, promotion.actor) == ("rollback", "platform")
    assert "was better: exact +" in promotion.reason
    (told,) = comparisons(world)
    assert told in promotion.reason

    # Whoever looks again finds nothing left to do.
    _, checks = judge(world)
    assert checks[realised.KEPT].passed
    assert not tick(world).run_requests
    assert reconsider(world).success
    # Nothing speaks against the one that came back.
    assert world.platform.unattended.history() == [change]
    assert len(world.platform.registry.history()) == 3


def test_a_good_model_is_left_alone(world: World, good: Version, bad: Version) -> None:
    propose(world, bad, good)
    figures, checks = judge(world)
    assert figures["exact_auto"] > 0.97
    assert checks[realised.KEPT].passed
    assert not world.platform.unattended.history()
    assert not tick(world).run_requests


def test_tags_that_come_late_are_judged_and_the_promise_is_broken_once(
    world: World, bad: Version, good: Version
) -> None:
    propose(world, good, bad)
    everything = world.platform.read("matches", NEWEST)
    transfers = everything["transfer_id"].unique().sort()
    judged = []
    for share in (0.0, 0.02, 0.5, 1.0):
        known = transfers.head(int(len(transfers) * share))
        tagged(world, everything.filter(pl.col("transfer_id").is_in(known.implode())))
        figures, checks = judge(world)
        judged.append((figures["judged"], checks[realised.KEPT].passed))
    assert [count for count, _ in judged] == sorted({count for count, _ in judged})
    # Nothing to judge by, too little, enough, and answered.
    assert [passed for _, passed in judged] == [True, True, False, True]
    assert len(world.platform.unattended.history()) == 1


def test_late_tags_make_the_figures_anew(world: World, good: Version) -> None:
    propose(world, good)
    judge(world)
    before = asked(world)
    world.instance.report_runless_asset_event(dg.AssetMaterialization("matches", partition=NEWEST))
    assert asked(world, before).get_requested_partitions(dg.AssetKey("realised_quality")) == {NEWEST}


def asked(
    world: World, before: dg.EvaluateAutomationConditionsResult | None = None
) -> dg.EvaluateAutomationConditionsResult:
    """What automation asks for."""
    figures = dg.AssetSelection.assets("realised_quality")
    return dg.evaluate_automation_conditions(
        defs, world.instance, asset_selection=figures, cursor=before.cursor if before else None
    )


@pytest.mark.parametrize("cut", ["unattended", "comparison", "rollback"])
def test_what_was_cut_off_is_finished_by_the_next_look_and_done_once(
    world: World, good: Version, bad: Version, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    propose(world, good, bad)

    def killed(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    def cut_off(step: Callable[[], bool]) -> None:
        with monkeypatch.context() as patch:
            places = {
                "unattended": (world.platform.unattended, "book_from"),
                "comparison": (broken_promise, "compare"),
                "rollback": (world.platform.registry, "rollback"),
            }
            patch.setattr(*places[cut], killed)
            assert not step()

    if cut == "unattended":
        cut_off(lambda: world.make("realised_quality", month=NEWEST).success)
        assert not world.platform.unattended.history()
    else:
        judge(world)
        cut_off(lambda: reconsider(world, raise_on_error=False).success)
        assert champion(world) == bad
    first = tick(world)
    assert len(first.run_requests) == 1
    assert len(world.platform.unattended.history()) == 1
    assert len(tick(world, first.cursor).run_requests) == 1
    assert reconsider(world).success
    assert champion(world) == good
    assert not tick(world).run_requests
    assert len(world.platform.unattended.history()) == 1
    assert len(comparisons(world)) == 1


def test_a_frozen_platform_grows_careful_and_goes_back_all_the_same(world: World, good: Version, bad: Version) -> None:
    propose(world, good, bad)
    world.platform.unattended.freeze(actor="Ada", reason="an audit")
    judge(world)
    assert world.platform.unattended.permission().thresholds == {bad.name: NEVER}
    assert reconsider(world).success
    assert champion(world) == good
    assert world.platform.unattended.permission().frozen


def test_of_a_model_that_is_no_longer_champion_it_is_only_noted(world: World, good: Version, bad: Version) -> None:
    propose(world, good, bad)
    promote(world, store(world, good, world.home / "other", as_it_is, auto_from=0.6))
    judge(world)
    assert world.platform.unattended.permission().thresholds == {bad.name: NEVER}
    assert not tick(world).run_requests
    assert due(world.platform) is None


def test_without_a_model_before_it_books_nothing_and_stays(world: World, bad: Version) -> None:
    propose(world, bad)
    judge(world)
    assert world.platform.unattended.permission().thresholds == {bad.name: NEVER}
    assert not tick(world).run_requests
    assert champion(world) == bad


def test_a_model_before_that_is_no_better_stays_before(world: World, bad: Version) -> None:
    propose(world, bad, store(world, bad, world.home / "as bad", as_it_is, auto_from=0.6))
    judge(world)
    assert tick(world).run_requests
    assert reconsider(world).success
    (told,) = comparisons(world)
    assert "the model before was not better" in told
    assert not tick(world).run_requests
    # However many tags come late: asked often enough, chance would say yes.
    tagged(world, world.platform.read("matches", NEWEST).slice(3))
    judge(world)
    assert not tick(world).run_requests


def test_a_model_before_that_had_learned_from_the_month_is_no_judge(world: World, good: Version, bad: Version) -> None:
    propose(world, store(world, good, world.home / "later", later), bad)
    judge(world)
    assert reconsider(world).success
    (told,) = comparisons(world)
    assert "had learned from all these transfers" in told
    assert champion(world) == bad


def test_what_was_learned_from_is_never_acted_upon(world: World, good: Version, bad: Version) -> None:
    propose(world, good, store(world, bad, world.home / "later", later))
    figures, checks = judge(world)
    assert (figures["transfers"], checks[realised.KEPT].passed) == (0, True)
    assert not world.platform.unattended.history()
    assert not tick(world).run_requests


def test_what_one_model_booked_is_not_laid_at_the_door_of_the_next(world: World, good: Version, bad: Version) -> None:
    propose(world, good, bad)
    by_bad = world.platform.read("proposals", NEWEST).filter(decision="auto")["transfer_id"].unique()
    propose(world, store(world, good, world.home / "other", as_it_is, auto_from=0.6))
    proposed = realised.proposed_in_advance(world.platform, NEWEST)
    booked = proposed.filter(decision="auto").unique("transfer_id")
    assert set(booked.filter(model=bad.name)["transfer_id"]) == set(by_bad)
    assert proposed.unique("transfer_id").height == proposed.unique(["transfer_id", "model"]).height


def test_what_a_person_decided_stands_until_there_is_news(world: World, good: Version, bad: Version) -> None:
    propose(world, good, bad)
    judge(world)
    world.platform.unattended.book_from_own(bad.name, actor="Ada", reason="the tags were imported wrongly")
    _, checks = judge(world)
    assert not checks[realised.KEPT].passed
    assert "by Ada (the tags were imported wrongly)" in str(checks[realised.KEPT].description)
    assert len(world.platform.unattended.history()) == 2
    tagged(world, world.platform.read("matches", NEWEST).slice(3))
    judge(world)
    assert world.platform.unattended.permission().thresholds == {bad.name: NEVER}


@pytest.mark.parametrize(
    ("bookings", "booked", "transfers", "tagged", "passed"),
    [
        (100, 90, 200, 180, True),
        (100, 0, 200, 90, False),
        (2, 0, 10, 8, True),
        (0, 0, 10, 8, True),
        (100, 50, 100, 50, True),
    ],
)
def test_whether_people_tag_what_was_booked(
    bookings: int, booked: int, transfers: int, tagged: int, passed: bool
) -> None:
    counts = {"transfers": transfers, "tagged": tagged, "bookings": bookings, "bookings_tagged": booked}
    told = Realised(counts, *[pl.DataFrame()] * 5)
    assert realised._bookings_tagged([told]).passed is passed
