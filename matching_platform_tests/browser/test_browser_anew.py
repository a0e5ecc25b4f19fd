"""While a transfer is proposed anew, its page is there already, and decides nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest
from playwright.sync_api import expect

from matching_platform.desk.app import create_app
from matching_platform_tests.browser import desks
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.keyboard import go
from matching_platform_tests.browser.watching import Watched
from matching_platform_tests.desk.companies import OPEN, desk_company
from matching_platform_tests.desk.served import served
from matching_platform_tests.waiting import DEADLINE


@pytest.fixture
def done() -> Iterator[Event]:
    """Once it is set, all is proposed anew."""
    event = Event()
    yield event
    event.set()


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Event) -> Iterator[Desk]:
    """A desk where proposing anew takes as long as it must."""
    platform = desk_company(tmp_path, 30)
    desks.people(platform)
    app = create_app(platform)

    def wait(transfers: Sequence[str], seconds: float) -> bool:
        assert transfers
        return done.wait(DEADLINE if seconds >= 1 else 0)

    monkeypatch.setattr(app.state.review.proposer, "wait", wait)
    with served(app) as url:
        yield Desk(platform, url)


def test_a_page_is_there_before_what_is_proposed(watched: Watched, slow: Desk, done: Event) -> None:
    page = watched.person(slow, "anna")
    page.goto(f"/months/{OPEN}")
    page.keyboard.press("j")
    expect(page.locator("[data-row]").first).to_be_focused()
    page.keyboard.press("Enter")
    awaits, title = page.locator("[data-awaits]"), page.locator("#case-title")
    expect(awaits).to_contain_text("worked out anew")
    expect(title).to_be_focused()
    expect(page.get_by_role("heading", name="Proposed")).to_have_count(0)
    for key in "acnlum1":
        page.keyboard.press(key)
    done.set()
    expect(page.get_by_role("button", name="Accept")).to_be_visible()
    expect(awaits).to_have_count(0)
    expect(title).to_be_focused()
    assert slow.decisions() == []
    go(page, "l")
    assert len(slow.decisions()) == 1
