"""What is measured about the promise, on a small company with the whole truth."""

from pathlib import Path

import polars as pl

from benchmarks.promise import watched
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.validation import validate
from matching_platform.matching.matcher import Matcher


def test_bookings_that_are_believed_are_as_wrong_as_in_truth(
    small_ledger: Ledger, small_model: Path, sample: dict[str, pl.DataFrame]
) -> None:
    proposals = Matcher.load(small_model).match(small_ledger, small_ledger.months()[-1:])
    told = watched(small_ledger, proposals, validate("audit", sample["audit"]))
    assert told["bookings"] >= told["of by tags"] >= told["of believed"] > 0
    assert told["wrong by tags"] >= told["wrong believed"]
    assert abs(told["wrong believed"] - told["wrong in truth"]) <= 2

    spoilt = proposals.with_columns(pl.col("invoice_id").shift(7))
    assert watched(small_ledger, spoilt)["accused believed"]
