"""Two people at one desk: the second sees what the first did, and nothing that was put together is lost."""

import pytest
from playwright.sync_api import Page, expect

from matching_platform.review.decisions import Action
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.keyboard import go, open_first, reach, ticked
from matching_platform_tests.browser.watching import Watched, path_of
from matching_platform_tests.desk.companies import OPEN


@pytest.fixture
def anna(watched: Watched, desk: Desk) -> Page:
    """At the first transfer that waits."""
    page = watched.person(desk, "anna")
    open_first(page, OPEN)
    return page


@pytest.fixture
def bert(watched: Watched, desk: Desk, anna: Page) -> Page:
    """At the same one."""
    page = watched.person(desk, "bert")
    page.goto(path_of(anna))
    return page


def test_the_second_sees_what_the_first_did_and_leaves_it(desk: Desk, anna: Page, bert: Page) -> None:
    transfer = path_of(bert)
    go(anna, "n")
    bert.keyboard.press("l")
    conflict = bert.get_by_role("alert")
    expect(conflict).to_contain_text("anna decided on this transfer while you looked at it")
    expect(conflict.get_by_role("heading", level=2)).to_be_focused()
    expect(conflict).to_contain_text("pays nothing")
    made = len(desk.decisions())
    for key in "acnlu1":
        bert.keyboard.press(key)
    expect(conflict.get_by_role("heading", level=2)).to_be_focused()
    assert len(desk.decisions()) == made, "what is pressed twice replaces nothing"
    bert.get_by_role("link", name="Leave theirs").press("Enter")
    expect(bert.get_by_role("alert")).to_have_count(0)
    assert path_of(bert) not in (transfer, f"{transfer}/decision")
    assert len(desk.decisions()) == made


def test_the_second_replaces_it_and_both_stay_on_record(desk: Desk, anna: Page, bert: Page) -> None:
    transfer, made = path_of(bert).removeprefix("/cases/"), len(desk.decisions())
    go(anna, "l")
    bert.keyboard.press("n")
    expect(bert.get_by_role("alert")).to_contain_text("Yours")
    bert.get_by_role("button", name="Replace theirs by mine").press("Enter")
    expect(bert.get_by_role("alert")).to_have_count(0)
    first, second = desk.decisions()[made:]
    assert {first.transfer_id, second.transfer_id} == {transfer}
    assert (first.actor, first.action) == ("anna", Action.LATER)
    assert (second.actor, second.action, second.supersedes) == ("bert", Action.NOTHING, first.number)
    bert.goto(f"/cases/{transfer}")
    expect(bert.locator(".history strong").nth(0)).to_have_text("bert")
    expect(bert.locator(".history strong").nth(1)).to_have_text("anna")


def test_what_was_typed_is_not_lost(desk: Desk, anna: Page, bert: Page) -> None:
    transfer = path_of(bert)
    go(bert, "c")
    reach(bert, "#note")
    bert.keyboard.type("they asked for it by mail")
    for box in ticked(bert):
        bert.locator(box).uncheck()
    chosen = bert.locator("#invoices tbody tr").last
    chosen.get_by_role("checkbox").check()
    number = chosen.locator("label").inner_text()
    amount = chosen.get_by_role("textbox")
    amount.fill("0.01")
    expect(bert.locator("#sums")).to_contain_text("1 invoice")
    go(anna, "n")
    bert.keyboard.press("Control+Enter")
    yours = bert.locator(".versus > div").last
    expect(yours).to_contain_text(number)
    expect(yours).to_contain_text("0.01")
    yours.get_by_role("button", name="Replace theirs by mine").click()
    expect(bert.get_by_role("alert")).to_have_count(0)
    last = desk.decisions()[-1]
    assert (f"/cases/{last.transfer_id}", last.note) == (transfer, "they asked for it by mail")
    assert [part.amount for part in last.allocations] == [1]


def test_an_invoice_that_another_settled_is_refused_and_shown(watched: Watched, desk: Desk) -> None:
    cases = [desk.case(row.transfer_id) for row in desk.rows() if row.invoices == 1]
    first, second = next(
        (one, other)
        for one in cases
        for other in cases
        if one.row.transfer_id != other.row.transfer_id
        and (one.row.direction, one.row.currency) == (other.row.direction, other.row.currency)
        and other.row.amount >= one.row.amount == one.proposal.parts[0].invoice.open
        and one.proposal.parts[0].invoice.currency == one.row.currency
    )
    number = first.proposal.parts[0].invoice.number
    anna, bert = (watched.person(desk, name) for name in ("anna", "bert"))
    bert.goto(f"/cases/{second.row.transfer_id}/change")
    for box in ticked(bert):
        bert.locator(box).uncheck()
    bert.locator("#search").fill(number)
    found = bert.get_by_role("checkbox", name=f"Settles {number}", exact=True)
    found.check()
    expect(bert.locator("#sums")).to_contain_text("1 invoice")
    bert.get_by_label("Note").fill("mine")
    anna.goto(f"/cases/{first.row.transfer_id}")
    go(anna, "a")
    made = len(desk.decisions())
    bert.keyboard.press("Control+Enter")
    expect(bert.get_by_role("alert")).to_contain_text("Nothing was recorded.")
    expect(bert.get_by_role("alert")).to_contain_text(number)
    expect(bert.get_by_label("Note")).to_have_value("mine")
    expect(found).to_be_checked()
    assert len(desk.decisions()) == made
