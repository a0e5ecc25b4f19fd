"""Labelled pairs hold the truth of a month, from what was known in it."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from matching_platform.learning.examples import CORRECTION, credible_tags, examples_of, label_month
from matching_platform.ledger.months import first_day, month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.features import CONTEXT_FEATURES, PAIR_FEATURES, P


@pytest.fixture(scope="module")
def month(small_ledger: Ledger) -> str:
    return small_ledger.months()[2]


@pytest.fixture(scope="module")
def labelled(small_ledger: Ledger, month: str) -> pl.DataFrame:
    return label_month(small_ledger, month)


def test_every_tagged_transfer_of_the_month_has_a_head_and_its_pairs(
    labelled: pl.DataFrame, small_ledger: Ledger, month: str
) -> None:
    booked = small_ledger.transfers.filter(month_of("booked_on") == month)
    tagged = booked.join(credible_tags(small_ledger), on="transfer_id", how="semi")
    own = labelled.filter(~pl.col("elsewhere"))
    heads = own.filter(pl.col("invoice_id").is_null())
    assert 0 < len(heads) < len(booked), "some of the sample are not tagged"
    assert sorted(heads["transfer_id"]) == sorted(tagged["transfer_id"])
    assert not own.select("transfer_id", "invoice_id").is_duplicated().any()


def test_copies_for_other_companies_keep_the_truth_and_lose_the_memory(
    labelled: pl.DataFrame, small_ledger: Ledger
) -> None:
    heads = labelled.filter(pl.col("invoice_id").is_null())
    own, copies = heads.filter(~pl.col("elsewhere")), heads.filter("elsewhere")
    both = copies.join(own, on="transfer_id", suffix="_own")
    assert 0 < len(both) == len(copies) < len(own)
    assert (both["label"] == both["label_own"]).all()
    shares = both["transfer_amount"] / both["transfer_amount_own"]
    assert 0 < (shares < 1).sum() < len(shares), "some are paid in part"
    paid_in_part = both.filter(shares < 1)["transfer_id"]
    counts = small_ledger.matches.group_by("transfer_id").len()
    assert counts.filter(pl.col("transfer_id").is_in(paid_in_part.implode()))["len"].max() == 1
    seen = labelled.filter("elsewhere")["pair"].drop_nulls().to_numpy()[:, P["account_seen"]]
    assert (seen == 0).all()


def test_labels_are_the_tags(labelled: pl.DataFrame, small_ledger: Ledger) -> None:
    labelled = labelled.filter(~pl.col("elsewhere"))
    tags = credible_tags(small_ledger).join(labelled, on="transfer_id", how="semi")
    paid = tags.drop_nulls("invoice_id")
    pairs = labelled.filter(pl.col("invoice_id").is_not_null())
    heads = labelled.filter(pl.col("invoice_id").is_null())
    right = set(pairs.filter("label").select("transfer_id", "invoice_id").iter_rows())
    assert right <= set(paid.select("transfer_id", "invoice_id").iter_rows())
    assert len(right) + heads["missed"].sum() == len(paid.unique(["transfer_id", "invoice_id"]))
    assert set(heads.filter("label")["transfer_id"]) == set(tags["transfer_id"]) - set(paid["transfer_id"])
    assert heads["missed"].sum() < 0.1 * len(paid), "candidates hold nearly everything"


def test_the_future_is_not_seen(labelled: pl.DataFrame, small_ledger: Ledger, month: str) -> None:
    after = first_day(small_ledger.months()[3])
    booked = small_ledger.transfers.filter(pl.col("booked_on") < after)
    past = Ledger(
        small_ledger.invoices.filter(pl.col("issued_on") < after),
        booked,
        small_ledger.matches.join(booked, on="transfer_id", how="semi"),
    )
    assert_frame_equal(label_month(past, month), labelled, check_exact=True)


def test_the_order_of_rows_is_of_no_matter(labelled: pl.DataFrame, small_ledger: Ledger, month: str) -> None:
    tables = (small_ledger.invoices, small_ledger.transfers, small_ledger.matches)
    shuffled = Ledger(*(table.sample(fraction=1, shuffle=True, seed=1) for table in tables))
    assert_frame_equal(label_month(shuffled, month), labelled, check_exact=True)


def test_a_month_without_tags_teaches_nothing(small_ledger: Ledger, month: str) -> None:
    untagged = Ledger(small_ledger.invoices, small_ledger.transfers, small_ledger.matches.head(0))
    assert label_month(untagged, month).is_empty()
    assert label_month(small_ledger, "1999-01").is_empty()


def test_examples_are_the_same_rows_as_arrays(small_ledger: Ledger, labelled: pl.DataFrame) -> None:
    other = label_month(small_ledger, small_ledger.months()[1])
    data = examples_of([other, labelled])
    heads = pl.concat([other, labelled]).filter(pl.col("invoice_id").is_null())
    assert data.transfer_id.to_list() == heads["transfer_id"].to_list()
    assert data.paying.tolist() == (~heads["label"]).to_list()
    assert data.lists.pair.shape == (len(data.label), len(PAIR_FEATURES))
    assert data.lists.context.shape == (len(heads), len(CONTEXT_FEATURES))
    assert (np.diff(data.lists.pairs.transfer) >= 0).all()
    right = np.bincount(data.lists.pairs.transfer, data.label, len(heads))
    assert (right[~data.paying] == 0).all()
    assert (right[data.paying & data.complete] > 0).all()


def test_a_correction_counts_more_and_older_pairs_count_alike(
    small_ledger: Ledger, labelled: pl.DataFrame, month: str
) -> None:
    heads = labelled.filter(pl.col("invoice_id").is_null(), ~pl.col("elsewhere"))
    corrected = heads["transfer_id"].sort()[:3]
    told = label_month(small_ledger, month, corrected=corrected)
    assert_frame_equal(told.drop("weight"), labelled.drop("weight"), check_exact=True)
    assert labelled["weight"].unique().to_list() == [1.0]
    assert set(told.filter(pl.col("weight") == CORRECTION)["transfer_id"]) == set(corrected)
    data = examples_of([labelled.drop("weight"), told])
    before = data.month == 0
    assert (data.weight[before] == 1).all()
    heavy = data.weight[~before] == CORRECTION
    assert set(data.transfer_id.filter(~before).filter(heavy)) == set(corrected)


def test_a_month_in_portions_has_the_same_labelled_pairs(small_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    month = small_ledger.months()[-1]
    whole = label_month(small_ledger, month)
    monkeypatch.setattr("matching_platform.learning.examples.TRANSFERS_AT_ONCE", 30)
    parts = label_month(small_ledger, month)
    key = ["elsewhere", "transfer_id", "invoice_id"]
    shown = [name for name in whole.columns if name not in ("pair", "context", "counterparty", "order", "number_order")]
    assert_frame_equal(whole.select(shown).sort(key), parts.select(shown).sort(key))
