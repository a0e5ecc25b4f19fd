"""Light bentos and images, for all tests of the room."""

from pathlib import Path
from typing import Any

import pytest

from matching_platform.delivery.serving.place import Release
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.delivery.serving.light import Make, make, make_image


@pytest.fixture(scope="session")
def light(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes releases of bentos that differ from the real one in their service and version."""

    def made(version: str, **faults: Any) -> Release:
        return make(bento, tmp_path_factory.mktemp("light"), version, **faults)

    return made


@pytest.fixture(scope="session")
def images(engine: Engine, registry: str, base_image: str, light: Make) -> Make:
    """Makes releases with images of light servers, perhaps with faults."""

    def made(version: str, **faults: str | float) -> Release:
        return make_image(engine, base_image, f"{registry}/matching-service", light(version), **faults)

    return made
