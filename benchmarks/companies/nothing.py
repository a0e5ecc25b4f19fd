"""Transfers that pay no invoice."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.companies import references
from benchmarks.companies.billing import Invoice
from benchmarks.companies.parties import Party, amount_in, names_of, one_of
from benchmarks.companies.paying import Clock, Payment
from benchmarks.companies.places import COUNTRIES
from benchmarks.companies.spec import Company
from benchmarks.companies.titles import as_reported


@dataclass(frozen=True)
class Transfer:
    """A transfer as booked; `settles` has invoices with amounts in minor units, or nothing."""

    day: int
    amount: int
    currency: str
    incoming: bool
    name: str
    account: str | None
    title: str
    settles: tuple[tuple[Invoice, int], ...] = ()


@dataclass(frozen=True)
class Other:
    """A sort of transfer that pays nothing: in or out, its median in euro, who stands there, and on which day."""

    incoming: bool
    median: float
    sigma: float
    who: str  # person, office, ourselves, party
    says: str  # A key of a language's words, or a template.
    day: int | None = None


OTHERS: Final = {
    "salary": Other(False, 2900, 0.25, "person", "salary", day=25),
    "tax": Other(False, 6200, 0.8, "office", "tax", day=12),
    "rent": Other(False, 3400, 0.02, "office", "rent", day=1),
    "fee": Other(False, 14, 0.6, "office", "fee", day=28),
    "interest": Other(True, 40, 0.9, "office", "interest", day=28),
    "own in": Other(True, 9000, 0.9, "ourselves", "own"),
    "own out": Other(False, 9000, 0.9, "ourselves", "own"),
    "card": Other(False, 70, 1.0, "office", "card"),
    "refund in": Other(True, 160, 1.0, "party", "refund"),
    "deposit": Other(True, 900, 0.8, "party", "Deposit {serial}"),
    "advance": Other(True, 700, 0.9, "party", "Prepayment order {serial}"),
    "donation": Other(True, 60, 0.5, "person", "Gift {year}"),
    "direct debit": Other(False, 210, 0.3, "office", "DD {serial} {period}", day=15),
    "wage garnish": Other(False, 380, 0.1, "office", "Case {serial}", day=27),
}
_OFFICES: Final = {
    "tax": "Revenue Office", "rent": "Estate Office", "fee": "House Bank", "interest": "House Bank",
    "card": "Card Centre", "direct debit": "Utilities & Telecom", "wage garnish": "Court Bailiff",
}  # fmt: skip


def pay_nothing(
    rng: np.random.Generator, company: Company, parties: list[Party], clock: Clock, scale: float
) -> Iterator[Transfer]:
    """Salaries, taxes, transfers between own accounts and the like, month by month."""
    home = COUNTRIES[company.home]
    staff = [names_of(rng, home, person=True)[1][0] for _ in range(max(3, round(40 * scale)))]
    accounts = {name: references.account(rng, home) for name in [*staff, *_OFFICES.values(), company.ourselves]}
    for month in range(company.months):
        for kind, rate in company.nothing.items():
            for place in range(int(rng.poisson(rate * scale))):
                person = staff[place % len(staff)]  # Nobody has two salaries.
                yield _one(rng, company, kind, month, clock, parties, person, accounts)


def _one(
    rng: np.random.Generator,
    company: Company,
    kind: str,
    month: int,
    clock: Clock,
    parties: list[Party],
    person: str,
    accounts: dict[str, str],
) -> Transfer:
    other, home = OTHERS[kind], COUNTRIES[company.home]
    day = clock.working(clock.in_month(month, other.day or int(rng.integers(1, 29))))
    on = clock.on(day)
    account: str | None
    if other.who == "party":
        purse = one_of(rng, parties).hand(day).own
        name, account = one_of(rng, purse.names), purse.account
    else:
        name = {"person": person, "ourselves": company.ourselves}.get(other.who) or _OFFICES[kind]
        account = accounts[name]
    template = other.says if "{" in other.says else one_of(rng, home.say(other.says))
    title = template.format(period=f"{on:%m/%Y}", year=on.year, serial=int(rng.integers(10**6, 10**8)), name=name)
    amount = amount_in(home.currency, other.median * rng.lognormal(0, other.sigma))
    if other.who == "ourselves":
        amount = max(100_00, round(amount, -4))
    return Transfer(day, amount, home.currency, other.incoming, as_reported(rng, company, name), account, title)


def refunds(
    rng: np.random.Generator,
    company: Company,
    invoices: list[Invoice],
    booked: list[tuple[Payment, Transfer]],
    clock: Clock,
) -> Iterator[Transfer]:
    """Credit notes that nobody netted, paid back: a transfer the other way, which pays no invoice."""
    netted = {invoice for payment, _ in booked for invoice, _ in payment.lines}
    for invoice in invoices:
        if invoice.of in netted and invoice not in netted and rng.random() < 0.5:
            day = clock.working(invoice.day + int(rng.integers(3, 30)))
            purse, sale = invoice.party.hand(invoice.day).own, invoice.party.segment.side == "sale"
            say = COUNTRIES[company.home] if sale else invoice.party.country
            title = f"{one_of(rng, say.say('refund'))} {invoice.number}"
            name = as_reported(rng, company, one_of(rng, purse.names))
            yield Transfer(day, -invoice.amount, invoice.party.currency, not sale, name, purse.account, title)


def paid_twice(
    rng: np.random.Generator, company: Company, booked: list[tuple[Payment, Transfer]], clock: Clock
) -> Iterator[Transfer]:
    """Payments made again by mistake, most of them sent back by a transfer that names the bill."""
    for payment, transfer in booked:
        invoice = payment.lines[0][0]
        sole = len(payment.lines) == 1 and not payment.part and payment.kind == "bank" and not invoice.party.recurring
        told = any(sign in transfer.title for sign in (invoice.number, invoice.reference or invoice.number))
        if not (sole and told and rng.random() < company.duplicates / 0.4):
            continue
        day = clock.working(transfer.day + int(rng.integers(1, 12)))
        again = Transfer(
            day, transfer.amount, transfer.currency, transfer.incoming, transfer.name, transfer.account, transfer.title
        )
        yield again
        if rng.random() < 0.7:
            back = clock.working(day + int(rng.integers(3, 25)))
            title = f"{one_of(rng, COUNTRIES[company.home].say('refund'))} {invoice.number}"
            yield Transfer(
                back, transfer.amount, transfer.currency, not transfer.incoming, transfer.name, transfer.account, title
            )
