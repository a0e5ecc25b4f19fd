"""What a bookkeeper would expect of a model that has learned the trade at another company."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import MATCHES
from matching_platform.matching.matcher import Matcher
from matching_platform_tests.matching.worlds import invoices, transfers

OPEN = [
    {"number": f"FV/2024/05/0{n}", "amount": 100_00 + 37 * n, "issued_on": date(2024, 5, day)}
    for day, n in enumerate((113, 127, 131, 148, 159, 166), start=1)
]
WORTH = [int(row["amount"]) for row in OPEN]
OTHERS = [
    {
        "number": f"FV/2024/05/0{n}",
        "amount": 250_00 + 91 * n,
        "counterparty_id": f"c{n}",
        "counterparty_name": name,
        "counterparty_account": f"PL99{n:024}",
    }
    for n, name in ((214, "Zakład Ślusarski Wiśniewski"), (233, "Hurtownia Bałtyk S.A."), (288, "Nowak i Synowie"))
]


@pytest.fixture(scope="module")
def matcher(small_model: Path) -> Matcher:
    return Matcher.load(small_model)


def settled(matcher: Matcher, paid: list[dict[str, Any]], owed: list[dict[str, Any]]) -> list[dict[str, int]]:
    """What each transfer settles: amounts in minor units by invoice."""
    answered = matcher.propose(transfers(*paid), invoices(*owed))
    return [
        dict(answered.filter(transfer_id=f"t{n}").drop_nulls("invoice_id").select("invoice_id", "amount").iter_rows())
        for n in range(1, len(paid) + 1)
    ]


@pytest.mark.parametrize(
    ("paid", "expected"),
    [
        pytest.param({"title": "za FV/2024/05/0127", "amount": WORTH[1]}, [1], id="number and amount"),
        pytest.param({"title": "fv 2024-5-127", "amount": WORTH[1]}, [1], id="number written otherwise"),
        pytest.param(
            {"title": "FV/2024/05/0113 FV/2024/05/0131 FV/2024/05/0159", "amount": WORTH[0] + WORTH[2] + WORTH[4]},
            [0, 2, 4],
            id="three named, the sum fits",
        ),
        pytest.param({"title": "zapłata", "amount": sum(WORTH)}, [0, 1, 2, 3, 4, 5], id="all that is open"),
        pytest.param({"title": "przelew", "amount": WORTH[3]}, [3], id="the amount alone, of a payer known"),
        pytest.param(
            {
                "title": "FV/2024/05/0148",
                "amount": WORTH[3],
                "counterparty_name": "ANNA KOWALSKA",
                "counterparty_account": "PL00",
            },
            [3],
            id="paid from a private account",
        ),
    ],
)
def test_the_right_invoices_are_settled_to_the_cent(
    matcher: Matcher, paid: dict[str, Any], expected: list[int]
) -> None:
    assert settled(matcher, [paid], OPEN + OTHERS) == [{f"i{n + 1}": WORTH[n] for n in expected}]


def test_a_part_payment_settles_its_part(matcher: Matcher) -> None:
    part = WORTH[1] * 3 // 10
    assert settled(matcher, [{"title": "zaliczka FV/2024/05/0127", "amount": part}], OPEN + OTHERS) == [{"i2": part}]


def test_what_is_paid_twice_is_settled_once(matcher: Matcher) -> None:
    paid = {"title": "FV/2024/05/0127", "amount": WORTH[1]}
    first, second = settled(matcher, [paid, {**paid, "booked_on": date(2024, 5, 20)}], OPEN[1:2] + OTHERS)
    assert first == {"i1": WORTH[1]}
    assert second == {}


def test_a_credit_note_is_netted_in(matcher: Matcher) -> None:
    owed = [*OPEN[:2], {"number": "KOR/2024/05/0009", "amount": -40_00}]
    paid = {"title": "FV/2024/05/0113 FV/2024/05/0127 KOR/2024/05/0009", "amount": WORTH[0] + WORTH[1] - 40_00}
    assert settled(matcher, [paid], owed) == [{"i1": WORTH[0], "i2": WORTH[1], "i3": -40_00}]


def test_two_part_payments_close_an_invoice(matcher: Matcher) -> None:
    half = {"title": "rata FV/2024/05/0127", "amount": WORTH[1] // 2}
    rest = {**half, "amount": WORTH[1] - WORTH[1] // 2, "booked_on": date(2024, 5, 21)}
    shares = settled(matcher, [half, rest], OPEN[1:2] + OTHERS)
    assert sum(share.get("i1", 0) for share in shares) == WORTH[1]


@pytest.mark.parametrize(
    "paid",
    [
        pytest.param(
            {"title": "wynagrodzenie 05/2024", "direction": "out", "counterparty_name": "Jan Nowak"}, id="wages"
        ),
        pytest.param({"title": "odsetki", "amount": 17, "counterparty_name": "BANK"}, id="interest"),
        pytest.param({"title": "FV/2019/01/0001", "amount": 7_77, "counterparty_name": "NIEZNANY"}, id="not ours"),
    ],
)
def test_what_pays_no_invoice_settles_nothing(matcher: Matcher, paid: dict[str, Any]) -> None:
    odd = {"counterparty_account": None, "amount": 4321_99}
    assert settled(matcher, [odd | paid], OPEN + OTHERS) == [{}]


def test_a_foreign_invoice_is_settled_whole_at_a_rate_that_history_tells(matcher: Matcher) -> None:
    """Five invoices in euro were paid in złoty before; the sixth is."""
    sales = invoices(
        *(
            {"number": f"EX/24/{n:04}", "amount": 200_00 + 1111 * n, "currency": "EUR", "issued_on": date(2024, 4, n)}
            for n in range(1, 7)
        )
    )
    worth = sales["amount"].to_list()
    paid = transfers(
        *(
            {
                "title": f"EX/24/{n:04}",
                "amount": round(worth[n - 1] * (4.30 + n / 1000)),
                "booked_on": date(2024, 4, 20 + n),
            }
            for n in range(1, 6)
        ),
        {"title": "EX/24/0006", "amount": round(worth[5] * 4.31), "booked_on": date(2024, 5, 17)},
    )
    tags = [(f"t{n}", f"i{n}", worth[n - 1], date(2024, 4, 28)) for n in range(1, 6)]
    ledger = Ledger(sales, paid, pl.DataFrame(tags, schema=MATCHES.schema, orient="row"))
    answered = matcher.match(ledger, ["2024-05"])
    assert answered.select("transfer_id", "invoice_id", "amount").rows() == [("t6", "i6", worth[5])]


def test_the_evidence_says_what_a_person_would_check(matcher: Matcher) -> None:
    paid = transfers({"title": "FV/2024/05/0127", "amount": WORTH[1]})
    said = matcher.propose(paid, invoices(*OPEN, *OTHERS))["evidence"][0].to_list()
    assert "amount equals what is open on the invoice" in said
    assert "title names the invoice" in said
    assert "account is known to be the counterparty's" in said
    assert not any(statement.startswith("against") for statement in said)


def test_a_settlement_goes_on_with_the_next_month(matcher: Matcher) -> None:
    """A payment that a person has tagged in May leaves nothing open in June."""
    paid = {"title": "FV/2024/05/0127", "amount": WORTH[1]}
    ledger = Ledger(
        invoices(OPEN[1], *OTHERS),
        transfers(paid, {**paid, "booked_on": date(2024, 6, 17)}),
        pl.DataFrame([("t1", "i1", WORTH[1], date(2024, 5, 20))], schema=MATCHES.schema, orient="row"),
    )
    assert matcher.match(ledger, ["2024-06"])["invoice_id"].to_list() == [None]


RENT = {"amount": 512_40, "title": "", "counterparty_name": "J. ZIELINSKI", "counterparty_account": "PL77001122334455"}


@pytest.mark.parametrize(("corrected", "expected"), [("i1", "i3"), ("i2", "i4")])
def test_last_months_correction_changes_this_months_proposal(matcher: Matcher, corrected: str, expected: str) -> None:
    """A stranger pays an amount that two customers owe, every month; whose it is, a person said in May."""
    customers = [{"counterparty_id": f"c{n}", "counterparty_name": name} for n, name in ((1, "Alfa"), (2, "Omikron"))]
    months = [{"issued_on": date(2024, month, 3), "due_on": date(2024, month, 17)} for month in (5, 6)]
    account = {"amount": RENT["amount"], "counterparty_account": None}
    owed = [{**account, **customer, **month} for month in months for customer in customers]
    paid = transfers(*({**RENT, "booked_on": date(2024, month, 17)} for month in (5, 6)))
    tag = pl.DataFrame([("t1", corrected, RENT["amount"], date(2024, 5, 28))], schema=MATCHES.schema, orient="row")
    proposals = matcher.match(Ledger(invoices(*owed), paid, tag), ["2024-06"])
    assert proposals["invoice_id"].to_list() == [expected]


def test_what_was_booked_unattended_is_settled_at_a_company_that_tags_nothing_yet(matcher: Matcher) -> None:
    named = {"title": "za FV/2024/05/0127", "amount": WORTH[1]}
    paid = transfers({**named, "booked_on": date(2024, 5, 20)}, {**named, "booked_on": date(2024, 7, 2)})
    ledger = Ledger(invoices(*OPEN), paid, pl.DataFrame(schema=MATCHES.schema))
    first, second = matcher.match(ledger).sort("transfer_id").select("invoice_id", "decision").iter_rows()
    assert first == ("i2", "auto")
    assert second[0] != "i2"
