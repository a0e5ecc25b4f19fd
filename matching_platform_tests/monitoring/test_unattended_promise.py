"""The test of a promise: it seldom accuses who keeps it, however often one looks, and finds who does not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import binom

from matching_platform.monitoring.promise import FALSE_ALARMS, Verdict, evidence, holds_from, interval

PROMISED = 0.995
ACCUSED = -np.log(FALSE_ALARMS)


def ever_accused(errors: float, bookings: int, models: int, promised: float = PROMISED) -> float:
    """The share of models that are accused at one of as many looks as there are bookings."""
    wrong = np.random.default_rng(3).random((models, bookings)) < errors
    model, last = np.nonzero(wrong)  # What is right accuses nobody: only the looks after an error count.
    told = evidence(np.cumsum(wrong, axis=1)[model, last], last + 1, promised)
    return len(set(model[told >= ACCUSED])) / models


@pytest.mark.parametrize(
    ("promised", "bookings"),
    [pytest.param(0.995, 3000, id="0.995"), pytest.param(0.9, 1000, id="0.9")],
)
def test_who_only_just_keeps_the_promise_is_seldom_accused_however_often_one_looks(
    promised: float, bookings: int
) -> None:
    assert ever_accused(1 - promised, bookings, 4000, promised) <= FALSE_ALARMS


def test_who_keeps_it_with_room_to_spare_is_never_accused() -> None:
    assert ever_accused(0.003, 3000, 4000) == 0


@pytest.mark.parametrize(
    ("errors", "bookings", "found"),
    [
        pytest.param(0.03, 700, 0.97, id="0.97 in a month of 700"),
        pytest.param(0.02, 700, 0.7, id="0.98 in a month of 700"),
        pytest.param(0.02, 2000, 0.99, id="0.98 in a month of 2000"),
        pytest.param(0.015, 2000, 0.9, id="0.985 in a month of 2000"),
        pytest.param(0.01, 6000, 0.85, id="0.99 in a month of 6000"),
        pytest.param(0.3, 30, 0.97, id="a broken one within 30"),
    ],
)
def test_who_breaks_it_is_found(errors: float, bookings: int, found: float) -> None:
    assert ever_accused(errors, bookings, 1000) >= found


@settings(deadline=None)
@given(st.floats(0.5, 0.999), st.integers(0, 3000), st.integers(0, 3000))
def test_an_error_speaks_against_the_promise_and_a_right_booking_for_it(
    promised: float, wrong: int, right: int
) -> None:
    judged = wrong + right
    now = float(evidence(wrong, judged, promised))
    assert evidence(wrong + 1, judged + 1, promised) >= now - 1e-6
    assert evidence(wrong, judged + 1, promised) <= now + 1e-6
    assert Verdict(wrong, judged, promised).broken is bool(now >= ACCUSED)


@settings(deadline=None)
@given(st.integers(0, 400), st.floats(0.8, 0.999))
def test_the_bet_is_fair(judged: int, promised: float) -> None:
    """Whoever keeps the promise to the letter sees it keep its value, on average over all that can happen."""
    wrong = np.arange(judged + 1)
    value = evidence(wrong, np.full(judged + 1, judged), promised)
    assert logsumexp(value + binom.logpmf(wrong, judged, 1 - promised)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "judged", "broken"),
    [
        (0, 0, False),
        (0, 10**7, False),
        (1, 1, False),
        (2, 2, False),
        (4, 4, True),
        (11, 700, False),
        (13, 700, True),
        (10**5, 10**6, True),
    ],
)
def test_verdicts(wrong: int, judged: int, broken: bool) -> None:
    assert Verdict(wrong, judged, PROMISED).broken is broken


def test_the_verdict_in_words() -> None:
    assert Verdict(13, 650, PROMISED).told == (
        "13 of 650 unattended bookings that could be judged were wrong: 98.00% right, 99.50% promised"
    )
    assert Verdict(0, 0, PROMISED).told == "no unattended booking could be judged yet"


def test_a_broken_promise_holds_again_from_higher_up_or_from_nowhere() -> None:
    confidence = np.linspace(0.9, 1, 4000)
    wrong_below = confidence < 0.92
    cut = holds_from(confidence, ~(wrong_below & (np.arange(4000) % 4 == 0)), PROMISED)
    assert 0.9 < cut < 0.93
    few = np.linspace(0.9, 1, 300)
    assert holds_from(few, np.arange(300) % 20 > 0, PROMISED) > 1


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_holds_the_share(count: int, more: int) -> None:
    low, high = interval(count, count + more)
    assert 0 <= low <= count / (count + more) <= high <= 1


def test_nothing_counted_excludes_nothing() -> None:
    assert interval(0, 0) == (0.0, 1.0)


@given(judged=st.integers(1, 5000), share=st.floats(0, 1), promised=st.floats(0.9, 0.999))
def test_what_breaks_the_promise_is_doubtful_as_well(judged: int, share: float, promised: float) -> None:
    """Whoever is accused gets another threshold: the doubt of one look never lags behind."""
    verdict = Verdict(round(share * judged), judged, promised)
    assert verdict.doubtful or not verdict.broken
