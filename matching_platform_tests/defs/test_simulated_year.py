"""A year in which all payers change their habits in November, gone through month by month with real assets.

The drift is reported in that month and not before, the model that learned from it recovers, and a bad model that slips
through in December is found by what it booked and is taken back within its month.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl
import pytest
import torch

from matching_platform.definitions import defs
from matching_platform.defs.broken_promise import broken_promise, reconsider_job
from matching_platform.defs.drift import CHECKS, TOLD, drifted
from matching_platform.learning.yardstick import Evaluation, evaluate
from matching_platform.ledger.reading import read_file
from matching_platform.matching.confidence import Confidence
from matching_platform.matching.matcher import Matcher
from matching_platform.sample import company
from matching_platform.store.registry import MODELS
from matching_platform.store.versions import Version
from matching_platform_tests.defs.conftest import LEARNED, TABLES, World

YEAR = [f"2024-{month:02}" for month in range(1, 13)]
BEFORE, SHIFT, AFTER = YEAR[9:]

pytestmark = pytest.mark.timeout(1500)


class Year:
    """The platform on its way through the year; each month knows nothing of the next."""

    def __init__(self, world: World) -> None:
        self.world, self.moved = world, dict[str, str]()

    def make(self, *assets: str, month: str | None = None) -> dict[str, Any]:
        """The metadata of the last of the assets."""
        made = self.world.make(*assets, month=month)
        assert made.success, made.failure
        return made.metadata(assets[-1])

    def arrive(self, month: str) -> None:
        """The month's rows are read and compared with the months before."""
        self.make(*TABLES, month=month)
        if self.world.platform.registry.champion():
            self.make("proposals", month=month)
        made = self.world.make("drift_report", month=month)
        checks = made.result.get_asset_check_evaluations()
        assert {check.check_name for check in checks} == set(CHECKS)
        if not all(check.passed for check in checks):
            self.moved[month] = str(made.metadata("drift_report")[TOLD])

    def retrain(self) -> None:
        """What the drift of the newest month asks for, and the gate with it."""
        request = drifted(dg.build_sensor_context(self.world.instance, resources={"platform": self.world.platform}))
        assert isinstance(request, dg.RunRequest), request
        job, resources = defs.resolve_job_def("learn"), {"platform": self.world.platform}
        assert job.execute_in_process(
            run_config=request.run_config,
            partition_key=request.partition_key,
            tags=request.tags,
            instance=self.world.instance,
            resources=resources,
        ).success
        self.make("champion")

    @property
    def champion(self) -> Version:
        promotion = self.world.platform.registry.champion()
        assert promotion
        return promotion.model

    def judged(self, model: Version, month: str) -> Evaluation:
        """What the model would have proposed for a month, by the whole truth."""
        platform = self.world.platform
        proposals = Matcher.load(platform.store.fetch(model)).match(platform.ledger(month), [month])
        truth = read_file(next((self.world.home / "sample").glob("audit.*")), "audit")
        return evaluate(proposals, truth.join(proposals, on="transfer_id", how="semi"))


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    """The year up to the month after the shift, with the champions of before and after."""
    home = tmp_path_factory.mktemp("year")
    local = {"environment": "local", "warehouse": home / "warehouse.duckdb", "store": str(home / "store")}
    # What was frozen in the first months says nothing of the new habits, and a model that learns them may lose a little.
    world = World(home, given={**local, "search_trials": 1}).strict(minimum_gain=-0.02)
    settings = company.Settings(
        seed=1, start=YEAR[0], months=12, transfers_per_month=300, shift_month=SHIFT, shifted_share=1.0
    )
    company.write(world.home / "sample", settings)
    world.platform.warehouse.load_folder(world.home / "sample")
    gone = Year(world)
    for month in YEAR[:10]:
        gone.arrive(month)
    gone.make("test_split")
    gone.make(*LEARNED, month=BEFORE)
    gone.make("champion")
    gone.arrive(SHIFT)
    gone.retrain()
    gone.make(*TABLES, month=AFTER)
    yield gone
    world.instance.dispose()


def test_drift_is_reported_in_the_month_of_the_shift_and_not_before(year: Year) -> None:
    assert next(iter(year.moved)) == SHIFT
    assert SHIFT in year.moved[SHIFT]


def test_the_retrained_model_recovers(year: Year) -> None:
    before, after = (promotion.model for promotion in year.world.platform.registry.history()[:2])
    usual = year.judged(before, SHIFT).figures
    old, new = (year.judged(model, AFTER).figures for model in (before, after))
    assert old["exact_paying"] < usual["exact_paying"]
    # One month of the new habits is worth at least a quarter of what was lost.
    assert new["exact_paying"] >= old["exact_paying"] + (usual["exact_paying"] - old["exact_paying"]) / 4
    assert new["auto_share"] > old["auto_share"]


def test_a_bad_model_that_slips_through_is_taken_back_within_its_month(year: Year, tmp_path) -> None:
    platform, good = year.world.platform, year.champion
    bad = slipped(year, good, tmp_path / "bad")
    year.make("proposals", month=AFTER)
    booked = platform.read("proposals", AFTER).filter(pl.col("decision") == "auto")["transfer_id"].n_unique()
    made = year.world.make("realised_quality", month=AFTER)
    kept = next(one for one in made.result.get_asset_check_evaluations() if one.check_name == "promise_kept")
    assert not kept.passed
    assert f"{bad.name}: " in str(kept.description)
    assert platform.unattended.permission().auto_from(bad.name, 0.5) > 0.5

    (request,) = broken_promise(dg.build_sensor_context(resources={"platform": platform})).run_requests or []
    assert reconsider_job.execute_in_process(
        instance=year.world.instance, resources={"platform": platform}, tags=request.tags
    ).success
    assert year.champion == good
    last = platform.registry.history()[-1]
    assert (last.action, last.actor) == ("rollback", "platform")
    assert "broke the promise" in last.reason
    # What is proposed from now on is proposed by the good one, and what the bad one booked stays to its account.
    assert year.make("proposals", month=AFTER)["model"] == good.name
    assert year.make("realised_quality", month=AFTER)["bookings"] >= booked


def slipped(year: Year, good: Version, folder) -> Version:
    """A model that confuses much and is sure of it, past the gate: somebody wrote into the record of promotions."""
    matcher = Matcher.load(year.world.platform.store.fetch(good))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in matcher.sets.parameters():
            weights += 3 * weights.abs().mean() * torch.randn(weights.shape, generator=noise)
    matcher.calibration = Confidence(8.0, {})
    matcher.auto_from = 0.5
    matcher.save(folder)
    bad = year.world.platform.store.put(MODELS, folder)
    year.world.platform.registry.promote(
        bad, year.world.platform.current("evaluation_report", SHIFT), "somebody", "past the gate"
    )
    return bad
