"""Files brought with a browser: looked at, taken whole and once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from matching_platform_tests.browser import desks
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.watching import Watched
from matching_platform_tests.desk.companies import MONTHS, bare_platform

OWN = Path(__file__).parents[1] / "intake" / "statements"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "statements"
# Entries were taken out of these before they were published: their balances cannot hold.
INCOMPLETE = {"jejik_abnamro.sta", "jejik_ing.sta", "jejik_rabobank.sta"}
INVOICES = """Beleg;Wer;Ausgestellt;Bis;Wert;Geld
FV/1;Łódź Papier;2024-03-01;2024-03-15;1 234,56;PLN
FV/2;Brown;2024-03-02;2024-03-16;99,00;EUR
"""
COLUMNS = {
    "number": "Beleg",
    "counterparty_name": "Wer",
    "issued_on": "Ausgestellt",
    "due_on": "Bis",
    "amount": "Wert",
    "currency": "Geld",
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk that has nothing but what these tests bring."""
    platform = bare_platform(tmp_path_factory.mktemp("empty"), MONTHS)
    desks.people(platform)
    with desks.served(platform) as desk:
        yield desk


@pytest.fixture
def page(watched: Watched, empty: Desk) -> Page:
    page = watched.person(empty, "anna")
    page.goto("/imports")
    return page


def bring(page: Page, files: Sequence[Path]) -> None:
    page.set_input_files("#file", files)
    page.get_by_role("button", name="Look at them").click()


def file(page: Page, name: str) -> Locator:
    """A file that is looked at."""
    return page.locator("article.file", has=page.get_by_role("heading", name=name, exact=True))


def history(page: Page) -> Locator:
    """What was taken, a row each."""
    return page.locator("[aria-labelledby=taken-title] tbody tr")


def held(desk: Desk) -> dict[str, dict[str, str]]:
    """Tables of the warehouse, their months and what stands for their content; none before the first import."""
    warehouse = desk.platform.settings.warehouse
    return desk.platform.warehouse.months() if warehouse and warehouse.exists() else {}


def take(page: Page, name: str) -> None:
    found = file(page, name)
    if name in INCOMPLETE | {"short.sta"}:
        found.get_by_label("Take it although it does not add up").check()
    found.get_by_role("button", name="Take it").click()
    expect(page.get_by_role("status").filter(has_text=f"Taken: {name}")).to_be_visible()


def test_a_first_visit_says_what_to_do(watched: Watched, empty: Desk) -> None:
    page = watched.person(empty, "anna")
    page.goto("/")
    expect(page.locator("[aria-current=step]")).to_contain_text("Data")
    page.get_by_role("link", name="Import").last.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Import")


def test_every_sample_is_looked_at_and_taken_once(watched: Watched, empty: Desk) -> None:
    page = watched.person(empty, "bert")
    page.goto("/imports")
    shared = sorted(SHARED.iterdir()) if SHARED.is_dir() else []
    samples = [path for path in (*sorted(OWN.iterdir()), *shared) if path.suffix in (".sta", ".txt", ".xml")]
    bring(page, samples)
    names = page.locator("article.file h3")
    expect(names).to_have_text([path.name for path in samples])
    doubted = page.locator("article.file", has_text="does not add up to its own balances").locator("h3")
    assert set(doubted.all_inner_texts()) == INCOMPLETE & {path.name for path in samples}
    for path in samples:
        take(page, path.name)
    expect(history(page).filter(has_text="bert")).to_have_count(len(samples))
    months = held(empty)["transfers"]
    assert len(months) > 3
    # The very same files again.
    bring(page, samples)
    expect(names).to_have_count(len(samples))
    for path in samples:
        expect(file(page, path.name)).to_contain_text("This very file was taken already.")
    expect(page.get_by_role("button", name="Take it")).to_have_count(0)
    assert held(empty)["transfers"] == months


def test_what_does_not_add_up_is_taken_knowingly_alone(page: Page, empty: Desk, tmp_path: Path) -> None:
    statement = tmp_path / "short.sta"
    lines = (OWN / "german.sta").read_bytes().splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if line.startswith(b":61:"))
    last = next(at for at, line in enumerate(lines[first + 1 :], first + 1) if line.startswith(b":61:"))
    statement.write_bytes(b"".join(lines[:first] + lines[last:]))
    before = held(empty)
    bring(page, [statement])
    found = file(page, statement.name)
    expect(found.get_by_role("alert").first).to_contain_text("does not add up")
    found.get_by_role("button", name="Take it").click()
    # The browser asks for the tick first.
    expect(found.locator("[name=unbalanced]:invalid")).to_be_focused()
    assert held(empty) == before
    take(page, statement.name)
    expect(history(page).filter(has_text=statement.name)).to_contain_text("taken although it did not add up")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.xml", (OWN / "german_053_02.xml").read_bytes()[:1500]),
        ("picture.sta", bytes(range(256)) * 20),
        ("nothing.csv", b""),
        ("letter.csv", b"Dear all,\nplease find attached\n"),
    ],
)
def test_a_broken_file_is_one_clear_message(page: Page, empty: Desk, name: str, content: bytes) -> None:
    before = held(empty)
    page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": content})
    page.get_by_role("button", name="Look at them").click()
    found = file(page, name)
    expect(found.get_by_role("alert")).to_contain_text("cannot be taken")
    expect(found.get_by_role("button", name="Take it")).to_have_count(0)
    found.get_by_role("button", name="Put aside").click()
    expect(found).to_have_count(0)
    expect(history(page).filter(has_text=name)).to_have_count(0)
    assert held(empty) == before


def test_columns_are_mapped_once_and_remembered(page: Page, empty: Desk, tmp_path: Path) -> None:
    first, second = tmp_path / "march.csv", tmp_path / "april.csv"
    first.write_text(INVOICES)
    second.write_text(INVOICES.replace("FV/", "FV/4/").replace("2024-03", "2024-04"))
    bring(page, [first])
    found = file(page, first.name)
    expect(found.get_by_role("alert")).to_be_visible()
    found.get_by_label("This file holds").select_option("invoices")
    found.get_by_role("button", name="Look again with these columns").click()
    expect(found.locator("[name=column-issued_on]")).to_be_visible()
    for name, header in COLUMNS.items():
        found.locator(f"[name=column-{name}]").select_option(f'["{header}"]')
    found.locator("[name=constant-direction]").select_option("sale")
    found.get_by_role("button", name="Look again with these columns").click()
    expect(found.get_by_role("alert")).to_have_count(0)
    expect(found).to_contain_text("PLN 1,234.56")
    found.get_by_text("The first 2 rows").click()
    expect(found.get_by_role("group", name="The first rows")).to_contain_text("Łódź Papier")
    take(page, first.name)
    # The next month's file of the same kind.
    bring(page, [second])
    found = file(page, second.name)
    expect(found.get_by_role("button", name="Take it: 2 new rows")).to_be_visible()
    expect(found.locator("[name=column-issued_on]")).to_be_hidden()
    take(page, second.name)
    assert [*held(empty)["invoices"]] == ["2024-03", "2024-04"]


def test_a_reader_brings_nothing(watched: Watched, empty: Desk) -> None:
    page = watched.person(empty, "rita")
    page.goto("/imports")
    expect(page.get_by_role("heading", level=1)).to_have_text("Import")
    expect(page.locator("#file")).to_have_count(0)
