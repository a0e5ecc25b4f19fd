"""The yardstick, on cases small enough to count by hand."""

import json
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.learning.yardstick import (
    Evaluation,
    calibration_error,
    evaluate,
    kinds_of,
    paired_bootstrap,
    straight_through,
)
from matching_platform.ledger.schema import AUDIT, INVOICES, PROPOSALS, TRANSFERS

Pairs = list[tuple[str | None, int | None]]


def truth(**transfers: Pairs) -> pl.DataFrame:
    rows = [(transfer, *pair) for transfer, pairs in transfers.items() for pair in pairs]
    return pl.DataFrame(rows, schema=AUDIT.schema, orient="row")


def proposals(**transfers: tuple[float, str, Pairs]) -> pl.DataFrame:
    rows = [
        (transfer, *pair, confidence, decision, [])
        for transfer, (confidence, decision, pairs) in transfers.items()
        for pair in pairs
    ]
    return pl.DataFrame(rows, schema=PROPOSALS, orient="row")


NOTHING: Pairs = [(None, None)]


@pytest.mark.parametrize(
    ("proposed", "true", "exact", "exact_paying"),
    [
        pytest.param([("a", 5)], [("a", 5)], 1, 1, id="right"),
        pytest.param([("a", 4)], [("a", 5)], 1, 1, id="right invoice, another amount"),
        pytest.param([("b", 5)], [("a", 5)], 0, 0, id="another invoice"),
        pytest.param([("a", 5)], [("a", 5), ("b", 1)], 0, 0, id="one missing"),
        pytest.param([("a", 5), ("b", 1)], [("a", 5)], 0, 0, id="one too many"),
        pytest.param([("b", 1), ("a", 5)], [("a", 5), ("b", 1)], 1, 1, id="order does not matter"),
        pytest.param(NOTHING, NOTHING, 1, 0, id="nothing, rightly"),
        pytest.param(NOTHING, [("a", 5)], 0, 0, id="nothing, wrongly"),
        pytest.param([("a", 5)], NOTHING, 0, 0, id="booked, but pays nothing"),
        pytest.param([], NOTHING, 0, 0, id="no answer is wrong, even where nothing is paid"),
        pytest.param([], [("a", 5)], 0, 0, id="no answer"),
    ],
)
def test_a_set_is_exact_or_not(proposed: Pairs, true: Pairs, exact: float, exact_paying: float) -> None:
    figures = evaluate(proposals(t=(0.9, "review", proposed)), truth(t=true)).figures
    assert (figures["exact"], figures["exact_paying"]) == (exact, exact_paying)


def test_pairs_and_money_are_counted_over_all_transfers() -> None:
    figures = evaluate(
        proposals(
            t=(0.9, "auto", [("a", 50), ("b", 40)]),
            u=(0.8, "review", [("c", 10), ("x", 1)]),
            v=(0.7, "auto", [("d", 5)]),
            w=(0.7, "auto", [("y", 5)]),
            not_judged=(1.0, "auto", [("z", 5)]),
        ),
        truth(t=[("a", 60), ("b", 40)], u=[("c", 10), ("e", -10)], v=[("d", 5)], w=NOTHING),
        seconds=2.5,
    ).figures
    assert figures["transfers"] == 4
    assert figures["precision"] == pytest.approx(4 / 6)
    assert figures["recall"] == pytest.approx(4 / 5)
    assert figures["f1"] == pytest.approx(8 / 11)
    assert figures["amount_exact"] == pytest.approx(55 / 125)
    assert figures["auto_precision"] == pytest.approx(2 / 3)
    assert figures["auto_share"] == pytest.approx(2 / 3)
    assert figures["transfers_per_second"] == 2


def ranked(*rows: tuple[float, bool, bool]) -> pl.DataFrame:
    """Outcomes of booked transfers: confidence, exact, paying."""
    schema = {"confidence": pl.Float64, "exact": pl.Boolean, "paying": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(booked=pl.lit(value=True))


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        pytest.param([(0.9, True, True), (0.8, True, True)], 1.0, id="all right"),
        pytest.param([(0.9, True, True), (0.8, False, True)], 0.5, id="cut before the wrong one"),
        pytest.param([(0.9, True, True), (0.9, False, True)], 0.0, id="equal confidences are booked together"),
        pytest.param(
            [(0.9, True, True), (0.8, False, False)], 1.0, id="a cut above one that pays nothing costs nothing"
        ),
        pytest.param([(0.9, False, False), (0.8, True, True)], 0.0, id="one that pays nothing is wrong"),
        pytest.param([(1.0, False, True)] + [(0.5, True, True)] * 199, 1.0, id="recovers: 199 of 200 is 0.995"),
        pytest.param([(1.0, False, True)] + [(0.5, True, True)] * 198, 0.0, id="198 of 199 is not"),
    ],
)
def test_straight_through_rate(rows: list[tuple[float, bool, bool]], share: float) -> None:
    assert straight_through(ranked(*rows), 0.995) == share


def test_what_is_not_booked_counts_among_those_that_pay() -> None:
    figures = evaluate(
        proposals(t=(0.9, "auto", [("a", 5)]), u=(0.99, "none", NOTHING)), truth(t=[("a", 5)], u=[("b", 5)])
    ).figures
    assert figures["stp_995"] == 0.5


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.7, 0.9]), st.booleans()), min_size=1))
def test_straight_through_is_the_best_cut_there_is(rows: list[tuple[float, bool]]) -> None:
    cuts = [[right for confidence, right in rows if confidence >= cut] for cut in (0.1, 0.5, 0.7, 0.9)]
    best = max((len(cut) / len(rows) for cut in cuts if cut and np.mean(cut) >= 0.6), default=0.0)
    assert straight_through(ranked(*((c, r, True) for c, r in rows)), 0.6) == pytest.approx(best)


def test_calibration_error_is_the_mean_distance_and_ties_stay_together() -> None:
    rows = [(0.8, i < 6, True) for i in range(10)] + [(0.3, i < 3, True) for i in range(10)]
    assert calibration_error(ranked(*rows)) == pytest.approx(0.1)


def test_calibrated_confidence_has_a_small_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(6000)
    outcomes = pl.DataFrame({"confidence": confidence, "exact": random.random(6000) < confidence})
    assert calibration_error(outcomes) < 0.03
    assert calibration_error(outcomes.with_columns(confidence=pl.col("confidence") ** 2)) > 0.1


def invoice(**given: Any) -> dict[str, Any]:
    return {
        "invoice_id": "a",
        "number": "FV/2024/09/0578",
        "direction": "sale",
        "counterparty_id": "C1",
        "counterparty_name": "Avon Optik S.A.",
        "counterparty_account": "PL80067819",
        "issued_on": date(2024, 9, 10),
        "due_on": date(2024, 10, 10),
        "amount": 10_000,
        "currency": "PLN",
    } | given


def transfer(**given: Any) -> dict[str, Any]:
    return {
        "transfer_id": "t",
        "booked_on": date(2024, 10, 1),
        "amount": 10_000,
        "currency": "PLN",
        "direction": "in",
        "counterparty_name": "AVON OPTIK SPOLKA AK",
        "counterparty_account": "PL80 0678 19",
        "title": "FV.2024.09.0578",
    } | given


def kinds(transfer_row: dict[str, Any], *invoice_rows: dict[str, Any], amount: int = 10_000) -> set[str]:
    pairs: Pairs = [(row["invoice_id"], amount) for row in invoice_rows]
    told = kinds_of(
        truth(t=pairs or NOTHING),
        pl.DataFrame([transfer_row], schema=TRANSFERS.schema),
        pl.DataFrame(list(invoice_rows), schema=INVOICES.schema),
    )
    return {name for name, holds in told.drop("transfer_id").row(0, named=True).items() if holds}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(kinds(transfer(), invoice()), {"single"}, id="plain"),
        pytest.param(kinds(transfer()), {"pays nothing"}, id="nothing"),
        pytest.param(kinds(transfer(), invoice(), invoice(invoice_id="b")), {"batch"}, id="batch"),
        pytest.param(kinds(transfer(), invoice(), amount=9_800), {"single"}, id="two per cent off is a discount"),
        pytest.param(kinds(transfer(), invoice(), amount=5_000), {"single", "part payment"}, id="part"),
        pytest.param(
            kinds(transfer(), invoice(amount=-10_000), amount=-10_000), {"single", "netted credit note"}, id="credit"
        ),
        pytest.param(kinds(transfer(currency="EUR"), invoice()), {"single", "foreign currency"}, id="currency"),
        pytest.param(
            kinds(transfer(counterparty_name="Duna Holding"), invoice()), {"single"}, id="other name, known account"
        ),
        pytest.param(
            kinds(transfer(counterparty_name="Duna Holding", counterparty_account=None), invoice()),
            {"single", "payer under another name"},
            id="other name, no account",
        ),
    ],
)
def test_kinds(found: set[str], expected: set[str]) -> None:
    assert found == expected


@pytest.mark.parametrize(
    ("number", "title", "mentioned"),
    [
        ("FV/2024/09/0578", "fv 2024 09 0578", True),
        ("FV/2024/09/0578", "inv 0577, 578", True),
        ("FV/2024/09/0578", "202409 0578", True),
        ("FV/2024/09/0578", "September 2024/09", False),
        ("FV/2024/09/0578", "FV/2024/09/05", False),
        ("FV/2024/09/0578", "payment", False),
        ("FV/2024/09/0578", "/VAT/578,00/IDC/2583051914/INV/payment/TXT/", False),
        ("202409472", "re 472", True),
        ("FV2409-343", "NR 2409", False),
        ("VAT161/24", "161", True),
        ("VAT161/24", "24", False),
        ("", "anything", False),
    ],
)
def test_what_names_an_invoice(number: str, title: str, mentioned: bool) -> None:
    found = kinds(transfer(title=title), invoice(number=number))
    assert ("no reference in the title" not in found) is mentioned


def test_a_reference_names_an_invoice_too() -> None:
    found = kinds(transfer(title="RF18 5390 0754"), invoice(reference="RF1853900754"))
    assert "no reference in the title" not in found


def test_without_tables_only_what_the_truth_tells() -> None:
    evaluation = evaluate(proposals(t=(0.9, "auto", [("a", 5)])), truth(t=[("a", 5)], u=NOTHING))
    rows = {row["kind"]: row for row in evaluation.by_kind.to_dicts()}
    assert set(rows) == {"single", "batch", "netted credit note", "pays nothing"}
    assert rows["single"]["exact"] == 1
    assert rows["single"]["share"] == 0.5
    assert rows["batch"]["exact"] is None
    assert rows["pays nothing"]["exact"] == 0


def test_an_empty_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no transfer"):
        evaluate(proposals(), truth())


def test_an_evaluation_is_json() -> None:
    evaluation = evaluate(proposals(t=(0.9, "review", [("b", 5)])), truth(t=[("a", 5)]))
    assert json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))["figures"]["exact"] == 0


def judged(*right: bool) -> Evaluation:
    names = [f"t{i}" for i in range(len(right))]
    return evaluate(
        proposals(**{t: (0.9, "auto", [("a" if r else "b", 5)]) for t, r in zip(names, right, strict=True)}),
        truth(**{t: [("a", 5)] for t in names}),
    )


@pytest.mark.parametrize("figure", ["exact", "exact_paying", "f1", "amount_exact"])
def test_bootstrap_finds_a_difference_and_none_where_there_is_none(figure: str) -> None:
    champion = judged(*[True] * 150, *[False] * 50).outcomes
    challenger = judged(*[True] * 180, *[False] * 20).outcomes
    better = paired_bootstrap(challenger, champion.sample(fraction=1, shuffle=True, seed=1), figure)
    assert better.low > 0
    assert better.mean == pytest.approx(0.15, abs=0.01)
    # A paired difference of 30 in 200 has a standard error of 0.0253.
    assert better.high - better.low == pytest.approx(2 * 1.96 * 0.0253, rel=0.1)
    same = paired_bootstrap(champion, champion, figure)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_bootstrap_is_the_same_for_a_seed_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = judged(True, True, False, True).outcomes, judged(True, False, False, True).outcomes
    whole = paired_bootstrap(ours, theirs)
    monkeypatch.setattr("matching_platform.learning.yardstick._WEIGHTS_AT_ONCE", 64)
    assert paired_bootstrap(ours, theirs) == whole


def test_bootstrap_wants_the_same_transfers() -> None:
    with pytest.raises(ValueError, match="different transfers"):
        paired_bootstrap(judged(True).outcomes, judged(True, True).outcomes)
