"""Invoices and credit notes: what is billed to whom and when, and the numbers printed on them."""

import re
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from benchmarks.companies import references
from benchmarks.companies.parties import Party, amount_in, one_of
from benchmarks.companies.spec import Company

MONTH = 30.4  # days


@dataclass(eq=False)
class Invoice:
    """An invoice or, below zero, a credit note; days are counted from the company's first, amounts are minor units.

    `of` is the invoice that a credit note takes back, `running` the part of the number that counts, `former` the number
    as the old system would have printed it, `previous` the counterparty's bill before this one, `open` what has not been
    paid yet, and `closed` the day on which nothing was left.
    """

    party: Party
    day: int
    due: int
    amount: int
    unpaid: bool = False
    of: "Invoice | None" = None
    number: str = ""
    running: str = ""
    former: str = ""
    reference: str | None = None
    id: str = ""
    previous: "Invoice | None" = None
    open: int = 0
    closed: int | None = None


def bill(rng: np.random.Generator, company: Company, parties: list[Party], first: date) -> list[Invoice]:
    """All that is billed, in order of issue, numbered; `open` is still the whole amount."""
    invoices: list[Invoice] = []
    for party in parties:
        invoices += _billed(rng, company, party, first)
    invoices.sort(key=lambda invoice: (invoice.day, invoice.party.serial, invoice.amount))
    _number(rng, company, invoices, first)
    latest: dict[int, Invoice] = {}
    for serial, invoice in enumerate(invoices, 1):
        invoice.id, invoice.open = f"{serial:06}", invoice.amount
        invoice.previous = latest.get(invoice.party.serial)
        if invoice.amount > 0:
            latest[invoice.party.serial] = invoice
        invoice.reference = _reference(rng, invoice, serial)
    return invoices


def filled(form: str, running: int, day: date) -> tuple[str, str]:
    """A number printed by `form`, and its running part."""
    width = re.search(r"\{n:?0?(\d*)\}", form)
    text = str(running).zfill(int((width and width[1]) or 1))
    return form.format(n=running, yyyy=day.year, yy=f"{day:%y}", mm=f"{day:%m}", dd=f"{day:%d}"), text


def _billed(rng: np.random.Generator, company: Company, party: Party, first: date) -> list[Invoice]:
    segment, last = party.segment, round(company.months * MONTH)
    count = rng.poisson(party.rate * (last - party.joined) / MONTH)
    if party.segment.rate < 0.2:  # One-time customers exist because they bought something.
        count = max(1, count)
    billed = []
    for day in sorted(int(day) for day in rng.integers(party.joined, last, count)):
        if party.segment.side == "sale" and (first + timedelta(days=day)).weekday() == 6:
            day += 1
        amount = _amount(rng, party)
        unpaid = not party.recurring and rng.random() < segment.unpaid
        invoice = Invoice(party, day, day + party.terms, amount, unpaid)
        billed.append(invoice)
        if rng.random() < segment.credits and not party.recurring:
            whole = rng.random() < 0.1
            # The two of them lie open for ever, but for a card's: it was charged before.
            settled = whole and party.hand(day).habit.rhythm != "payout"
            invoice.unpaid |= settled
            back = amount if whole else max(1_00, _whole(party, round(rng.uniform(0.03, 0.5) * amount)))
            when = day + int(rng.integers(1, 15))
            billed.append(Invoice(party, when, when, -min(back, amount), unpaid=settled, of=invoice))
    return [invoice for invoice in billed if invoice.day < last]


def _amount(rng: np.random.Generator, party: Party) -> int:
    if party.recurring:
        return round(party.typical * 100) if party.segment.prices else amount_in(party.currency, party.typical)
    if party.segment.prices:
        extras = rng.uniform(3, 80) if rng.random() < 0.5 else 0.0
        return round((one_of(rng, party.segment.prices) * int(rng.integers(1, 6)) + extras) * 100)
    return amount_in(party.currency, max(4.0, party.typical * rng.lognormal(0, party.segment.sigma)))


def _whole(party: Party, minor: int) -> int:
    """`minor` without coins where the currency has none; at least one unit."""
    return max(1, round(minor / 100)) * 100 if amount_in(party.currency, 0.0123) % 100 == 0 else minor


def _number(rng: np.random.Generator, company: Company, invoices: list[Invoice], first: date) -> None:
    """Sales run through the company's own numbers; every supplier has a form of its own and skips what others get.

    Running numbers start again with the month or year that their form names.
    """
    counts: dict[tuple[str, str], int] = {}
    for invoice in invoices:
        day, step = first + timedelta(days=invoice.day), 1
        if invoice.party.segment.side == "purchase":
            form = ("C" if invoice.amount < 0 else "") + invoice.party.numbering
            issuer, start = f"{invoice.party.id} {form}", 17 * invoice.party.serial % 9_000
            step = int(rng.integers(1, 40))
        elif invoice.amount < 0:
            form, issuer, start = company.credit_number, "credit", 100
        else:
            since = max(month for month in company.numbers if month * MONTH <= invoice.day)
            form, issuer, start = company.numbers[since], f"sale {since}", 0 if since else company.first_number
        period = f"{day:%Y%m}" if "{mm}" in form else f"{day:%Y}" if "{yy" in form else ""
        begins = 0 if "{mm}" in form or (issuer, "") in counts else start
        counts[issuer, ""] = counts.get((issuer, ""), start) + (step if period == "" else 0)
        counts[issuer, period] = counts.get((issuer, period), begins) + (step if period else 0)
        invoice.number, invoice.running = filled(form, counts[issuer, period], day)
        invoice.former = filled(company.old_number, counts[issuer, period], day)[0]


def _reference(rng: np.random.Generator, invoice: Invoice, serial: int) -> str | None:
    segment = invoice.party.segment
    kind = invoice.party.country.reference if segment.reference == "country" else segment.reference
    if kind == "none" or invoice.amount < 0 or rng.random() > segment.references:
        return None
    payer = invoice.party.hand(invoice.day).other
    mark = payer.terms.mark if payer and payer.terms else ""
    return mark + references.KINDS[kind](invoice.party.serial, serial)
