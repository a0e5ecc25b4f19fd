"""The benchmark measures what it tells, on a small company, and writes it where the README shows it."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from benchmarks import figures
from benchmarks.readme import BEGIN, END, insert, walked
from matching_platform.learning.training import TrainingSettings
from matching_platform.ledger.months import month_of, next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.validation import LedgerError

QUICK = TrainingSettings(folds=2, hidden=8, pair_epochs=2, set_epochs=2)
PAGE = f"# A page\n\n{BEGIN}\nstale\n{END}\n\nThe end.\n"


def written(sample: dict[str, pl.DataFrame], folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        sample[name].write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(sample: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small company, its last month audited."""
    folder = written(sample, tmp_path_factory.mktemp("benchmark") / "data", "invoices", "transfers", "matches")
    last = sample["transfers"].filter(month_of("booked_on") == month_of("booked_on").max())
    sample["audit"].join(last, on="transfer_id", how="semi").write_parquet(folder / "audit.parquet")
    return folder


@pytest.fixture(scope="module")
def measured(folder: Path, small_ledger: Ledger) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figures, "WALKED_FROM", 4)
        return figures.measure(folder, folder, lambda *_: None, small_ledger.months()[2], QUICK)


def test_all_three_sides_sit_all_three_exams(measured: dict[str, Any]) -> None:
    assert [exam["exam"] for exam in measured["exams"]] == ["company", "pay_to_inv", "cold start"]
    for exam in measured["exams"]:
        assert set(exam["sides"]) == set(exam["curves"]) == {"rules", "trees", "model"}
        assert exam["sides"]["trees"]["exact"] > exam["sides"]["rules"]["exact"]
        assert 0.8 < exam["sides"]["model"]["true_pairs_found"] <= 1
        assert 0.5 < exam["sides"]["model"]["right_set_considered"] <= 1
        assert exam["sides"]["model"]["candidates_per_transfer"] > 1
        assert exam["sides"]["model"]["training_seconds"] > 0


def test_the_walk_says_by_what_a_month_is_judged(measured: dict[str, Any], small_ledger: Ledger) -> None:
    walked = [(row["month"], row["judged_by"]) for row in measured["walk"]]
    assert walked == list(zip(small_ledger.months()[4:], ("tags", "audit"), strict=True))


def test_figures_table_and_picture_are_written(measured: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    figures.write(measured, tmp_path)
    assert json.loads((tmp_path / "benchmarks" / "figures.json").read_text())["walk"] == measured["walk"]
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("# A page\n") and page.endswith("The end.\n") and "stale" not in page
    assert sum(line.startswith("| ") and ": " in line for line in page.splitlines()) == 9
    assert f"{measured['exams'][0]['sides']['model']['exact_paying']:.3f}" in page
    assert ElementTree.parse(tmp_path / "docs" / "benchmark.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("names", "until", "said"),
    [
        (("invoices", "transfers", "matches"), "1999-12", "has no audit.parquet or audit.csv to judge by"),
        (("invoices", "transfers", "matches", "audit"), "2099-12", "has no match of a transfer booked after 2099-12"),
    ],
)
def test_nothing_to_judge_by_is_one_error(
    sample: dict[str, pl.DataFrame], tmp_path: Path, names: tuple[str, ...], until: str, said: str
) -> None:
    folder = written(sample, tmp_path / "data", *names)
    with pytest.raises(LedgerError, match=said):
        figures.measure(folder, folder, lambda *_: None, until, QUICK)


@pytest.mark.parametrize("page", ["no markers", BEGIN, f"{BEGIN} {END} {BEGIN} {END}"])
def test_a_page_without_just_one_place_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        insert(page, {})


@pytest.mark.parametrize(
    ("reached", "told"),
    [
        ([0.9] * 3, "0.900 of the paying transfers exactly right in the company's first year."),
        ([0.9] * 12 + [0.95, 0.89, 0.92], "0.890 in the lowest month after it, 2025-02 (-1.0 points)."),
    ],
)
def test_later_months_stand_against_the_first_year(reached: list[float], told: str) -> None:
    rows = [
        {"month": next_month("2024-01", place), "first_year": place < 12, "sides": {"model": {"exact_paying": value}}}
        for place, value in enumerate(reached)
    ]
    assert walked(rows).endswith(told)
