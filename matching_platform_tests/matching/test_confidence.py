"""Calibration keeps the order; a threshold keeps its promise, or none is given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.matching.confidence import Calibration, threshold

positive = st.floats(1e-3, 20)


@given(positive, positive, st.floats(-10, 10), st.lists(st.floats(0, 1), min_size=2))
def test_calibration_keeps_the_order_and_stays_a_probability(a: float, b: float, c: float, shares: list[float]) -> None:
    calibrated = Calibration(a, b, c)(np.sort(np.array(shares, np.float32)))
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_a_calibration_that_was_not_fitted_changes_nothing() -> None:
    shares = np.array([0.01, 0.5, 0.99])
    assert Calibration()(shares) == pytest.approx(shares)


judged = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99]), st.booleans()), max_size=200)


@given(judged, st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_the_threshold_is_the_lowest_that_keeps_the_promise(rows: list[tuple[float, bool]], promised: float) -> None:
    confidence, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows], bool)

    def holds(cut: float) -> bool:
        booked = confidence >= cut
        return bool(((~right[booked]).sum() + 1) / (booked.sum() + 1) <= 1 - promised)

    able = [cut for cut in np.unique(confidence) if holds(cut)]
    assert threshold(confidence, right, promised) == (min(able) if able else 1.1)


@pytest.mark.parametrize(
    ("count", "wrong", "promised", "possible"),
    [
        (0, 0, 0.9, False),
        (8, 0, 0.9, False),
        (10, 0, 0.9, True),
        (198, 0, 0.995, False),
        (199, 0, 0.995, True),
        (398, 1, 0.995, False),
        (399, 1, 0.995, True),
    ],
)
def test_too_few_settlements_promise_nothing(count: int, wrong: int, promised: float, possible: bool) -> None:
    right = np.arange(count) >= wrong
    assert (threshold(np.full(count, 0.99), right, promised) <= 1) is possible
