"""Confidence is a probability that grows with the share of the set, and knows only the clues there are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.matching.confidence import CLUES, Confidence, clues
from matching_platform.matching.scorer import best_rows, shares
from matching_platform.matching.settlement import propose
from matching_platform_tests.matching.worlds import invoices, read, transfers


def of_shares(given_shares: list[float]) -> np.ndarray:
    """Clues of sets of which nothing but the share is known."""
    share = np.clip(np.sort(np.array(given_shares)), 1e-6, 1 - 1e-6)
    rows = np.zeros((len(share), len(CLUES)))
    rows[:, CLUES.index("log share")], rows[:, CLUES.index("log rest")] = np.log(share), -np.log1p(-share)
    return rows


@given(
    st.floats(-10, 10),
    st.floats(1e-3, 20),
    st.floats(1e-3, 20),
    st.lists(st.floats(0, 1), min_size=2),
)
def test_it_keeps_the_order_of_shares_and_stays_a_probability(
    bias: float, a: float, b: float, given_shares: list[float]
) -> None:
    confidence = Confidence(bias, {"log share": a, "log rest": b})(of_shares(given_shares))
    assert (np.diff(confidence) >= 0).all()
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_unfitted_it_is_the_share() -> None:
    assert Confidence()(of_shares([0.01, 0.5, 0.99])) == pytest.approx([0.01, 0.5, 0.99])


def test_a_clue_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no clues \\['stars'\\]"):
        Confidence(0.0, {"stars": 1.0})(of_shares([0.5]))


def test_clues_of_every_transfer_are_finite_also_where_it_has_but_one_set() -> None:
    lists = read(transfers({"title": "FV 240512"}, {"title": "x", "amount": 3}), invoices({"number": "240512"}, {}))
    sets = propose(lists, np.zeros(len(lists.pairs), np.float32))
    share = shares(np.zeros(len(sets.mask), np.float32), np.zeros(2, np.float32), sets.transfer)
    best, rival = best_rows(share, sets.transfer, 2)
    found = clues(lists, sets, best, rival, share)
    assert found.shape == (2, len(CLUES))
    assert np.isfinite(found).all()
