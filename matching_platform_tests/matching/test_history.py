"""What a ledger tells about a month: only what was known then, and no tag that the tables contradict."""

from datetime import date
from typing import Any

import polars as pl
import pytest

from matching_platform.ledger.months import first_day, next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import MATCHES
from matching_platform.matching.history import BEFORE, DAYS_BEFORE_ISSUE, Month, credible
from matching_platform_tests.matching.worlds import invoices, transfers


def ledger(invoice: dict[str, Any], transfer: dict[str, Any], amount: int | None) -> Ledger:
    """One invoice, one transfer, and the tag that it settles `amount` of it, or nothing."""
    row = ("t1", None if amount is None else "i1", amount, date(2024, 5, 20))
    return Ledger(invoices(invoice), transfers(transfer), pl.DataFrame([row], schema=MATCHES.schema, orient="row"))


@pytest.mark.parametrize(
    ("invoice", "transfer", "amount", "stands"),
    [
        pytest.param({}, {}, 100_00, True, id="paid"),
        pytest.param({}, {}, 30_00, True, id="part"),
        pytest.param({}, {}, None, True, id="settles nothing"),
        pytest.param({"amount": -50_00}, {}, -50_00, True, id="credit note netted in"),
        pytest.param({"direction": "purchase"}, {"direction": "out"}, 100_00, True, id="a supplier paid"),
        pytest.param({"issued_on": date(2024, 5, 17 + DAYS_BEFORE_ISSUE)}, {}, 100_00, True, id="paid just before"),
        pytest.param({"issued_on": date(2024, 5, 18 + DAYS_BEFORE_ISSUE)}, {}, 100_00, False, id="issued long after"),
        pytest.param({"direction": "purchase"}, {}, 100_00, False, id="the wrong way"),
        pytest.param({}, {"direction": "out"}, 100_00, False, id="the other wrong way"),
        pytest.param({}, {}, 100_01, False, id="more than it was worth"),
        pytest.param({}, {}, -1, False, id="the other sign"),
    ],
)
def test_a_tag_stands_unless_the_tables_contradict_it(
    invoice: dict[str, Any], transfer: dict[str, Any], amount: int | None, stands: bool
) -> None:
    assert len(credible(ledger(invoice, transfer, amount))) == stands


def test_a_month_holds_what_was_known_by_its_end(small_ledger: Ledger) -> None:
    booked = dict(small_ledger.transfers.select("transfer_id", "booked_on").iter_rows())
    for month in small_ledger.months():
        known, start, end = Month.of(small_ledger, month), first_day(month), first_day(next_month(month))
        assert known.transfers["booked_on"].is_sorted()
        assert known.transfers["booked_on"].is_between(start, end, closed="left").all()
        assert (known.invoices["issued_on"] < end).all()
        assert all(booked[transfer] < start for transfer in known.earlier["transfer_id"])


def test_settlements_lie_before_the_month_or_at_their_transfer() -> None:
    one = ledger({}, {}, 100_00)
    known = Month.of(one, "2024-05")
    assert known.settlements(one.matches).moment.tolist() == [BEFORE]
    assert known.settlements(one.matches, known.moments()).moment.tolist() == [0]
    assert len(Month.of(one, "2024-04").settlements(one.matches).invoice) == 0, "the invoice is not known yet"
