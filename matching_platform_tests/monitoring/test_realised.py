"""Figures of what was booked, on tags that arrive late, are incomplete, or say that nothing was paid."""

from datetime import date

import polars as pl
import pytest

from matching_platform.ledger.schema import MATCHES, PROPOSALS
from matching_platform.monitoring.realised import realised_quality

Pair = tuple[str, str | None]


def proposals(rows: list[tuple[str, str | None, str]]) -> pl.DataFrame:
    filled = [(transfer, invoice, invoice and 100, 0.9, decision, []) for transfer, invoice, decision in rows]
    return pl.DataFrame(filled, schema=PROPOSALS, orient="row")


def tags(rows: list[Pair]) -> pl.DataFrame:
    filled = [(transfer, invoice, invoice and 100, date(2024, 7, 9)) for transfer, invoice in rows]
    return pl.DataFrame(filled, schema=MATCHES.schema, orient="row")


PROPOSED = proposals(
    [
        ("T1", "I1", "auto"),
        ("T2", "I2", "auto"),
        ("T2", "I3", "auto"),
        ("T3", "I4", "review"),
        ("T4", None, "none"),
        ("T5", "I5", "auto"),
    ]
)


@pytest.mark.parametrize(
    ("tagged", "expected"),
    [
        (
            [],
            {"transfers": 5, "tagged": 0, "share_tagged": 0, "share_auto": 0.6, "share_review": 0.2, "share_none": 0.2},
        ),
        ([("T1", "I1")], {"tagged": 1, "exact_auto": 1, "straight_through": 1, "auto_precision_high": 1}),
        ([("T1", "I9"), ("T3", "I4")], {"exact": 0.5, "exact_auto": 0, "exact_review": 1, "straight_through": 0.5}),
        ([("T2", "I2")], {"exact_auto": 0}),
        ([("T2", "I3"), ("T2", "I2"), ("T5", None)], {"tagged": 2, "exact_auto": 0.5, "straight_through": 1}),
        ([("T4", None)], {"exact_none": 1, "exact": 1}),
        ([("T4", "I7"), ("T99", "I8")], {"tagged": 1, "exact_none": 0, "straight_through": 0}),
    ],
)
def test_figures(tagged: list[Pair], expected: dict[str, float]) -> None:
    figures = realised_quality(PROPOSED, tags(tagged))
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_a_figure_of_nothing_is_absent() -> None:
    assert "exact_auto" not in realised_quality(PROPOSED, tags([("T3", "I4")]))
    assert realised_quality(PROPOSED.clear(), tags([])) == {"transfers": 0.0, "tagged": 0.0}


def test_the_interval_is_clopper_and_pearsons() -> None:
    many = proposals([(f"T{i}", f"I{i}", "auto") for i in range(200)])
    figures = realised_quality(many, tags([(f"T{i}", f"I{i}") for i in range(200)]))
    # Where all are right, the lower end is the n-th root of half of what lies outside the interval.
    assert figures["auto_precision_low"] == pytest.approx(0.025 ** (1 / 200))
    assert figures["auto_precision_high"] == 1
