"""Every page in both languages, light and dark, on a phone and for a screen reader."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from babel.messages.pofile import read_po
from playwright.sync_api import Page, expect

from matching_platform import desk as rooms
from matching_platform.access import Role
from matching_platform.review.cases import Status
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.keyboard import go, open_first
from matching_platform_tests.browser.watching import PHONE, Watched, path_of
from matching_platform_tests.desk.companies import OPEN

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
STATEMENT = Path(__file__).parents[1] / "intake" / "statements" / "german.sta"
INVOICES = b"No;Customer;Invoice date;Due;Gross;Currency\nFV/1;Brown;2024-03-01;2024-03-15;1 234,56;PLN\n"
WIDER = """() => {
  const root = document.documentElement;
  const outside = [...document.body.querySelectorAll("*")].filter((one) =>
    one.getClientRects().length && one.getBoundingClientRect().right > root.clientWidth + 1 && !one.closest(".wide"));
  return root.scrollWidth > root.clientWidth ? outside.map((one) => one.outerHTML.slice(0, 120)) : [];
}"""
# Elements whose text is data: names, titles, files, formats, what programs wrote.
TEXTS = """() => {
  const data = ".payer, .title, .code, .remittance, code, kbd, option[lang], .note, .settles, .history strong, summary";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    if (!node.parentElement.closest(`${data}, script, style`)) found.push(node.textContent);
  return [...found, ...[...document.querySelectorAll("[placeholder], [aria-label]")].flatMap((one) =>
    [one.placeholder, one.getAttribute("aria-label")])];
}"""


@pytest.fixture(scope="module")
def addresses(desk: Desk) -> dict[str, str]:
    """Every page of the desk, by name; those of admins are for adam."""
    # Of the last ones: others are decided on meanwhile.
    waiting = [row.transfer_id for row in desk.rows() if row.invoices == 1][-1]
    booked = desk.rows(Status.BOOKED)[-1].transfer_id
    key = desk.access.invite("olga", Role.READER, "adam")
    return {
        "list": f"/months/{OPEN}",
        "everything": f"/months/{OPEN}?show=all",
        "nothing found": f"/months/{OPEN}?text=zzzz",
        "transfer": f"/cases/{waiting}",
        "booked transfer": f"/cases/{booked}?show=all",
        "change": f"/cases/{waiting}/change",
        "alike": f"/cases/{waiting}/alike",
        "booked": "/booked",
        "decisions": "/decisions",
        "imports": "/imports",
        "start": "/start",
        "users": "/admin/users",
        "tokens": "/admin/tokens",
        "audit log": "/admin/audit",
        "nowhere": "/nowhere",
        "login": "/login",
        "invitation": f"/welcome?key={key}",
    }


Opener = Callable[[Page], Iterator[tuple[str, Page]]]


@pytest.fixture
def each(addresses: dict[str, str]) -> Opener:
    """Opens page after page."""

    def opened(page: Page) -> Iterator[tuple[str, Page]]:
        for name, address in addresses.items():
            if name == "login":
                page.context.clear_cookies()
            page.goto(address)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            yield name, page

    return opened


def with_files(page: Page) -> None:
    """Some decisions, and files that wait to be taken: an empty page hides what it looks like."""
    page.goto("/imports")
    files = [{"name": "invoices.csv", "mimeType": "text/csv", "buffer": INVOICES}]
    statement = {"name": "german.sta", "mimeType": "text/plain", "buffer": STATEMENT.read_bytes()}
    page.set_input_files("#file", [*files, statement])  # type: ignore[list-item]
    page.locator(".upload button").click()
    expect(page.locator("article.file")).to_have_count(2)
    page.goto(f"/months/{OPEN}")
    for _ in range(2):
        page.locator("[data-row]").first.click()
        expect(page.locator("#case-title")).to_be_visible()
        page.keyboard.press("l")
        expect(page.locator("#toasts .toast")).to_be_visible()
        page.goto(f"/months/{OPEN}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nobody_is_kept_out(watched: Watched, desk: Desk, each: Opener, dark: bool) -> None:
    page = watched.person(desk, "adam", dark=dark, policy=False)
    with_files(page)
    axe = Axe()
    told = [f"{name}: {axe.run(page, options=RULES).generate_report()}" for name, _ in each(page)]
    assert [one for one in told if "Found 0 " not in one] == []


def test_dialogs_and_menus_keep_nobody_out(watched: Watched, desk: Desk, addresses: dict[str, str]) -> None:
    page = watched.person(desk, "adam", policy=False)
    page.goto(addresses["transfer"])
    page.get_by_text("adam", exact=True).first.click()
    assert "Found 0 " in (told := Axe().run(page, options=RULES).generate_report()), told
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert "Found 0 " in (told := Axe().run(page, options=RULES).generate_report()), told


@pytest.mark.parametrize("language", ["en", "pl"])
def test_a_phone_scrolls_one_way(watched: Watched, desk: Desk, each: Opener, language: str) -> None:
    page = watched.person(desk, "adam", language=language, width=PHONE, dark=True)
    with_files(page)
    wider = {name: page.evaluate(WIDER) for name, _ in each(page)}
    assert {name: found for name, found in wider.items() if found} == {}


@pytest.mark.parametrize("language", ["en", "pl"])
def test_the_pages_are_one_row_on_a_phone(
    watched: Watched, desk: Desk, addresses: dict[str, str], language: str
) -> None:
    page = watched.person(desk, "adam", language=language, width=PHONE)
    page.goto(addresses["audit log"])
    pages = page.locator("body > header nav")
    row, last = pages.bounding_box(), pages.locator("[aria-current]").last.bounding_box()
    assert row and last
    assert row["height"] < 2 * last["height"]
    assert 0 <= last["x"] < PHONE, "where one is can be seen"


def test_dark_is_dark(watched: Watched, desk: Desk, addresses: dict[str, str]) -> None:
    page = watched.person(desk, "adam", dark=True)
    page.goto(addresses["list"])
    colour = "getComputedStyle(document.body).backgroundColor"
    assert lightness(page.evaluate(colour)) < 60
    page.get_by_text("adam", exact=True).first.click()
    page.locator("select[name=theme]").select_option("light")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert lightness(page.evaluate(colour)) > 200


def lightness(colour: str) -> float:
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / 3


def test_polish_is_all_polish(watched: Watched, desk: Desk, each: Opener) -> None:
    page = watched.person(desk, "adam", language="pl")
    with_files(page)
    english = texts_of("pl")
    left: dict[str, list[str]] = {}
    for name, _ in each(page):
        assert page.locator("html").get_attribute("lang") == "pl"
        told = {" ".join(text.split()) for text in page.evaluate(TEXTS) if text}
        left |= {name: found} if (found := sorted(told & english)) else {}
    assert left == {}


def texts_of(language: str) -> set[str]:
    """English texts of the desk that have another form in a language, and mean nothing else there."""
    with (Path(rooms.__file__).parent / "locale" / language / "desk.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    found = set()
    for message in catalog:
        with suppress(AttributeError):
            if message.id and message.id != message.string:
                found.add(" ".join(message.id.split()))
    return found - {message.string for message in catalog if isinstance(message.string, str)}


def test_amounts_and_dates_are_the_readers(watched: Watched, desk: Desk, addresses: dict[str, str]) -> None:
    english, polish = (watched.person(desk, "anna", language=one) for one in ("en", "pl"))
    for page in (english, polish):
        page.goto(addresses["list"])
    expect(english.get_by_role("heading", level=1)).to_have_text("March 2024")
    expect(polish.get_by_role("heading", level=1)).to_have_text("marzec 2024")
    first = [page.locator("tbody td.amount").first.inner_text().splitlines()[0] for page in (english, polish)]
    assert re.search(r"\d[,.]\d", first[0])
    assert re.fullmatch(r"−?\d{1,3}(\s\d{3})*,\d\d\s\S+", first[1].strip()), first
    assert re.sub(r"\D", "", first[0]) == re.sub(r"\D", "", first[1])
    for page in (english, polish):
        open_first(page, OPEN)
        transfer = path_of(page)
        go(page, "l")
        page.goto(transfer)
        told = page.locator(".history time").first
        expect(told).to_have_text(re.compile(r"^\d{1,2} \S{3} \d{4}, \d{2}:\d{2}$"))
    polish.goto(addresses["list"])
    polish.get_by_text("anna", exact=True).first.click()
    polish.locator("select[name=language]").select_option("en")
    polish.locator("select[name=language]").locator("xpath=ancestor::form//button").click()
    expect(polish.get_by_role("heading", level=1)).to_have_text("March 2024")
