"""What is in force for a transfer, as far as the journal holds it: between people, finance and the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

from matching_platform.matching.arrays import Flags
from matching_platform.matching.memory import MOST_SHORT
from matching_platform.matching.sets import LARGEST_DISCOUNT, ROUNDING
from matching_platform.review.books import Books, day_number
from matching_platform.review.cases import Status
from matching_platform.review.decisions import Action, Decision, in_force
from matching_platform.review.parts import Parts


@dataclass(frozen=True)
class Force:
    """The last decision that nobody withdrew, unless finance has since tagged it otherwise; else what finance tagged; else
    what was `booked` unattended. `unconfirmed` bool[T]: finance has tagged it, and not as it was booked."""

    books: Books
    booked: Parts
    unconfirmed: Flags

    def of(self, transfer: int, history: Sequence[Decision]) -> tuple[dict[int, int], Status]:
        """What a transfer settles with a history, and where it stands then."""
        decision, tag = in_force(history), self.tag(transfer, history)
        if decision and not self._overrules(transfer, tag, decision):
            if decision.action is Action.LATER:
                # Who asks to be asked later has not said that finance was wrong.
                return tag or {}, Status.LATER
            parts = self._parts(decision)
            if parts is not None and (parts == tag or fits(self.books, transfer, parts)):
                return parts, Status.DECIDED
            if tag is None:
                return {}, Status.WAITING
        if tag is not None:
            return tag, Status.TAGGED if self.unconfirmed[transfer] else Status.BOOKED
        booked = self.booked.at(transfer)
        return (booked, Status.BOOKED) if booked and fits(self.books, transfer, booked) else ({}, Status.WAITING)

    def tag(self, transfer: int, history: Sequence[Decision]) -> dict[int, int] | None:
        """What finance tagged by itself."""
        tagged = bool(self.books.tagged[transfer]) and not self._repeats(transfer, history)
        return self.books.tags.at(transfer) if tagged else None

    def repeats_booking(self, transfer: int, history: Sequence[Decision]) -> bool:
        """Whether a transfer's tags are what was booked unattended before anybody decided."""
        first = not history or self.books.tagged_day(transfer) <= _ends(history[0])
        return first and self.books.tags.at(transfer) == self.booked.at(transfer)

    def _overrules(self, transfer: int, tag: dict[int, int] | None, decision: Decision) -> bool:
        """Whether a tag is newer than a decision, and says otherwise."""
        newer = tag is not None and self.books.tagged_day(transfer) > _ends(decision)
        return newer and not (decision.is_tag and self._parts(decision) == tag)

    def _repeats(self, transfer: int, history: Sequence[Decision]) -> bool:
        """Whether a transfer's tags are what was decided at the desk and in force on their day, and came back."""
        tags, day = self.books.tags.at(transfer), self.books.tagged_day(transfer)
        for number, last in enumerate(history, 1):
            ended = number < len(history) and _ends(history[number]) < day
            held = None if ended or _day(last) > day else in_force(history[:number])
            if held is not None and held.is_tag and self._parts(held) == tags:
                return True
        return False

    def _parts(self, decision: Decision) -> dict[int, int] | None:
        """What a decision settles, by row of the invoice; None where one of them is gone."""
        places = {self.books.invoice_at.get(one.invoice_id): one.amount for one in decision.allocations}
        known = {invoice: amount for invoice, amount in places.items() if invoice is not None}
        return known if len(known) == len(decision.allocations) else None


def _day(decision: Decision) -> int:
    return day_number(decision.decided_at.astimezone(UTC).date())


def _ends(decision: Decision) -> int:
    """The last day on which a tag does not overrule a decision."""
    return day_number(decision.stands_until)


def fits(books: Books, transfer: int, parts: Mapping[int, int]) -> bool:
    """Whether a transfer may settle parts, by row of the invoice, if nobody else settles anything."""
    sale, worth, incoming = books.sale, books.worth, books.incoming[transfer]
    for invoice, amount in parts.items():
        most = int(worth[invoice])
        if sale[invoice] != incoming or amount * most <= 0 or abs(amount) > abs(most):
            return False
    # A rate moves with the market, and what was right when it was booked remains so.
    foreign = any(books.invoice_currency[invoice] != books.currency[transfer] for invoice in parts)
    return foreign or not parts or is_near(sum(parts.values()), int(books.brought[transfer]))


def is_near(total: int, brought: int, most_short: float = MOST_SHORT) -> bool:
    """Whether a transfer that brought so much may settle a `total`, of which up to `most_short` % may be missing."""
    gap = total - brought
    return total > 0 and (gap <= max(ROUNDING, LARGEST_DISCOUNT * brought) or 100 * gap / total <= most_short)
