"""A review with the keyboard alone, and what becomes of it."""

import re
from collections import Counter

import polars as pl
from playwright.sync_api import Page, Route, expect

from matching_platform.review.decisions import Action
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.keyboard import go, open_first, reach, ticked
from matching_platform_tests.browser.watching import Watched, path_of
from matching_platform_tests.desk.companies import MODEL, OPEN

# What is done with twenty transfers: a few of each kind, and in between what people do besides.
ROUND = ("a", "a", "change", "a", "n", "l", "a", "undo", "a", "n")
MEANING = {"a": Action.ACCEPT, "n": Action.NOTHING, "l": Action.LATER}
LONGEST = 40
# Types what to search, and ticks the first invoice before anything is asked.
SEARCH_AND_TICK = """
(text) => {
  const search = document.getElementById("search");
  search.value = text;
  search.dispatchEvent(new Event("input", { bubbles: true }));
  document.querySelector("#invoices [name=invoice]").click();
}
"""
# Searches in the very moment in which the next page has taken this one's place.
SEARCH_AT_ONCE = """
(text) => document.addEventListener("htmx:afterSwap", () => queueMicrotask(() => {
  const search = document.getElementById("text");
  search.value = text;
  search.dispatchEvent(new Event("input", { bubbles: true }));
}), { once: true })
"""


def test_twenty_transfers_without_a_mouse(watched: Watched, desk: Desk) -> None:
    page = watched.person(desk, "anna")
    open_first(page, OPEN)
    before = len(desk.decisions())
    meant: dict[str, str] = {}
    for step in ROUND * 2:
        transfer = transfer_of(page)
        if step == "change":
            change_to_another(page)
            meant[transfer] = Action.CHANGE
        elif step == "undo":
            go(page, "a")
            undo(page, transfer)
            go(page, "l")
            meant[transfer] = Action.LATER
        else:
            proposes = page.locator("table.invoices").count() > 0
            meant[transfer] = MEANING[step] if proposes or step != "a" else Action.NOTHING
            go(page, step)
        assert transfer_of(page) != transfer
    assert len(meant) == 20
    made = desk.decisions()[before:]
    assert {one.transfer_id: one.action for one in made} == meant
    assert {one.actor for one in made} == {"anna"}
    assert Counter(one.action for one in made)[Action.WITHDRAW] == 2
    # Each went to the warehouse with what was proposed, the withdrawn ones too.
    rows = desk.carried(OPEN).filter(pl.col("number") > before).sort("number")
    assert rows["number"].unique().sort().to_list() == [one.number for one in made]
    assert dict(rows.select("transfer_id", "action").rows()) == meant
    assert set(rows.filter(pl.col("action") != Action.WITHDRAW)["model"]) == {MODEL}


def test_a_list_can_be_searched_as_soon_as_it_is_there(watched: Watched, desk: Desk) -> None:
    page = watched.person(desk, "anna")
    page.goto(f"/months/{OPEN}?show=booked")
    wanted = desk.rows()[-1].transfer_id
    page.evaluate(SEARCH_AT_ONCE, wanted)
    page.get_by_role("navigation", name="Which transfers").get_by_role("link", name="Waiting").click()
    expect(page.locator("[data-row]")).to_have_count(1)
    expect(page.locator("[data-row]")).to_have_attribute("href", re.compile(wanted))


def transfer_of(page: Page) -> str:
    return path_of(page).removeprefix("/cases/")


def change_to_another(page: Page) -> None:
    """Unticks what is proposed, searches an invoice that was not, ticks a part of it, and records."""
    go(page, "c")
    search = page.locator("#search")
    expect(search).to_be_focused()
    for box in ticked(page):
        reach(page, box)
        page.keyboard.press("Space")
    expect(page.locator("#sums")).to_contain_text("Tick the invoices")
    number = page.locator("tbody tr:not(.ticked) label").first.inner_text()
    page.keyboard.press("/")
    # Letters are text here, and no keys.
    page.keyboard.type(f"{number} anlcuq")
    expect(page.locator("#invoices")).to_contain_text("No open invoice holds")
    search.press("Control+A")
    page.keyboard.type(number)
    expect(page.locator("#invoices tbody tr")).to_have_count(1)
    reach(page, "#invoices [name=invoice]")
    page.keyboard.press("Space")
    # So little fits whatever the transfer brings, in any currency.
    reach(page, "#invoices [name^=amount]")
    page.keyboard.type("1")
    expect(page.locator("#sums")).to_contain_text("1 invoice")
    reach(page, "#note")
    page.keyboard.type("told by phone")
    go(page, "Control+Enter")


def undo(page: Page, transfer: str) -> None:
    expect(page.locator("#toasts").get_by_role("button", name="Undo")).to_be_visible()
    go(page, "u")
    assert transfer_of(page) == transfer
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


def test_a_decision_is_not_lost_to_what_was_typed_before_it(watched: Watched, desk: Desk) -> None:
    """The sum is asked for a moment after the last key; by then the decision may be under way."""
    page = watched.person(desk, "anna")
    open_first(page, OPEN)
    transfer = transfer_of(page)
    go(page, "c")
    held: list[Route] = []
    page.route("**/decision*", lambda route: held.append(route))
    row = page.locator("#invoices tbody tr").first
    row.get_by_role("checkbox").check()
    row.get_by_role("textbox").fill("1")
    with page.expect_request("**/decision*"):
        page.keyboard.press("Control+Enter")
    # Pressed again, and longer than any wait of the page's own.
    page.keyboard.press("Control+Enter")
    page.evaluate("() => new Promise((done) => setTimeout(done, 600))")
    (route,) = held
    before = len(desk.decisions())
    with page.expect_response("**/decision*"):
        route.continue_()
    page.wait_for_function("() => !document.body.hasAttribute('aria-busy')")
    assert [one.transfer_id for one in desk.decisions()[before:]] == [transfer]


def test_what_is_ticked_is_not_lost_to_a_search(watched: Watched, desk: Desk) -> None:
    """Neither what is ticked before the search is sent, nor while it is under way."""
    page = watched.person(desk, "anna")
    open_first(page, OPEN)
    go(page, "c")
    for box in ticked(page):
        page.locator(box).uncheck()
    expect(page.locator("#sums")).to_contain_text("Tick the invoices")
    invoices = page.locator("#invoices")
    row = invoices.locator("tbody tr").first
    number = row.locator("label").inner_text()
    held: list[Route] = []
    page.route("**/change*", lambda route: held.append(route))
    page.evaluate(SEARCH_AND_TICK, number)
    # What is shown is about to be replaced.
    expect(invoices).to_have_attribute("inert", "")
    with page.expect_response("**/change*"):
        held[-1].continue_()
    expect(page.locator("#sums")).to_contain_text("1 invoice")
    expect(invoices).not_to_have_attribute("inert", "")
    expect(row.get_by_role("checkbox")).to_be_checked()


def test_up_and_down_a_list(watched: Watched, desk: Desk) -> None:
    page = watched.person(desk, "anna")
    page.goto(f"/months/{OPEN}")
    rows = page.locator("[data-row]")
    for key, place in [("j", 0), ("j", 1), ("j", 2), ("k", 1)]:
        page.keyboard.press(key)
        expect(rows.nth(place)).to_be_focused()
    chosen = rows.nth(1).get_attribute("href")
    go(page, "Enter")
    assert path_of(page) == chosen
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    go(page, "j")
    go(page, "k")
    assert path_of(page) == chosen
    go(page, "q")
    assert path_of(page) == f"/months/{OPEN}"
    page.go_back()
    expect(page.get_by_role("heading", name="Proposed", exact=True)).to_be_visible()
    assert path_of(page) == chosen


def test_help_says_the_keys_and_holds_them_back(watched: Watched, desk: Desk) -> None:
    page = watched.person(desk, "anna")
    open_first(page, OPEN)
    before, count = page.url, len(desk.decisions())
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keys")
    expect(help_).to_be_visible()
    expect(help_).to_contain_text("accept what is proposed")
    for key in "anlcjk":
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    assert (page.url, len(desk.decisions())) == (before, count)


def test_keys_are_text_while_one_types(watched: Watched, desk: Desk) -> None:
    page = watched.person(desk, "anna")
    page.goto(f"/months/{OPEN}")
    count = len(desk.decisions())
    page.keyboard.press("/")
    search = page.get_by_role("searchbox")
    expect(search).to_be_focused()
    page.keyboard.type("anlcjkq?")
    expect(search).to_have_value("anlcjkq?")
    expect(page.locator("#rows")).to_contain_text("Nothing here holds “anlcjkq?”.")
    page.keyboard.press("Escape")
    expect(search).not_to_be_focused()
    assert len(desk.decisions()) == count


def test_keys_can_be_switched_off(watched: Watched, desk: Desk) -> None:
    page = watched.person(desk, "anna")
    open_first(page, OPEN)
    before, count = path_of(page), len(desk.decisions())
    page.get_by_text("anna", exact=True).first.click()
    page.locator("select[name=keys]").select_option("off")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("html")).to_have_attribute("data-keys", "off")
    assert path_of(page) == before
    for key in "anlcj":
        page.keyboard.press(key)
    page.reload()
    assert (path_of(page), len(desk.decisions())) == (before, count)


def test_what_is_alike_is_accepted_at_once_and_undone_at_once(watched: Watched, desk: Desk) -> None:
    page = watched.person(desk, "bert")
    open_first(page, OPEN)
    for _ in range(LONGEST):
        others = page.locator("[data-key=m]")
        if others.count() and int(others.inner_text().split()[0]) > 1:
            break
        go(page, "j")
    go(page, "m")
    ticks = page.locator("[name=transfer]")
    asked = ticks.count()
    assert asked > 2
    # All but the last one.
    reach(page, f"[name=transfer][value='{ticks.last.get_attribute('value')}']")
    page.keyboard.press("Space")
    taken = [tick.get_attribute("value") for tick in ticks.all()[:-1]]
    before = len(desk.decisions())
    go(page, "a")
    expect(page.locator("#toasts")).to_contain_text(f"{asked - 1} transfers accepted")
    made = desk.decisions()[before:]
    assert sorted(one.transfer_id for one in made) == sorted(map(str, taken))
    assert {(one.action, one.actor) for one in made} <= {(Action.ACCEPT, "bert"), (Action.NOTHING, "bert")}
    page.keyboard.press("u")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    assert {one.action for one in desk.decisions()[before + len(made) :]} == {Action.WITHDRAW}
    assert len(desk.decisions()) == before + 2 * len(made)
