"""What a decision must hold to: sides and signs, open balances, and what the transfer brought."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from matching_platform.ledger.money import decimal
from matching_platform.matching.memory import MOST_SHORT
from matching_platform.review.cases import Status
from matching_platform.review.decisions import (
    Action,
    Allocation,
    ConflictError,
    Decision,
    DecisionError,
    OverSettledError,
    Wanted,
    in_force,
)
from matching_platform.review.force import is_near
from matching_platform.review.standing import Standing

_LONGEST_NOTE: Final = 2000
_SAID: Final = {
    Action.ACCEPT: "accepted",
    Action.CHANGE: "changed",
    Action.NOTHING: "pays nothing",
    Action.LATER: "ask later",
    Action.WITHDRAW: "taken back",
}


class Draft:
    """Decisions that are to be made together at one moment; each sees what those before it settle."""

    def __init__(self, standing: Standing, actor: str, now: datetime) -> None:
        if not actor.strip():
            raise DecisionError("nobody is named who decides; log in")
        self._standing, self._actor, self._now = standing, actor, now
        self._taken: defaultdict[int, int] = defaultdict(int)
        self._number = standing.last
        self._transfers: set[str] = set()

    def decide(self, wanted: Wanted) -> Decision:
        """The decision that is wanted, or, where it has been made already, that one; see `Review.decide` for errors."""
        try:
            return self._decided(wanted)
        except DecisionError as error:
            error.transfer_id = wanted.transfer_id
            raise

    def _decided(self, wanted: Wanted) -> Decision:
        self._once(wanted.transfer_id)
        transfer = self._at(wanted.transfer_id)
        shown = self._standing.proposed(transfer) if self._standing.books.proposals.listed[transfer] else None
        allocations, history = wanted.allocations, self._standing.past(transfer)
        if repeated := _repeated(history, wanted, self._actor):
            return repeated
        _check_expected(wanted.transfer_id, history, wanted.expected)
        if wanted.action is Action.ACCEPT and (shown is None or set(allocations) != set(shown.allocations)):
            raise DecisionError(
                f"the parts to be accepted are not what is proposed for transfer {wanted.transfer_id}, perhaps because a "
                "decision on another one changed that; look at it again"
            )
        _check_form(wanted)
        self._check(transfer, allocations, lenient=wanted.action is Action.ACCEPT or bool(wanted.note.strip()))
        made = Decision(
            self._number + 1,
            wanted.transfer_id,
            self._standing.books.transfers["booked_on"][transfer],
            self._now,
            self._actor,
            wanted.action,
            allocations,
            shown,
            history[-1].number if history else None,
            wanted.note.strip(),
        )
        self._take(transfer, [*history, made])
        self._number += 1
        return made

    def withdraw(self, number: int) -> Decision:
        """That which undoes a decision, or, where that has been done already, what did it."""
        past = self._standing.by_number(number)
        if past is None:
            raise DecisionError(f"there is no decision {number} to undo")
        self._once(past.transfer_id)
        history = self._standing.history[past.transfer_id]
        standing, last = in_force(history), history[-1]
        if standing is None or standing.number != number:
            if last.action is Action.WITHDRAW and last.actor == self._actor and in_force(history[:-1]) == past:
                return last
            raise ConflictError(
                f"decision {number} is not the last one on transfer {past.transfer_id} any more: {_told(last)}", last
            )
        # The history suffices where the bank has taken the transfer back.
        transfer = self._standing.books.transfer_at.get(past.transfer_id)
        if transfer is not None:
            # The bank may have told another day when it was decided.
            past = replace(past, booked_on=self._standing.books.transfers["booked_on"][transfer])
        made = _withdrawal(past, last, self._number + 1, self._now, self._actor)
        if transfer is not None:
            self._take(transfer, [*history, made])
        self._number += 1
        return made

    def _once(self, transfer_id: str) -> None:
        if transfer_id in self._transfers:
            raise DecisionError(f"transfer {transfer_id} is decided twice in one go; decide it once")
        self._transfers.add(transfer_id)

    def _at(self, transfer_id: str) -> int:
        try:
            return self._standing.at(transfer_id)
        except LookupError as error:
            raise DecisionError(str(error)) from None

    def _check(self, transfer: int, allocations: Sequence[Allocation], *, lenient: bool) -> None:
        books = self._standing.books
        parts: dict[int, int] = {}
        for one in allocations:
            invoice = books.invoice_at.get(one.invoice_id)
            if invoice is None:
                raise DecisionError(f"there is no invoice '{one.invoice_id}'; perhaps its month is not accepted yet")
            number = books.invoices["number"][invoice]
            if invoice in parts:
                raise DecisionError(f"invoice {number} stands twice in the set; give it one amount")
            if books.sale[invoice] != books.incoming[transfer]:
                raise DecisionError(
                    f"invoice {number} is a {books.invoices['direction'][invoice]}, which no "
                    f"{'incoming' if books.incoming[transfer] else 'outgoing'} transfer settles; take it out"
                )
            if one.amount == 0 or (one.amount > 0) != (books.worth[invoice] > 0):
                what = (
                    "a credit note is netted with a negative amount"
                    if books.worth[invoice] < 0
                    else "give it one above 0"
                )
                raise DecisionError(f"invoice {number} cannot be settled by {decimal(one.amount)}; {what}")
            parts[invoice] = one.amount
        self._check_open(transfer, parts)
        self._check_sum(transfer, parts, lenient=lenient)

    def _check_open(self, transfer: int, parts: dict[int, int]) -> None:
        """OverSettledError where an invoice has less open."""
        for invoice, amount in parts.items():
            left = self._standing.open(invoice, transfer, self._taken[invoice])
            if abs(amount) > abs(left) or (left > 0) != (amount > 0):
                raise OverSettledError(
                    self._over_settled(transfer, invoice, amount, left),
                    self._standing.books.invoices["invoice_id"][invoice],
                )

    def _take(self, transfer: int, history: Sequence[Decision]) -> None:
        """Takes what a history puts in force, and gives up what was; OverSettledError where others took meanwhile what
        it brings back."""
        parts, before = self._standing.after(transfer, history), self._standing.settles(transfer)
        if parts != before:
            self._check_open(transfer, parts)
        changes = Counter(parts)
        changes.subtract(before)
        for invoice, amount in changes.items():
            self._taken[invoice] += amount

    def _over_settled(self, transfer: int, invoice: int, amount: int, left: int) -> str:
        books, currency = self._standing.books, self._standing.books.invoice_currency[invoice]
        number = books.invoices["number"][invoice]
        others = [one for one in self._standing.settlers(invoice) if one != transfer]
        who = [self._settler(one) for one in others[-3:]]
        if self._taken[invoice]:
            who.append("another transfer of the same decision")
        has, wanted = f"{decimal(left)} {currency}", decimal(amount)
        if not who:
            return f"invoice {number} has {has} open, less than {wanted}; look at it again"
        settled = ", ".join(who)
        return f"invoice {number} has {has} open, less than {wanted}: it is settled by {settled}; look at it again"

    def _settler(self, transfer: int) -> str:
        standing = self._standing
        name, status = standing.books.transfers["transfer_id"][transfer], standing.status_of(transfer)
        if status is Status.DECIDED:
            decision = in_force(standing.past(transfer))
            if decision:
                return f"transfer {name} (decided by {decision.actor}, {decision.decided_at:%Y-%m-%d %H:%M} UTC)"
        return f"transfer {name} ({'booked unattended' if status is Status.BOOKED else 'tagged by finance'})"

    def _check_sum(self, transfer: int, parts: dict[int, int], *, lenient: bool) -> None:
        books = self._standing.books
        if not parts:
            return
        currency, brought = books.currency[transfer], int(books.brought[transfer])
        foreign = any(books.invoice_currency[invoice] != currency for invoice in parts)
        total = self._converted(parts, currency) if foreign else sum(parts.values())
        if total is None:
            if lenient:
                return
            raise DecisionError(
                f"nobody knows the rate between {currency} and the currency of an invoice; say in a note what it was"
            )
        if total <= 0:
            raise DecisionError(
                f"the parts come to {decimal(total)} {currency}, and the transfer brought {decimal(brought)}; take credit "
                "notes out, or invoices in"
            )
        lenient, gap = lenient or foreign, total - brought
        short = 100 * gap / total
        if is_near(total, brought, MOST_SHORT if lenient else 0):
            return
        advice = "take less" if lenient else f"take less, or say in a note why up to {MOST_SHORT} % may be missing"
        raise DecisionError(
            f"the parts come to {decimal(total)} {currency}, and the transfer brought {decimal(brought)}, {short:.1f} % "
            f"less; {advice}"
        )

    def _converted(self, parts: dict[int, int], currency: str) -> int | None:
        """What parts in several currencies come to in one; None where a rate is not known."""
        rates = self._standing.books.rates_to(currency)
        sums: Counter[str] = Counter()
        for invoice, amount in parts.items():
            sums[self._standing.books.invoice_currency[invoice]] += amount
        if not sums.keys() <= rates.keys():
            return None
        return round(sum(amount * rates[name] for name, amount in sums.items()))


def _repeated(history: Sequence[Decision], wanted: Wanted, actor: str) -> Decision | None:
    """The last decision where it is just what is wanted: the answer to it was lost, or somebody clicked twice."""
    last = history[-1] if history else None
    same = (
        last is not None
        and (last.actor, last.action, last.note) == (actor, wanted.action, wanted.note.strip())
        and (last.supersedes or 0) == wanted.expected
        and set(last.allocations) == set(wanted.allocations)
    )
    return last if same else None


def _check_expected(transfer_id: str, history: Sequence[Decision], expected: int) -> None:
    last = history[-1] if history else None
    if (last.number if last else 0) == expected:
        return
    if last is None:
        raise DecisionError(f"nobody has decided on transfer {transfer_id} yet; look at it again")
    raise ConflictError(f"somebody else was faster on transfer {transfer_id}: {_told(last)}", last)


def _check_form(wanted: Wanted) -> None:
    if wanted.action is Action.WITHDRAW:
        raise DecisionError("a decision is undone by its number; use undo")
    if wanted.action is Action.CHANGE and not wanted.allocations:
        raise DecisionError("no invoice is chosen; choose one, or say that the transfer settles nothing")
    if wanted.action in (Action.NOTHING, Action.LATER) and wanted.allocations:
        raise DecisionError(f"invoices are chosen, and the decision is '{wanted.action}'; choose none, or change")
    if len(wanted.note) > _LONGEST_NOTE:
        raise DecisionError(f"the note has more than {_LONGEST_NOTE} characters; make it shorter")


def _withdrawal(past: Decision, last: Decision, number: int, now: datetime, actor: str) -> Decision:
    return Decision(number, past.transfer_id, past.booked_on, now, actor, Action.WITHDRAW, (), None, last.number)


def _told(decision: Decision) -> str:
    """What somebody did, and when."""
    return f"{decision.actor} decided on {decision.decided_at:%Y-%m-%d %H:%M} UTC: {_SAID[decision.action]}"
