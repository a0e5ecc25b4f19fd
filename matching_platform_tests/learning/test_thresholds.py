"""Thresholds tried on past months: counted by hand, and what must hold whatever was proposed."""

from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from matching_platform.learning import threshold_text as text
from matching_platform.learning.thresholds import Past, interval, judge, least_bookings, one_more_nine
from matching_platform.learning.yardstick import curve, straight_through
from matching_platform.ledger.schema import AUDIT, INVOICES, PROPOSALS, TRANSFERS

Pairs = list[tuple[str | None, int | None]]
NOTHING: Pairs = [(None, None)]

# One transfer a month from May on; invoices that begin with p are in zloty.
MONTHS = {"a": 5, "b": 5, "c": 6, "d": 6, "e": 7}
DAY = date(2024, 1, 1)


def proposals(**transfers: tuple[float, str, Pairs]) -> pl.DataFrame:
    rows = [
        (name, *pair, confidence, decision, [])
        for name, (confidence, decision, pairs) in transfers.items()
        for pair in pairs
    ]
    return pl.DataFrame(rows, schema=PROPOSALS, orient="row")


def truth(**transfers: Pairs) -> pl.DataFrame:
    rows = [(name, *pair) for name, pairs in transfers.items() for pair in pairs]
    return pl.DataFrame(rows, schema=AUDIT.schema, orient="row")


PROPOSED = proposals(
    a=(0.99, "auto", [("e1", 100_00)]),
    b=(0.9, "review", [("e2", 50_00), ("p1", 30_00)]),
    c=(0.9, "auto", [("p2", -20_00), ("p3", 70_00)]),
    d=(0.95, "none", NOTHING),
    e=(0.4, "review", [("e3", 10_00)]),
    untagged=(0.999, "auto", [("e9", 900_00)]),
)
TRUTH = truth(
    a=[("e1", 98_00)],
    b=[("e2", 50_00), ("p4", 30_00)],
    c=[("p2", -20_00), ("p3", 70_00)],
    d=[("e4", 40_00)],
    e=NOTHING,
    never_proposed=[("e5", 1_00)],
)
TRANSFERS_OF = pl.DataFrame(
    [(name, date(2024, month, 9), 1, "EUR", "in", "X", None, "") for name, month in {**MONTHS, "untagged": 7}.items()],
    schema=TRANSFERS.schema,
    orient="row",
)
INVOICES_OF = pl.DataFrame(
    [
        (name, name, "sale", "X", "X", None, None, DAY, DAY, 1, {"e": "EUR", "p": "PLN"}[name[0]], None)
        for name in ("e1", "e2", "e3", "e4", "e5", "e9", "p1", "p2", "p3", "p4")
    ],
    schema=INVOICES.schema,
    orient="row",
)


@pytest.fixture(scope="module")
def past() -> Past:
    return judge(PROPOSED, TRUTH, TRANSFERS_OF, INVOICES_OF)


def rows(frame: pl.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return frame.select(columns).rows()


def test_each_threshold_is_counted(past: Past) -> None:
    found = past.at([0.999, 0.9, 0.0, 0.9])
    # Settling nothing is never booked, a lowered decision counts by its confidence, the untagged one does not count.
    assert rows(found, "threshold", "booked", "errors") == [(0.0, 4, 2), (0.9, 3, 1), (0.999, 0, 0)]
    assert found["share"].to_list() == pytest.approx([3 / 4, 3 / 4, 0])
    assert found["money_share"].to_list() == pytest.approx([268 / 308, 268 / 308, 0])
    assert found["precision"].to_list() == [0.5, pytest.approx(2 / 3), None]
    assert found["high"].to_list()[2] is None


def test_money_is_told_by_currency(past: Past) -> None:
    found = past.at_risk([0.9, 0.95])
    assert rows(found.filter(currency="EUR"), "threshold", "booked", "wrong", "expected") == [
        (0.9, 150_00, 2_00, 1_00 + 5_00),
        (0.95, 100_00, 2_00, 1_00),
    ]
    assert rows(found.filter(currency="PLN"), "threshold", "booked", "wrong", "expected") == [
        (0.9, 120_00, 30_00, 12_00),
        (0.95, 0, 0, 0),
    ]
    assert past.currencies == ["EUR", "PLN"] or past.currencies == ["PLN", "EUR"]


def test_months_add_up_to_the_whole(past: Past) -> None:
    monthly, whole = past.by_month([0.5]), past.at([0.5])
    assert rows(monthly, "month", "booked", "errors") == [("2024-05", 2, 1), ("2024-06", 1, 0), ("2024-07", 0, 0)]
    assert monthly["booked"].sum() == whole["booked"].item()
    assert rows(past.at_risk([0.5], "month").filter(month="2024-06"), "currency", "wrong") == [("PLN", 0)]
    assert rows(past.months, "month", "proposed", "tagged") == [
        ("2024-05", 2, 2),
        ("2024-06", 2, 2),
        ("2024-07", 2, 1),
    ]


def test_without_tables_months_and_currencies_are_unknown() -> None:
    bare = judge(PROPOSED, TRUTH)
    assert bare.currencies == [None]
    assert rows(bare.at_risk([0.9]), "currency", "booked") == [(None, 270_00)]
    assert rows(bare.by_month([0.9]), "month", "booked") == [(None, 3)]
    assert rows(bare.months, "month", "proposed", "tagged") == [(None, 6, 5)]


def test_nothing_tagged_is_refused() -> None:
    with pytest.raises(ValueError, match="tagged"):
        judge(PROPOSED, truth(other=NOTHING))


def test_where_nothing_is_booked_nothing_is_at_risk() -> None:
    none = judge(proposals(a=(0.9, "none", NOTHING)), TRUTH)
    assert rows(none.at([0.5]), "booked", "share", "precision") == [(0, 0.0, None)]
    assert none.at_risk([0.5]).is_empty()
    assert (none.keeps(0.9).threshold, none.keeps(0.9).seen) == (None, None)


@pytest.mark.parametrize(("right", "count"), [(0, 0), (0, 5), (5, 5), (3, 7), (9_950, 10_000)])
def test_the_interval_is_that_of_clopper_and_pearson(right: int, count: int) -> None:
    low, high = interval(pl.Series([right]).to_numpy(), pl.Series([count]).to_numpy())
    theirs = binomtest(right, count).proportion_ci(method="exact") if count else None
    expected = (theirs.low, theirs.high) if theirs else (0, 1)
    assert (low[0], high[0]) == pytest.approx(expected)


def many(*groups: tuple[float, int, int]) -> Past:
    """Groups of transfers of one confidence: so many, and so many of them wrong."""
    outcomes = pl.concat(
        pl.DataFrame({"exact": [False] * wrong + [True] * (count - wrong)}).with_columns(confidence=pl.lit(confidence))
        for confidence, count, wrong in groups
    ).with_columns(
        month=pl.lit(None, pl.String), booked=pl.lit(value=True), paying=pl.lit(value=True), true_amount=pl.lit(100)
    )
    money = outcomes.select(
        "month", "confidence", currency=pl.lit("EUR"), booked=pl.lit(100), wrong=pl.lit(0), expected=pl.lit(0.0)
    )
    months = pl.DataFrame({"month": [None], "proposed": [outcomes.height], "tagged": [outcomes.height]})
    return Past(outcomes, money, months)


@pytest.mark.parametrize(
    ("groups", "promised", "threshold", "seen"),
    [
        pytest.param([(0.99, 2000, 0), (0.9, 1000, 100)], 0.995, 0.99, 0.99, id="what is sure holds"),
        pytest.param([(0.99, 2000, 0), (0.9, 500, 13)], 0.995, 0.99, 0.99, id="13 in 2500 are too many"),
        pytest.param([(0.99, 2000, 0), (0.9, 500, 12)], 0.995, 0.99, 0.9, id="12 seem well, by luck perhaps"),
        pytest.param([(0.99, 2000, 0), (0.9, 500, 5)], 0.995, 0.9, 0.9, id="5 are few enough"),
        pytest.param([(0.99, 100, 0)], 0.995, None, 0.99, id="too few to tell"),
        pytest.param([(0.99, 100, 10)], 0.995, None, None, id="never right enough"),
    ],
)
def test_where_a_promise_is_kept(
    groups: list[tuple[float, int, int]], promised: float, threshold: float | None, seen: float | None
) -> None:
    kept = many(*groups).keeps(promised)
    assert (kept.threshold, kept.seen) == (threshold, seen)


def test_what_one_more_nine_needs() -> None:
    assert one_more_nine(0.995) == 0.9995
    assert one_more_nine(0.99) == 0.999
    # So many without an error have an interval that begins at the promise.
    for promised in (0.9, 0.995, 0.999):
        least = least_bookings(promised)
        low, _ = interval(pl.Series([least - 1, least]).to_numpy(), pl.Series([least - 1, least]).to_numpy())
        assert low[0] < promised <= low[1]


TRANSFER = st.tuples(
    st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0]),
    st.booleans(),  # a set is proposed
    st.booleans(),  # the right one
    st.booleans(),  # it pays something
)


@st.composite
def judged(draw: st.DrawFn) -> Past:
    found = draw(st.lists(TRANSFER, min_size=1, max_size=40))
    proposed, true = {}, {}
    for at, (confidence, books, right, paying) in enumerate(found):
        mine = (f"e{at}" if right else f"f{at}", 100 + at)
        proposed[f"t{at}"] = (confidence, "auto" if books else "none", [mine] if books else NOTHING)
        true[f"t{at}"] = [(f"e{at}", 100 + at)] if paying else NOTHING
    return judge(proposals(**proposed), truth(**true))


few = settings(max_examples=30, deadline=None)
LEVELS = [0.0, 0.3, 0.5, 0.9, 0.94, 0.95, 0.97, 0.99, 0.999, 1.0]


@few
@given(past=judged())
def test_the_lower_the_threshold_the_more_is_booked(past: Past) -> None:
    found = past.at(LEVELS)
    for column in ("booked", "share", "money_share", "errors"):
        falling = found[column].drop_nulls()
        assert falling.to_list() == sorted(falling, reverse=True)
    for column in ("booked", "wrong", "expected"):
        for rows_of in past.at_risk(LEVELS).partition_by("currency"):
            assert rows_of[column].to_list() == sorted(rows_of[column], reverse=True)


@few
@given(past=judged())
def test_intervals_hold_what_was_seen(past: Past) -> None:
    found = past.at(LEVELS).drop_nulls("precision")
    assert ((found["low"] <= found["precision"]) & (found["precision"] <= found["high"])).all()


@few
@given(past=judged())
def test_thresholds_agree_with_the_yardstick(past: Past) -> None:
    theirs = curve(past.transfers).sort("threshold").with_columns(pl.col("share").fill_nan(None))
    ours = past.at(theirs["threshold"].to_list())
    assert ours["booked"].to_list() == theirs["booked"].to_list()
    assert ours["precision"].to_list() == pytest.approx(theirs["precision"].to_list())
    if past.transfers["paying"].any():
        assert ours["share"].to_list() == pytest.approx(theirs["share"].to_list())
        for promised in (0.5, 0.9, 0.995):
            kept = past.keeps(promised)
            seen = past.at([kept.seen])["share"].item() if kept.seen is not None else 0.0
            assert seen == pytest.approx(straight_through(past.transfers, promised))


@few
@given(past=judged(), promised=st.sampled_from([0.1, 0.3, 0.5, 0.8]))
def test_what_is_said_to_hold_has_its_interval_above_the_promise(past: Past, promised: float) -> None:
    kept = past.keeps(promised)
    if kept.threshold is not None:
        assert past.at([kept.threshold])["low"].item() >= promised - 1e-9
        assert kept.seen is not None
        assert kept.seen <= kept.threshold


# Sentences


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (0.0, "0"),
        (0.9, "0.9"),
        (0.99, "0.99"),
        (0.995, "0.995"),
        (0.93487716, "0.9349"),
        (0.9987342, "0.99874"),
        (0.99996279, "0.9999628"),
        (1.0, "1"),
    ],
)
def test_a_threshold_is_told_with_the_places_that_matter(threshold: float, told: str) -> None:
    assert text.confidence(threshold) == told
    assert float(told) >= threshold


@pytest.mark.parametrize(
    ("share", "told"),
    [(None, "–"), (0.0, "0.0 %"), (0.912, "91.2 %"), (0.9994, "99.9 %"), (0.99997, "99.99 %"), (1.0, "100.0 %")],
)
def test_only_the_whole_is_all(share: float | None, told: str) -> None:
    assert text.share(share) == told


def test_a_threshold_is_answered_in_a_sentence(past: Past) -> None:
    assert text.would_have(past, 0.9) == (
        "From 0.9 on, 75.0 % of the paying transfers would have been booked, 66.7 % of the bookings right (9.4–99.2); "
        "PLN 30 of 120 and EUR 2 of 150 would have been booked wrongly. "
        "By the confidences themselves, PLN 12 and EUR 6 were to be expected."
    )
    assert text.would_have(past, 1.0) == "From 1 on, nothing would have been booked: no confidence is that high."


@pytest.mark.parametrize(
    ("groups", "promised", "told"),
    [
        (
            [(0.99, 8000, 0), (0.9, 2000, 20)],
            0.995,
            "You promise 99.5 %: the lowest threshold that holds it with 95 % certainty is 0.9 (by the figures alone, 0.9). "
            "One more nine, 99.95 %, would hold from 0.99 on and cost 20.0 points of share (100.0 % → 80.0 %).",
        ),
        (
            [(0.99, 100, 0)],
            0.9,
            "You promise 90 %: the lowest threshold that holds it with 95 % certainty is 0.99 (by the figures alone, 0.99). "
            "One more nine, 99 %, cannot be shown by 100 bookings, it takes 368 without an error; "
            "by the figures alone, it would hold from 0.99 on and cost 0.0 points of share (100.0 % → 100.0 %).",
        ),
        (
            [(0.99, 1000, 200)],
            0.9,
            "You promise 90 %: no threshold holds it with 95 % certainty. One more nine, 99 %, is held by no threshold.",
        ),
    ],
)
def test_the_promise_is_answered_in_a_sentence(
    groups: list[tuple[float, int, int]], promised: float, told: str
) -> None:
    assert text.keeps(many(*groups), promised) == told
