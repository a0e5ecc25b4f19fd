"""Who pays for many at once is known by his habits: the marks of what he pays, its age, and the cut he keeps."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import MATCHES
from matching_platform.matching.collectors import Collectors
from matching_platform.matching.features import COLLECTED
from matching_platform.matching.history import settled
from matching_platform.matching.keys import keyed_transfers
from matching_platform.matching.memory import Memory
from matching_platform_tests.matching.worlds import invoices, read, transfers

ACQUIRER = {"counterparty_name": "CARDFLOW PAYMENTS NV", "counterparty_account": "NL11CARD0123456789"}


def sale(day: date, mark: str, customer: int, amount: int = 100_00) -> dict[str, Any]:
    return {
        "number": f"S{customer}",
        "reference": f"{mark}{customer}",
        "counterparty_id": f"c{customer}",
        "counterparty_name": f"Customer {customer}",
        "counterparty_account": None,
        "issued_on": day,
        "due_on": day,
        "amount": amount,
    }


@pytest.fixture(scope="module")
def memory() -> Memory:
    """Of four payouts, each of three customers' sales three days old, less 2 %."""
    days = [date(2024, 4, day) for day in (4, 11, 18, 25)]
    sold = invoices(*(sale(day - timedelta(days=3), "CF", 3 * n + k) for n, day in enumerate(days) for k in range(3)))
    paid = transfers(*({**ACQUIRER, "booked_on": day, "amount": 294_00} for day in days))
    tags = [(f"t{n // 3 + 1}", f"i{n + 1}", 100_00, date(2024, 5, 1)) for n in range(12)]
    matches = pl.DataFrame(tags, schema=MATCHES.schema, orient="row")
    return Memory.of(settled(Ledger(sold, paid, matches), matches))


def test_what_is_known_of_a_collector(memory: Memory) -> None:
    batch = keyed_transfers(transfers(ACQUIRER, {}, {**ACQUIRER, "counterparty_account": None}))
    known = Collectors.of(batch, memory, "2024-05")
    assert (known.payouts > 0).tolist() == [True, False, True], "by his name where he gives no account"
    assert known.age[0] == pytest.approx(3)
    assert known.commission[0] == pytest.approx(0.02)
    assert dict(zip(known.row.tolist(), known.mark.to_list(), strict=True)) == {0: "CF", 2: "CF"}


def test_nobody_collects_who_pays_for_few(memory: Memory) -> None:
    few = memory.counts.filter(~pl.col("value").is_in([f"c{n}" for n in range(4, 12)]))
    known = Collectors.of(keyed_transfers(transfers(ACQUIRER)), Memory(few, memory.rates), "2024-05")
    assert known.payouts.tolist() == [0]


def test_what_he_may_pay_next_are_sales_with_his_mark(memory: Memory) -> None:
    sold = invoices(
        sale(date(2024, 5, 3), "CF", 31), sale(date(2024, 5, 3), "XY", 32), sale(date(2024, 5, 4), "CF", 33)
    )
    lists = read(transfers({**ACQUIRER, "booked_on": date(2024, 5, 6), "amount": 196_00}), sold, memory)
    assert lists.pairs.invoice[lists.pairs.found[:, COLLECTED] > 0].tolist() == [0, 2]
    assert np.isfinite(lists.pair).all()
