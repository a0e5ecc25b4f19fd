"""What moved is found, what chance or the difference between months explains is not, and the page stands alone."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.monitoring.drift.description import (
    ACCOUNT,
    COUNTS,
    PAYER,
    TRANSFERS,
    counted,
    described_confidences,
)
from matching_platform.monitoring.drift.evidently import compare
from matching_platform.monitoring.drift.judgement import FEWEST_MONTHS, Finding, distance
from matching_platform.monitoring.drift.limits import Limits
from matching_platform.monitoring.drift.report import DriftReport, drift, read

NOW: Final = "2024-11"
ROWS: Final = 1500


def month(
    seed: int, *, shift: float = 0.0, cards: float = 0.2, missing: float = 0.05, new: float = 0.02, rows: int = ROWS
) -> pl.DataFrame:
    """Counts of a month of transfers: one property of each kind, and a share of what was never seen."""
    rng = np.random.default_rng(seed)
    countries, absent = rng.choice(["PL", "DE", "CZ"], rows), rng.random(rows) < missing
    described = pl.DataFrame(
        {
            "power of ten": np.round(rng.normal(3 + shift, 1.0, rows)),
            "card": rng.random(rows) < cards,
            "country": np.where(absent, "none", countries).tolist(),
            "constant": np.ones(rows),
            ACCOUNT: rng.random(rows) < new,
        }
    )
    return counted(TRANSFERS, described)


def report(current: pl.DataFrame, months: int = 8, limits: Limits | None = None, **usual: float) -> DriftReport:
    reference = {f"2024-{number:02d}": month(number, **usual) for number in range(1, months + 1)}
    return drift(NOW, current, reference, limits or Limits())


def moved(told: DriftReport) -> list[str]:
    return [finding.what for finding in told.moved]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"shift": 1.0}, ["power of ten"]),
        ({"cards": 0.7}, ["card"]),
        ({"cards": 0.25}, []),
        ({"missing": 0.4}, ["country"]),
        ({"missing": 1.0, "shift": 2.0}, ["power of ten", "country"]),
        ({"new": 0.1}, [ACCOUNT]),
        ({"new": 0.0}, []),
        ({"rows": 40}, []),
    ],
)
def test_what_moved_is_named(change: Mapping[str, float], expected: list[str]) -> None:
    told = report(month(99, **change))
    assert moved(told) == expected
    assert ("nothing moved" in told.sentence) == (not expected)


def test_a_value_never_seen_before_is_a_move() -> None:
    current = month(99).with_columns(pl.col("value").replace("CZ", "HU"))
    assert moved(report(current)) == ["country"]


@pytest.mark.parametrize("months", range(FEWEST_MONTHS + 1))
def test_few_months_are_nothing_to_compare_with(months: int) -> None:
    told = report(month(99, shift=3.0), months)
    assert (moved(told) == []) == (months < FEWEST_MONTHS)
    assert ("nothing to compare with yet" in told.sentence) == (months < FEWEST_MONTHS)


def test_what_no_measure_can_reach_is_no_limit() -> None:
    """Six rows, of which each month's are all of one value: another such month says nothing."""
    odd = [few(number) for number in range(9)]
    reference = {f"2024-{number:02d}": pl.concat([month(number), odd[number]]) for number in range(1, 9)}
    told = drift(NOW, pl.concat([month(99, cards=0.7), odd[0]]), reference, Limits())
    assert [one.what for one in told.findings if one.limit is None] == ["odd", PAYER]
    assert told.sentence.endswith("; 2 cannot be judged yet.")
    assert told.files()[0].count("cannot be judged yet</span>") == 2
    assert moved(told) == ["card"]


def few(number: int) -> pl.DataFrame:
    payers = pl.DataFrame({PAYER: [number % 2 == 0] * 2})
    return pl.concat([counted(TRANSFERS, pl.DataFrame({"odd": [f"{number % 4}"] * 6})), counted(TRANSFERS, payers)])


def test_a_month_without_rows_has_no_findings() -> None:
    assert report(pl.DataFrame(schema=COUNTS)).findings == ()


def test_months_that_differ_anyway_are_no_drift() -> None:
    """A share of cards between 5 and 50 % from month to month is another such month's excuse."""
    shares = [0.05, 0.5, 0.2, 0.35, 0.1, 0.45, 0.15, 0.4]
    reference = {f"2024-{number:02d}": month(number, cards=share) for number, share in enumerate(shares, 1)}
    current = month(99, cards=0.6)
    assert moved(drift(NOW, current, reference, Limits())) == []
    assert moved(report(current, cards=0.28)) == ["card"]


def test_what_fades_is_not_what_rises() -> None:
    """A company becomes known: less is new every month, and as much as half a year ago is still a rise."""
    fading = [0.4, 0.25, 0.15, 0.1, 0.07, 0.05, 0.04, 0.03, 0.03, 0.02]
    reference = {f"2024-{number:02d}": month(number, new=share) for number, share in enumerate(fading, 1)}
    assert moved(drift(NOW, month(99, new=0.02), reference, Limits())) == []
    assert moved(drift(NOW, month(99, new=0.2), reference, Limits())) == [ACCOUNT]


def test_the_limits_are_obeyed() -> None:
    current = month(99, cards=0.7, new=0.1)
    assert moved(report(current, limits=Limits(distance=0.8, rise=0.9))) == []
    assert moved(report(current, limits=Limits(rise=0.9))) == ["card"]


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, 2000), min_size=1, max_size=20), months=st.integers(FEWEST_MONTHS, 14))
def test_a_month_like_all_others_never_drifts(counts: list[int], months: int) -> None:
    values = [str(value) for value in range(len(counts))]
    same = pl.DataFrame({"table": TRANSFERS, "property": "any", "value": values, "count": counts}, schema=COUNTS)
    same = same.filter(pl.col("count") > 0)
    reference = {f"2024-{number:02d}": same.sample(fraction=1, shuffle=True, seed=number) for number in range(months)}
    told = drift(NOW, same.reverse(), reference, Limits())
    assert not told.moved
    assert all(finding.measure == pytest.approx(0, abs=1e-7) for finding in told.findings)


@settings(max_examples=40, deadline=None)
@given(shares=st.lists(st.integers(310, 1000), min_size=2, max_size=8, unique=True), seed=st.integers(0, 50))
def test_the_farther_the_more_drift(shares: list[int], seed: int) -> None:
    """Both a distance and a share, from the reference's 0.3 upwards; and what is past its limit stays so."""
    reference = {f"2024-{m:02d}": flags(290 + (seed * m) % 20) for m in range(1, 7)}
    found = [drift(NOW, flags(share), reference, Limits()).findings for share in sorted(shares)]
    for findings in zip(*found, strict=True):
        measures = [finding.measure for finding in findings]
        assert measures == sorted(measures)
        assert [finding.moved for finding in findings] == sorted(finding.moved for finding in findings)


def flags(true: int, rows: int = 1000) -> pl.DataFrame:
    each = [(name, value, count) for name in ("flag", ACCOUNT) for value, count in _both(true, rows)]
    frame = pl.DataFrame(each, schema=["property", "value", "count"], orient="row")
    return frame.select(pl.lit(TRANSFERS).alias("table"), "property", "value", "count")


def _both(true: int, rows: int) -> Sequence[tuple[str, int]]:
    return [(value, count) for value, count in (("true", true), ("false", rows - true)) if count]


@pytest.fixture(scope="module")
def shifted() -> DriftReport:
    return report(month(99, shift=1.0, new=0.1))


def test_evidently_finds_the_same(shifted: DriftReport) -> None:
    _, data = compare(shifted.findings)
    distances = {one["config"]["column"]: one["value"] for one in data["metrics"]}
    verdicts = {one["metric_config"]["params"]["column"]: one["status"].value == "FAIL" for one in data["tests"]}
    assert verdicts == {finding.name: finding.moved for finding in shifted.findings}
    for finding in shifted.findings:
        if not finding.is_share:
            assert distances[finding.name] == pytest.approx(finding.measure, abs=1e-6)


def test_a_large_month_is_drawn_in_proportion() -> None:
    counts = pl.DataFrame({"value": ["1", "2"], "before": [4_000_000, 1_000_000], "now": [300_000, 100_000]})
    _, data = compare([Finding(TRANSFERS, "many", counts, 0.06, 0.1)])
    (metric,) = data["metrics"]
    assert metric["value"] == pytest.approx(
        distance(*(counts[side].to_numpy() for side in ("before", "now"))), abs=1e-4
    )


def test_the_page_needs_nothing_from_elsewhere(shifted: DriftReport) -> None:
    page, data = shifted.files()
    assert page.lstrip().startswith("<!doctype html>")
    assert "transfers: power of ten" in page
    assert 'src="http' not in page
    assert json.loads(data)["sentence"] == shifted.sentence
    assert read(data).sentence == shifted.sentence
    assert [(one.what, one.limit) for one in read(data).findings] == [(one.what, one.limit) for one in shifted.findings]


def test_a_page_of_nothing_to_compare_with(shifted: DriftReport) -> None:
    page, data = report(month(99), months=0).files()
    assert "nothing to compare with yet" in page
    assert "<iframe" not in page
    assert json.loads(data)["evidently"] == {}


def test_the_sentence_says_what_moved_and_by_how_much(shifted: DriftReport) -> None:
    told = shifted.sentence
    assert told.startswith("In 2024-11 ")
    assert "known payers paid from accounts never seen: 2" in told
    assert "transfers: power of ten, 3" in told
    assert "on average" in told


def test_confidences_are_those_of_transfers() -> None:
    proposals = pl.DataFrame(
        {
            "transfer_id": ["a", "a", "b", "c"],
            "invoice_id": ["1", "2", None, "3"],
            "confidence": [0.99, 0.99, 1.0, 0.42],
            "decision": ["auto", "auto", "none", "review"],
        }
    )
    found = {(name, value): count for _, name, value, count in described_confidences(proposals).rows()}
    assert found == {
        ("decision", "auto"): 1,
        ("decision", "none"): 1,
        ("decision", "review"): 1,
        ("confidence, percent", "95"): 2,
        ("confidence, percent", "40"): 1,
        ("invoices", "0"): 1,
        ("invoices", "1"): 1,
        ("invoices", "2"): 1,
    }
