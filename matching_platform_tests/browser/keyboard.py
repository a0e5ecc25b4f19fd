"""Working with the keyboard alone: each step waits until the page has taken it."""

from typing import Final

from playwright.sync_api import Page, expect

_ELSEWHERE: Final = """
(path) => location.pathname !== path
  && !new URLSearchParams(location.search).has("done")
  && !document.body.hasAttribute("aria-busy")
  && !document.querySelector("[data-awaits]")
  && document.querySelector("main").contains(document.activeElement)
"""


def go(page: Page, key: str) -> None:
    """Presses a key that leads to another page."""
    path = page.evaluate("location.pathname")
    page.keyboard.press(key)
    page.wait_for_function(_ELSEWHERE, arg=path)


def reach(page: Page, selector: str) -> None:
    """Goes to a field with Tab."""
    wanted = page.locator(selector)
    expect(wanted).to_be_visible()
    for _ in range(300):
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no Tab leads to {selector}")


def open_first(page: Page, month: str) -> None:
    """From the month's list to its first transfer."""
    page.goto(f"/months/{month}")
    page.keyboard.press("j")
    expect(page.locator("[data-row]").first).to_be_focused()
    go(page, "Enter")


def ticked(page: Page) -> list[str]:
    """What is ticked of the invoices to choose from, as selectors."""
    found = page.locator("[name=invoice]:checked").evaluate_all("(boxes) => boxes.map((one) => one.id)")
    return [f"[id='{one}']" for one in found]
