"""Every text of the desk has its Polish, with the same places for what is filled in."""

import re
from pathlib import Path
from typing import Any

import pytest
from babel import Locale
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from matching_platform import desk
from matching_platform.desk import i18n
from matching_platform.desk.rendering import environment
from matching_platform.desk.told import catalogue, told
from matching_platform.intake.incoming import IntakeError
from matching_platform.matching.evidence import TEMPLATES
from matching_platform_tests.desk.messages import said

ROOT = Path(desk.__file__).parent
METHODS = [("**/templates/**.html", "jinja2"), ("**.py", "python")]
OPTIONS = {"**/templates/**.html": {"extensions": "jinja2.ext.i18n", "trimmed": "true"}}
KEYWORDS: dict[str, Any] = {"_": None, "gettext": None, "ngettext": (1, 2), "mark": None, "_counted": (1, 2)}
# What is filled in: %(name)s in texts, {} in evidence.
PLACES = re.compile(r"%\(\w+\)s|%|\{\}")


def source() -> set[Any]:
    found = extract_from_dir(ROOT, METHODS, OPTIONS, keywords=KEYWORDS)
    messages = {message for _, _, message, _, _ in found}
    counted = {many for one in messages if isinstance(one, tuple) for many in one[1:]}
    return messages | set(TEMPLATES) - counted


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


@pytest.mark.parametrize(
    ("sentence", "language", "said"),
    [
        ("title names 1 invoices that are settled already", "en", "title names 1 invoice that is settled already"),
        ("title names 21 invoices that are settled already", "en", "title names 21 invoices that are settled already"),
        ("title names 1 invoices that are settled already", "pl", "tytuł wymienia 1 fakturę już rozliczoną"),
        ("title names 22 invoices that are settled already", "pl", "tytuł wymienia 22 faktury już rozliczone"),
        ("title names 12 invoices that are settled already", "pl", "tytuł wymienia 12 faktur już rozliczonych"),
        ("runner-up: another set of 1 invoices", "en", "runner-up: another invoice"),
        ("runner-up: another set of 2 invoices", "pl", "inna możliwość: inny zestaw, 2 faktury"),
        ("none of the 1 candidates fits well enough", "en", "the only candidate does not fit well enough"),
        ("title names 1 of the 2 invoices", "en", "title names 1 of the 2 invoices"),
    ],
)
def test_evidence_counts_as_people_do(sentence: str, language: str, said: str) -> None:
    assert i18n.evidence(sentence, language) == said


@pytest.mark.parametrize("template", TEMPLATES)
def test_one_is_not_said_as_many(template: str) -> None:
    said = i18n.evidence(template.replace("{}", "1", 1).replace("{}", "2"), "en")
    assert not re.search(r"\b1 (older |other |credit )*(invoices|sets|notes|times|candidates)\b", said)


def test_evidence_that_nobody_knows_stays_as_it_is() -> None:
    assert i18n.evidence("looked at {it} twice", "pl") == "looked at {it} twice"


# What rooms say to a person at the desk; what an operator reads at the command line stays English.
ROOMS = (
    *(f"review/{name}.py" for name in ("rules", "decider", "standing")),
    "intake",
    *(f"access/{name}.py" for name in ("access", "users", "passwords")),
    "desk/review.py",
    "desk/pages",
)
ENGLISH, POLISH = Locale.parse("en_GB"), Locale.parse("pl")


def test_what_rooms_say_has_a_translation() -> None:
    sentences = said(*ROOMS)
    assert len(sentences) > 150
    untold = {
        text: where for text, where in sentences.items() if text not in catalogue() and told(text, POLISH) == text
    }
    assert untold == {}


def test_translations_of_what_rooms_say_fill_in_what_they_are_given() -> None:
    for text, translation in catalogue().items():
        given = [f"<{place}>" for place in range(text.count("{}"))]
        filled = translation.format(*given)
        assert translation.strip(), text
        assert all(one in filled for one in given) or "{0}" in translation, text


SAID: list[tuple[str, str, str]] = [
    (
        "invoice FV/1 has 1234.50 PLN open, less than 2000.00: it is settled by transfer T1 (decided by anna, 2024-03-05 "
        "10:11 UTC), transfer T2 (tagged by finance); look at it again",
        "invoice FV/1 has PLN\xa01,234.50 open, less than 2,000.00: it is settled by transfer T1 (decided by anna, "
        "5 Mar 2024, 10:11 UTC), transfer T2 (tagged by finance); look at it again",
        "na fakturze FV/1 pozostaje 1234,50\xa0zł, mniej niż 2000,00: rozlicza ją przelew T1 (decyzja: anna, 5 mar 2024, "
        "10:11 UTC), przelew T2 (oznaczony przez księgowość); sprawdź ją ponownie",
    ),
    (
        "somebody else was faster on transfer T1: anna decided on 2024-03-05 10:11 UTC: accepted",
        "somebody else was faster on transfer T1: anna decided on 5 Mar 2024, 10:11 UTC: accepted",
        "ktoś był szybszy przy przelewie T1: anna: zaakceptowano, 5 mar 2024, 10:11 UTC",
    ),
    (
        "account PL12, 2024-03-01 to 2024-03-31, balance 1,000.00 to 2,500.00 PLN, 3 in (1,600.00 PLN), 1 out (100.00 PLN)",
        "account PL12, 1 Mar 2024 to 31 Mar 2024, balance 1,000.00 to 2,500.00 PLN, 3 in (1,600.00 PLN), 1 out (100.00 PLN)",
        "rachunek PL12, 1 mar 2024 – 31 mar 2024, saldo 1000,00 – 2500,00 PLN, wpływy: 3 (1600,00 PLN), "
        "wypływy: 1 (100,00 PLN)",
    ),
    ("'1.5' is not a date (DMY)", "'1.5' is not a date (DMY)", "„1.5” nie jest datą (DMY)"),
    ("there is no user 'x{0}'; invite him first",) * 2 + ("nie ma użytkownika „x{0}”; najpierw go zaproś",),
    ("what nobody has said, ever",) * 3,
    ("2024-13-45 to 2024-99-99", "2024-13-45 to 2024-99-99", "2024-13-45 – 2024-99-99"),
]


@pytest.mark.parametrize(("text", "english", "polish"), SAID)
def test_what_was_said_is_said_as_the_reader_writes(text: str, english: str, polish: str) -> None:
    def spaced(said: str) -> str:
        return re.sub(r"(?<=\d)[\xa0\u202f](?=\d)", "", said)

    assert spaced(told(text, ENGLISH)) == english
    assert spaced(told(text, POLISH)) == polish


def test_a_file_that_cannot_be_taken_is_told_part_by_part() -> None:
    error = IntakeError("a.csv", "'x' is not a date", "correct it, or map another column", where="row 3", field="Datum")
    assert told(error, ENGLISH) == str(error)
    assert told(error, POLISH) == "a.csv: wiersz 3, pole Datum: „x” nie jest datą; popraw to albo przypisz inną kolumnę"


@settings(deadline=None)
@given(st.text(max_size=300))
def test_whatever_is_said_can_be_told(text: str) -> None:
    assert isinstance(told(text, POLISH), str)
    assert told(f"invoice {text} stands twice in the set; give it one amount", ENGLISH)


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
