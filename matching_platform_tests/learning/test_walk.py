"""A walk forward learns, for each month, from all before it and nothing else."""

import pytest

from matching_platform.learning import walk
from matching_platform.learning.training import TrainingSettings
from matching_platform.learning.walk import Learner, up_to
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import Ledger

QUICK = TrainingSettings(folds=2, hidden=8, pair_epochs=1, set_epochs=1)


def test_a_ledger_up_to_a_month_holds_no_later_transfer_or_match(small_ledger: Ledger) -> None:
    month = small_ledger.months()[2]
    past = up_to(small_ledger, month)
    assert past.months() == small_ledger.months()[:3]
    assert set(past.matches["transfer_id"]) <= set(past.transfers["transfer_id"])
    assert len(up_to(small_ledger, "1999-01").matches) == 0


def test_each_month_is_matched_by_what_was_learned_before_it(small_ledger: Ledger) -> None:
    months = small_ledger.months()[1:3]
    for month, (matched, matcher, proposals) in zip(
        months, walk.backtest(small_ledger, months, lambda *_: None), strict=True
    ):
        booked = small_ledger.transfers.filter(month_of("booked_on") == month)
        assert matched == month
        assert matcher.card["trained_until"] < month
        assert set(proposals["transfer_id"]) == set(booked["transfer_id"])


def test_a_month_is_labelled_once(small_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled: list[str] = []
    real = walk.label_month
    monkeypatch.setattr(walk, "label_month", lambda ledger, month: labelled.append(month) or real(ledger, month))
    learner, months = Learner(small_ledger, QUICK), small_ledger.months()
    learner.train(months[1], lambda *_: None)
    learner.train(months[2], lambda *_: None)
    assert labelled == months[:3]


def test_nothing_before_the_first_month_is_said(small_ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no transfer was booked up to 1999-12"):
        Learner(small_ledger, QUICK).train("1999-12", lambda *_: None)
