"""A browser, small companies, and their desks. Every test here is marked `browser`."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform_tests.browser import desks, watching
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.watching import Watched
from matching_platform_tests.desk.companies import MONTHS, bare_platform, desk_company

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


# Not for the session: while Playwright runs, no other test could run an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with watching.chromium() as browser:
        yield browser


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """Who opens pages; the test fails with what went wrong in them."""
    watched = Watched(browser)
    yield watched
    watched.close()


@pytest.fixture(scope="session")
def company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A company with about sixty transfers that wait, and its people; copied for each desk."""
    folder = tmp_path_factory.mktemp("browsed")
    platform = desk_company(folder, 90, unattended=0.3)
    desks.people(platform)
    platform.database.dispose()
    return folder


@pytest.fixture(scope="module")
def desk(company: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The company's desk, for the tests of a file."""
    folder = shutil.copytree(company, tmp_path_factory.mktemp("desk") / "company")
    with desks.served(bare_platform(folder, MONTHS)) as desk:
        yield desk
