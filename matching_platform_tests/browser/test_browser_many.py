"""Ten thousand transfers that wait, in a browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from matching_platform_tests.browser import desks
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.keyboard import go
from matching_platform_tests.browser.watching import Watched
from matching_platform_tests.desk.companies import OPEN, desk_company

MANY = 10_000
# Far more than a page takes, so that a busy machine fails nothing.
SECONDS = 10.0


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    platform = desk_company(tmp_path_factory.mktemp("busy"), 24_000, unattended=0.0, months=(OPEN,))
    desks.people(platform)
    with desks.served(platform) as desk:
        yield desk


def test_ten_thousand_wait_and_each_is_found(watched: Watched, busy: Desk) -> None:
    rows = busy.rows()
    assert len(rows) == 1000, "as many as a page may have"
    page = watched.person(busy, "anna")
    page.goto(f"/months/{OPEN}")
    tab = page.get_by_role("navigation", name="Which transfers").locator("[aria-current]")
    waiting = int(tab.locator(".number").inner_text().replace(",", ""))
    assert waiting >= MANY
    listed = page.locator("[data-row]")
    expect(listed).to_have_count(50)
    first = listed.first.get_attribute("href")
    page.get_by_role("link", name="Next page").click()
    expect(page.locator(".pages")).to_contain_text("Page 2 of")
    second = listed.first.get_attribute("href")
    assert [first, second] == [f"/cases/{rows[at].transfer_id}" for at in (0, 50)]
    # One of the last is found by its title, as it is typed.
    wanted = rows[-1]
    page.keyboard.press("/")
    page.keyboard.type(wanted.transfer_id)
    expect(listed).to_have_count(1)
    assert listed.first.get_attribute("href") == f"/cases/{wanted.transfer_id}?text={wanted.transfer_id}"
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    go(page, "Enter")
    expect(page.locator("#case-title")).to_be_visible()
    went = page.evaluate("performance.getEntriesByType('resource').map((one) => one.duration)")
    assert max(went) < SECONDS * 1000
