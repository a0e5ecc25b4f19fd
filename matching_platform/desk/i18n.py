"""English and Polish: which the reader gets, and its translations, read from .po files when first needed."""

from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

from babel import Locale, negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations
from starlette.requests import Request

from matching_platform.matching.evidence import template_of

# Languages by their own names; the first is that of the source.
LANGUAGES: Final = {"en": "English", "pl": "Polski"}
# How amounts and dates may be written.
LOCALES: Final = ("en", "en_GB", "pl")
COOKIE: Final = "language"

_FOLDER: Final = Path(__file__).parent / "locale"
# More of a header is not read.
_HEADER: Final = 200


def mark(text: str) -> str:
    """`text` itself: marks it for translation where it is defined, long before anybody reads it."""
    return text


def _counted(one: str, many: str) -> tuple[str, str]:
    """A sentence of evidence that counts something, and how it is said of one; marks both for translation."""
    return many, one


_COUNTED: Final = dict(
    (
        _counted(
            "{} of them lies inside the range that the title gives",
            "{} of them lie inside the range that the title gives",
        ),
        _counted(
            "against: title names {} more that is left out",
            "against: title names {} more that are left out",
        ),
        _counted(
            "this payer collects for many, and {} of them bears his mark",
            "this payer collects for many, and {} of them bear his mark",
        ),
        _counted(
            "against: {} older invoice of the same amount stays open",
            "against: {} older invoices of the same amount stay open",
        ),
        _counted("{} credit note is netted in", "{} credit notes are netted in"),
        _counted("against: {} other set would fit to the cent too", "against: {} other sets would fit to the cent too"),
        _counted("title names {} invoice that is settled already", "title names {} invoices that are settled already"),
        _counted(
            "this payer's transfers settled nothing once before",
            "this payer's transfers settled nothing {} times before",
        ),
        _counted("the only candidate does not fit well enough", "none of the {} candidates fits well enough"),
        _counted("runner-up: another invoice", "runner-up: another set of {} invoices"),
        _counted(
            "against: {} of the proposed invoices is settled meanwhile",
            "against: {} of the proposed invoices are settled meanwhile",
        ),
    )
)


def locale_of(request: Request) -> Locale:
    """The reader's locale: of the language that was chosen, else of the one that the browser likes best."""
    asked = _accepted(request.headers.get("accept-language", ""))
    chosen = request.cookies.get(COOKIE)
    if chosen in LANGUAGES:
        asked = [*(one for one in asked if one.split("_")[0] == chosen), chosen]
    return Locale.parse(negotiate_locale(asked, LOCALES) or LOCALES[0])


@cache
def translations(language: str) -> NullTranslations:
    """The texts of one of LANGUAGES."""
    if language == next(iter(LANGUAGES)):
        return NullTranslations()
    compiled = BytesIO()
    with (_FOLDER / language / "desk.po").open("rb") as source:
        write_mo(compiled, read_po(source, locale=language))
    compiled.seek(0)
    return Translations(compiled)


def translator(request: Request) -> Callable[[str], str]:
    """What translates a marked text for the reader."""
    return translations(locale_of(request).language).ugettext


def evidence(said: str, language: str) -> str:
    """A statement of `matching.evidence` in `language`, its numbers in their places."""
    template, numbers = template_of(said)
    if template in _COUNTED:
        text = translations(language).ungettext(_COUNTED[template], template, int(float(numbers[0])))
    else:
        text = translations(language).ugettext(template)
    return text.format(*numbers) if numbers else text


def _accepted(header: str) -> list[str]:
    """The locales of an Accept-Language header, the most welcome first."""
    weighed = []
    for part in header[:_HEADER].split(","):
        name, _, weight = part.partition(";q=")
        try:
            weighed.append((float(weight or 1), name.strip().replace("-", "_")))
        except ValueError:
            continue
    return [name for weight, name in sorted(weighed, key=lambda one: -one[0]) if name and weight > 0]
