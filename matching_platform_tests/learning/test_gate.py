from dataclasses import replace

import polars as pl
import pytest

from matching_platform.learning.gate import (
    BLOCKING,
    Candidate,
    CheckRecord,
    Present,
    Sides,
    Thresholds,
    examine,
    examine_data,
    obstacles,
)
from matching_platform.learning.yardstick import Evaluation, evaluate
from matching_platform.ledger.schema import PROPOSALS

CANDIDATE = Candidate(evaluation="e" * 64, model="m" * 64, train_set="t" * 64, test_split="s" * 64, promotion=2)
PRESENT = Present(newest_model="m" * 64, test_split="s" * 64, promotion=2)
CHECKS = {
    name: CheckRecord(passed=True, subject="t" * 64 if name in ("data", "split") else "e" * 64) for name in BLOCKING
}
LIMITS = Thresholds()


def test_the_gate_opens_when_everything_holds() -> None:
    assert obstacles(CANDIDATE, CHECKS, PRESENT) == []


@pytest.mark.parametrize("name", BLOCKING)
@pytest.mark.parametrize(
    ("record", "told"),
    [
        (None, "was never made"),
        (CheckRecord(passed=True, subject="x" * 64), "evaluate again"),
        ("failed", "failed"),
    ],
)
def test_each_check_can_close_it(name: str, record: CheckRecord | str | None, told: str) -> None:
    if record == "failed":
        record = replace(CHECKS[name], passed=False)
    (sentence,) = obstacles(CANDIDATE, CHECKS | {name: record}, PRESENT)
    assert f"'{name}'" in sentence
    assert told in sentence


@pytest.mark.parametrize(
    ("present", "told"),
    [
        (replace(PRESENT, newest_model="n" * 64), "not the newest"),
        (replace(PRESENT, newest_model=None), "not the newest"),
        (replace(PRESENT, test_split="n" * 64), "no longer in force"),
        (replace(PRESENT, promotion=3), "the champion has changed"),
    ],
)
def test_a_stale_evaluation_keeps_it_closed(present: Present, told: str) -> None:
    (sentence,) = obstacles(CANDIDATE, CHECKS, present)
    assert told in sentence


def test_without_an_evaluation_it_stays_closed() -> None:
    assert obstacles(None, CHECKS, PRESENT) == ["no model has been evaluated yet: materialize evaluation_report"]


def judged(right: int, of: int = 200, confidence: float = 0.95, booked: float = 1.0) -> Evaluation:
    """An evaluation of `of` transfers, the first `right` of which are right, and the first `booked` share booked."""
    ids = [f"t{i}" for i in range(of)]
    truth = pl.DataFrame({"transfer_id": ids, "invoice_id": [f"i{i}" for i in range(of)], "amount": [100] * of})
    said = [f"i{i}" if i < right else "wrong" for i in range(of)]
    proposals = pl.DataFrame(
        {
            "transfer_id": ids,
            "invoice_id": said,
            "amount": [100] * of,
            "confidence": [confidence] * of,
            "decision": ["auto" if i < booked * of else "review" for i in range(of)],
            "evidence": [["because"]] * of,
        },
        schema=PROPOSALS,
    )
    return evaluate(proposals, truth)


RULES = judged(140)


@pytest.mark.parametrize(
    ("test", "newest", "speed", "failed"),
    [
        pytest.param(Sides(judged(190), RULES, None), None, 100, set(), id="the first model beats the rules"),
        pytest.param(Sides(RULES, RULES, None), None, 100, {"quality", "calibration"}, id="it does not"),
        pytest.param(Sides(judged(192), RULES, judged(190)), None, 100, set(), id="better than the champion"),
        pytest.param(Sides(judged(190), RULES, judged(190)), None, 100, set(), id="as good as the champion"),
        pytest.param(Sides(judged(188), RULES, judged(190)), None, 100, {"quality"}, id="worse than the champion"),
        pytest.param(
            Sides(judged(191, booked=0), RULES, judged(190)), None, 100, {"quality"}, id="books nothing, hardly better"
        ),
        pytest.param(Sides(judged(191, booked=0.85), RULES, judged(190)), None, 100, set(), id="books a little less"),
        pytest.param(
            Sides(judged(191, booked=0), RULES, judged(190, booked=0)), None, 100, set(), id="neither books anything"
        ),
        pytest.param(
            Sides(judged(198, booked=0), RULES, judged(170)), None, 100, set(), id="books less, surely better"
        ),
        pytest.param(
            Sides(judged(190), RULES, judged(190)),
            Sides(judged(180), RULES, judged(190)),
            100,
            {"quality"},
            id="worse on the newest month",
        ),
        pytest.param(
            Sides(judged(170, confidence=0.85), RULES, judged(190)),
            None,
            100,
            {"quality", "segments"},
            id="a kind falls",
        ),
        pytest.param(Sides(judged(160), RULES, None), None, 100, {"calibration"}, id="too sure of itself"),
        pytest.param(Sides(judged(190), RULES, None), None, 1, {"speed"}, id="too slow"),
    ],
)
def test_each_check_judges_its_own(test: Sides, newest: Sides | None, speed: float, failed: set[str]) -> None:
    verdicts = examine(test, newest, speed, LIMITS)
    assert {verdict.check for verdict in verdicts if not verdict.passed} == failed, verdicts
    assert all(verdict.reason for verdict in verdicts)


def test_few_transfers_may_be_miscalibrated_by_chance() -> None:
    sides = Sides(judged(18, of=20), judged(10, of=20), None)
    assert all(verdict.passed for verdict in examine(sides, None, 100, LIMITS))


@pytest.mark.parametrize(
    ("rows", "tagged", "told"),
    [
        ([100, 110, 90], [95, 100, 85], None),
        ([100, 110, 9], [95, 100, 9], "transfers of 3 has 9 rows where 105 are usual"),
        ([100, 110, 900], [95, 100, 900], "transfers of 3 has 900 rows"),
        ([100, 110, 90], [10, 10, 10], "10% of the transfers are tagged"),
        ([100], [90], None),
    ],
)
def test_data_must_look_as_usual(rows: list[int], tagged: list[int], told: str | None) -> None:
    months = pl.DataFrame(
        {"month": [str(i + 1) for i in range(len(rows))]} | dict.fromkeys(("invoices", "transfers", "matches"), rows)
    ).with_columns(tagged=pl.Series(tagged))
    verdict = examine_data(months, LIMITS)
    assert verdict.passed == (told is None)
    assert told is None or told in verdict.reason
