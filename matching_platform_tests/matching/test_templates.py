"""Every sentence of evidence comes from a template, and says which numbers stand in it."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.ledger.reading import Ledger
from matching_platform.matching.decisions import BY_RECORD, why
from matching_platform.matching.evidence import TEMPLATES, template_of
from matching_platform.matching.matcher import Matcher


@pytest.mark.parametrize(
    ("sentence", "template", "numbers"),
    [
        ("title names the invoice", "title names the invoice", ()),
        ("title names 2 of the 13 invoices", "title names {} of the {} invoices", ("2", "13")),
        ("runner-up: settles nothing", "runner-up: settles nothing", ()),
        ("runner-up: another set of 3 invoices", "runner-up: another set of {} invoices", ("3",)),
        (why(1.1, ""), "against: bookings are made from no confidence on", ()),
        (why(0.995, ""), "against: bookings are made from a confidence of {} on only", ("0.995",)),
        (
            why(1.1, "2024-05-01 by Ewa: 3 {} slips,\nso stop"),
            "against: bookings are frozen since {}",
            ("2024-05-01 by Ewa: 3 {} slips,\nso stop",),
        ),
        ("a sentence of an older version", "a sentence of an older version", ()),
        ("title names some of the 13 invoices", "title names some of the 13 invoices", ()),
    ],
)
def test_a_sentence_is_its_template_and_its_numbers(sentence: str, template: str, numbers: tuple[str, ...]) -> None:
    assert template_of(sentence) == (template, numbers)


@given(st.sampled_from(TEMPLATES), st.lists(st.integers(-9, 10**9), min_size=2, max_size=2))
def test_templates_are_told_apart(template: str, numbers: list[int]) -> None:
    told = tuple(str(number) for number in numbers[: template.count("{}")])
    assert template_of(template.format(*told)) == (template, told)


def test_all_that_a_model_says_has_a_template(small_model: Path, small_ledger: Ledger) -> None:
    said = Matcher.load(small_model).match(small_ledger)["evidence"].explode(empty_as_null=True, keep_nulls=True)
    templates = {template_of(sentence)[0] for sentence in said.unique()}
    assert templates <= set(TEMPLATES)
    assert len(templates) > 10


def test_templates_of_the_record_speak_of_it() -> None:
    of_record = [text for text in TEMPLATES if text.startswith(BY_RECORD)]
    assert len(of_record) == 3
    assert pl.Series(TEMPLATES).is_unique().all()
