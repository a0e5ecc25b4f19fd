"""A simulated year in which habits shift in month 11: drift is reported in that month and not before."""

from datetime import date

import polars as pl
import pytest

from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.ledger.validation import validate
from matching_platform.monitoring.drift.description import (
    ACCOUNT,
    CANDIDATES,
    COUNTERPARTY,
    COUNTS,
    FORMAT,
    INVOICES,
    NO_REFERENCE,
    PAYER,
    TRANSFERS,
    WAY,
    Describer,
)
from matching_platform.monitoring.drift.limits import Limits
from matching_platform.monitoring.drift.report import DriftReport, drift
from matching_platform.sample import company

SHIFT = "2024-11"


def reports(shift: str | None) -> dict[str, DriftReport]:
    made = company.generate(
        company.Settings(seed=1, start="2024-01", months=12, transfers_per_month=400, shift_month=shift)
    )
    ledger = Ledger(*(validate(name, made[name]) for name in RAW_TABLES))
    describer, described, told = Describer.of(ledger), dict[str, pl.DataFrame](), dict[str, DriftReport]()
    for month in ledger.months():
        counts = describer.describe(month)
        told[month] = drift(month, counts, described, Limits())
        described[month] = counts
    return told


def test_drift_is_reported_in_the_month_of_the_shift_and_not_before() -> None:
    told = reports(SHIFT)
    assert next(month for month, report in told.items() if report.moved) == SHIFT
    (finding,) = told[SHIFT].moved
    assert finding.what == ACCOUNT
    assert told[SHIFT].of(TRANSFERS).moved
    assert not told[SHIFT].of(CANDIDATES).moved


def test_a_world_that_stands_still_is_told_as_such() -> None:
    assert [month for month, report in reports(None).items() if report.moved] == []


def test_what_comes_later_changes_no_report(sample: dict[str, pl.DataFrame]) -> None:
    ledger = Ledger(*(validate(name, sample[name]) for name in RAW_TABLES))
    month, later = ledger.months()[3:5]
    known = date.fromisoformat(f"{later}-01")
    transfers = ledger.transfers.filter(pl.col("booked_on") < known)
    before = Ledger(
        ledger.invoices.filter(pl.col("issued_on") < known),
        transfers,
        # Its own tags do not count either: a month is described before anybody sets them.
        ledger.matches.join(
            transfers.filter(pl.col("booked_on") < date.fromisoformat(f"{month}-01")), on="transfer_id", how="semi"
        ),
    )
    assert Describer.of(before).describe(month).equals(Describer.of(ledger).describe(month))


def test_a_month_without_rows_is_described_by_nothing(small_ledger: Ledger) -> None:
    assert Describer.of(small_ledger).describe("2031-01").equals(pl.DataFrame(schema=COUNTS))


@pytest.mark.parametrize(
    ("changed", "what", "true"),
    [
        ({}, PAYER, 0),
        ({"counterparty_name": "Nobody", "counterparty_account": "DE99"}, PAYER, 1),
        ({"counterparty_name": "Nobody"}, PAYER, 0),
        ({}, ACCOUNT, 0),
        ({"counterparty_account": "DE99"}, ACCOUNT, 1),
        ({"title": "FV/2024/02/12"}, FORMAT, 0),
        ({"title": "FV.2024.02.12"}, FORMAT, 1),
        ({"title": "FV.2024.02.12"}, WAY, 1),
        ({"title": "faktura 12"}, NO_REFERENCE, 1),
        ({"title": "faktura 1234"}, NO_REFERENCE, 0),
    ],
)
def test_what_is_new_about_a_transfer(changed: dict[str, str], what: str, true: int) -> None:
    counts = Describer.of(ledger(changed)).describe("2024-02").filter(table=TRANSFERS, property=what)
    assert dict(counts.select("value", "count").rows()) == {"true" if true else "false": 1}


def test_what_is_new_about_an_invoice() -> None:
    counts = Describer.of(ledger({})).describe("2024-01").filter(table=INVOICES, property=COUNTERPARTY)
    assert dict(counts.select("value", "count").rows()) == {"true": 1}


def ledger(changed: dict[str, str]) -> Ledger:
    """Ten payments of one payer, one a day, and one more in the month after."""
    days = [date(2024, 1, day) for day in range(1, 11)] + [date(2024, 2, 5)]
    transfer = {
        "amount": 10_000,
        "currency": "EUR",
        "direction": "in",
        "counterparty_name": "Payer",
        "counterparty_account": "DE11111111",
        "title": "FV/2024/01/7",
    }
    rows = [{"transfer_id": str(day), "booked_on": day, **transfer} for day in days]
    rows[-1] |= changed
    invoice = {
        "invoice_id": "1",
        "number": "FV/2024/01/7",
        "direction": "sale",
        "counterparty_id": "c",
        "counterparty_name": "Payer",
        "counterparty_tax_id": None,
        "counterparty_account": None,
        "issued_on": date(2024, 1, 1),
        "due_on": date(2024, 1, 15),
        "amount": 10_000,
        "currency": "EUR",
        "reference": None,
    }
    return Ledger(
        pl.DataFrame([invoice], schema=TABLES["invoices"].schema),
        pl.DataFrame(rows, schema=TABLES["transfers"].schema),
        pl.DataFrame(schema=TABLES["matches"].schema),
    )
