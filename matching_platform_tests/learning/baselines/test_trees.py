"""Boosted trees: a fair opponent keeps the same rules about money and about what is known when."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from matching_platform.learning.baselines import rules
from matching_platform.learning.baselines.trees import Trees, likeliest_sum
from matching_platform.learning.examples import label_month
from matching_platform.learning.walk import up_to
from matching_platform.learning.yardstick import evaluate
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import PROPOSALS


@pytest.fixture(scope="module")
def judged(small_ledger: Ledger) -> list[str]:
    return small_ledger.months()[-2:]


@pytest.fixture(scope="module")
def trees(small_ledger: Ledger, judged: list[str]) -> Trees:
    learned = [month for month in small_ledger.months() if month not in judged]
    known = up_to(small_ledger, learned[-1])
    return Trees.learn([label_month(known, month) for month in learned], known, learned[-1])


@pytest.fixture(scope="module")
def proposals(trees: Trees, small_ledger: Ledger, judged: list[str]) -> pl.DataFrame:
    return trees.match(small_ledger, judged)


def test_every_transfer_of_the_months_has_an_answer(
    proposals: pl.DataFrame, small_ledger: Ledger, judged: list[str]
) -> None:
    booked = small_ledger.transfers.filter(month_of("booked_on").is_in(judged))
    assert proposals.schema == PROPOSALS
    assert set(proposals["transfer_id"]) == set(booked["transfer_id"])
    assert proposals["confidence"].is_between(0, 1).all()
    assert proposals["evidence"].list.len().min() == 1
    assert (proposals["invoice_id"].is_null() == (proposals["decision"] == "none")).all()


def test_they_are_better_than_the_rules(
    proposals: pl.DataFrame, small_ledger: Ledger, judged: list[str], sample: dict[str, pl.DataFrame]
) -> None:
    booked = small_ledger.transfers.filter(month_of("booked_on").is_in(judged))
    truth = small_ledger.matches.drop("tagged_on").join(booked, on="transfer_id", how="semi")
    ours, theirs = (evaluate(found, truth) for found in (proposals, rules.match(small_ledger, judged)))
    assert ours.figures["exact_paying"] > theirs.figures["exact_paying"] + 0.05


def test_without_any_matches_no_invoice_is_settled_for_more_than_its_amount(trees: Trees, small_ledger: Ledger) -> None:
    untagged = Ledger(small_ledger.invoices, small_ledger.transfers, small_ledger.matches.clear())
    found = trees.match(untagged).group_by("invoice_id").agg(settled=pl.col("amount").sum())
    worth = found.join(small_ledger.invoices, on="invoice_id")
    assert len(worth) > 500
    assert (worth["settled"].abs() <= worth["amount"].abs()).all()


def test_the_months_own_matches_are_not_known(
    trees: Trees, small_ledger: Ledger, judged: list[str], proposals: pl.DataFrame
) -> None:
    earlier = small_ledger.transfers.filter(~month_of("booked_on").is_in(judged[-1:]))
    untagged = small_ledger.matches.join(earlier, on="transfer_id", how="semi")
    again = trees.match(Ledger(small_ledger.invoices, small_ledger.transfers, untagged), judged)
    assert_frame_equal(again, proposals)


@pytest.mark.parametrize(
    ("worth", "odds", "amount", "expected"),
    [
        pytest.param([5, 3, 2], [3, 1, 1], 5, [0], id="one, likelier than two"),
        pytest.param([5, 3, 2], [1, 2, 2], 5, [1, 2], id="two, likelier than one"),
        pytest.param([5, 3, 2], [1, 1, 1], 4, [], id="none"),
        pytest.param([5, 3, -1], [1, -5, -5], 7, [0, 1, 2], id="a credit note netted, however unlikely"),
        pytest.param([5, 5], [1, 2], 5, [1], id="the likelier of equals"),
        pytest.param([], [], 5, [], id="no candidates"),
    ],
)
def test_the_likeliest_sum(worth: list[int], odds: list[float], amount: int, expected: list[int]) -> None:
    size = 12
    found = likeliest_sum(
        np.array([worth + [0] * (size - len(worth))], float),
        np.array([odds + [-99] * (size - len(odds))], float),
        np.array([amount]),
    )
    assert np.flatnonzero(found[0]).tolist() == expected


def test_transfers_without_any_candidate_settle_nothing(trees: Trees, small_ledger: Ledger, judged: list[str]) -> None:
    nothing_owed = Ledger(small_ledger.invoices.clear(), small_ledger.transfers, small_ledger.matches.clear())
    assert set(trees.match(nothing_owed, judged)["decision"]) == {"none"}
