"""Equal data and settings give equal models, also after an interruption."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest
import torch

from matching_platform.learning.examples import label_month, weighted
from matching_platform.learning.training import TrainingSettings, train
from matching_platform.learning.walk import up_to
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.matcher import Matcher

QUICK = TrainingSettings(folds=2, hidden=8, pair_epochs=2, set_epochs=2)
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def until(small_ledger: Ledger) -> str:
    return small_ledger.months()[1]


@pytest.fixture(scope="module")
def known(small_ledger: Ledger, until: str) -> Ledger:
    return up_to(small_ledger, until)


@pytest.fixture(scope="module")
def examples(known: Ledger) -> list[pl.DataFrame]:
    return [label_month(known, month) for month in known.months()]


@pytest.fixture(scope="module")
def trained(examples: list[pl.DataFrame], known: Ledger, until: str) -> Matcher:
    return train(examples, known, until, QUICK)


def same(one: Matcher, other: Matcher) -> bool:
    pairs = [(a.state_dict(), b.state_dict()) for a, b in ((one.pairs, other.pairs), (one.sets, other.sets))]
    equal = all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)
    return equal and (one.calibration, one.auto_from) == (other.calibration, other.auto_from)


def test_the_same_again_is_the_same_model(
    trained: Matcher, examples: list[pl.DataFrame], known: Ledger, until: str
) -> None:
    assert same(train(examples, known, until, QUICK), trained)


@pytest.mark.parametrize("change", [{"seed": 8}, {"pair_epochs": 3}, {"learning_rate": 1e-3}])
def test_other_settings_are_another_model(
    trained: Matcher, examples: list[pl.DataFrame], known: Ledger, until: str, change: dict[str, float]
) -> None:
    assert not same(train(examples, known, until, replace(QUICK, **change)), trained)


@pytest.mark.parametrize("killed_after", [1, 4, 6])
def test_an_interrupted_training_goes_on_to_the_same_model(
    trained: Matcher, examples: list[pl.DataFrame], known: Ledger, until: str, tmp_path: Path, killed_after: int
) -> None:
    reports: list[str] = []

    def killed(step: str, share: float) -> None:
        reports.append(step)
        if len(reports) > killed_after:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(examples, known, until, QUICK, tmp_path, killed)
    assert same(train(examples, known, until, QUICK, tmp_path), trained)


def test_a_checkpoint_spares_the_work_and_serves_its_own_training_only(
    trained: Matcher, examples: list[pl.DataFrame], known: Ledger, until: str, tmp_path: Path
) -> None:
    def steps(settings: TrainingSettings, months: list[pl.DataFrame]) -> int:
        told: list[float] = []
        train(months, known, until, settings, tmp_path, lambda _, share: told.append(share))
        return len(told)

    first = steps(QUICK, examples)
    assert steps(QUICK, examples) < first
    assert steps(replace(QUICK, seed=8), examples) == first
    assert steps(QUICK, examples[1:]) == first


def test_progress_grows_to_the_whole(examples: list[pl.DataFrame], known: Ledger, until: str) -> None:
    told: dict[str, list[float]] = {}
    train(examples, known, until, QUICK, progress=lambda step, share: told.setdefault(step, []).append(share))
    assert set(told) == {"pairs", "sets"}
    assert all(shares[-1] == 1.0 and min(shares) > 0 for shares in told.values())


def test_the_card_says_what_was_learned(trained: Matcher, examples: list[pl.DataFrame], until: str) -> None:
    card = json.loads(json.dumps(trained.card))
    assert card["trained_until"] == until
    assert card["settings"] == asdict(QUICK)
    assert card["transfers"] == sum(frame.filter(~pl.col("elsewhere"))["invoice_id"].null_count() for frame in examples)
    assert all(0 <= value <= 1 for value in card["figures"].values())


@pytest.mark.parametrize(("weight", "alike"), [(1.0, True), (50.0, False)])
def test_what_counts_more_is_learned_otherwise(
    trained: Matcher, examples: list[pl.DataFrame], known: Ledger, until: str, weight: float, *, alike: bool
) -> None:
    """And where all count the same, it is of no matter how much."""
    chosen = examples[-1]["transfer_id"].unique().sort()[:5]
    heavy = [weighted(frame, chosen, weight) for frame in examples]
    assert same(train(heavy, known, until, QUICK), trained) is alike
    thrice = [frame.with_columns(weight=pl.lit(3.0, pl.Float32)) for frame in examples]
    assert same(train(thrice, known, until, QUICK), trained)


def test_too_little_to_learn_from_is_said(examples: list[pl.DataFrame], known: Ledger, until: str) -> None:
    few = examples[0].filter(pl.col("transfer_id").is_in(examples[0]["transfer_id"].unique().head(5).implode()))
    with pytest.raises(ValueError, match=rf"5 tagged transfers up to {until} are too few .* at least 20"):
        train([few], known, until, QUICK)
    with pytest.raises(ValueError, match="0 tagged transfers"):
        train([examples[0].head(0)], known, until, QUICK)


def test_nothing_but_wages_is_too_little(examples: list[pl.DataFrame], known: Ledger, until: str) -> None:
    wages = [frame.filter(pl.col("invoice_id").is_null()).with_columns(label=True) for frame in examples]
    with pytest.raises(ValueError, match="some of them paying invoices"):
        train(wages, known, until, QUICK)
