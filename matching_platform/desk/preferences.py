"""How a reader likes the desk: language, light or dark, keys. Kept in cookies of his browser."""

from dataclasses import dataclass
from typing import Final, Literal, cast

from starlette.requests import Request

from matching_platform.desk.i18n import COOKIE, LANGUAGES

Theme = Literal["auto", "light", "dark"]
# What may be chosen, by the cookie's name; the first is what holds without one.
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    COOKIE: tuple(LANGUAGES),
    "theme": ("auto", "light", "dark"),
    "keys": ("on", "off"),
}


@dataclass(frozen=True)
class Preferences:
    """`keys`: whether single keys do something."""

    theme: Theme
    keys: bool


def preferences(request: Request) -> Preferences:
    """What the reader has chosen."""
    theme = request.cookies.get("theme")
    known = cast(Theme, theme if theme in CHOICES["theme"] else CHOICES["theme"][0])
    return Preferences(known, request.cookies.get("keys") != "off")
