"""A threshold keeps its promise, or none is given; tags that the books refute are no judges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.learning.promise import doubted, threshold

judged = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99]), st.booleans()), max_size=200)


@given(judged, st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_what_is_booked_has_kept_the_promise(rows: list[tuple[float, bool]], promised: float) -> None:
    confidence, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows], bool)
    cut = threshold(confidence, right, promised)
    booked = confidence >= cut
    assert cut > 1 or right[booked].mean() > promised
    assert cut > 1 or cut in confidence


@given(judged, st.sampled_from([0.5, 0.8, 0.9]))
def test_an_error_never_lets_more_be_booked(rows: list[tuple[float, bool]], promised: float) -> None:
    confidence, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows], bool)
    for place in np.flatnonzero(right)[:3]:
        worse = right.copy()
        worse[place] = False
        assert threshold(confidence, worse, promised) >= threshold(confidence, right, promised)


@pytest.mark.parametrize(
    ("count", "wrong", "promised", "possible"),
    [
        pytest.param(0, 0, 0.9, False, id="nothing to judge by"),
        pytest.param(28, 0, 0.9, False, id="no error, but too few"),
        pytest.param(29, 0, 0.9, True, id="no error among enough"),
        pytest.param(597, 0, 0.995, False, id="too few for 0.995"),
        pytest.param(598, 0, 0.995, True, id="enough for 0.995"),
        pytest.param(946, 1, 0.995, False, id="one error too many"),
        pytest.param(947, 1, 0.995, True, id="one error among enough"),
    ],
)
def test_too_few_settlements_promise_nothing(count: int, wrong: int, promised: float, possible: bool) -> None:
    right = np.arange(count) >= wrong
    assert (threshold(np.full(count, 0.99), right, promised) <= 1) is possible


def test_the_promise_holds_for_new_settlements_nine_times_in_ten() -> None:
    """Confidence that is right as often as it says; what is booked of a million more is as precise as promised."""
    rng = np.random.default_rng(5)
    future = rng.beta(8, 0.1, 1_000_000)
    kept = []
    for _ in range(200):
        confidence = rng.beta(8, 0.1, 3000)
        cut = threshold(confidence, rng.random(3000) < confidence, 0.98)
        kept.append(cut > 1 or future[future >= cut].mean() >= 0.98)
    assert np.mean(kept) >= 0.85


@pytest.mark.parametrize(
    ("share", "tagged_share", "left_open", "is_doubted"),
    [
        (0.999, 0.0, True, True),
        (0.999, 0.0, False, False),
        (0.999, 0.01, True, False),
        (0.9, 0.0, True, False),
    ],
)
def test_a_tag_is_doubted_only_where_all_speaks_against_it(
    share: float, tagged_share: float, left_open: bool, is_doubted: bool
) -> None:
    one = (np.array([share], np.float32), np.array([tagged_share], np.float32), np.array([left_open]))
    assert doubted(*one).tolist() == [is_doubted]
