"""The desk of a company with a champion: what a person corrects changes what is proposed next; and its pictures."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from matching_platform.ledger.reading import Ledger
from matching_platform.review.cases import Case
from matching_platform.review.decisions import Action
from matching_platform_tests.browser import desks
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.keyboard import go, reach, ticked
from matching_platform_tests.browser.learned import learned_company
from matching_platform_tests.browser.watching import PHONE, Watched
from matching_platform_tests.waiting import until

# Where pictures go for people to read; without it, they are taken all the same, and thrown away.
PICTURES = "MATCHING_PLATFORM_SCREENSHOTS"


@pytest.fixture(scope="module")
def learned(small_ledger: Ledger, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    platform = learned_company(tmp_path_factory.mktemp("learned"), small_ledger, small_model)
    desks.people(platform)
    with desks.served(platform) as desk:
        yield desk


@pytest.fixture
def newest(small_ledger: Ledger) -> str:
    return small_ledger.months()[-1]


@pytest.fixture
def cases(learned: Desk, newest: str) -> list[Case]:
    """What waits, and is proposed to settle something."""
    return [learned.case(row.transfer_id) for row in learned.rows(month=newest) if row.invoices]


def test_a_correction_changes_what_is_proposed_next(watched: Watched, learned: Desk, cases: list[Case]) -> None:
    # Somebody pays with one transfer what is proposed for another; the same payer, if there is one who could.
    pairs = [
        (one, other)
        for one in cases
        for other in cases
        if one is not other
        and (one.row.direction, one.row.currency) == (other.row.direction, other.row.currency)
        and len(one.proposal.parts) == 1
        and one.proposal.parts[0].invoice.currency == one.row.currency
        and other.row.amount >= one.proposal.parts[0].amount == one.proposal.parts[0].invoice.open
        and one.proposal.parts[0].invoice not in [part.invoice for part in other.proposal.parts]
    ]
    case, corrected = min(pairs, key=lambda pair: pair[0].row.payer != pair[1].row.payer)
    number = case.proposal.parts[0].invoice.number
    bert = watched.person(learned, "bert")
    bert.goto(f"/cases/{case.row.transfer_id}")
    expect(proposed(bert)).to_contain_text(number)
    anna = watched.person(learned, "anna")
    anna.goto(f"/cases/{corrected.row.transfer_id}/change")
    for box in ticked(anna):
        reach(anna, box)
        anna.keyboard.press("Space")
    anna.keyboard.press("/")
    anna.keyboard.type(number)
    tick = anna.get_by_role("checkbox", name=f"Settles {number}", exact=True)
    tick.check()
    expect(anna.locator("#sums")).to_contain_text("1 invoice")
    go(anna, "Control+Enter")
    assert learned.decisions()[-1].action is Action.CHANGE

    def again() -> str:
        bert.reload()
        return proposed(bert).inner_text()

    until(lambda: number not in again())
    until(lambda: "being proposed anew" not in (bert.reload() and bert.locator(".evidence").inner_text()))
    expect(bert.locator("article .status").first).to_have_text("waiting", ignore_case=True)
    # Undone, it is as it was.
    anna.goto(f"/cases/{corrected.row.transfer_id}")
    anna.keyboard.press("u")
    expect(anna.locator(".history > li")).to_have_count(2)
    until(lambda: number in again())


def test_a_runner_up_is_taken_by_its_number(watched: Watched, learned: Desk, cases: list[Case]) -> None:
    decided = {one.transfer_id for one in learned.decisions()}
    case = next(one for one in reversed(cases) if can_be_taken(one) and one.row.transfer_id not in decided)
    page = watched.person(learned, "anna")
    page.goto(f"/cases/{case.row.transfer_id}")
    go(page, "1")
    made = learned.decisions()[-1]
    assert (made.transfer_id, made.action) == (case.row.transfer_id, Action.CHANGE)
    wanted = {(part.invoice.invoice_id, part.amount) for part in case.runners_up[0].parts}
    assert {(part.invoice_id, part.amount) for part in made.allocations} == wanted


def worth_showing(case: Case) -> tuple[bool, ...]:
    """A proposal ahead of its runners-up, marks in the title, and some doubt."""
    ahead = all(other.share < case.row.confidence for other in case.runners_up)
    return ahead, bool(case.marks), bool(case.runners_up), len(case.proposal.parts) > 1


def can_be_taken(case: Case) -> bool:
    """Whether the first runner-up is of invoices of which enough is open still."""
    first = case.runners_up[0].parts if case.runners_up else ()
    return bool(first) and all(part.amount <= part.invoice.open for part in first)


def proposed(page: Page) -> Locator:
    """What the page of a transfer proposes."""
    return page.locator("[aria-labelledby=proposal-title]")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = Path(os.environ.get(PICTURES) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_pictures(watched: Watched, learned: Desk, cases: list[Case], newest: str, album: Path) -> None:
    shown = max(cases, key=worth_showing)
    transfer = f"/cases/{shown.row.transfer_id}"
    wanted: dict[str, tuple[str, Callable[[], Page]]] = {
        "queue": (f"/months/{newest}", lambda: watched.person(learned, "anna")),
        "case": (transfer, lambda: watched.person(learned, "anna")),
        "change": (f"{transfer}/change", lambda: watched.person(learned, "anna")),
        "phone-pl": (transfer, lambda: watched.person(learned, "anna", language="pl", dark=True, width=PHONE + 30)),
    }
    for name, (address, opened) in wanted.items():
        page = opened()
        page.goto(address)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        picture = page.screenshot(path=album / f"desk-{name}.png")
        assert len(picture) > 10_000, "an empty page is smaller"
