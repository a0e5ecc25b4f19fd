"""Rules find the pairs they are for, within their limits; the joins behind them equal plain loops."""

from datetime import date
from fractions import Fraction
from math import ceil, floor
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.matching import candidates
from matching_platform.matching.balances import Settlements
from matching_platform.matching.candidates import (
    Pairs,
    Question,
    find,
    join,
    rank_within,
)
from matching_platform.matching.key_spaces import CHARGES, SHARES, amount_key, runs, wholes
from matching_platform.matching.rules import DAYS_BEFORE_ISSUE, RULE_INDEX, RULES, SLOTS
from matching_platform_tests.matching.worlds import invoices, questions, read, transfers

ints = st.lists(st.integers(-3, 5), max_size=30)
STRANGER = {"counterparty_name": "NOBODY KNOWN", "counterparty_account": None}


@given(ints, ints)
def test_join_gives_all_equal_pairs_in_order(left: list[int], right: list[int]) -> None:
    right = sorted(right)
    at_left, at_right = join(np.array(left, np.int64), np.array(right, np.int64))
    pairs = list(zip(at_left.tolist(), at_right.tolist(), strict=True))
    assert pairs == [(i, j) for i, a in enumerate(left) for j, b in enumerate(right) if a == b]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_rank_within_orders_each_group_and_keeps_ties_in_place(rows: list[tuple[int, int, int]]) -> None:
    group, first, second = np.array(rows, np.int64).reshape(-1, 3).T
    expected = [
        sum((g, a, b, j) < (group[i], first[i], second[i], i) for j, (g, a, b) in enumerate(rows) if g == group[i])
        for i in range(len(rows))
    ]
    assert rank_within(group, first, second).tolist() == expected


def rules_of(pairs: Pairs, invoice: int) -> set[str]:
    row = pairs.found[(pairs.transfer == 0) & (pairs.invoice == invoice)]
    return {rule.name for rule in RULES if len(row) and row[0, RULE_INDEX[rule.name]] != 0}


@pytest.mark.parametrize(
    ("rule", "invoice", "transfer"),
    [
        ("number", {"number": "FV/24/05/0012"}, {"title": "fv 24-05-0012"}),
        ("reference", {"reference": "RF18539007547034"}, {"title": "RF18 5390 0754 7034"}),
        ("number without zeros", {"number": "FV/24/05/0012"}, {"title": "fv 24/5/12"}),
        ("number, a digit too many", {"number": "RE-100123"}, {"title": "RE-1001233"}),
        ("number, a digit wrong", {"number": "RE-100123"}, {"title": "RE-100723"}),
        ("number, a digit missing", {"reference": "INV100000000009190"}, {"title": "INV10000000000919"}),
        ("number, a digit too many", {"reference": "INV100000000016714"}, {"title": "INV1000000000167124"}),
        ("number, a digit wrong", {"reference": "INV100000000013197"}, {"title": "two changed: INV100000000031197"}),
        ("counterparty", {"counterparty_account": "DE89 3704 0044"}, {"counterparty_account": "DE8937040044"}),
        ("counterparty", {"counterparty_name": "Rossi S.p.A."}, {"counterparty_name": "ROSSI SPA"}),
        ("counterparty", {"counterparty_name": "Rossi Mobili Milano"}, {"counterparty_name": "ROSSI MOBIL"}),
        ("counterparty", {"counterparty_tax_id": "525-224-84-81"}, {"title": "/VAT/1,00/IDC/5252248481/INV/x"}),
        ("amount", {"amount": 77_77}, {"amount": 77_77}),
        ("share of the amount", {"amount": 90_01}, {"amount": 30_00}),
        ("share of the amount", {"amount": 90_00}, {"amount": 65_00}),
        ("counterparty named in the title", {"counterparty_name": "Rossi Mobili"}, {"title": "per ROSSI MOBILI SPA"}),
        ("amount", {"amount": 77_77, "direction": "purchase"}, {"amount": 77_77, "direction": "out"}),
    ],
)
def test_a_rule_finds_its_pair(rule: str, invoice: dict[str, Any], transfer: dict[str, Any]) -> None:
    unlike = {"amount": 55_55, "counterparty_name": "Someone", "counterparty_account": None, "counterparty_id": "c9"}
    pairs = read(transfers({**STRANGER, **transfer}), invoices({**unlike, **invoice})).pairs
    assert rule in rules_of(pairs, 0)


def test_who_names_an_invoice_is_shown_the_counterpartys_others() -> None:
    pairs = read(transfers({**STRANGER, "title": "FV 240512", "amount": 1}), invoices({"number": "240512"}, {})).pairs
    assert "counterparty of a number named" in rules_of(pairs, 1)


@pytest.mark.parametrize(
    ("invoice", "transfer"),
    [
        pytest.param({"direction": "purchase"}, {}, id="the other direction"),
        pytest.param({"issued_on": date(2024, 6, 20)}, {}, id="issued weeks later"),
    ],
)
def test_what_cannot_be_is_no_candidate(invoice: dict[str, Any], transfer: dict[str, Any]) -> None:
    assert not len(read(transfers({**transfer, "title": "240512"}), invoices({"number": "240512", **invoice})).pairs)


def test_a_settled_invoice_is_a_candidate_only_where_it_is_named() -> None:
    paid = Settlements.of(np.array([0, 1]), np.array([-1, -1]), np.array([100_00, 100_00]))
    lists = read(transfers({"title": "240512"}), invoices({"number": "240512"}, {"number": "993371"}), None, paid)
    assert lists.pairs.invoice.tolist() == [0]
    assert lists.open.tolist() == [0]


def test_every_limit_holds() -> None:
    many = invoices(*({"number": f"24051{n:03}", "amount": 100_00 + n % 3} for n in range(200)))
    title = " ".join(f"24051{n:03}" for n in range(60))
    pairs = read(transfers({"title": title}, {"title": ""}, STRANGER), many).pairs
    assert np.bincount(pairs.transfer).max() == SLOTS
    for index, rule in enumerate(RULES):
        assert np.bincount(pairs.transfer, pairs.found[:, index] != 0).max() <= rule.limit, rule.name
    assert (np.diff(pairs.transfer) >= 0).all()


def test_where_slots_are_short_the_likeliest_stay() -> None:
    """The one invoice that the title names and that fits to the cent, among three hundred of the same payer."""
    many = invoices(*({"number": f"9{n:06}", "amount": 1_00 + n} for n in range(300)))
    pairs = read(transfers({"title": "za 9000177", "amount": 1_00 + 177}), many).pairs
    assert "number" in rules_of(pairs, 177)
    assert "amount" in rules_of(pairs, 177)


@given(questions(), st.sampled_from([1, 5, 1_000_000]))
def test_find_equals_a_plain_loop(question: Question, pairs_at_once: int) -> None:
    with patch.object(candidates, "_PAIRS_AT_ONCE", pairs_at_once):
        pairs = find(question)
    t, i = question.transfers, question.invoices
    expected = {
        (transfer, invoice, rule.name)
        for rule in RULES
        for transfer, key in zip(t.keys[rule.transfer_key].row, t.keys[rule.transfer_key].key, strict=True)
        for invoice, other in zip(i.keys[rule.invoice_key].row, i.keys[rule.invoice_key].key, strict=True)
        if key == other
        and i.issued[invoice] <= t.booked[transfer] + DAYS_BEFORE_ISSUE
        and i.sale[invoice] == t.incoming[transfer]
        and (rule.closed_too or question.open(np.array([transfer]), np.array([invoice]))[0] != 0)
        and (not rule.same_currency or i.currency[invoice] == t.currency[transfer])
    }
    found = {
        (int(transfer), int(invoice), rule.name)
        for transfer, invoice, row in zip(pairs.transfer, pairs.invoice, pairs.found, strict=True)
        for rule in RULES
        if row[RULE_INDEX[rule.name]] != 0
    }
    assert found == expected


@pytest.mark.parametrize(("many", "few"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_match_gives_no_pairs(many: int, few: int) -> None:
    lists = read(transfers(*[{}] * many), invoices(*[{}] * few))
    assert len(lists.pairs) == 0
    assert len(lists.context) == many


def test_shapes_and_finite_numbers(small_ledger: Any) -> None:
    day = pl.col("booked_on") >= small_ledger.transfers["booked_on"].max().replace(day=1)
    lists = read(small_ledger.transfers.filter(day).sort("booked_on"), small_ledger.invoices)
    assert np.isfinite(lists.pair).all()
    assert np.isfinite(lists.context).all()
    assert lists.pair.std(axis=0).astype(bool).mean() > 0.6, "most features tell pairs apart"


@given(st.integers(1, 10**7))
def test_wholes_are_the_amounts_of_which_it_is_a_share(amount: int) -> None:
    _, found = wholes(np.array([0]), np.array([amount]))
    for share in SHARES:
        least, most = (Fraction(2 * amount + sign, 2) / share for sign in (-1, 1))
        assert set(range(ceil(least), floor(most) + 1)) <= set(found.tolist())
    for whole in found.tolist():
        near = any(abs(whole * share - amount) <= Fraction(1, 2) for share in SHARES)
        assert near or whole - amount in CHARGES


opening = st.lists(st.tuples(st.integers(0, 2), st.integers(-300, 500)), max_size=14)


@given(opening, st.lists(st.integers(1, 900), min_size=1, max_size=4))
def test_runs_equal_a_plain_loop(rows: list[tuple[int, int]], amounts: list[int]) -> None:
    ordered = sorted(rows, key=lambda row: row[0])
    group, worth = np.array(ordered, np.int64).reshape(-1, 2).T.copy()
    same, sale = np.zeros(len(group), np.int64), np.ones(len(group), bool)
    wanted = np.sort(amount_key(np.zeros(len(amounts), np.int64), np.ones(len(amounts), bool), np.array(amounts)))
    first, size, _ = runs(group, same, sale, worth, wanted)
    expected = {
        (start, stop - start)
        for start in range(len(group))
        for stop in range(start + 2, len(group) + 1)
        if group[start] == group[stop - 1] and int(worth[start:stop].sum()) in amounts
    }
    assert set(zip(first.tolist(), size.tolist(), strict=True)) == expected


def test_invoices_that_follow_each_other_are_found_by_their_sum() -> None:
    owed = invoices(*({"amount": amount} for amount in (11_00, 23_00, 37_00, 53_00)))
    pairs = read(transfers({**STRANGER, "amount": 60_00}), owed).pairs
    assert [row for row in range(4) if "sum of a run" in rules_of(pairs, row)] == [1, 2]
