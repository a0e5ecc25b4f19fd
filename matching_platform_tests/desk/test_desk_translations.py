"""Every text of the desk has its Polish, with the same places for what is filled in."""

import re
from pathlib import Path
from typing import Any

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from matching_platform import desk
from matching_platform.desk import i18n
from matching_platform.desk.rendering import environment
from matching_platform.matching.evidence import TEMPLATES

ROOT = Path(desk.__file__).parent
METHODS = [("**/templates/**.html", "jinja2"), ("**.py", "python")]
OPTIONS = {"**/templates/**.html": {"extensions": "jinja2.ext.i18n", "trimmed": "true"}}
KEYWORDS: dict[str, Any] = {"_": None, "gettext": None, "ngettext": (1, 2), "mark": None}
# What is filled in: %(name)s in texts, {} in evidence.
PLACES = re.compile(r"%\(\w+\)s|%|\{\}")


def source() -> set[Any]:
    found = extract_from_dir(ROOT, METHODS, OPTIONS, keywords=KEYWORDS)
    return {message for _, _, message, _, _ in found} | set(TEMPLATES)


def polish() -> dict[Any, Any]:
    with (ROOT / "locale" / "pl" / "desk.po").open("rb") as file:
        return {message.id: message.string for message in read_po(file, locale="pl", abort_invalid=True) if message.id}


def places(text: str) -> list[str]:
    return sorted(PLACES.findall(text))


def test_every_text_has_a_translation() -> None:
    written, translated = source(), polish()
    assert len(written) > 300
    assert sorted(map(str, written - translated.keys())) == []
    assert sorted(map(str, translated.keys() - written)) == [], "these are said nowhere any more"


def test_no_translation_is_empty_and_places_agree() -> None:
    for text, translation in polish().items():
        if isinstance(text, str):
            assert translation.strip(), text
            assert places(translation) == places(text), text
            assert translation[:1].isspace() == text[:1].isspace()
        else:
            assert len(translation) == 3, text
            assert all(one.strip() for one in translation), text
            # The form for one may say it in words.
            assert {*places(text[1])} >= {*places(translation[0])} >= {*places(text[0])}
            assert [places(one) for one in translation[1:]] == [places(text[1])] * 2


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "1 faktura"), (2, "2 faktury"), (5, "5 faktur"), (12, "12 faktur"), (22, "22 faktury"), (112, "112 faktur")],
)
def test_polish_counts_as_polish_does(count: int, said: str) -> None:
    assert (
        i18n.translations("pl").ungettext("%(count)s invoice", "%(count)s invoices", count) % {"count": count} == said
    )


@pytest.mark.parametrize("template", TEMPLATES)
def test_evidence_is_said_in_polish_with_its_numbers(template: str) -> None:
    sentence = template.format(*range(11, 11 + template.count("{}")))
    assert i18n.evidence(sentence, "en") == sentence
    said = i18n.evidence(sentence, "pl")
    assert said != sentence
    assert re.findall(r"\d+", said) == re.findall(r"\d+", sentence)


def test_evidence_that_nobody_knows_stays_as_it_is() -> None:
    assert i18n.evidence("looked at {it} twice", "pl") == "looked at {it} twice"


def test_every_template_can_be_read_in_every_locale() -> None:
    for locale in i18n.LOCALES:
        made = environment(locale)
        assert all(made.get_template(name) for name in made.list_templates())


def asked(accept: str, cookie: str = "") -> Request:
    headers = [(b"accept-language", accept.encode())] + ([(b"cookie", f"language={cookie}".encode())] if cookie else [])
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("accept", "cookie", "locale"),
    [
        ("", "", "en"),
        ("pl-PL,pl;q=0.9,en;q=0.8", "", "pl"),
        ("en-GB,en;q=0.9,pl;q=0.1", "", "en_GB"),
        ("en;q=0.5, pl;q=0.6", "", "pl"),
        ("de-DE,pl;q=0.3", "", "pl"),
        ("pl;q=0,en", "", "en"),
        ("ja", "", "en"),
        ("pl", "en", "en"),
        ("en-GB,pl", "pl", "pl"),
        ("en-GB", "en", "en_GB"),
        ("pl", "de", "pl"),
        (";q=;;,q=x,\u00e4", "", "en"),
    ],
)
def test_the_reader_gets_his_language(accept: str, cookie: str, locale: str) -> None:
    assert str(i18n.locale_of(asked(accept, cookie))) == locale


@settings(deadline=None)
@given(st.text(max_size=300))
def test_no_header_breaks_the_choice(accept: str) -> None:
    request = Request({"type": "http", "headers": [(b"accept-language", accept.encode("utf-8", "replace"))]})
    assert str(i18n.locale_of(request)) in i18n.LOCALES
