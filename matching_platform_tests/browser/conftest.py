"""A browser, small companies, and their desks. Every test here is marked `browser`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from matching_platform_tests.browser import desks, watching
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.watching import Watched
from matching_platform_tests.desk.companies import desk_company

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
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The desk of a company with about sixty transfers that wait. Tests share it: each takes what waits still."""
    platform = desk_company(tmp_path_factory.mktemp("desk"), 90, unattended=0.3)
    desks.people(platform)
    with desks.served(platform) as desk:
        yield desk
