"""A container engine, a registry and a base image of the tests' own, for tests marked `containers`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matching_platform.delivery.images.image import Image
from matching_platform.delivery.packing import BentoArtefact, build_bento
from matching_platform_tests.containers import engine as parts
from matching_platform_tests.containers.engine import Engine

# What the service of the tests is called, and what it serves.
SERVICE, VERSION = "matching-service", "small-1"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """podman for this test process: any code that calls `podman` from here uses this one."""
    parts.required()
    with parts.engine() as own, pytest.MonkeyPatch.context() as patch:
        for name, value in own.environment.items():
            patch.setenv(name, value)
        yield own


@pytest.fixture(scope="session")
def registry_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="session")
def registry(engine: Engine, registry_folder: Path) -> Iterator[str]:
    """An empty registry's host and port."""
    with parts.registry(registry_folder) as address:
        engine.trust(address)
        yield address


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> str:
    """A local image with Debian's Python 3.11 and nothing installed."""
    return parts.base()


@pytest.fixture(scope="session")
def service_bento(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> BentoArtefact:
    """The small company's model, packed."""
    return build_bento(small_model, VERSION, tmp_path_factory.mktemp("service") / "bento")


@pytest.fixture(scope="session")
def service_image(
    engine: Engine, registry: str, registry_folder: Path, base_image: str, service_bento: BentoArtefact
) -> Image:
    """The service's image, built by podman, in the registry; each run of the tests builds what it does not find."""
    repository = f"{registry}/{SERVICE}"
    return parts.service(service_bento, VERSION, repository, base_image, registry_folder / "images")
