"""What the desk shows: a transfer with what is proposed for it, in the words and numbers that a bookkeeper reads.

Amounts are int64 minor units; those of a transfer in its currency, those of an invoice in the invoice's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from matching_platform.matching.marks import Mark
from matching_platform.review.decisions import Decision

_T = TypeVar("_T")


class Status(StrEnum):
    """Where a transfer stands."""

    WAITING = "waiting"  # for a person
    LATER = "later"  # a person said: ask later
    DECIDED = "decided"  # by a person, at the desk
    BOOKED = "booked"  # unattended, and nobody has said otherwise
    TAGGED = "tagged"  # by finance, elsewhere


@dataclass(frozen=True)
class Row:
    """A transfer in a list. `stake` is money at stake times uncertainty, in the company's main currency.

    `alike` is equal for proposals that rest on the same evidence for the same counterparty.
    """

    transfer_id: str
    booked_on: date
    amount: int
    currency: str
    direction: Literal["in", "out"]
    payer: str
    title: str
    status: Status
    decision: Literal["auto", "review", "none"]
    confidence: float
    stake: int
    counterparty: str  # of the proposed invoices; '' where none is proposed
    invoices: int  # how many are proposed
    alike: str
    last: Decision | None


@dataclass(frozen=True)
class OpenInvoice:
    """An invoice and what of it is still open now, all decisions counted."""

    invoice_id: str
    number: str
    counterparty_id: str
    counterparty_name: str
    direction: Literal["sale", "purchase"]
    issued_on: date
    due_on: date
    amount: int
    open: int
    currency: str
    reference: str | None


@dataclass(frozen=True)
class Settles:
    """A part of an invoice that a set settles."""

    invoice: OpenInvoice
    amount: int


@dataclass(frozen=True)
class Option:
    """A set that could be the right one: the proposal, or a runner-up. `share` is what the model gives it, 0 to 1; no
    parts: the transfer settles nothing."""

    share: float
    parts: tuple[Settles, ...]

    @property
    def is_open(self) -> bool:
        """Whether each invoice has as much open as the set would settle of it."""
        return all(abs(part.amount) <= abs(part.invoice.open) for part in self.parts)


@dataclass(frozen=True)
class Offer:
    """A transfer and what is proposed for it, as it is accepted among others; `expected` as of a Case."""

    row: Row
    proposal: Option
    expected: int


@dataclass(frozen=True)
class Case:
    """All about one transfer. `expected` is the number of its last decision, 0 without one; who decides gives it back."""

    row: Row
    account: str | None
    proposal: Option
    runners_up: tuple[Option, ...]
    evidence: tuple[str, ...]
    marks: tuple[Mark, ...]
    model: str
    is_pending: bool  # whether it is still to be proposed anew after a decision on another one
    is_anew: bool  # whether it was proposed anew since people decided, which is never booked unattended
    booked_from: float  # from which confidence the model books unattended now
    history: tuple[Decision, ...]
    rates: Mapping[str, float]  # units of the transfer's currency for one of another, as far as they are known
    # What is in force: the last decision's allocations, else the tags', else None.
    settled: tuple[Settles, ...] | None
    expected: int


@dataclass(frozen=True)
class Page(Generic[_T]):
    """A page of a list, `number` from 1."""

    rows: Sequence[_T]
    number: int
    pages: int
    total: int


@dataclass(frozen=True)
class Precision:
    """Of the unattended bookings that could be judged, how many held, with the 95 % interval."""

    right: int
    judged: int
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """The numbers of a month. Money is in `currency`, the company's main one, converted at recent rates."""

    month: str
    currency: str
    transfers: int
    booked: int
    booked_money: int
    waiting: int
    waiting_money: int
    doubtful_money: int  # the sum of stakes of what waits
    decided: int
    later: int
    tagged: int
    precision: Precision | None
    frozen: str  # since when, by whom and why nothing is booked unattended; '' where it is


@dataclass(frozen=True)
class Filter:
    """Which rows of a month to list, and in which order."""

    statuses: frozenset[Status] = frozenset({Status.WAITING})
    text: str = ""  # in payer, title, counterparty, id or amount
    alike: str = ""
