"""A company's tables: everything that happened to it, booked, tagged and written."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from benchmarks.companies.billing import Invoice, bill
from benchmarks.companies.nothing import Transfer, paid_twice, pay_nothing, refunds
from benchmarks.companies.parties import make_parties, one_of
from benchmarks.companies.paying import Clock, Payment, pay
from benchmarks.companies.spec import Company
from benchmarks.companies.titles import entitle, shown
from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.months import first_day, next_month

UNTAGGED: Final = 0.03
WRONG: Final = 0.01
AUDITED_MONTHS: Final = 6


def generate(company: Company, scale: float = 1.0, seed: int = 1) -> dict[str, pl.DataFrame]:
    """The frames `invoices`, `transfers`, `matches`, `audit` and `truth` in the contract's external types.

    `truth` is what every transfer settles, `audit` the same of the last AUDITED_MONTHS, `matches` what people tagged.
    The same arguments give the same frames. `scale` multiplies the number of counterparties and of other transfers.
    """
    rng = np.random.default_rng([seed, *company.ourselves.encode()])
    clock = Clock(first_day(company.start))
    parties = make_parties(rng, company, scale)
    invoices = bill(rng, company, parties, clock.first)
    booked = [(payment, _transfer(rng, company, payment, clock)) for payment in pay(rng, company, invoices, clock)]
    transfers = [transfer for _, transfer in booked]
    transfers += paid_twice(rng, company, booked, clock)
    transfers += refunds(rng, company, invoices, booked, clock)
    transfers += pay_nothing(rng, company, parties, clock, scale)
    end = (first_day(next_month(company.start, company.months)) - clock.first).days
    transfers = sorted(
        (transfer for transfer in transfers if transfer.day < end),
        key=lambda transfer: (transfer.day, transfer.name, transfer.title, transfer.amount, len(transfer.settles)),
    )
    audited = first_day(next_month(company.start, company.months - AUDITED_MONTHS))
    frames = {
        "invoices": _invoices([invoice for invoice in invoices if invoice.day < end], clock),
        "transfers": _transfers(transfers, clock),
        "truth": _lines((_id(row), transfer.settles) for row, transfer in enumerate(transfers)),
        "matches": _tags(rng, transfers, invoices, clock),
    }
    late = frames["transfers"].filter(pl.col("booked_on") >= audited)
    frames["audit"] = frames["truth"].join(late, on="transfer_id", how="semi", maintain_order="left")
    return {name: frame.with_columns(to_decimal("amount")) for name, frame in frames.items()}


def write(folder: Path, frames: dict[str, pl.DataFrame]) -> None:
    """The frames as Parquet files in `folder`, which is made where it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")


def _transfer(rng: np.random.Generator, company: Company, payment: Payment, clock: Clock) -> Transfer:
    account = payment.purse.account if rng.random() < company.account_shown else None
    title, name = entitle(rng, company, payment, clock), shown(rng, company, payment)
    return Transfer(
        payment.day, payment.amount, payment.currency, payment.incoming, name, account, title, tuple(payment.lines)
    )


def _id(row: int) -> str:
    return f"T{row + 1:06}"


def _invoices(invoices: list[Invoice], clock: Clock) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "invoice_id": [invoice.id for invoice in invoices],
            "number": [invoice.number for invoice in invoices],
            "direction": [invoice.party.segment.side for invoice in invoices],
            "counterparty_id": [invoice.party.id for invoice in invoices],
            "counterparty_name": [invoice.party.name for invoice in invoices],
            "counterparty_tax_id": [invoice.party.tax_id for invoice in invoices],
            "counterparty_account": [invoice.party.account for invoice in invoices],
            "issued_on": [clock.on(invoice.day) for invoice in invoices],
            "due_on": [clock.on(invoice.due) for invoice in invoices],
            "amount": [invoice.amount for invoice in invoices],
            "currency": [invoice.party.currency for invoice in invoices],
            "reference": pl.Series([invoice.reference for invoice in invoices], dtype=pl.String),
        }
    )


def _transfers(transfers: list[Transfer], clock: Clock) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "transfer_id": [_id(row) for row in range(len(transfers))],
            "booked_on": [clock.on(transfer.day) for transfer in transfers],
            "amount": [transfer.amount for transfer in transfers],
            "currency": [transfer.currency for transfer in transfers],
            "direction": ["in" if transfer.incoming else "out" for transfer in transfers],
            "counterparty_name": [transfer.name for transfer in transfers],
            "counterparty_account": pl.Series([transfer.account for transfer in transfers], dtype=pl.String),
            "title": [transfer.title for transfer in transfers],
        }
    )


def _lines(settled: Iterable[tuple[str, Iterable[tuple[Invoice, int]]]]) -> pl.DataFrame:
    rows: list[tuple[str, str | None, int | None]] = []
    for transfer_id, lines in settled:
        rows += [(transfer_id, invoice.id, amount) for invoice, amount in lines] or [(transfer_id, None, None)]
    schema = {"transfer_id": pl.String, "invoice_id": pl.String, "amount": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _tags(rng: np.random.Generator, transfers: list[Transfer], invoices: list[Invoice], clock: Clock) -> pl.DataFrame:
    """What people tagged, in sessions over the weeks after; some never, and a few wrong."""
    by_party: dict[object, list[Invoice]] = {}
    for invoice in invoices:
        by_party.setdefault(invoice.party, []).append(invoice)
    tagged: list[tuple[str, tuple[tuple[Invoice, int], ...]]] = []
    days: dict[str, date] = {}
    for row, transfer in enumerate(transfers):
        if rng.random() < UNTAGGED:
            continue
        lines = transfer.settles
        if lines and rng.random() < WRONG:
            lines = _mistaken(rng, transfer, by_party)
        tagged.append((_id(row), lines))
        days[_id(row)] = clock.on(transfer.day) + timedelta(days=1 + int(min(rng.gamma(1.6, 6.0), 55)))
    frame = _lines(tagged)
    return frame.with_columns(tagged_on=pl.Series([days[key] for key in frame["transfer_id"]], dtype=pl.Date)).sort(
        "tagged_on", "transfer_id", "invoice_id"
    )


def _mistaken(
    rng: np.random.Generator, transfer: Transfer, by_party: dict[object, list[Invoice]]
) -> tuple[tuple[Invoice, int], ...]:
    """Another bill of the same counterparty, a batch that lacks one, or nothing at all."""
    first, amount = transfer.settles[0]
    others = [
        invoice
        for invoice in by_party[first.party]
        if invoice.amount > 0 and invoice is not first and invoice.day < transfer.day
    ]
    if len(transfer.settles) > 1 and transfer.settles[1][1] > 0:
        return transfer.settles[1:]
    if others and rng.random() < 0.8:
        other = one_of(rng, others)
        return ((other, min(amount, other.amount)),)
    return ()
