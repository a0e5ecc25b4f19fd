"""Figures of what was booked, on tags that arrive late, are incomplete or wrong, or say that nothing was paid."""

from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import INVOICES, MATCHES, PROPOSALS, TRANSFERS
from matching_platform.monitoring.realised import BOOKINGS, Realised, _by_currency, realised_quality, refuted

Pair = tuple[str, str | None]
Tag = tuple[str, str | None, int]

MODEL = "m"


def proposals(rows: list[tuple[str, str | None, str]]) -> pl.DataFrame:
    filled = [(transfer, invoice, invoice and 100, 0.9, decision, []) for transfer, invoice, decision in rows]
    return pl.DataFrame(filled, schema=PROPOSALS, orient="row").with_columns(model=pl.lit(MODEL))


def ledger(rows: list[Tag]) -> Ledger:
    """T1… each brought 1.00 and I1… each are worth 1.00, of the customers C0 and C1; the even ones are in PLN."""
    numbers = range(1, 11)
    day, parties = date(2024, 7, 1), {"counterparty_tax_id": None, "counterparty_account": None, "reference": None}
    invoices = [
        {"invoice_id": f"I{i}", "number": f"{i}", "direction": "sale", "counterparty_id": f"C{i % 2}"}
        | {
            "counterparty_name": f"C{i % 2}",
            "issued_on": day,
            "due_on": day,
            "amount": 100,
            "currency": "EUR",
            **parties,
        }
        for i in numbers
    ]
    transfers = [
        {
            "transfer_id": f"T{i}",
            "booked_on": day,
            "amount": 100,
            "currency": "EUR" if i % 2 else "PLN",
            "direction": "in",
        }
        | {"counterparty_name": f"PAYER {i}", "counterparty_account": None, "title": ""}
        for i in numbers
    ]
    matches = [(transfer, invoice, invoice and amount, date(2024, 7, 9)) for transfer, invoice, amount in rows]
    return Ledger(
        pl.DataFrame(invoices, schema=INVOICES.schema),
        pl.DataFrame(transfers, schema=TRANSFERS.schema),
        pl.DataFrame(matches, schema=MATCHES.schema, orient="row"),
    )


def realised(tagged: list[Pair], proposed: pl.DataFrame | None = None) -> Realised:
    tags = ledger([(transfer, invoice, 100) for transfer, invoice in tagged])
    return realised_quality(PROPOSED if proposed is None else proposed, tags)


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
            {"transfers": 5, "tagged": 0, "share_tagged": 0, "share_auto": 0.6, "share_review": 0.2, "share_none": 0.2}
            | {"auto_untagged": 1, "bookings": 3, "wrong": 0},
        ),
        ([("T1", "I1")], {"tagged": 1, "exact_auto": 1, "straight_through": 1, "exact_auto_high": 1, "wrong": 0}),
        ([("T1", "I9"), ("T3", "I4")], {"exact": 0.5, "exact_auto": 0, "exact_review": 1, "straight_through": 0.5}),
        ([("T2", "I2")], {"exact_auto": 0, "wrong": 1, "auto_untagged": 2 / 3}),
        ([("T2", "I3"), ("T2", "I2"), ("T5", None)], {"tagged": 2, "exact_auto": 0.5, "straight_through": 1}),
        ([("T4", None)], {"exact_none": 1, "exact": 1}),
        ([("T4", "I7"), ("T6", "I8")], {"tagged": 1, "exact_none": 0, "straight_through": 0}),
        # I1 cannot be paid twice: one of both tags is wrong, and neither judges.
        (
            [("T1", "I1"), ("T6", "I1"), ("T5", "I5")],
            {"tagged": 2, "judged": 1, "refuted": 1, "exact_auto": 1, "auto_precision": 1, "wrong": 0},
        ),
        (
            [("T1", "I9"), ("T6", "I9"), ("T5", "I5")],
            {"judged": 1, "refuted": 1, "exact_auto": 1, "auto_precision": 0.5, "wrong": 0},
        ),
    ],
)
def test_figures(tagged: list[Pair], expected: dict[str, float]) -> None:
    figures = realised(tagged).figures
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_a_figure_of_nothing_is_absent() -> None:
    assert "exact_auto" not in realised([("T3", "I4")]).figures
    nothing = realised([], PROPOSED.clear())
    assert set(nothing.figures.values()) == {0.0}
    assert nothing.shares.is_empty()
    assert nothing.bookings.schema == BOOKINGS


def test_the_interval_is_clopper_and_pearsons() -> None:
    figures = realised([("T1", "I1"), ("T5", "I5")]).figures
    # Where all are right, the lower end is the n-th root of half of what lies outside the interval.
    assert figures["exact_auto_low"] == pytest.approx(0.025 ** (1 / 2))
    assert figures["exact_auto_high"] == 1


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        pytest.param([("T1", "I1", 100), ("T2", None, 0)], [], id="nothing speaks against them"),
        pytest.param([("T1", "I1", 60), ("T2", "I1", 40)], [], id="two parts of one"),
        pytest.param([("T1", "I1", 60), ("T2", "I1", 41)], [], id="rounding"),
        pytest.param([("T1", "I1", 60), ("T2", "I1", 50)], ["T1", "T2"], id="more than it is worth, together"),
        pytest.param([("T1", "I1", 150)], ["T1"], id="more than it is worth"),
        pytest.param([("T1", "I1", -50)], ["T1"], id="of the other sign"),
        pytest.param([("T1", "I1", 50), ("T1", "I2", 150)], ["T1"], id="half of a transfer"),
    ],
)
def test_the_books_refute_a_tag(tags: list[Tag], expected: list[str]) -> None:
    assert refuted(ledger(tags)).to_list() == expected


def test_errors_by_kind_payer_and_currency() -> None:
    booked = [
        ("T1", "I1", "auto"),
        ("T2", "I2", "auto"),
        ("T3", "I3", "auto"),
        ("T4", "I4", "auto"),
        ("T5", "I5", "auto"),
    ]
    told = realised([("T1", "I7"), ("T2", "I2"), ("T3", "I9"), ("T4", None)], proposals(booked))
    by_kind = {kind: (bookings, wrong) for kind, bookings, wrong, *_ in told.by_kind.iter_rows()}
    assert by_kind == {
        "single": (3, 2),
        "foreign currency": (1, 0),
        "no reference in the title": (3, 2),
        "payer under another name": (3, 2),
        "pays nothing": (1, 1),
    }
    # Where all are wrong, the higher end is one minus the n-th root of half of what lies outside the interval.
    assert told.by_payer.rows() == [
        ("C1", "EUR", 2, 2, 0, 0, pytest.approx(1 - 0.025 ** (1 / 2)), 200),
        ("PAYER 4", "PLN", 1, 1, 0, 0, pytest.approx(0.975), 100),
    ]
    # Of two, both wrong, others would be as wrong; of two, one wrong, others may be both or none.
    assert told.by_currency.rows() == [
        ("EUR", 3, 300, 100, pytest.approx(1 / 3), 2, 200, 200, 200),
        ("PLN", 2, 200, 0, 0, 1, 100, 0, 200),
    ]


@pytest.mark.parametrize("tagged", [[], [("T1", "I1")]], ids=["nothing judged", "nothing wrong"])
def test_where_nothing_was_wrong_no_payer_is_named_and_no_money_lost(tagged: list[Pair]) -> None:
    told = realised(tagged)
    assert told.by_payer.is_empty()
    lost = told.by_currency.select("wrong_amount", "wrong_amount_low", "wrong_amount_high")
    assert set(lost.rows()) == {(0, 0, 0)}
    assert told.by_currency.schema == realised([("T1", "I9")]).by_currency.schema
    assert told.by_payer.schema == realised([("T1", "I9")]).by_payer.schema


@pytest.mark.parametrize(("wrong", "of"), [(1, 40), (20, 40), (39, 40)])
def test_the_interval_of_money_is_about_as_wide_as_that_of_the_share(wrong: int, of: int) -> None:
    """Amounts of one size: the bootstrap's ends are a binomial's."""
    bookings = pl.DataFrame(
        {
            "transfer_id": [f"T{number:02d}" for number in range(of)],
            "amount": 100,
            "currency": "EUR",
            "tagged": True,
            "judged": True,
            "exact": [number >= wrong for number in range(of)],
        }
    )
    (row,) = _by_currency(bookings).rows(named=True)
    ends = [100 * binom.ppf(tail, of, wrong / of) for tail in (0.025, 0.975)]
    assert [row["wrong_amount_low"], row["wrong_amount_high"]] == pytest.approx(ends, abs=100)
    assert row["wrong_amount_low"] <= row["wrong_amount"] <= row["wrong_amount_high"]
    assert _by_currency(bookings.sample(fraction=1, shuffle=True, seed=1)).rows(named=True) == [row]


def test_a_row_of_bookings_is_a_booking() -> None:
    told = realised([("T1", "I1"), ("T2", "I2"), ("T3", "I4")])
    assert told.bookings.rows() == [("T1", MODEL, 0.9, True), ("T2", MODEL, 0.9, False), ("T5", MODEL, 0.9, None)]


@settings(max_examples=10, deadline=None)
@given(st.permutations([("T1", "I1"), ("T2", "I2"), ("T3", "I4"), ("T4", None), ("T5", "I5")]), st.integers(0, 5))
def test_late_tags_only_add_to_what_is_judged(order: list[Pair], known: int) -> None:
    """Whatever the order in which right tags come, what is judged grows, and ends the same."""
    early, late = realised(order[:known]), realised(order)
    assert early.counts["judged"] == known
    assert late.counts["judged"] == 5
    before = early.bookings.drop_nulls("exact")
    assert before.join(late.bookings, on=["transfer_id", "exact"], how="anti").is_empty()
    assert late.figures == realised(sorted(order)).figures
