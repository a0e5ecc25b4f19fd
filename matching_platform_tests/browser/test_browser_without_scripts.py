"""The desk without JavaScript: forms and links do it all."""

import re

import pytest
from playwright.sync_api import Page, expect

from matching_platform.review.decisions import Action
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.keyboard import ticked
from matching_platform_tests.browser.watching import Watched, path_of
from matching_platform_tests.desk.companies import OPEN


@pytest.fixture
def page(watched: Watched, desk: Desk) -> Page:
    """Of somebody at the first transfer that waits."""
    page = watched.person(desk, "anna", scripts=False)
    page.goto(f"/months/{OPEN}")
    page.locator("[data-row]").first.click()
    return page


def test_a_review(desk: Desk, page: Page) -> None:
    made = len(desk.decisions())
    for button in ("Ask later", "Pays nothing", "Ask later"):
        before = path_of(page)
        page.get_by_role("button", name=button).click()
        assert path_of(page) != before
    page.locator("#toasts").get_by_role("button", name="Undo").click()
    assert path_of(page) == before
    actions = [one.action for one in desk.decisions()[made:]]
    assert actions == [Action.LATER, Action.NOTHING, Action.LATER, Action.WITHDRAW]


def test_other_invoices_are_searched_added_up_and_recorded(desk: Desk, page: Page) -> None:
    transfer = path_of(page)
    page.get_by_role("link", name="Change").click()
    for box in ticked(page):
        page.locator(box).uncheck()
    number = page.locator("#invoices tbody tr:not(.ticked) label").first.inner_text()
    page.locator("#search").fill(number)
    page.get_by_role("search").get_by_role("button", name="Search").click()
    expect(page.locator("#invoices tbody tr")).to_have_count(1)
    page.locator("#invoices").get_by_role("checkbox").check()
    # So little fits whatever the transfer brings, in any currency.
    page.locator("#invoices").get_by_role("textbox").fill("1")
    page.get_by_label("Note").fill("without a script")
    page.get_by_role("button", name="Add up").click()
    expect(page.locator("#sums")).to_contain_text("1 invoice:")
    expect(page.get_by_label("Note")).to_have_value("without a script")
    page.get_by_role("button", name="Record").click()
    assert page.get_by_role("alert").all_inner_texts() == []
    last = desk.decisions()[-1]
    assert (f"/cases/{last.transfer_id}", last.action, last.note) == (transfer, Action.CHANGE, "without a script")


def test_a_list_is_searched(page: Page) -> None:
    page.goto(f"/months/{OPEN}")
    payer = page.locator("[data-row]").last.inner_text()
    page.get_by_role("searchbox").fill(payer)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("[data-row]").first).to_have_text(payer, ignore_case=True)
    expect(page).to_have_url(re.compile("text="))
