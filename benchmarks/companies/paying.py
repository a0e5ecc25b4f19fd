"""From invoices to payments: who pays what together, when, in how many parts, and how much of it arrives."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise

import numpy as np

from benchmarks.companies.billing import MONTH, Invoice
from benchmarks.companies.parties import Hand, Purse, one_of, pick
from benchmarks.companies.places import BANK_FEES, COUNTRIES, RATES, WHOLE
from benchmarks.companies.spec import MOST_WITHHELD, PARTS, WITHHELD, Company

LEAST_PAYOUT = 5  # sales; an acquirer waits until it has so many
MOST_PAYOUT = 40
FEE_BEARING = 25  # a fee is taken from payments of so many times the fee, or more


@dataclass(eq=False)
class Payment:
    """What one transfer settles: `lines` of invoice and amount; `plain` where nothing but payer and amount is needed to
    tell, for these are whole invoices that come alone or are all that is due."""

    hand: Hand
    purse: Purse
    day: int
    lines: list[tuple[Invoice, int]]
    plain: bool = True
    part: bool = False
    kind: str = "bank"  # or account, payout, claims
    amount: int = 0
    currency: str = ""
    since: int = 0  # A payout's first day of sales.

    @property
    def settled(self) -> int:
        return sum(amount for _, amount in self.lines)

    @property
    def incoming(self) -> bool:
        return self.lines[0][0].party.segment.side == "sale"


@dataclass(frozen=True)
class Clock:
    """Days since the company's first, which knows weekends and months."""

    first: date

    def on(self, day: int) -> date:
        return self.first + timedelta(days=day)

    def working(self, day: int) -> int:
        """`day`, or the Monday after."""
        weekday = self.on(day).weekday()
        return day + (7 - weekday if weekday > 4 else 0)

    def month(self, day: int) -> int:
        """Months since the company's first."""
        on = self.on(day)
        return (on.year - self.first.year) * 12 + on.month - self.first.month

    def in_month(self, month: int, day_of_month: int) -> int:
        year, index = divmod(self.first.month - 1 + month, 12)
        return (date(self.first.year + year, index + 1, day_of_month) - self.first).days


def pay(rng: np.random.Generator, company: Company, invoices: list[Invoice], clock: Clock) -> list[Payment]:
    """All payments, by day; the invoices know in the end what is open and when they were closed."""
    payments: list[Payment] = []
    for hand, purse, group in _groups(invoices):
        payments += RHYTHMS[hand.habit.rhythm](rng, hand, purse, group, clock)
    payments = [payment for payment in payments if payment.settled > 0]
    for payment in payments:
        habit, parties = payment.hand.habit, {invoice.party for invoice, _ in payment.lines}
        if habit.payer_share < 1 and rng.random() > habit.payer_share:
            payment.purse = payment.hand.own
        payment.plain &= len(parties) == 1 or payment.kind != "bank"
        # Who pays a listed price under another name has to say for whom.
        listed = any(party.recurring or party.segment.prices for party in parties)
        payment.plain &= not (listed and payment.purse is payment.hand.other)
    _claim_balances(rng, payments, clock)
    payments.sort(key=lambda payment: (payment.day, payment.lines[0][0].id))
    for payment in payments:
        _bring(rng, company, payment)
        for invoice, amount in payment.lines:
            invoice.open -= amount
            invoice.closed = None if invoice.open else payment.day
    return payments


def _groups(invoices: list[Invoice]) -> Iterator[tuple[Hand, Purse, list[Invoice]]]:
    """Invoices that one purse pays by one habit in one currency, in order of issue."""
    groups: dict[object, tuple[Hand, Purse, list[Invoice]]] = {}
    for invoice in invoices:
        hand = invoice.party.hand(invoice.of.day if invoice.of else invoice.day)
        purse = hand.other or hand.own
        pooled = hand.other is not None and hand.habit.payer_share == 1.0 and hand.habit.rhythm != "each"
        owner = purse if pooled else hand
        key = (id(owner), hand.habit.rhythm, invoice.party.currency, invoice.party.segment.side)
        groups.setdefault(key, (hand, purse, []))[2].append(invoice)
    yield from groups.values()


def _wished(rng: np.random.Generator, hand: Hand, invoice: Invoice) -> int:
    mean, spread = hand.habit.late
    return max(invoice.day + 1, invoice.due + round(rng.normal(mean, spread)))


def _each(
    rng: np.random.Generator, hand: Hand, purse: Purse, invoices: list[Invoice], clock: Clock
) -> Iterator[Payment]:
    """One transfer a bill, in parts where the payer has that habit; of equal bills the older is paid first."""
    notes = {invoice.of: invoice for invoice in invoices if invoice.of and not invoice.unpaid}
    bills = [invoice for invoice in invoices if not invoice.of and not invoice.unpaid]
    days = {invoice: clock.working(_wished(rng, hand, invoice)) for invoice in bills}
    for amount in {invoice.amount for invoice in bills}:
        equal = [invoice for invoice in bills if invoice.amount == amount]
        days |= dict(zip(equal, sorted(days[invoice] for invoice in equal), strict=True))
        for earlier, later in pairwise(equal):
            days[later] = max(days[later], days[earlier] + 1, later.day + 1)
    for invoice in bills:
        credit = notes.get(invoice)
        lines = [(invoice, invoice.amount)]
        if credit and credit.day < days[invoice] and rng.random() < 0.85:
            lines.append((credit, credit.amount))
        parts = pick(rng, {**hand.habit.parts, "whole": 1 - sum(hand.habit.parts.values())})
        if parts == "whole" or len(lines) > 1 or invoice.party.recurring or invoice.amount < 500_00 * _unit(invoice):
            yield Payment(hand, purse, days[invoice], lines)
            continue
        day, left = days[invoice], invoice.amount
        for place, share in enumerate(PARTS[parts]):
            last = place == len(PARTS[parts]) - 1 and sum(PARTS[parts]) > 0.99
            amount = left if last else _coins(invoice, round(invoice.amount * share))
            yield Payment(hand, purse, clock.working(day), [(invoice, amount)], plain=last, part=True)
            left, day = left - amount, day + int(rng.integers(12, 32))


def _unit(invoice: Invoice) -> float:
    return RATES[invoice.party.currency]


def _coins(invoice: Invoice, minor: int) -> int:
    return round(minor / 100) * 100 if invoice.party.currency in WHOLE else minor


def _runs(hand: Hand, purse: Purse, due: Iterable[tuple[int, Invoice]], kind: str = "bank") -> Iterator[Payment]:
    """Invoices with the day on which they are paid, as payments of at most so many. Credit notes wait for a payment that
    they leave above zero."""
    by_day: dict[int, list[Invoice]] = {}
    notes: list[tuple[int, Invoice]] = []
    for day, invoice in due:
        if invoice.unpaid:
            continue
        if invoice.of:
            notes.append((day, invoice))
        else:
            by_day.setdefault(day, []).append(invoice)
    for day in sorted(by_day):
        bills = sorted(by_day[day], key=lambda invoice: invoice.id)
        chunks = [bills[at : at + hand.habit.most] for at in range(0, len(bills), hand.habit.most)]
        for chunk in chunks:
            lines = [(invoice, invoice.amount) for invoice in chunk]
            for entry in [entry for entry in notes if entry[0] <= day]:
                if sum(amount for _, amount in lines) + entry[1].amount > 0:
                    lines.append((entry[1], entry[1].amount))
                    notes.remove(entry)
            yield Payment(hand, purse, day, lines, plain=len(chunks) == 1, kind=kind)


def _weekly(
    rng: np.random.Generator, hand: Hand, purse: Purse, invoices: list[Invoice], clock: Clock
) -> Iterator[Payment]:
    """All that is due by the weekly run; now and then a bill waits for the next."""
    weekday = hand.run_day % 5

    def run(invoice: Invoice) -> int:
        wished = _wished(rng, hand, invoice) if not invoice.of else invoice.day + 1
        wait = 7 if rng.random() < 0.02 and not invoice.party.recurring else 0
        return wished + wait + (weekday - clock.on(wished + wait).weekday()) % 7

    yield from _runs(hand, purse, [(run(invoice), invoice) for invoice in invoices])


def _monthly(
    rng: np.random.Generator, hand: Hand, purse: Purse, invoices: list[Invoice], clock: Clock
) -> Iterator[Payment]:
    """All that is due by the day of the month on which the payer pays."""

    def run(invoice: Invoice) -> int:
        wished = _wished(rng, hand, invoice) if not invoice.of else invoice.day + 1
        day = clock.in_month(clock.month(wished), hand.run_day)
        return clock.working(day if day >= wished else clock.in_month(clock.month(wished) + 1, hand.run_day))

    yield from _runs(hand, purse, [(run(invoice), invoice) for invoice in invoices])


def _closing(
    rng: np.random.Generator, hand: Hand, purse: Purse, invoices: list[Invoice], clock: Clock
) -> Iterator[Payment]:
    """All that was billed in a month, at once, on a day of the next or of the one after."""
    months = 1 + hand.favourites["said"] % 2

    def run(invoice: Invoice) -> int:
        late = rng.random() < 0.01 and not invoice.party.recurring
        return clock.working(clock.in_month(clock.month(invoice.day) + months + late, hand.run_day))

    yield from _runs(hand, purse, [(run(invoice), invoice) for invoice in invoices])


def _account(
    rng: np.random.Generator, hand: Hand, purse: Purse, invoices: list[Invoice], clock: Clock
) -> Iterator[Payment]:
    """Round sums now and then, which cover the oldest open bills, the last of them in part."""
    bills = [invoice for invoice in invoices if not invoice.of]
    left = {invoice: invoice.amount for invoice in bills}
    for month in range(1, clock.month(bills[-1].day) + 6 if bills else 0):
        day = clock.working(clock.in_month(month, hand.run_day))
        known = [invoice for invoice in bills if invoice.day < day - 5 and left[invoice]]
        balance = sum(left[invoice] for invoice in known)
        step = 10 ** (len(str(round(balance * 0.8))) - 2)
        money = round(balance * rng.uniform(0.55, 0.95)) // step * step if step >= 100 else balance
        lines = []
        for invoice in known:
            taken = min(money, left[invoice])
            if taken > 0:
                lines.append((invoice, taken))
                left[invoice], money = left[invoice] - taken, money - taken
        if lines:
            yield Payment(hand, purse, day, lines, kind="account")


def _payout(
    rng: np.random.Generator, hand: Hand, purse: Purse, invoices: list[Invoice], clock: Clock
) -> Iterator[Payment]:
    """What an acquirer collected since the last payout, less refunds: sales of one day are never split between payouts
    unless they are too many for one."""
    terms = purse.terms
    assert terms is not None, "only an acquirer pays out"
    caught: dict[int, list[Invoice]] = {}
    for invoice in invoices:
        if not invoice.unpaid:
            caught.setdefault(invoice.day + (rng.random() < 0.006), []).append(invoice)
    pool: list[Invoice] = []
    refunds: list[Invoice] = []
    since = min(caught, default=0)
    for day in range(since, max(caught, default=-1) + 1):
        pool += [invoice for invoice in caught.get(day, []) if not invoice.of]
        refunds += [invoice for invoice in caught.get(day, []) if invoice.of]
        if (day % terms.every) or len(pool) < LEAST_PAYOUT:
            continue
        for at in range(0, len(pool), MOST_PAYOUT):
            lines = [(invoice, invoice.amount) for invoice in pool[at : at + MOST_PAYOUT]]
            for refund in list(refunds):
                if sum(amount for _, amount in lines) * 0.6 + refund.amount > 0:
                    lines.append((refund, refund.amount))
                    refunds.remove(refund)
            yield Payment(
                hand,
                purse,
                clock.working(day + terms.lag),
                lines,
                plain=len(pool) <= MOST_PAYOUT,
                kind="payout",
                since=since,
            )
        pool, since = [], day + 1


def _claims(
    rng: np.random.Generator, hand: Hand, purse: Purse, invoices: list[Invoice], clock: Clock
) -> Iterator[Payment]:
    """An insurer's weekly run: it allows some claims only in part, for reasons of its own."""
    for payment in _weekly(rng, hand, purse, invoices, clock):
        lines = []
        for invoice, amount in payment.lines:
            denied = amount > 0 and rng.random() < hand.habit.denies
            lines.append((invoice, round(amount * rng.uniform(0.25, 0.95)) if denied else amount))
        cut = any(amount != invoice.amount for invoice, amount in lines)
        yield replace(payment, lines=lines, plain=payment.plain and not cut, part=cut, kind="claims")


def _claim_balances(rng: np.random.Generator, payments: list[Payment], clock: Clock) -> None:
    """Patients pay what their insurer did not allow, most of the time."""
    for payment in [payment for payment in payments if payment.kind == "claims"]:
        for invoice, amount in payment.lines:
            left = invoice.amount - amount
            if left > 0 and amount > 0 and rng.random() < 0.7:
                hand = replace(payment.hand, habit=replace(payment.hand.habit, titles=_PATIENT), own=_patient(invoice))
                hand.favourites = {**hand.favourites, "title": "number", "form": "printed"}
                day = clock.working(payment.day + int(rng.integers(14, 50)))
                payments.append(Payment(hand, hand.own, day, [(invoice, left)], part=True))


_PATIENT = {"number": 0.6, "vague": 0.2, "name": 0.2}


def _patient(invoice: Invoice) -> Purse:
    return invoice.party.hand(invoice.day).own


RHYTHMS = {
    "each": _each,
    "weekly": _weekly,
    "monthly": _monthly,
    "closing": _closing,
    "account": _account,
    "payout": _payout,
    "claims": _claims,
}


def _bring(rng: np.random.Generator, company: Company, payment: Payment) -> None:
    """Sets what arrives and in which currency."""
    habit, settled = payment.hand.habit, payment.settled
    currency = payment.lines[0][0].party.currency
    home = COUNTRIES[company.home].currency
    payment.amount, payment.currency = settled, currency
    terms = payment.purse.terms
    if terms and any(terms.keeps):
        sales = [amount for _, amount in payment.lines if amount > 0]
        kept = sum(round(amount * rng.uniform(*terms.keeps)) + terms.fixed for amount in sales)
        kept = min(kept, round(settled * MOST_WITHHELD))
        payment.amount = _round(currency, settled - kept)
        return
    if currency != home and rng.random() < habit.exchanged:
        rate = RATES[home] / RATES[currency] * _drifting(payment.day) * rng.normal(1, 0.003)
        payment.amount, payment.currency = max(1, _round(home, round(settled * rate))), home
        payment.plain = False
        return
    if habit.always and not payment.part:
        payment.amount = _round(currency, round(settled * (1 - WITHHELD[habit.always])))
    how = pick(rng, {**habit.deducts, "exact": max(0.0, 1 - sum(habit.deducts.values()))})
    if payment.kind == "account" or how == "exact":
        return
    if how in WITHHELD and not payment.part and payment.amount == settled:
        payment.amount = _round(currency, round(settled * (1 - WITHHELD[how])))
    elif how == "fee":
        fee = one_of(rng, BANK_FEES[currency])
        payment.amount -= fee if payment.amount >= FEE_BEARING * fee else 0
    elif how == "rounded" and payment.amount >= 50_00:
        payment.amount = round(payment.amount / 100) * 100
    elif how == "over" and len(payment.lines) == 1:
        payment.amount, payment.plain = round(payment.amount * rng.uniform(1.005, 1.04)), False


def _round(currency: str, minor: int) -> int:
    return max(1, round(minor / 100)) * 100 if currency in WHOLE else minor


def _drifting(day: int) -> float:
    """A rate of exchange that moves over the year by some per cent."""
    return 1 + 0.03 * float(np.sin(day / MONTH / 2.5))
