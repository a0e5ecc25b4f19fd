"""Served days become files and a table, and are forgotten in time."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from matching_platform.defs import predictions as room
from matching_platform.environment import Platform
from matching_platform.predictions import reading, states
from matching_platform.predictions.served import Served, rows
from matching_platform.predictions.settings import PredictionSettings
from matching_platform.predictions.states import State
from matching_platform_tests.defs.conftest import World
from matching_platform_tests.predictions.made import PLAIN, TRANSFERS, served

NOW = datetime.now(UTC)
YESTERDAY, LAST_YEAR = NOW - timedelta(days=1), NOW - timedelta(days=399)


def write(platform: Platform, number: int, *requests: Served) -> None:
    """A part, as a server writes it."""
    file = BytesIO()
    rows(requests, "server", PLAIN).write_parquet(file)
    day = requests[0].received_at.date()
    platform.predictions.create(f"requests/{day}/server-{number:08d}.parquet", file.getvalue())


def published(platform: Platform) -> list[tuple[str, str]]:
    with duckdb.connect(str(platform.settings.warehouse), read_only=True) as connection:
        return connection.execute(
            "SELECT request_id, transfer_id FROM predictions ORDER BY received_on, request_id, transfer_id"
        ).fetchall()


def expected(*requests: str) -> list[tuple[str, str]]:
    return [(one, transfer) for one in requests for transfer in sorted(TRANSFERS["transfer_id"])]


def made(world: World, platform: Platform) -> tuple[dict[str, object], dg.AssetCheckEvaluation]:
    result = dg.materialize([room.prediction_log], instance=world.instance, resources={"platform": platform})
    (event,) = result.get_asset_materialization_events()
    (check,) = result.get_asset_check_evaluations()
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    return metadata, check


def forgetting(world: World, days: int) -> Platform:
    return Platform(world.platform.settings.model_copy(update={"predictions": PredictionSettings(days=days)}))


def test_days_become_a_table_and_are_forgotten_in_time(tmp_path: Path) -> None:
    world = World(tmp_path)
    platform = world.platform
    metadata, check = made(world, platform)
    assert (metadata["requests"], metadata["days"], check.passed) == (0, 0, True)

    write(platform, 1, served("old", LAST_YEAR))
    write(platform, 2, served("one", YESTERDAY), served("copied", YESTERDAY, "copy"))
    write(platform, 3, served("today", NOW + timedelta(days=1)))
    metadata, _ = made(world, platform)
    assert (metadata["requests"], metadata["transfers"], metadata["days"]) == (2, 2 * TRANSFERS.height, 2)
    assert published(platform) == expected("old", "one")

    write(platform, 4, served("late", YESTERDAY))
    made(world, platform)
    assert published(platform) == expected("old", "late", "one")

    metadata, _ = made(world, forgetting(world, days=30))
    assert published(platform) == expected("late", "one")
    assert metadata["requests"] == 2
    kept = [one for day in reading.days(platform.predictions) for one in reading.read(platform.predictions, day).rows()]
    assert len(kept) == 4


def test_what_is_published_is_not_published_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    write(world.platform, 1, served("one", YESTERDAY))
    warehouse, times = type(world.platform.warehouse), []
    publish = warehouse.publish
    monkeypatch.setattr(warehouse, "publish", lambda *given: (times.append(given[2]), publish(*given)))
    for _ in range(2):
        made(world, world.platform)
    assert times == [f"{YESTERDAY:%Y-%m}"]

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    write(world.platform, 2, served("two", YESTERDAY))
    monkeypatch.setattr(warehouse, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        made(world, world.platform)
    monkeypatch.setattr(warehouse, "publish", publish)
    made(world, world.platform)
    assert published(world.platform) == expected("one", "two")


@pytest.mark.parametrize(
    ("end", "dropped", "said", "told"),
    [
        ("open", 0, timedelta(), ""),
        ("closed", 0, timedelta(hours=1), ""),
        ("open", 0, timedelta(hours=1), "may be missing, those of its last second"),
        ("closed", 7, timedelta(hours=1), "the server server dropped 7 requests"),
        ("closed", 7, timedelta(days=9), ""),
    ],
)
def test_a_log_with_holes_is_told(tmp_path: Path, end: states.End, dropped: int, said: timedelta, told: str) -> None:
    world, at = World(tmp_path), datetime.now(UTC) - said
    states.save(world.platform.predictions, State("server", "host", 1, 0.0, at, at, at, 9, dropped, end))
    metadata, check = made(world, world.platform)
    assert (check.passed, check.blocking) == (not told, False)
    assert told in (check.description or "")
    assert metadata["dropped"] == (dropped if told else 0)
