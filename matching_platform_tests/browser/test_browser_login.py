"""Who gets in, and who does not: in a browser, as people see it."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from matching_platform.access import Access, Role
from matching_platform.access.access import INVITATION, utc_now
from matching_platform_tests.access.people import PASSWORD
from matching_platform_tests.browser import desks
from matching_platform_tests.browser.desks import Desk
from matching_platform_tests.browser.watching import Watched, path_of
from matching_platform_tests.desk.companies import MONTHS, OPEN, bare_platform


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Log in").click()


def test_a_login_leads_where_one_wanted_to_go(watched: Watched, desk: Desk) -> None:
    page = watched.visitor(desk)
    page.goto("/decisions?text=abc")
    assert path_of(page) == "/login"
    expect(page.get_by_label("Name")).to_be_focused()
    log_in(page, "anna")
    expect(page.get_by_role("heading", level=1)).to_have_text("Decisions")
    expect(page.get_by_role("searchbox")).to_have_value("abc")
    (cookie,) = page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("desk_session", True, "Lax")
    page.goto("/login?next=//elsewhere.example")
    assert page.url.startswith(desk.url)


@pytest.mark.parametrize(("name", "password"), [("anna", "a wrong one entirely"), ("nobody", PASSWORD)])
def test_what_is_wrong_is_not_told(watched: Watched, desk: Desk, name: str, password: str) -> None:
    page = watched.visitor(desk)
    page.goto("/login?next=/booked")
    log_in(page, name, password)
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    expect(page.get_by_label("Name")).to_have_value(name)
    expect(page.get_by_label("Password", exact=True)).to_have_value("")
    log_in(page, "bert")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Booked unattended")


def test_where_nobody_can_log_in_it_is_said_how_to_begin(watched: Watched, tmp_path: Path) -> None:
    with desks.served(bare_platform(tmp_path, MONTHS)) as empty:
        page = watched.visitor(empty)
        page.goto("/login")
        first = page.locator("#first-admin")
        expect(first).to_contain_text("matching-platform users invite NAME --role admin")
        expect(first).to_contain_text("matching-platform users link NAME")
        assert first.evaluate("(box) => box.scrollWidth <= box.clientWidth"), "all of it stands in its box"


def test_guessing_is_slowed_down(watched: Watched, desk: Desk) -> None:
    page = watched.visitor(desk)
    page.goto("/login")
    for _ in range(5):
        log_in(page, "guessed", "a wrong one entirely")
        expect(page.get_by_role("alert")).to_be_visible()
    log_in(page, "guessed", "a wrong one entirely")
    expect(page.get_by_role("alert")).to_have_text(re.compile(r"^Too many failed logins. Try again in \d+ seconds?.$"))


def test_an_invitation_works_once(watched: Watched, desk: Desk) -> None:
    link = f"/welcome?key={desk.access.invite('ines', Role.READER, 'adam')}"
    page = watched.visitor(desk)
    page.goto(link)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password once more").fill(f"{PASSWORD}!")
    page.get_by_role("button", name="Save").last.click()
    expect(page.get_by_role("alert")).to_have_text("The two passwords differ; type both again.")
    for label in ("Password", "Password once more"):
        page.get_by_label(label, exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Save").last.click()
    log_in(page, "ines")
    expect(page.get_by_role("heading", level=1)).to_have_text("March 2024")
    page.goto(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("This link is not good any more")


def test_an_invitation_expires(watched: Watched, desk: Desk) -> None:
    then = utc_now() - INVITATION - timedelta(minutes=1)
    key = Access(desk.platform.database, clock=lambda: then).invite("late", Role.READER, "adam")
    page = watched.visitor(desk)
    page.goto(f"/welcome?key={key}")
    expect(page.get_by_role("heading", level=1)).to_have_text("This link is not good any more")


def test_a_reader_decides_nothing(watched: Watched, desk: Desk) -> None:
    page, made = watched.person(desk, "rita"), len(desk.decisions())
    page.goto(f"/months/{OPEN}")
    page.locator("[data-row]").first.click()
    expect(page.get_by_role("heading", name="Proposed", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Accept")).to_have_count(0)
    before = page.url
    page.keyboard.press("a")
    page.keyboard.press("c")
    assert page.url == before
    # Nor by a form of his own.
    page.evaluate(
        """() => {
          const form = document.createElement("form");
          Object.assign(form, { method: "post", action: `${location.pathname}/decision` });
          const token = document.querySelector("[name=csrf_token]").cloneNode();
          const action = Object.assign(document.createElement("input"), { name: "action", value: "nothing" });
          const expected = Object.assign(document.createElement("input"), { name: "expected", value: "0" });
          form.append(token, action, expected);
          document.body.append(form);
          form.submit();
        }"""
    )
    expect(page.get_by_role("heading", level=1)).to_have_text("You may not do that")
    assert len(desk.decisions()) == made


def test_another_site_decides_nothing(watched: Watched, desk: Desk) -> None:
    page, made = watched.person(desk, "anna"), len(desk.decisions())
    page.goto(f"/months/{OPEN}")
    case = page.locator("[data-row]").first.get_attribute("href")
    # Localhost is the same machine, but not the origin of the desk.
    evil = desk.url.replace("127.0.0.1", "localhost") + "/evil"
    form = f"""<form method="post" action="{desk.url}{case}/decision"><input name="action" value="nothing">
    <input name="expected" value="0"><button>Win</button></form>"""
    page.route(evil, lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto(evil)
    page.get_by_role("button", name="Win").click()
    page.wait_for_url(f"{desk.url}{case}/decision*")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert len(desk.decisions()) == made


def test_a_session_ends_with_the_logout(watched: Watched, desk: Desk) -> None:
    page = watched.person(desk, "anna")
    page.goto(f"/months/{OPEN}")
    page.get_by_text("anna", exact=True).click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    page.goto("/booked")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
