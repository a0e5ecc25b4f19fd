"""Open balances at a moment, against a plain list of settlements."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.matching.balances import Settlements, open_amounts

settlements = st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 9), st.integers(-(10**9), 10**9)), max_size=20)
questions = st.lists(st.tuples(st.integers(0, 7), st.integers(-3, 15)), max_size=20)


def columns(rows: list[tuple[int, ...]], width: int) -> list[np.ndarray]:
    return list(np.array(rows, np.int64).reshape(-1, width).T)


@given(settlements, settlements, questions)
def test_what_was_settled_before_a_moment(
    first: list[tuple[int, int, int]], more: list[tuple[int, int, int]], asked: list[tuple[int, int]]
) -> None:
    invoice, moment = columns(asked, 2)
    found = Settlements.of(*columns(first, 3)).and_also(*columns(more, 3)).before(invoice, moment)
    expected = [sum(a for i, m, a in first + more if i == which and m < when) for which, when in asked]
    assert found.tolist() == expected


def test_nothing_is_settled_at_first() -> None:
    assert Settlements.none().before(np.array([3, 4]), np.array([0, 10**6])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("amount", "settled", "remains"),
    [
        (100, 0, 100),
        (100, 30, 70),
        (100, 100, 0),
        (100, 130, 0),
        (-100, -30, -70),
        (-100, -130, 0),
        (-100, 20, -120),
        (0, 0, 0),
        (0, 5, 0),
    ],
)
def test_a_balance_never_changes_its_sign(amount: int, settled: int, remains: int) -> None:
    assert open_amounts(np.array([amount]), np.array([settled])).tolist() == [remains]
