"""A company whose data came in as files alone, without one tag: its months become tables, and nothing is refused."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from matching_platform.defs.raw import raw_months
from matching_platform.intake.taking import Intake
from matching_platform.ledger.months import month_of
from matching_platform.ledger.schema import TABLES
from matching_platform.ledger.validation import validate
from matching_platform.sample import company
from matching_platform_tests.defs.conftest import World

MONTHS = ("2024-01", "2024-02")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.instance.dispose()


@pytest.fixture(scope="module")
def written() -> dict[str, pl.DataFrame]:
    return company.generate(company.Settings(start=MONTHS[0], months=len(MONTHS), transfers_per_month=40))


def bring(world: World, name: str, frame: pl.DataFrame) -> None:
    intake = Intake(world.platform.store, world.platform.warehouse)
    preview = intake.look(f"{name}.csv", frame.write_csv().encode())
    assert (preview.problem, preview.table, preview.new) == (None, name, frame.height)
    intake.take(preview, "Ada")


def tick(world: World) -> set[tuple[str, str | None]]:
    """What the sensor has seen come, which Dagster then knows."""
    context = dg.build_sensor_context(instance=world.instance, resources={"platform": world.platform})
    watched = raw_months(context)
    assert isinstance(watched, dg.SensorResult)
    for event in watched.asset_events:
        world.instance.report_runless_asset_event(event)
    return {(event.asset_key.to_user_string(), event.partition) for event in watched.asset_events}


def test_files_alone_make_a_company(world: World, written: dict[str, pl.DataFrame]) -> None:
    for name in ("invoices", "transfers"):
        bring(world, name, written[name])
    seen = tick(world)
    assert {(f"raw_{name}", month) for name in ("invoices", "transfers") for month in MONTHS} <= seen
    assert "raw_matches" not in {name for name, _ in seen}
    for month in MONTHS:
        made = world.make("invoices", "transfers", "matches", "labelled_pairs", month=month)
        assert made.success, made.failure
        assert world.platform.read("matches", month).is_empty()
    for name in ("invoices", "transfers"):
        held = pl.concat(world.platform.read(name, month) for month in MONTHS)
        dated = month_of(TABLES[name].partitioned_by).is_in(MONTHS)
        wanted = validate(name, written[name]).filter(dated)
        assert_frame_equal(held, wanted, check_row_order=False)
    assert world.platform.catalog.get("quarantine_matches", MONTHS[0]) is None


def test_transfers_that_came_before_any_invoice(world: World, written: dict[str, pl.DataFrame]) -> None:
    bring(world, "transfers", written["transfers"])
    assert {name for name, _ in tick(world)} == {"raw_transfers"}
    made = world.make("transfers", "invoices", "matches", "labelled_pairs", month=MONTHS[0])
    assert made.success, made.failure
    assert world.platform.read("invoices", MONTHS[0]).is_empty()
    # Where there is no transfer either, nobody knows whether the month was ever delivered.
    assert "raw_invoices of 2024-03" in world.make("invoices", month="2024-03").failure
    bring(world, "invoices", written["invoices"])
    assert world.make("invoices", month=MONTHS[0]).success
    assert not world.platform.read("invoices", MONTHS[0]).is_empty()
    world.platform.warehouse.write_month("invoices", MONTHS[0], written["invoices"].clear())
    assert "has no rows" in world.make("invoices", month=MONTHS[0]).failure
