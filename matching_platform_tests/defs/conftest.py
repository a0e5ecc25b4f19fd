"""A small company that went through the platform once; each test gets a copy of its own."""

import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from matching_platform.definitions import defs
from matching_platform.delivery.acceptance import Limits
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.learning.gate import Thresholds
from matching_platform.sample import company

MONTHS = ["2024-01", "2024-02", "2024-03", "2024-04"]
NEWEST = MONTHS[-1]
TABLES = ("invoices", "transfers", "matches", "labelled_pairs")
LEARNED = ("train_set", "model", "evaluation_report")
SERVED = ("champion", "bento", "image", "staging", "deployment")
# So few transfers prove little, and a busy machine is slow.
LENIENT = {
    "calibration_error": 1.0,
    "transfers_per_second": 0.1,
    "usual_rows": 10.0,
    "tolerated_loss": 1.0,
    "unattended_loss": 1.0,
}
THRESHOLDS = Thresholds(**LENIENT)
# The same of a server that shares two cores with other tests.
LIMITS = Limits(
    p99_milliseconds=60_000,
    requests_per_second=0.01,
    growth_megabytes=1000,
    memory_megabytes=4000,
    load_seconds=1.0,
    warm_up_seconds=0.1,
)


@dataclass(frozen=True)
class World:
    """A platform and a Dagster instance in one folder."""

    home: Path
    thresholds: Thresholds = THRESHOLDS
    given: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = LIMITS

    @cached_property
    def platform(self) -> Platform:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        local = {"warehouse": self.home / "data" / "warehouse.duckdb", "store": str(self.home / "data" / "store")}
        given = self.given or {"environment": "local", **local}
        judged = {"thresholds": self.thresholds, "acceptance": self.limits}
        return Platform(Settings(**{**DEFAULTS[given["environment"]], **given, "port": port, **judged}))

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        (self.home / "dagster").mkdir(parents=True, exist_ok=True)
        return dg.DagsterInstance.local_temp(str(self.home / "dagster"))

    def make(self, *assets: str, month: str | None = None, config: dict[str, Any] | None = None) -> "Made":
        """Materializes assets as a person who presses the button would."""
        result = dg.materialize(
            list(defs.assets or []),
            selection=dg.AssetSelection.assets(*assets).required_multi_asset_neighbors(),
            partition_key=month,
            instance=self.instance,
            resources={"platform": self.platform},
            run_config=config,
            raise_on_error=False,
        )
        return Made(result)

    def strict(self, **thresholds: float) -> "World":
        return replace(self, thresholds=Thresholds(**{**LENIENT, **thresholds}))


@dataclass(frozen=True)
class Made:
    result: dg.ExecuteInProcessResult

    @property
    def success(self) -> bool:
        return self.result.success

    @property
    def failure(self) -> str:
        """What the first step that failed said."""
        for event in self.result.all_events:
            if event.is_step_failure:
                told = event.step_failure_data.user_failure_data
                return str(told.description if told else event.step_failure_data.error)
        return ""

    def metadata(self, asset: str) -> dict[str, Any]:
        (event,) = self.result.asset_materializations_for_node(asset)
        return {name: value.value for name, value in event.metadata.items()}

    def made(self) -> set[str]:
        return {event.asset_key.to_user_string() for event in self.result.get_asset_materialization_events()}


@pytest.fixture(scope="session")
def learned_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = World(tmp_path_factory.mktemp("learned"))
    sample = world.home / "sample"
    company.write(sample, company.Settings(start=MONTHS[0], months=len(MONTHS), transfers_per_month=90))
    world.platform.warehouse.load_folder(sample)
    for month in MONTHS:
        assert world.make(*TABLES, month=month).success
    assert world.make("test_split").success
    made = world.make(*LEARNED, month=NEWEST)
    assert made.success, made.failure
    world.instance.dispose()
    return world.home


@pytest.fixture
def world(learned_home: Path, tmp_path: Path) -> Iterator[World]:
    """Four months learned and evaluated; nothing is promoted yet."""
    home = tmp_path / "world"
    shutil.copytree(learned_home, home)
    world = World(home)
    yield world
    world.instance.dispose()


@pytest.fixture(scope="session")
def rolled_out_home(learned_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the champion went all the way once."""
    home = tmp_path_factory.mktemp("rolled_out") / "world"
    shutil.copytree(learned_home, home)
    world = World(home)
    made = world.make(*SERVED)
    world.platform.here().stop()
    world.instance.dispose()
    assert made.success, made.failure
    return home


@pytest.fixture
def serving(rolled_out_home: Path, tmp_path: Path) -> Iterator[World]:
    """The champion was accepted and rolled out, and answers."""
    shutil.copytree(rolled_out_home, tmp_path / "world")
    world = World(tmp_path / "world")
    world.platform.here().resume()
    yield world
    world.platform.here().stop()
    world.instance.dispose()
