from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from matching_platform.delivery.serving.figures import COUNTERS, RECENT, Counts, Tally
from matching_platform.delivery.serving.steps import AT_ONCE, Step, Steps, seen

COUNTS = Counts(**dict.fromkeys(COUNTERS, 0), p50=None, p95=None, differences=())
STEP = Step("canary", 30.0, 0.1)


def counts(**changed: Any) -> Counts:
    return replace(COUNTS, **changed)


def test_by_default_all_traffic_moves_at_once() -> None:
    assert list(AT_ONCE.steps()) == []


def test_steps_come_in_order_and_say_where_requests_go() -> None:
    steps = list(Steps(shadow_seconds=1, canary_share=0.2, canary_seconds=2, watch_seconds=3).steps())
    assert [(step.name, step.seconds, step.share) for step in steps] == [
        ("shadow", 1, 0),
        ("canary", 2, 0.2),
        ("watch", 3, 1),
    ]
    assert [step.challenger("a:1").shadow for step in steps] == [True, False, False]
    assert list(Steps(canary_share=0.2, canary_seconds=0).steps()) == []


@pytest.mark.parametrize("wrong", [{"canary_share": 1}, {"error_rate": -0.1}, {"slower": 0}, {"watch_seconds": -1}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Steps(**wrong)


SLOW = {"requests": 20, "p95": 0.3}
LIMITS = {
    "nothing came": (counts(), Steps(), []),
    "none failed": (counts(requests=1), Steps(error_rate=0), []),
    "as many failed as may": (counts(requests=100, errors=1), Steps(error_rate=0.01), []),
    "more failed": (counts(requests=100, errors=2), Steps(error_rate=0.01), ["2 of 100 requests failed, and 1.0% may"]),
    "one of few failed": (counts(requests=3, errors=1), Steps(), ["1 of 3 requests failed, and 1.0% may"]),
    "differences are only told": (counts(requests=9, compared=9, different=9), Steps(), []),
    "as many differ as may": (counts(requests=9, compared=100, different=5), Steps(shadow_differences=0.05), []),
    "more differ": (
        counts(requests=9, compared=100, different=6, differences=("t1: so", "t2: so")),
        Steps(shadow_differences=0.05),
        ["6 of 100 transfers were answered otherwise, and 5.0% may: t1: so; t2: so"],
    ),
    "no copy was answered": (counts(copies=4), Steps(), ["none of 4 copies was answered in time"]),
    "any p95 may be": (counts(**SLOW), Steps(), []),
    "as slow as may be": (counts(**SLOW), Steps(slower=3), []),
    "slower": (
        counts(**SLOW),
        Steps(slower=2.9),
        ["the p95 is 300 ms, the old server's 100 ms, and 2.9 times that is the limit"],
    ),
    "too few to say": (counts(requests=19, p95=9.0), Steps(slower=2), []),
}


@pytest.mark.parametrize(("after", "limits", "problems"), LIMITS.values(), ids=LIMITS)
def test_limits_of_a_step(after: Counts, limits: Steps, problems: list[str]) -> None:
    found = seen(STEP, None, after, counts(requests=20, p95=0.1))
    assert found.problems(limits) == problems
    assert found.failing(limits) == [problem for problem in problems if "requests failed" in problem]


def test_a_step_counts_from_its_beginning_or_from_the_fronts() -> None:
    before, after = counts(requests=10, errors=5), counts(requests=30, errors=5, compared=4, different=1, dropped=2)
    found = seen(STEP, before, after, None)
    assert (found.requests, found.errors) == (20, 0)
    assert str(found) == "canary: 20 requests, 0 failed, 1 of 4 transfers answered otherwise, 2 copies dropped"
    restarted = seen(STEP, before, counts(requests=3, errors=1), None)
    assert (restarted.requests, restarted.errors) == (3, 1)


def test_a_tally_keeps_the_recent_latencies() -> None:
    tally = Tally()
    assert tally.counts() == COUNTS
    for number in range(2 * RECENT):
        tally.add(1.0 if number < RECENT else number / 1e6, failed=number == 0)
    found = tally.counts()
    assert (found.requests, found.errors) == (2 * RECENT, 1)
    assert found.p50 == pytest.approx(1.5e-3, rel=0.01)
    assert found.p95 == pytest.approx(1.95e-3, rel=0.01)
