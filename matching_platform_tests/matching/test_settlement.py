"""The right set is among those proposed, and whatever set is chosen, no more money is spent than there is."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.matching.features import P
from matching_platform.matching.memory import Memory
from matching_platform.matching.sets import LARGEST_DISCOUNT, ROUNDING, SETS_KEPT
from matching_platform.matching.settlement import (
    Sets,
    allocate,
    is_named,
    members,
    propose,
)
from matching_platform_tests.matching.worlds import Lists, invoices, read, transfers


def guess(lists: Lists) -> np.ndarray:
    """A scorer that knows a named number, trusts it less with a typo, and an equal amount."""
    typo = lists.pair[:, P["number with a typo"]] * (lists.pair[:, P["number or reference"]] == 0)
    logit = -1.0 + 4 * is_named(lists) - 3.5 * typo + 2 * lists.pair[:, P["amount equal"]]
    return logit.astype(np.float32)


def sets_of(lists: Lists, transfer: int = 0) -> tuple[Sets, list[frozenset[int]]]:
    """The sets proposed for one transfer, as rows of the invoices."""
    sets = propose(lists, guess(lists))
    pair_invoice = lists.pairs.invoice[lists.pairs.transfer == transfer]
    masks = members(sets.mask[sets.transfer == transfer])
    return sets, [frozenset(pair_invoice[np.flatnonzero(mask)].tolist()) for mask in masks]


NUMBERED = [
    {"number": f"FV/24/05/{n:04}", "amount": amount} for n, amount in enumerate(range(101_01, 120_01, 1_03), 120)
]
SUM = [0, *np.cumsum([row["amount"] for row in NUMBERED]).tolist()]
CREDIT = {"number": "KOR/24/05/0001", "amount": -15_55}


@pytest.mark.parametrize(
    ("title", "amount", "right"),
    [
        pytest.param("FV/24/05/0122", NUMBERED[2]["amount"], {2}, id="single"),
        pytest.param("FV/24/05/0121 FV/24/05/0124", SUM[2] - SUM[1] + SUM[5] - SUM[4], {1, 4}, id="two named"),
        pytest.param("FV/24/05/0122", NUMBERED[2]["amount"] * 3 // 10, {2}, id="part payment"),
        pytest.param("", SUM[18], set(range(18)), id="all that is open, without a word"),
        pytest.param("FV 120-127/05", SUM[8], set(range(8)), id="range"),
        pytest.param("OD FV/24/05/0123 DO FV/24/05/0130", SUM[11] - SUM[3], set(range(3, 11)), id="range in words"),
        pytest.param("0120,0121,0122,0123,01", SUM[6], set(range(6)), id="list cut by the bank"),
        pytest.param("0120,0121,0122", SUM[4], {0, 1, 2, 3}, id="one forgotten"),
        pytest.param("0120,0121,0122,0123", SUM[3], {0, 1, 2}, id="one named too many"),
        pytest.param("FV/24/05/0120 KOR/24/05/0001", SUM[1] - 15_55, {0, 18}, id="credit note named"),
        pytest.param("FV/24/05/0120 FV/24/05/0121", SUM[2] - 15_55, {0, 1, 18}, id="credit note not named"),
        pytest.param("FV/24/05/0120 FV/24/05/0121", SUM[2] * 98 // 100, {0, 1}, id="cash discount"),
        pytest.param("FV/24/05/0120 FV/24/05/0121", SUM[2] - 7, {0, 1}, id="rounding"),
        pytest.param("FV/24/05/0122 EUR", NUMBERED[2]["amount"] + 5_00, {2}, id="more money than open"),
        pytest.param("", SUM[9] - SUM[4], {4, 5, 6, 7, 8}, id="invoices that follow each other"),
        pytest.param("gift", 3, set(), id="nothing"),
    ],
)
def test_the_right_set_is_considered(title: str, amount: int, right: set[int]) -> None:
    lists = read(transfers({"title": title, "amount": amount}), invoices(*NUMBERED[:18], CREDIT))
    _, found = sets_of(lists)
    assert frozenset(right) in found


def test_sets_are_distinct_few_and_begin_with_nothing() -> None:
    lists = read(transfers({"amount": SUM[7]}, {"title": "x", "amount": 5}), invoices(*NUMBERED, CREDIT))
    sets, found = sets_of(lists)
    assert found[0] == frozenset()
    assert len(found) == len(set(found)) <= SETS_KEPT + 1
    assert sets.transfer.tolist() == sorted(sets.transfer)
    assert np.isfinite(sets.features).all()


def test_what_is_closed_is_in_no_set() -> None:
    everything = invoices(*NUMBERED[:3]).with_columns(amount=pl.Series([101_01, 0, 103_07]))
    _, found = sets_of(read(transfers({"title": "0120 0121 0122", "amount": 204_08}), everything))
    assert not any(1 in one for one in found)
    assert frozenset({0, 2}) in found


def allocated(lists: Lists, chosen: set[int]) -> dict[int, int]:
    """What the set `chosen` of invoices gets of the first transfer's money."""
    mask = sum(1 << slot for slot, invoice in enumerate(lists.pairs.invoice.tolist()) if invoice in chosen)
    _, pair, amount = allocate(lists, np.array([0]), np.array([mask]))
    return dict(zip(lists.pairs.invoice[pair].tolist(), amount.tolist(), strict=True))


@pytest.mark.parametrize(
    ("amounts", "brought", "expected"),
    [
        pytest.param([100_00], 100_00, [100_00], id="to the cent"),
        pytest.param([100_00], 30_00, [30_00], id="part payment"),
        pytest.param([100_00], 97_00, [97_00], id="a single invoice is not closed by what is short"),
        pytest.param([100_00], 130_00, [100_00], id="more than is open"),
        pytest.param([60_00, 40_00], 100_00, [60_00, 40_00], id="batch"),
        pytest.param([60_00, 40_00], 98_00, [60_00, 40_00], id="batch less a discount"),
        pytest.param([60_00, 40_00], 70_00, [60_00, 10_00], id="the oldest first"),
        pytest.param([60_00, 40_00], 50_00, [50_00], id="nothing left for the second"),
        pytest.param([60_00, -20_00], 40_00, [60_00, -20_00], id="netted credit note"),
        pytest.param([60_00, 50_00, -20_00], 70_00, [60_00, 30_00, -20_00], id="credit note and part payment"),
        pytest.param([-20_00], 40_00, [-20_00], id="a credit note alone"),
    ],
)
def test_money_is_spent_in_order_of_issue(amounts: list[int], brought: int, expected: list[int]) -> None:
    rows = [{"amount": amount, "issued_on": date(2024, 4, 1 + n)} for n, amount in enumerate(amounts)]
    lists = read(transfers({"amount": brought}), invoices(*rows))
    settled = allocated(lists, set(range(len(rows))))
    assert settled == {n: amount for n, amount in enumerate(expected) if amount}


def foreign(rate: float) -> Memory:
    """Memory of one rate, PLN for a EUR."""
    empty = Memory.empty()
    rates = pl.DataFrame({"pair": ["EUR/PLN"], "booked_on": [date(2024, 5, 1)], "rate": [rate]})
    return Memory(empty.counts, rates)


@pytest.mark.parametrize(
    ("amounts", "brought", "rate", "expected"),
    [
        pytest.param([100_00], 431_10, 4.3, {0: 100_00}, id="a rate near the remembered one settles whole"),
        pytest.param([100_00], 425_00, 4.3, {0: 100_00}, id="a little short"),
        pytest.param([100_00], 215_00, 4.3, {0: 50_00}, id="half"),
        pytest.param([100_00, 50_00], 645_00, 4.3, {0: 100_00, 1: 50_00}, id="batch"),
        pytest.param([100_00], 431_10, None, {0: 100_00}, id="an unknown rate settles whole"),
    ],
)
def test_foreign_invoices_are_settled_in_their_own_currency(
    amounts: list[int], brought: int, rate: float | None, expected: dict[int, int]
) -> None:
    rows = [{"amount": amount, "currency": "EUR"} for amount in amounts]
    lists = read(transfers({"amount": brought}), invoices(*rows), foreign(rate) if rate else None)
    assert allocated(lists, set(range(len(rows)))) == expected


amounts = st.integers(1, 300).map(lambda n: n * 37) | st.integers(1, 10**7)
signed = st.tuples(amounts, st.sampled_from([1, 1, 1, -1])).map(lambda pair: pair[0] * pair[1])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(signed, min_size=1, max_size=16),
    st.lists(amounts, min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_no_set_spends_more_than_there_is(owed: list[int], brought: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    some_sums = [abs(int(rng.choice(owed, rng.integers(1, len(owed) + 1), replace=False).sum())) or 1 for _ in range(3)]
    money = transfers(*({"amount": amount} for amount in brought + some_sums))
    lists = read(money, invoices(*({"amount": amount, "number": f"77{n:05}"} for n, amount in enumerate(owed))))
    logit = rng.normal(0, 3, len(lists.pairs)).astype(np.float32)
    sets = propose(lists, logit)
    row, pair, amount = allocate(lists, sets.transfer, sets.mask)
    still_open = lists.open[pair]
    assert (np.sign(amount) == np.sign(still_open)).all()
    assert (np.abs(amount) <= np.abs(still_open)).all()
    assert len(set(zip(row.tolist(), pair.tolist(), strict=True))) == len(row)
    spent = np.bincount(row, amount, len(sets.mask))
    limit = lists.amount[sets.transfer]
    assert (spent <= limit + np.maximum(limit * LARGEST_DISCOUNT, ROUNDING)).all()
    exact = np.bincount(row, still_open, len(sets.mask)) == limit
    assert (spent[exact] == limit[exact]).all()


@pytest.mark.parametrize(
    ("brought", "closes", "expected"),
    [
        pytest.param(98_00, [], 98_00, id="the rest stays open"),
        pytest.param(98_00, [2], 100_00, id="two percent short is closed here"),
        pytest.param(98_00, [3], 98_00, id="three percent are, two are not"),
        pytest.param(50_00, [2], 50_00, id="a part payment"),
    ],
)
def test_what_is_short_is_closed_where_people_do_so(brought: int, closes: list[int], expected: int) -> None:
    counts = [{"space": "short", "key": str(percent), "value": "whole", "count": 3.0} for percent in closes]
    memory = Memory.empty()
    learned = Memory(pl.concat([memory.counts, pl.DataFrame(counts, schema=memory.counts.schema)]), memory.rates)
    lists = read(transfers({"amount": brought}), invoices({"amount": 100_00}), learned)
    assert allocated(lists, {0}) == {0: expected}
