"""The rules of accounting software, case by case."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from matching_platform.learning.baselines import rules
from matching_platform.learning.yardstick import evaluate
from matching_platform.ledger.months import months_between
from matching_platform.ledger.reading import Ledger, read_file, read_ledger
from matching_platform.ledger.schema import INVOICES, MATCHES, PROPOSALS, TRANSFERS

DATA = Path(__file__).parents[4] / "shared" / "data"

INVOICE = {
    "direction": "sale",
    "counterparty_id": "C1",
    "counterparty_name": "Avon",
    "counterparty_account": "PL0001",
    "issued_on": date(2024, 1, 5),
    "due_on": date(2024, 2, 5),
    "amount": 10_000,
    "currency": "PLN",
}
TRANSFER = {
    "booked_on": date(2024, 2, 1),
    "amount": 10_000,
    "currency": "PLN",
    "direction": "in",
    "counterparty_name": "AVON",
    "counterparty_account": None,
    "title": "",
}


def invoice(name: str, number: str = "", **given: Any) -> dict[str, Any]:
    return INVOICE | {"invoice_id": name, "number": number} | given


def transfer(name: str, title: str = "", **given: Any) -> dict[str, Any]:
    return TRANSFER | {"transfer_id": name, "title": title} | given


def tag(transfer_id: str, invoice_id: str | None, amount: int | None) -> tuple[Any, ...]:
    return (transfer_id, invoice_id, amount, date(2024, 3, 1))


def ledger(invoices: list[dict[str, Any]], transfers: list[dict[str, Any]], *tags: tuple[Any, ...]) -> Ledger:
    return Ledger(
        pl.DataFrame(invoices, schema=INVOICES.schema),
        pl.DataFrame(transfers, schema=TRANSFERS.schema),
        pl.DataFrame(tags, schema=MATCHES.schema, orient="row"),
    )


def settled(found: pl.DataFrame) -> dict[str, dict[str, int]]:
    assert found.schema == PROPOSALS
    named = found.drop_nulls("invoice_id")
    sets: dict[str, dict[str, int]] = {name: {} for name in found["transfer_id"]}
    for name, invoice_id, amount in named.select("transfer_id", "invoice_id", "amount").rows():
        sets[name][invoice_id] = amount
    return sets


ONE = invoice("a", "FV/2024/01/0007")
TWO = invoice("b", "FV/2024/01/0008", amount=5_000)
NOTE = invoice("k", "KOR/2024/01/0009", amount=-1_000)


@pytest.mark.parametrize(
    ("invoices", "paying", "expected"),
    [
        pytest.param([ONE, TWO], transfer("t", "fv 2024-01-0007"), {"a": 10_000}, id="number and amount"),
        pytest.param([ONE], transfer("t", "FV2024010007", amount=9_997), {"a": 9_997}, id="a few cents off"),
        pytest.param(
            [invoice("a", "", reference="RF1853900754")], transfer("t", "RF18 5390 0754"), {"a": 10_000}, id="reference"
        ),
        pytest.param(
            [ONE, TWO, NOTE],
            transfer("t", "FV2024010007, FV2024010008, KOR2024010009", amount=14_000),
            {"a": 10_000, "b": 5_000, "k": -1_000},
            id="numbers and their sum",
        ),
        pytest.param(
            [ONE, TWO], transfer("t", "FV2024010007, FV2024010008", amount=5_000), {"b": 5_000}, id="one of two numbers"
        ),
        pytest.param([ONE], transfer("t", counterparty_account="pl 00 01"), {"a": 10_000}, id="account and amount"),
        pytest.param(
            [ONE, invoice("older", issued_on=date(2023, 12, 1))],
            transfer("t", counterparty_account="PL0001"),
            {"older": 10_000},
            id="the oldest of equals",
        ),
        pytest.param([ONE], transfer("t", "FV2024010007", amount=4_000), {"a": 4_000}, id="part payment"),
        pytest.param([ONE], transfer("t", "FV2024010007", amount=90_000), {"a": 10_000}, id="never more than is open"),
        pytest.param([ONE], transfer("t", "thanks"), {}, id="an amount alone says nothing"),
        pytest.param([ONE], transfer("t", counterparty_account="PL0001", amount=9_999), {}, id="account alone neither"),
        pytest.param([ONE], transfer("t", "FV2024010007", direction="out"), {}, id="wrong direction"),
        pytest.param([ONE], transfer("t", "FV2024010007", currency="EUR"), {}, id="other currency"),
        pytest.param([ONE | {"issued_on": date(2024, 2, 2)}], transfer("t", "FV2024010007"), {}, id="not issued yet"),
        pytest.param([invoice("a", "12")], transfer("t", "12"), {}, id="a short number stands in any title"),
        pytest.param([], transfer("t", "FV2024010007"), {}, id="no invoices"),
    ],
)
def test_one_transfer(invoices: list[dict[str, Any]], paying: dict[str, Any], expected: dict[str, int]) -> None:
    assert settled(rules.match(ledger(invoices, [paying]))) == {"t": expected}


def test_an_invoice_is_settled_once_and_the_earliest_transfer_has_it() -> None:
    late = transfer("late", "FV2024010007", booked_on=date(2024, 2, 9))
    early = transfer("early", "FV2024010007")
    assert settled(rules.match(ledger([ONE], [late, early]))) == {"late": {}, "early": {"a": 10_000}}


def test_the_rest_of_an_invoice_is_open_for_a_later_part() -> None:
    parts = [transfer(f"t{i}", "FV2024010007", amount=4_000, booked_on=date(2024, 2, i)) for i in (1, 2, 3)]
    found = settled(rules.match(ledger([ONE], parts)))
    assert found == {"t1": {"a": 4_000}, "t2": {"a": 4_000}, "t3": {"a": 2_000}}


def test_of_two_equal_invoices_each_transfer_has_one() -> None:
    twins = [invoice("a"), invoice("b", issued_on=date(2024, 1, 6))]
    same = [transfer(name, counterparty_account="PL0001") for name in ("t", "u")]
    assert settled(rules.match(ledger(twins, same))) == {"t": {"a": 10_000}, "u": {"b": 10_000}}


def test_matches_of_earlier_months_close_balances_and_teach_accounts() -> None:
    before = transfer("before", booked_on=date(2024, 1, 20), counterparty_account="PL0777")
    after = transfer("after", "FV2024010007", amount=5_000, counterparty_account="PL0777")
    known = tag("before", "a", 10_000)
    assert settled(rules.match(ledger([ONE, TWO], [before, after], known), ["2024-02"])) == {"after": {"b": 5_000}}


def test_matches_of_the_same_month_are_not_known_yet() -> None:
    first = transfer("first", "nothing useful")
    second = transfer("second", "FV2024010007", booked_on=date(2024, 2, 9))
    found = rules.match(ledger([ONE], [first, second], tag("first", "a", 10_000)))
    assert settled(found) == {"first": {}, "second": {"a": 10_000}}


def test_what_was_settled_without_a_match_stays_settled() -> None:
    first, again = transfer("t", "FV2024010007"), transfer("again", "FV2024010007", booked_on=date(2024, 3, 1))
    assert settled(rules.match(ledger([ONE], [first, again]))) == {"t": {"a": 10_000}, "again": {}}


def test_confidence_follows_how_often_the_rule_was_right() -> None:
    invoices = [invoice(f"i{n}", f"FV/{n:05d}") for n in range(200)]
    january = [transfer(f"t{n}", f"FV {n:05d}", booked_on=date(2024, 1, 9)) for n in range(100)]
    february = [transfer("t", "FV 00150")]

    def confidence(*tags: tuple[Any, ...]) -> tuple[float, str]:
        found = rules.match(ledger(invoices, january + february, *tags), ["2024-02"])
        return found["confidence"][0], found["decision"][0]

    always = confidence(*(tag(f"t{n}", f"i{n}", 10_000) for n in range(100)))
    never = confidence(*(tag(f"t{n}", None, None) for n in range(100)))
    assert confidence() == (pytest.approx(0.98), "review")
    assert always == (pytest.approx((100 + 20 * 0.98) / 120), "auto")
    assert never == (pytest.approx(20 * 0.98 / 120), "review")


def test_every_transfer_of_the_months_has_an_answer() -> None:
    transfers = [transfer("t", "FV2024010007"), transfer("u"), transfer("v", booked_on=date(2024, 3, 3))]
    found = rules.match(ledger([ONE], transfers), ["2024-02", "2024-05"])
    assert found.select("transfer_id", "decision").rows() == [("t", "review"), ("u", "none")]
    assert found["evidence"].list.len().min() > 0
    assert rules.match(ledger([ONE], transfers), ["2024-05"]).is_empty()


@pytest.mark.skipif(not DATA.is_dir(), reason="the company's tables are not at hand")
def test_on_a_company_the_rules_do_what_rules_do() -> None:
    company = read_ledger(DATA / "company")
    audit = read_file(DATA / "company" / "audit.parquet", "audit")
    found = rules.match(company, months_between("2024-07", "2024-12"))
    figures = evaluate(found, audit).figures
    assert 0.65 < figures["exact_paying"] < 0.75
    assert 0.60 < figures["f1"] < 0.70
    assert 0.40 < figures["stp_990"] < 0.45
    brought = (
        found.group_by("transfer_id").agg(pl.col("amount").sum(), n=pl.len()).join(company.transfers, on="transfer_id")
    )
    assert brought.filter(pl.col("amount") > pl.col("amount_right") + 5 * pl.col("n")).is_empty()
