"""The sets that were not proposed: from the very comparison that made the proposal, conserved, and told once each."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from matching_platform.ledger.reading import Ledger
from matching_platform.matching.matcher import RUNNERS_UP, RUNNERS_UP_KEPT, Matched, Matcher
from matching_platform_tests.matching.worlds import invoices, transfers

SET = ("transfer_id", "rank")


@pytest.fixture(scope="module")
def matcher(small_model: Path) -> Matcher:
    return Matcher.load(small_model)


@pytest.fixture(scope="module")
def matched(matcher: Matcher, small_ledger: Ledger) -> Matched:
    return matcher.match_in_full(small_ledger, small_ledger.months()[-2:])


@pytest.fixture(scope="module")
def others(matched: Matched) -> pl.DataFrame:
    return matched.runners_up


def test_the_proposals_are_those_of_match(matched: Matched, matcher: Matcher, small_ledger: Ledger) -> None:
    alone = matcher.match(small_ledger, small_ledger.months()[-2:])
    assert_frame_equal(matched.proposals, alone, check_exact=True)


def test_they_follow_their_proposals_by_rank(matched: Matched, others: pl.DataFrame) -> None:
    assert others.schema == RUNNERS_UP
    order = matched.proposals["transfer_id"].unique(maintain_order=True).to_list()
    told = others["transfer_id"].unique(maintain_order=True).to_list()
    assert told == [name for name in order if name in set(told)]
    ranks = others.unique(SET, maintain_order=True)
    counted = ranks.select(pl.int_range(1, pl.len() + 1).over("transfer_id")).to_series()
    assert ranks["rank"].to_list() == counted.to_list()
    assert ranks["rank"].max() == RUNNERS_UP_KEPT
    assert ranks.select((pl.col("share").diff().over("transfer_id") > 0).any()).item() is False


def test_shares_are_of_one_whole(others: pl.DataFrame) -> None:
    assert others.group_by(SET).agg(pl.col("share").n_unique())["share"].eq(1).all()
    together = others.unique(SET).group_by("transfer_id").agg(pl.col("share").sum(), least=pl.col("share").min())
    assert together["least"].ge(0).all()
    assert together["share"].le(1 + 1e-5).all()


def test_each_settles_something_else(matched: Matched, others: pl.DataFrame) -> None:
    proposed = matched.proposals.with_columns(rank=pl.lit(0, pl.Int64)).select(*SET, "invoice_id", "amount")
    every = pl.concat([proposed, others.select(proposed.columns)])
    told = every.sort(*SET, "invoice_id").group_by(SET).agg(pl.col("invoice_id"), pl.col("amount"))
    assert not told.select("transfer_id", "invoice_id", "amount").is_duplicated().any()
    assert not others.select(*SET, "invoice_id").is_duplicated().any()


def test_nothing_is_one_of_them(others: pl.DataFrame) -> None:
    nothing = others.filter(pl.col("invoice_id").is_null())
    assert 0 < nothing.height < others.height
    assert nothing["amount"].is_null().all()
    assert others.filter(pl.col("invoice_id").is_not_null())["amount"].is_not_null().all()
    assert others.filter(pl.len().over(SET) > 1)["invoice_id"].is_not_null().all()


def test_no_set_settles_more_than_an_invoice_is_worth(others: pl.DataFrame, small_ledger: Ledger) -> None:
    worth = others.drop_nulls("invoice_id").join(small_ledger.invoices, on="invoice_id")
    fits = (pl.col("amount") * pl.col("amount_right").sign()).is_between(1, pl.col("amount_right").abs())
    assert worth.height == others["invoice_id"].drop_nulls().len()
    assert worth.filter(~fits).is_empty()


def test_the_other_of_two_alike_is_the_runner_up(matcher: Matcher) -> None:
    owed = invoices({"number": "FV/24/0101"}, {"number": "FV/24/0102"}, {"number": "FV/24/0103", "amount": 7_00})
    ledger = Ledger(owed, transfers({"title": "FV/24/0102"}), LEDGER_WITHOUT_TAGS)
    told = matcher.match_in_full(ledger)
    assert told.proposals["invoice_id"].to_list() == ["i2"]
    assert ("i1", 100_00) in told.runners_up.select("invoice_id", "amount").rows()
    assert ("i2", 100_00) not in told.runners_up.filter(pl.len().over(SET) == 1).select("invoice_id", "amount").rows()


def test_who_can_pay_nothing_has_no_runner_up(matcher: Matcher) -> None:
    ledger = Ledger(invoices(), transfers({"title": "FV/24/0102"}, {}), LEDGER_WITHOUT_TAGS)
    assert_frame_equal(matcher.match_in_full(ledger).runners_up, pl.DataFrame(schema=RUNNERS_UP))


LEDGER_WITHOUT_TAGS = pl.DataFrame(
    schema={"transfer_id": pl.String, "invoice_id": pl.String, "amount": pl.Int64, "tagged_on": pl.Date}
)
