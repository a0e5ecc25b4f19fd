"""People at a desk with a browser, whose pages are watched: nothing may fail in them unseen."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.waiting import DEADLINE

# Set in CI: what is missing is a failure there, not a reason to skip.
REQUIRED: Final = "MATCHING_PLATFORM_REQUIRE_CONTAINERS"
PHONE: Final = 360  # pixels
_SWITCHES: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
_MILLISECONDS: Final = DEADLINE * 1000
# What is reported as an error and is none: refusals, which pages show, and a search that the next one overtook.
_USUAL: Final = re.compile(
    r"Failed to load resource: the server responded with a status of 4(00|01|03|04|09|10|13|22|29)\b"
    r"|htmx:(afterRequest|sendAbort)\b"
)
_VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`against the policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""
_LANGUAGES: Final = {"en": "en-GB", "pl": "pl-PL"}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's browser; skips where it is not installed, and fails where it has to be."""
    path = shutil.which("chromium")
    if path is None:
        told = "no chromium; apt-get install -y --no-install-recommends chromium"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(told)
    expect.set_options(timeout=_MILLISECONDS)
    with sync_playwright() as driver, driver.chromium.launch(executable_path=path, args=_SWITCHES) as browser:
        yield browser


@dataclass(frozen=True)
class Watched:
    """Contexts of one browser, and what went wrong in their pages."""

    browser: Browser
    problems: list[str] = field(default_factory=list)
    _opened: list[BrowserContext] = field(default_factory=list)

    def visitor(
        self,
        desk: Desk,
        *,
        language: str = "en",
        dark: bool = False,
        width: int = 1280,
        scripts: bool = True,
        policy: bool = True,
    ) -> Page:
        """A page of somebody who has not logged in. Without `policy`, a test's own scripts may do anything."""
        context = self.browser.new_context(
            base_url=desk.url,
            locale=_LANGUAGES[language],
            timezone_id="Europe/Warsaw",
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": 800},
            java_script_enabled=scripts,
            bypass_csp=not policy,
            reduced_motion="reduce",
        )
        self._opened.append(context)
        context.set_default_timeout(_MILLISECONDS)
        context.add_init_script(_VIOLATIONS)
        context.on("console", lambda message: self._heard(message))
        context.on("weberror", lambda error: self.problems.append(f"{error.page and error.page.url}: {error.error}"))
        return context.new_page()

    def person(self, desk: Desk, name: str, **how: object) -> Page:
        """A page of somebody who has logged in."""
        page = self.visitor(desk, **how)  # type: ignore[arg-type]
        key = desk.session(name)
        page.context.add_cookies([{"name": "desk_session", "value": key, "url": desk.url}])
        return page

    def close(self) -> None:
        for context in self._opened:
            context.close()
        assert not self.problems, self.problems

    def _heard(self, message: ConsoleMessage) -> None:
        url = str(message.location.get("url", ""))
        usual = _USUAL.match(message.text) and ("/static/" not in url or message.text.startswith("htmx:"))
        if message.type in ("error", "warning") and not usual:
            self.problems.append(f"{url}: {message.text}")


def path_of(page: Page) -> str:
    """Where a page is, without its query."""
    return urlsplit(page.url).path
