"""Every way past the gate that a person could try, and that none of them works."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from matching_platform.learning import examination, split
from matching_platform.store.registry import MODELS
from matching_platform.store.versions import Version
from matching_platform_tests.defs.conftest import LEARNED, MONTHS, NEWEST, TABLES, World


def another_model(world: World) -> Version:
    """A version that is a model by name, with other bytes."""
    return world.platform.store.put_bytes(MODELS, "card.json", b"{}")


def evaluation(world: World) -> tuple[Version, examination.Examined]:
    version = world.platform.current("evaluation_report", NEWEST)
    return version, examination.read(world.platform.store, version)


def a_later_model(world: World) -> None:
    """Some tags of an old month are taken back, so that the next training gives another model."""
    matches = world.platform.warehouse.read_month("matches", MONTHS[0])
    world.platform.warehouse.write_month("matches", MONTHS[0], matches.head(matches.height - 4))
    assert world.make(*TABLES, month=MONTHS[0]).success


def a_newer_model(world: World) -> None:
    world.platform.catalog.set("model", NEWEST, another_model(world), {})


def another_champion(world: World) -> None:
    world.platform.registry.promote(another_model(world), evaluation(world)[0], "someone", "by hand")


def another_test(world: World) -> None:
    ledger = world.platform.ledger(NEWEST)
    split.freeze(world.platform.store, ledger, MONTHS, share=0.5, actor="someone", remake_because="too small")


def an_evaluation_of_another_model(world: World) -> None:
    """Good figures, but of another model: the checks judged the evaluation of this one."""
    _, examined = evaluation(world)
    borrowed = examination.write(world.platform.store, replace(examined, model=another_model(world)), "")
    world.platform.catalog.set("evaluation_report", NEWEST, borrowed, {})


def a_forged_evaluation(world: World) -> None:
    _, examined = evaluation(world)
    forged = examination.write(world.platform.store, replace(examined, figures={}), "better than ever")
    world.platform.catalog.set("evaluation_report", NEWEST, forged, {})


def an_unchecked_train_set(world: World) -> None:
    _, examined = evaluation(world)
    other = world.platform.store.put_bytes("train_sets", "manifest.json", b"{}")
    forged = examination.write(world.platform.store, replace(examined, train_set=other), "")
    world.platform.catalog.set("evaluation_report", NEWEST, forged, {})


@pytest.mark.parametrize(
    ("trick", "told"),
    [
        (a_newer_model, "is not the newest"),
        (another_champion, "the champion has changed since the evaluation"),
        (another_test, "no longer in force"),
        (an_evaluation_of_another_model, "the last check 'quality' judged"),
        (a_forged_evaluation, "the last check 'quality' judged"),
        (an_unchecked_train_set, "the last check 'split' judged"),
    ],
)
def test_pressing_the_button_does_not_promote(world: World, trick: Callable[[World], None], told: str) -> None:
    trick(world)
    before = world.platform.registry.history()
    made = world.make("champion")
    assert not made.success
    assert told in made.failure
    assert world.platform.registry.history() == before


@pytest.mark.parametrize(
    ("check", "threshold"), [("speed", {"transfers_per_second": 1e9}), ("data", {"tagged_share": 1.01})]
)
def test_a_failed_check_keeps_the_gate_closed(world: World, check: str, threshold: dict[str, float]) -> None:
    strict = world.strict(**threshold)
    made = strict.make(*LEARNED, month=NEWEST)
    assert not made.success
    assert {one.check_name for one in made.result.get_asset_check_evaluations() if not one.passed} == {check}
    pressed = strict.make("champion")
    strict.instance.dispose()
    assert not pressed.success
    assert f"the check '{check}' failed" in pressed.failure
    assert world.platform.registry.champion() is None


def test_a_challenger_that_is_not_better_does_not_follow(world: World) -> None:
    assert world.make("champion").success
    a_later_model(world)
    strict = world.strict(minimum_gain=0.9)
    assert not strict.make(*LEARNED, month=NEWEST).success
    pressed = strict.make("champion")
    strict.instance.dispose()
    assert "the check 'quality' failed" in pressed.failure
    assert len(world.platform.registry.history()) == 1


def test_a_later_pass_opens_the_gate(world: World) -> None:
    strict = world.strict(transfers_per_second=1e9)
    strict.make("evaluation_report", month=NEWEST)
    assert not strict.make("champion").success
    strict.instance.dispose()
    assert world.make("evaluation_report", month=NEWEST).success
    assert world.make("champion").success


def test_without_an_evaluation_nothing_is_promoted(tmp_path) -> None:
    world = World(tmp_path)
    made = world.make("champion")
    assert "no model has been evaluated yet" in made.failure
    world.instance.dispose()


def test_the_first_model_passes_and_a_second_press_changes_nothing(world: World) -> None:
    assert world.make("champion").metadata("champion")["promoted"]
    again = world.make("champion")
    assert again.success
    assert not again.metadata("champion")["promoted"]
    assert len(world.platform.registry.history()) == 1


@pytest.mark.parametrize("asset", ["bento", "image", "staging", "deployment"])
def test_what_came_past_the_gate_goes_no_further(world: World, asset: str) -> None:
    _, examined = evaluation(world)
    forged = examination.write(world.platform.store, replace(examined, figures={}), "")
    world.platform.registry.promote(examined.model, forged, "someone", "past the gate")
    made = world.make(asset)
    assert not made.success
    assert "did not pass the gate" in made.failure


@pytest.mark.parametrize("asset", ["bento", "image", "staging", "deployment"])
def test_a_champion_with_the_evaluation_of_another_goes_no_further(world: World, asset: str) -> None:
    version, _ = evaluation(world)
    world.platform.registry.promote(another_model(world), version, "someone", "past the gate")
    made = world.make(asset)
    assert not made.success
    assert "is of another model" in made.failure


@pytest.mark.parametrize(
    ("made", "asset", "told"),
    [
        ((), "image", "was never packed"),
        ((), "staging", "was never packed"),
        (("bento",), "deployment", "nothing has been accepted yet"),
    ],
)
def test_no_step_is_left_out(world: World, made: tuple[str, ...], asset: str, told: str) -> None:
    assert world.make("champion", *made).success
    assert told in world.make(asset).failure
