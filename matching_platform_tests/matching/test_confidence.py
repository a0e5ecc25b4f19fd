"""Calibration keeps the order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.matching.confidence import Calibration

positive = st.floats(1e-3, 20)


@given(positive, positive, st.floats(-10, 10), st.lists(st.floats(0, 1), min_size=2))
def test_calibration_keeps_the_order_and_stays_a_probability(a: float, b: float, c: float, shares: list[float]) -> None:
    calibrated = Calibration(a, b, c)(np.sort(np.array(shares, np.float32)))
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_a_calibration_that_was_not_fitted_changes_nothing() -> None:
    shares = np.array([0.01, 0.5, 0.99])
    assert Calibration()(shares) == pytest.approx(shares)
