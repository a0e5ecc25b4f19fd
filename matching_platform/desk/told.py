"""What other rooms say in words, refusals, notes and reasons, in the reader's language with his amounts and dates.

They say it in English, once. What was said is found again among the templates of `told.po`: sentences as they stand in the
code, with `{}` for what is filled in. What is found nowhere stays as it is.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from babel import Locale
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

from matching_platform.desk import formats
from matching_platform.intake.incoming import IntakeError

_SOURCE: Final = Path(__file__).parent / "locale" / "pl" / "told.po"
_PLACE: Final = "{}"
# Numbers and days alone: in the places of templates with so few characters of their own that else anything would fit.
_NARROW: Final = r"([0-9.,: -]+)"
_WIDE: Final = "(.*?)"
_FEW: Final = 6
_NUMBER: Final = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)\.([0-9]{1,2})")
_MONEY: Final = re.compile(r"(-?[0-9]+)\.([0-9]{2}) ([A-Z]{3})")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}")
# Between members of a list, outside brackets.
_BETWEEN: Final = re.compile(r", (?![^(]*\))")
_LONGEST: Final = 2000


@dataclass(frozen=True)
class _Template:
    """How a sentence is recognised, how it is said in Polish, and which places stand in quotes, to be left as they are."""

    reading: re.Pattern[str]
    english: str
    polish: str
    quoted: tuple[bool, ...]

    @classmethod
    def of(cls, english: str, polish: str) -> "_Template":
        texts = english.split(_PLACE)
        place = _WIDE if sum(map(len, texts)) >= _FEW or "'" in english else _NARROW
        reading = re.compile(place.join(map(re.escape, texts)), re.DOTALL)
        return cls(reading, english, polish, tuple(text.endswith("'") for text in texts[:-1]))


def told(said: object, locale: Locale) -> str:
    """What was said, an error or a text, for the reader; of a file that cannot be taken, part by part."""
    if not isinstance(said, IntakeError):
        return _told(str(said), locale)
    field = said.field and f"field {said.field}"
    place = ", ".join(_told(part, locale) for part in (said.where, field) if part)
    problem = "; ".join(_told(part, locale) for part in (said.problem, said.advice) if part)
    return ": ".join(part for part in (said.source, place, problem) if part)


@lru_cache(10_000)
def _told(said: str, locale: Locale) -> str:
    return _found(said, locale) or said


def _found(said: str, locale: Locale) -> str | None:
    """What was said, where it is a sentence or a list of sentences that we know."""
    if len(said) > _LONGEST:
        return None
    members = _BETWEEN.split(said)
    if len(members) > 1:
        each = [_found(member, locale) for member in members]
        if all(each):
            return ", ".join(filter(None, each))
    for template in _templates():
        if read := template.reading.fullmatch(said):
            values = [
                _word(value, locale) if quoted else _value(value, locale)
                for value, quoted in zip(read.groups(), template.quoted, strict=True)
            ]
            text = template.polish if locale.language == "pl" else template.english
            return text.format(*values)
    return None


def _value(text: str, locale: Locale) -> str:
    """What stands in a place: a number or a day as the reader writes it, or what was said within what was said."""
    try:
        if number := _NUMBER.fullmatch(text):
            return str(format_decimal(Decimal(text.replace(",", "")), "#,##0." + "0" * len(number[1]), locale))
        if money := _MONEY.fullmatch(text):
            return formats.money(int(money[1] + money[2]), money[3], locale)
        if _DAY.fullmatch(text):
            return formats.day(date.fromisoformat(text), locale)
        if _MOMENT.fullmatch(text):
            return formats.minute(datetime.fromisoformat(text), locale)
    except ValueError:
        # Of the form of a day, and none.
        return text
    return _found(text, locale) or _word(text, locale)


def _word(text: str, locale: Locale) -> str:
    """A word of ours, such as the name of an action."""
    return _words().get(text, text) if locale.language == "pl" else text


@cache
def catalogue() -> dict[str, str]:
    """Polish by template."""
    with _SOURCE.open("rb") as source:
        return {str(one.id): str(one.string) for one in read_po(source, locale="pl") if one.id}


@cache
def _words() -> dict[str, str]:
    return {text: polish for text, polish in catalogue().items() if _PLACE not in text}


@cache
def _templates() -> list[_Template]:
    """Those that say most themselves first: others may fit the same sentence."""
    said = sorted(catalogue().items(), key=lambda one: -len(one[0].replace(_PLACE, "")))
    return [_Template.of(english, polish) for english, polish in said]
