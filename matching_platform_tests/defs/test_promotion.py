import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import duckdb
import httpx
import polars as pl
import pytest

from matching_platform.definitions import defs
from matching_platform.defs import broken_promise
from matching_platform.defs.broken_promise import Compared, Due, Evidence
from matching_platform.defs.common import newest, note
from matching_platform.defs.releasing import BENTOS, roll_back
from matching_platform.delivery import acceptance
from matching_platform.delivery.serving.place import Deployment, Release, RolloutError
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform.learning import examination
from matching_platform.learning.gate import EVALUATED
from matching_platform.learning.yardstick import Difference
from matching_platform.store.registry import MODELS, RegistryError
from matching_platform.store.versions import Version
from matching_platform_tests.defs.conftest import LIMITS, MONTHS, NEWEST, World


def served(world: World) -> str:
    return str(httpx.get(f"{world.platform.here().url}/model", trust_env=False).json()["version"])


def another(world: World, folder: Path) -> Version:
    """The champion's model with one file more, evaluated alike, champion now, and packed."""
    champion = world.platform.registry.champion()
    shutil.copytree(world.platform.store.fetch(champion.model), folder / "model")
    (folder / "model" / "note.txt").write_text("another")
    other = world.platform.store.put(MODELS, folder / "model")
    examined = replace(examination.read(world.platform.store, champion.evaluation), model=other)
    evaluation = examination.write(world.platform.store, examined, "")
    for check in EVALUATED:
        judged = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("evaluation_report"),
            check_name=check,
            passed=True,
            metadata={"subject": evaluation.digest},
        )
        world.instance.report_runless_asset_event(judged)
    world.platform.registry.promote(other, evaluation, "a test", "another one")
    assert world.make("bento").success
    return other


def test_the_champion_is_packed_accepted_rolled_out_and_proposes(serving: World) -> None:
    model = serving.platform.registry.champion().model
    assert served(serving) == model.name
    for place in ("staging", "production"):
        release = serving.platform.releases(place).current()
        assert (release.model, release.good, release.action) == (model.name, True, "deploy")
    made = serving.make("staging", "deployment", "proposals", "drift_report", month=NEWEST)
    assert made.success, made.failure
    judged = {one.check_name for one in made.result.get_asset_check_evaluations() if one.asset_key.path == ["staging"]}
    assert judged == set(acceptance.CHECKS)
    assert made.metadata("staging")["accepted"]
    assert serving.make("deployment").metadata("deployment")["changed"] is False
    assert made.metadata("proposals")["rows"] > 0
    assert len(serving.platform.releases("production").history()) == 1
    assert not serving.platform.here("staging").status().server


def test_what_staging_refuses_is_withdrawn(serving: World, tmp_path: Path) -> None:
    good = serving.platform.registry.champion().model
    other = another(serving, tmp_path)
    impatient = replace(serving, limits=LIMITS.model_copy(update={"p99_milliseconds": 1e-3}))
    made = impatient.make("image", "staging", "deployment")
    impatient.instance.dispose()
    assert not made.success
    failed = {one.check_name for one in made.result.get_asset_check_evaluations() if not one.passed}
    assert failed == {"latency"}
    assert "deployment" not in made.made()
    assert served(serving) == good.name
    champion = serving.platform.registry.champion()
    assert (champion.model, champion.action, champion.actor) == (good, "rollback", "platform")
    assert "refused in staging: latency" in champion.reason
    staged = serving.platform.releases("staging").history()
    assert [(one.model, one.good) for one in staged] == [(good.name, True), (other.name, False)]
    assert len(serving.platform.releases("production").history()) == 1


def failed_acceptance(world: World, model: Version) -> None:
    """An examination that it did not pass."""
    accepted = acceptance.read(world.platform.store, newest(world.platform, acceptance.KIND, model))
    verdicts = [replace(verdict, passed=verdict.check != "answers") for verdict in accepted.verdicts]
    version = acceptance.write(world.platform.store, replace(accepted, verdicts=verdicts))
    note(world.platform, acceptance.KIND, version, model)


def another_bento(world: World, model: Version) -> None:
    """Packed again, with other bytes, after its acceptance."""
    version = world.platform.store.put_bytes(BENTOS, "probe.json", b"{}")
    note(world.platform, BENTOS, version, model)


def a_failed_check(world: World, model: Version) -> None:
    """The newest result of a check, about the same bento."""
    subject = newest(world.platform, BENTOS, model).digest
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("staging"), check_name="answers", passed=False, metadata={"subject": subject}
    )
    world.instance.report_runless_asset_event(evaluation)


@pytest.mark.parametrize(
    ("trick", "told"),
    [
        (failed_acceptance, "the acceptance says that 'answers' failed"),
        (another_bento, "what was accepted is"),
        (a_failed_check, "the check 'answers' failed"),
    ],
)
def test_pressing_the_button_does_not_deploy_what_was_not_accepted(serving: World, trick, told: str) -> None:
    trick(serving, serving.platform.registry.champion().model)
    assert told in serving.make("deployment").failure


def test_an_acceptance_by_other_limits_is_none(serving: World) -> None:
    strict = replace(serving, limits=LIMITS.model_copy(update={"memory_megabytes": 100}))
    made = strict.make("deployment")
    strict.instance.dispose()
    assert "accepted by other limits" in made.failure


def test_back_and_further_back(serving: World, tmp_path: Path) -> None:
    first = serving.platform.registry.champion().model
    second = another(serving, tmp_path)
    assert serving.make("image", "staging", "deployment").success
    assert served(serving) == second.name
    rolled = roll_back(serving.platform, actor="Ada", reason="it booked nonsense")
    assert (rolled.champion.model, rolled.deployment.model) == (first, first.name)
    assert served(serving) == first.name
    last = serving.platform.releases("production").current()
    assert (last.action, last.actor, last.reason) == ("rollback", "Ada", "it booked nonsense")
    with pytest.raises(RegistryError, match="no earlier champion"):
        roll_back(serving.platform, actor="Ada", reason="further back")
    assert roll_back(serving.platform, actor="Ada", reason="again", to=first.name).deployment.changed is False
    assert served(serving) == first.name
    job = defs.get_job_def("rollback")
    config = {"ops": {"back": {"config": {"reason": "it was right after all", "to": second.name[:6]}}}}
    result = job.execute_in_process(
        run_config=config, instance=serving.instance, resources={"platform": serving.platform}
    )
    assert result.success
    assert served(serving) == second.name
    assert serving.platform.registry.champion().reason == "it was right after all"


@pytest.mark.parametrize("better", [True, False])
def test_a_champion_that_broke_its_promise_leaves_production_to_a_better_one(
    serving: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    first = serving.platform.registry.champion().model
    second = another(serving, tmp_path)
    assert serving.make("image", "staging", "deployment").success
    raised = serving.platform.unattended.book_from(second.name, 0.9, actor="platform", reason="broken")
    asked = Due(serving.platform.registry.champion(), first, Evidence(second.name, {}), raised)
    gain = Difference("exact", 0.1, 0.05 if better else -0.05, 0.2)
    outcomes = pl.DataFrame(schema={"auto": pl.Boolean, "confidence": pl.Float64, "exact": pl.Boolean})
    monkeypatch.setattr(broken_promise, "due", lambda _: asked)
    monkeypatch.setattr(broken_promise, "compare", lambda *_: (Compared(100, gain, gain), outcomes))
    job = defs.get_job_def("reconsider_champion")
    assert job.execute_in_process(instance=serving.instance, resources={"platform": serving.platform}).success
    expected = first if better else second
    assert served(serving) == expected.name
    assert serving.platform.registry.champion().model == expected
    assert (serving.platform.releases("production").current().action == "rollback") is better


def test_who_goes_back_during_a_rollout_has_the_last_word(
    serving: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving.platform.registry.champion().model
    second = another(serving, tmp_path)
    assert serving.make("image", "staging").success
    deploy = Rollout.deploy

    def meanwhile(self: Rollout, release: Release) -> Deployment:
        deployed = deploy(self, release)
        if release.model == second.name:
            serving.platform.registry.rollback(actor="Ada", reason="no", check=lambda _: None, to=first.name)
        return deployed

    monkeypatch.setattr(Rollout, "deploy", meanwhile)
    made = serving.make("deployment")
    assert f"{first.name} serves again" in made.failure
    assert served(serving) == first.name


def test_what_has_nothing_to_do_with_the_model_is_not_its_fault(
    serving: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = another(serving, tmp_path)
    assert serving.make("image").success

    def down(*_: object) -> Deployment:
        raise RolloutError("the engine does not answer")

    monkeypatch.setattr(Rollout, "deploy", down)
    made = serving.make("staging")
    assert "the engine does not answer" in made.failure
    assert not made.result.get_asset_check_evaluations()
    assert serving.platform.registry.champion().model == second
    assert len(serving.platform.releases("staging").history()) == 1


def test_where_nothing_was_rolled_out_only_the_champion_changes(world: World, tmp_path: Path) -> None:
    assert world.make("champion").success
    first = world.platform.registry.champion().model
    another(world, tmp_path)
    rolled = roll_back(world.platform, actor="Ada", reason="a reason")
    assert (rolled.champion.model, rolled.deployment) == (first, None)


def test_proposals_of_a_month_that_was_learned_from_are_not_judged(world: World) -> None:
    assert world.make("champion").success
    proposed = world.make("proposals", month=NEWEST).metadata("proposals")
    assert proposed["in-sample"] > 0
    judged = world.make("realised_quality", month=NEWEST).metadata("realised_quality")
    assert judged["left out as in-sample"] == proposed["in-sample"]
    assert judged["transfers"] == 0


def test_what_was_proposed_in_advance_stays_proposed(world: World) -> None:
    assert world.make("champion").success
    assert world.make("proposals", month=NEWEST).success
    # As an earlier model would have proposed, before the last two transfers came.
    ids = world.platform.read("proposals", NEWEST)["transfer_id"].unique().sort()
    whole = world.platform.read("proposals", NEWEST)
    earlier = whole.filter(whole["transfer_id"].is_in(ids[:-2].implode())).with_columns(decision=pl.lit("review"))
    version = world.platform.store.put_frame("proposals", earlier)
    world.platform.catalog.set("proposals", NEWEST, version, {"trained until": MONTHS[-2], "model": "earlier"})
    for _ in range(2):
        assert world.make("proposals", month=NEWEST).metadata("proposals")["in-sample"] == 2
        now = world.platform.read("proposals", NEWEST)
        assert now.filter(now["transfer_id"].is_in(ids[:-2].implode())).equals(earlier)
        assert set(now["transfer_id"]) == set(ids)
        with duckdb.connect(str(world.platform.settings.warehouse), read_only=True) as warehouse:
            by_model = warehouse.execute(
                "SELECT DISTINCT transfer_id FROM proposals WHERE model = 'earlier'"
            ).fetchall()
        assert {transfer for (transfer,) in by_model} == set(ids[:-2])
    judged = world.make("realised_quality", month=NEWEST).metadata("realised_quality")
    assert (judged["transfers"], judged["left out as in-sample"]) == (len(ids) - 2, 2)
    assert judged["exact"] > 0.5
