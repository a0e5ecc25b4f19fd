import dagster as dg
import polars as pl
import pytest

from matching_platform.defs.raw import late_labels, raw_months
from matching_platform_tests.defs.conftest import MONTHS, NEWEST, TABLES, World


def tick(world: World, cursor: str | None) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(instance=world.instance, cursor=cursor, resources={"platform": world.platform})
    return raw_months(context)


def seen(result: dg.SensorResult | dg.SkipReason) -> set[tuple[str, str]]:
    assert isinstance(result, dg.SensorResult)
    return {(event.asset_key.to_user_string(), event.partition) for event in result.asset_events}


def correct(world: World, month: str) -> None:
    warehouse = world.platform.warehouse
    rows = warehouse.read_month("transfers", month).with_columns(pl.col("title") + " ")
    warehouse.write_month("transfers", month, rows)


def test_every_month_is_reported_once(world: World) -> None:
    first = tick(world, None)
    assert seen(first) == {(f"raw_{name}", month) for name in TABLES[:3] for month in MONTHS}
    assert isinstance(tick(world, first.cursor), dg.SkipReason)


@pytest.mark.parametrize("month", [MONTHS[0], NEWEST])
def test_a_correction_reports_exactly_its_month(world: World, month: str) -> None:
    first = tick(world, None)
    correct(world, month)
    second = tick(world, first.cursor)
    assert seen(second) == {("raw_transfers", month)}
    assert isinstance(tick(world, second.cursor), dg.SkipReason)


def test_a_new_month_is_reported(world: World) -> None:
    first = tick(world, None)
    rows = world.platform.warehouse.read_month("transfers", NEWEST)
    world.platform.warehouse.write_month("transfers", "2024-05", rows)
    assert seen(tick(world, first.cursor)) == {("raw_transfers", "2024-05")}


def test_a_month_that_is_gone_is_reported_once(world: World) -> None:
    first = tick(world, None)
    world.platform.warehouse.write_month(
        "matches", MONTHS[0], world.platform.warehouse.read_month("matches", "2031-01")
    )
    second = tick(world, first.cursor)
    assert seen(second) == {("raw_matches", MONTHS[0])}
    for event in (*first.asset_events, *second.asset_events):
        world.instance.report_runless_asset_event(event)
    assert isinstance(tick(world, second.cursor), dg.SkipReason)
    assert isinstance(tick(world, None), dg.SkipReason)
    assert "has no rows" in world.make("matches", month=MONTHS[0]).failure


def test_a_month_outside_the_configured_ones_is_left_alone(world: World) -> None:
    first = tick(world, None)
    rows = world.platform.warehouse.read_month("transfers", NEWEST)
    world.platform.warehouse.write_month("transfers", "2031-01", rows)
    assert isinstance(tick(world, first.cursor), dg.SkipReason)


def test_a_lost_cursor_reports_nothing_twice(world: World) -> None:
    for event in tick(world, None).asset_events:
        world.instance.report_runless_asset_event(event)
    assert isinstance(tick(world, None), dg.SkipReason)


def test_late_labels_ask_for_one_training(world: World) -> None:
    def ask() -> object:
        return late_labels(dg.build_sensor_context(instance=world.instance, resources={"platform": world.platform}))

    assert isinstance(ask(), dg.SkipReason)
    correct(world, MONTHS[1])
    assert world.make(*TABLES, month=MONTHS[1]).success
    asked = ask()
    assert isinstance(asked, dg.RunRequest)
    assert asked.partition_key == NEWEST
    assert ask().run_key == asked.run_key
    assert world.make("train_set", month=NEWEST).success
    assert isinstance(ask(), dg.SkipReason)


def test_a_table_that_is_gone_as_a_whole_takes_nothing_with_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be dropped to be made anew: what is known of it stays known, and only what differs then is reported."""
    first = tick(world, None)
    whole = world.platform.warehouse.months()
    warehouse = type(world.platform.warehouse)
    monkeypatch.setattr(warehouse, "months", lambda self: {**whole, "transfers": {}})
    assert isinstance(tick(world, first.cursor), dg.SkipReason)
    changed = {**whole["transfers"], NEWEST: "1-beef"}
    monkeypatch.setattr(warehouse, "months", lambda self: {**whole, "transfers": changed})
    assert seen(tick(world, first.cursor)) == {("raw_transfers", NEWEST)}
