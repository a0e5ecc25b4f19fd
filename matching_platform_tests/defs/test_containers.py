"""From champion to a container that answers, and back, with a real engine, registry and Dagster instance."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from matching_platform.defs.releasing import roll_back
from matching_platform.delivery import acceptance
from matching_platform_tests.containers.engine import SHARED, Engine
from matching_platform_tests.defs.conftest import LIMITS, World
from matching_platform_tests.defs.test_promotion import another

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

STEPS = ("bento", "image", "staging", "deployment")


@pytest.fixture
def shipping(learned_home: Path, tmp_path: Path, engine: Engine, registry: str, base_image: str) -> Iterator[World]:
    """A world that builds images and serves containers."""
    home = tmp_path / "world"
    shutil.copytree(learned_home, home)
    given = {
        "environment": "local",
        "warehouse": home / "data" / "warehouse.duckdb",
        "store": str(home / "data" / "store"),
        "image_builder": "podman",
        "image_repository": f"{registry}/matching-service",
        "base_image": base_image,
        "serving": "containers",
    }
    (home / "data" / "wheels").symlink_to(SHARED / "wheels")
    world = World(home, given=given)
    yield world
    for place in ("staging", "production"):
        world.platform.here(place).stop()
    world.instance.dispose()


def served(world: World) -> str:
    return str(httpx.get(f"{world.platform.here().url}/model", trust_env=False).json()["version"])


def test_forward_refused_and_back(shipping: World, tmp_path: Path, engine: Engine) -> None:
    made = shipping.make("champion", *STEPS)
    assert made.success, made.failure
    first = shipping.platform.registry.champion().model
    told = made.metadata("image")
    assert told["digest"].startswith("sha256:")
    assert told["tag"].endswith(f"-{first.name}")
    assert told["built"]
    assert told["components"] > 100
    assert made.metadata("deployment")["serves from"] == f"{told['reference']}"
    assert {one.check_name for one in made.result.get_asset_check_evaluations()} == set(acceptance.CHECKS)
    assert served(shipping) == first.name

    reused = shipping.make("image")
    assert reused.metadata("image")["built"] is False
    assert reused.metadata("image")["digest"] == told["digest"]

    second = another(shipping, tmp_path)
    impatient = replace(shipping, limits=LIMITS.model_copy(update={"p99_milliseconds": 1e-3}))
    assert not impatient.make("image", "staging", "deployment").success
    impatient.instance.dispose()
    assert served(shipping) == first.name
    assert shipping.platform.registry.champion().model == first

    shipping.platform.registry.promote(second, _evaluation(shipping, second), "a test", "once more")
    made = shipping.make("image", "staging", "deployment")
    assert made.success, made.failure
    assert served(shipping) == second.name

    started = time.monotonic()
    rolled = roll_back(shipping.platform, actor="Ada", reason="it booked nonsense")
    seconds = time.monotonic() - started
    assert rolled.deployment.digest == told["digest"]
    assert served(shipping) == first.name
    assert seconds < 60
    running = engine.podman("ps", "--format", "{{.Image}}").split()
    assert running == [told["reference"]]


def _evaluation(world: World, model):
    """The evaluation on which `model` was promoted first."""
    return next(one.evaluation for one in world.platform.registry.history() if one.model == model)
