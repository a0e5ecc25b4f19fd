"""A freeze, and every way past it that a person could try."""

import math
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from matching_platform.definitions import defs
from matching_platform.defs.releasing import candidate, remember
from matching_platform.defs.unattended import AGAIN_SECONDS, freeze_lifted, more_careful
from matching_platform.learning.threshold_text import confidence
from matching_platform.matching.decisions import BY_RECORD
from matching_platform.matching.matcher import Matched, Matcher
from matching_platform.review.proposed import BOOKED_FROM, OWN_THRESHOLD
from matching_platform.store.unattended import NEVER
from matching_platform_tests.defs.conftest import MONTHS, NEWEST, World
from matching_platform_tests.defs.test_promotion import another, served

ADA = {"actor": "Ada", "reason": "it booked nonsense"}
TOLD = "by Ada (it booked nonsense): lift it with `matching-platform unfreeze"


def asked(
    world: World, sensor: dg.SensorDefinition, cursor: str | None = None
) -> tuple[list[dg.RunRequest], str | None]:
    """The runs that a tick of a sensor asks for, and its cursor afterwards."""
    with dg.build_sensor_context(
        instance=world.instance, cursor=cursor, resources={"platform": world.platform}, definitions=defs
    ) as context:
        found = sensor(context)
    if isinstance(found, dg.SensorResult):
        return list(found.run_requests or []), found.cursor
    return [found] if isinstance(found, dg.RunRequest) else [], cursor


def names(requests: list[dg.RunRequest]) -> list[list[str]]:
    return [[key.to_user_string() for key in request.asset_selection or []] for request in requests]


def test_nothing_is_promoted_until_it_is_lifted_and_then_it_is_asked_again(world: World) -> None:
    record = world.platform.unattended
    record.freeze(**ADA)
    for _ in range(2):
        made = world.make("champion")
        assert not made.success
        assert TOLD in made.failure
    assert world.platform.registry.champion() is None
    assert asked(world, freeze_lifted) == ([], None)
    record.unfreeze(**ADA)
    requests, cursor = asked(world, freeze_lifted)
    assert names(requests) == [["champion"]]
    assert asked(world, freeze_lifted, cursor) == ([], cursor)
    # A tick that was killed asks for the same run.
    assert asked(world, freeze_lifted)[0][0].run_key == requests[0].run_key
    assert world.make("champion").success
    record.freeze(**ADA)
    record.unfreeze(**ADA)
    assert names(asked(world, freeze_lifted, cursor)[0]) == []


def test_what_the_gate_refuses_is_not_asked_again(world: World) -> None:
    strict = world.strict(transfers_per_second=1e9)
    strict.make("evaluation_report", month=NEWEST)
    strict.instance.dispose()
    world.platform.unattended.freeze(**ADA)
    world.platform.unattended.unfreeze(**ADA)
    requests, cursor = asked(world, freeze_lifted)
    assert (requests, cursor) == ([], "2")


def test_nothing_new_is_rolled_out_and_the_way_back_stays_open(serving: World, tmp_path: Path) -> None:
    record, registry = serving.platform.unattended, serving.platform.registry
    first = registry.champion().model
    second = another(serving, tmp_path)
    assert serving.make("image").success
    record.freeze(**ADA)
    for asset in ("staging", "deployment"):
        pressed = serving.make(asset)
        assert not pressed.success
        assert TOLD in pressed.failure
    assert served(serving) == first.name
    assert len(serving.platform.releases("staging").history()) == 1
    record.unfreeze(**ADA)
    requests, cursor = asked(serving, freeze_lifted)
    assert names(requests) == [["staging", "deployment"]]
    assert serving.make("staging", "deployment").success
    assert served(serving) == second.name
    # Confirmed, and gone back from.
    record.freeze(**ADA)
    assert serving.make("deployment").metadata("deployment")["changed"] is False
    job = defs.get_job_def("rollback")
    back = {"ops": {"back": {"config": {"reason": "it books nonsense"}}}}
    rolled = job.execute_in_process(
        run_config=back, instance=serving.instance, resources={"platform": serving.platform}
    )
    assert rolled.success
    assert (served(serving), registry.champion().model) == (first.name, first)
    record.unfreeze(**ADA)
    # What serves well, and what was taken out of service, has not waited.
    assert asked(serving, freeze_lifted, cursor) == ([], "4")


def test_what_staging_refused_has_not_waited(serving: World, tmp_path: Path) -> None:
    another(serving, tmp_path)
    chosen = candidate(serving.platform, serving.platform.registry.champion().model)
    remember(serving.platform, "staging", "deploy", chosen, good=False, reason="refused")
    serving.platform.unattended.freeze(**ADA)
    serving.platform.unattended.unfreeze(**ADA)
    assert asked(serving, freeze_lifted)[0] == []


def proposed(world: World, month: str = NEWEST) -> pl.DataFrame:
    assert world.make("proposals", month=month).success
    return world.platform.read("proposals", month)


@pytest.fixture
def ahead(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A champion that proposes the newest month in advance, most of which is tagged by now."""
    assert world.make("champion").success
    # So small a company books nothing by itself; and what comes after it has learned is proposed in advance.
    matcher = Matcher.load(world.platform.store.fetch(world.platform.registry.champion().model))
    matcher.auto_from, matcher.card["trained_until"] = 0.3, MONTHS[-2]
    monkeypatch.setattr(Matcher, "load", lambda _: matcher)
    return world


def decisions(rows: pl.DataFrame, ids: pl.Series | None = None) -> set[str]:
    some = rows if ids is None else rows.filter(pl.col("transfer_id").is_in(ids.implode()))
    return set(some["decision"])


def test_what_nobody_acted_on_is_not_booked_while_frozen_and_returns_afterwards(ahead: World) -> None:
    record = ahead.platform.unattended
    record.freeze(actor="Ada", reason="first")
    record.unfreeze(actor="Ada", reason="second")
    before = proposed(ahead)
    tagged = ahead.platform.read("matches", NEWEST)["transfer_id"].unique()
    is_tagged = pl.col("transfer_id").is_in(tagged.implode())
    waiting = before.filter(~is_tagged)
    assert "auto" in decisions(before, tagged)
    assert "auto" in decisions(waiting)
    assert asked(ahead, more_careful)[0] == []
    record.freeze(**ADA)
    (request,), _ = asked(ahead, more_careful)
    assert request.partition_key == NEWEST
    made = ahead.make("proposals", month=NEWEST)
    told = made.metadata("proposals")
    assert told[BOOKED_FROM] == NEVER > told[OWN_THRESHOLD]
    assert TOLD in told["frozen"]
    frozen = ahead.platform.read("proposals", NEWEST)
    assert set(frozen["transfer_id"]) == set(before["transfer_id"])
    assert (
        frozen.filter(is_tagged)
        .sort("transfer_id", "invoice_id")
        .equals(before.filter(is_tagged).sort("transfer_id", "invoice_id"))
    )
    assert decisions(frozen.filter(~is_tagged)) <= {"review", "none"}
    lowered = frozen.filter(~is_tagged).join(before.filter(decision="auto"), on="transfer_id", how="semi")
    said = f"{BY_RECORD}frozen since "
    assert all(any(one.startswith(said) for one in row) for row in lowered["evidence"].to_list())
    assert asked(ahead, more_careful)[0] == []
    record.unfreeze(**ADA)
    assert len(asked(ahead, more_careful)[0]) == 1
    after = proposed(ahead)
    assert after.sort("transfer_id", "invoice_id").equals(before.sort("transfer_id", "invoice_id"))


def test_what_failed_is_asked_for_again_after_a_while(ahead: World, monkeypatch: pytest.MonkeyPatch) -> None:
    proposed(ahead)
    ahead.platform.unattended.freeze(**ADA)
    keys = []
    for moment in (0, 1, AGAIN_SECONDS):
        monkeypatch.setattr("matching_platform.defs.unattended.time", lambda moment=moment: moment)
        (request,), _ = asked(ahead, more_careful)
        keys.append(request.run_key)
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("learned", [False, True])
def test_what_was_not_published_is_asked_for_again(
    ahead: World, monkeypatch: pytest.MonkeyPatch, learned: bool
) -> None:
    proposed(ahead)
    if learned:
        monkeypatch.undo()
    ahead.platform.unattended.freeze(**ADA)
    with monkeypatch.context() as patch:
        patch.setattr(type(ahead.platform.warehouse), "publish", lambda *_: pytest.fail("the warehouse is away"))
        assert not ahead.make("proposals", month=NEWEST).success
    assert len(asked(ahead, more_careful)[0]) == 1
    assert decisions(proposed(ahead)) <= {"auto", "review", "none"}
    assert asked(ahead, more_careful)[0] == []


def test_a_freeze_changes_decisions_and_nothing_else(ahead: World) -> None:
    before = proposed(ahead)
    ahead.platform.unattended.freeze(**ADA)
    before, frozen = (rows.sort("transfer_id", "invoice_id") for rows in (before, proposed(ahead)))
    assert (before["decision"] != frozen["decision"]).any()
    assert before.drop("decision", "evidence").equals(frozen.drop("decision", "evidence"))


def test_what_a_model_booked_stays_booked_where_another_came_in_between(ahead: World) -> None:
    before = proposed(ahead)
    mine = ahead.platform.catalog.get("proposals", NEWEST)
    rows = before.with_columns(
        decision=pl.when(pl.col("decision") == "auto").then(pl.lit("review")).otherwise("decision")
    )
    other = ahead.platform.store.put_frame("proposals", rows)
    ahead.platform.catalog.set("proposals", NEWEST, other, {**mine.metadata, "model": "another"})
    ahead.platform.unattended.freeze(**ADA)
    tagged = ahead.platform.read("matches", NEWEST)["transfer_id"].unique()
    assert decisions(proposed(ahead), tagged) == decisions(before, tagged)


def test_a_raised_threshold_is_obeyed_at_once(ahead: World) -> None:
    before = proposed(ahead)
    champion = ahead.platform.registry.champion().model
    waiting = before.join(ahead.platform.read("matches", NEWEST), on="transfer_id", how="anti").filter(decision="auto")
    above = math.nextafter(waiting["confidence"].min(), 1.0)
    ahead.platform.unattended.book_from(champion.name, above, actor="platform", reason="realised precision")
    assert len(asked(ahead, more_careful)[0]) == 1
    after = proposed(ahead).join(waiting, on="transfer_id", how="semi")
    lowered = pl.col("confidence") < above
    assert set(after.filter(lowered)["decision"]) == {"review"}
    assert set(after.filter(~lowered)["decision"]) <= {"auto"}
    said = f"{BY_RECORD}made from a confidence of {confidence(above)} on only"
    assert {row[-1] for row in after.filter(lowered)["evidence"].to_list()} == {said}


def test_what_was_proposed_in_advance_obeys_also_where_a_later_model_has_learned(
    ahead: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = proposed(ahead)
    tagged = ahead.platform.read("matches", NEWEST)["transfer_id"].unique()
    is_tagged = pl.col("transfer_id").is_in(tagged.implode())
    monkeypatch.undo()
    assert proposed(ahead).equals(before)
    ahead.platform.unattended.freeze(**ADA)
    frozen = proposed(ahead)
    assert frozen.filter(is_tagged).equals(before.filter(is_tagged))
    assert decisions(frozen.filter(~is_tagged)) <= {"review", "none"}
    assert "auto" in decisions(before.filter(~is_tagged))
    assert frozen.drop("decision", "evidence").equals(before.drop("decision", "evidence"))
    entries = len(ahead.platform.catalog.history("proposals", NEWEST))
    assert proposed(ahead).equals(frozen)
    assert len(ahead.platform.catalog.history("proposals", NEWEST)) == entries
    ahead.platform.unattended.unfreeze(**ADA)
    assert proposed(ahead).equals(before)


def test_a_freeze_during_a_matching_is_obeyed(ahead: World, monkeypatch: pytest.MonkeyPatch) -> None:
    match = Matcher.match_in_full

    def meanwhile(self: Matcher, *args: object, **options: object) -> Matched:
        matched = match(self, *args, **options)
        ahead.platform.unattended.freeze(**ADA)
        return matched

    monkeypatch.setattr(Matcher, "match_in_full", meanwhile)
    assert decisions(proposed(ahead)) <= {"review", "none"}


def test_a_run_that_overtook_the_change_is_put_right(ahead: World) -> None:
    proposed(ahead)
    stale = ahead.platform.catalog.get("proposals", NEWEST)
    ahead.platform.unattended.freeze(**ADA)
    (request,), _ = asked(ahead, more_careful)
    proposed(ahead)
    ahead.platform.catalog.set("proposals", NEWEST, stale.version, stale.metadata)
    (again,), _ = asked(ahead, more_careful)
    assert again.run_key != request.run_key


def test_where_nothing_was_proposed_there_is_nothing_to_propose_again(world: World) -> None:
    world.platform.unattended.freeze(**ADA)
    assert asked(world, more_careful)[0] == []
