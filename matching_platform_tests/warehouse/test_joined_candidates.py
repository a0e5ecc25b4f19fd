"""The expression for a warehouse finds what the join of arrays finds, pair by pair."""

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.learning.examples import label_month
from matching_platform.ledger.reading import Ledger
from matching_platform.matching import candidates as arrays
from matching_platform.matching.balances import Settlements, open_amounts
from matching_platform.matching.candidates import Question
from matching_platform.warehouse import candidates
from matching_platform.warehouse.duck import find
from matching_platform_tests.matching.worlds import questions


@settings(deadline=None, max_examples=60)
@given(questions(), st.sampled_from([1, 2, 60]))
def test_both_readings_find_the_same_pairs(question: Question, slots: int) -> None:
    with patch.object(arrays, "SLOTS", slots), patch.object(candidates, "SLOTS", slots):
        expected, found = arrays.find(question), find(question)
    for name in ("transfer", "invoice", "found"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_month_of_a_company_has_the_same_labelled_pairs(small_ledger: Ledger) -> None:
    month = small_ledger.months()[-1]
    assert label_month(small_ledger, month, find).equals(label_month(small_ledger, month))


moments = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 5), st.integers(-3, 3)), max_size=12)


@given(moments, st.integers(0, 5), st.integers(0, 5))
def test_spans_say_what_was_settled_before_each_moment(rows: list[tuple[int, int, int]], first: int, more: int) -> None:
    settlements = Settlements.of(*np.array(rows, np.int64).reshape(-1, 3).T.copy())
    invoice, after, until, settled = settlements.spans(5, first, first + more)
    for moment in range(first, first + more + 1):
        inside = (after < moment) & (until >= moment)
        assert invoice[inside].tolist() == list(range(5))
        expected = settlements.before(np.arange(5), np.full(5, moment))
        np.testing.assert_array_equal(settled[inside], expected)
    assert open_amounts(np.array([5]), np.array([5])).tolist() == [0]
