"""What people decided, and which of it is in force: a later decision supersedes an earlier one, and both stay."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

# No clock on earth is further ahead of UTC.
FURTHEST_AHEAD: Final = timedelta(hours=14)


class Action(StrEnum):
    """What a person did."""

    ACCEPT = "accept"  # as proposed
    CHANGE = "change"  # other invoices, or other amounts
    NOTHING = "nothing"  # the transfer settles nothing
    LATER = "later"  # ask later: no tag
    WITHDRAW = "withdraw"  # undo: as if the decision in force had never been made


# Actions that say what a transfer settles.
TAGS: Final = (Action.ACCEPT, Action.CHANGE, Action.NOTHING)


@dataclass(frozen=True)
class Allocation:
    """A part of an invoice, minor units in the invoice's currency; negative for a credit note."""

    invoice_id: str
    amount: int


@dataclass(frozen=True)
class Proposed:
    """What the person was shown: by which model, how sure, and what."""

    model: str
    decision: str
    confidence: float
    allocations: tuple[Allocation, ...]


@dataclass(frozen=True)
class Wanted:
    """A decision to be made. `expected` is the number of the transfer's last decision that was seen, 0 for none.

    What is accepted is named: `allocations` are then those that were proposed.
    """

    transfer_id: str
    action: Action
    allocations: tuple[Allocation, ...] = ()
    expected: int = 0
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """A decision as it was made, UTC. `number` counts all decisions; `supersedes` is the last one of the same transfer."""

    number: int
    transfer_id: str
    booked_on: date
    decided_at: datetime
    actor: str
    action: Action
    allocations: tuple[Allocation, ...]
    proposed: Proposed | None
    supersedes: int | None
    note: str = ""

    @property
    def stands_until(self) -> date:
        """The last day of a tag by finance against which it stands: the latest that it was anywhere when it was made.

        Finance tells its own local day, and no hour: where either may have been first, the person at the desk counts.
        """
        return (self.decided_at.astimezone(UTC) + FURTHEST_AHEAD).date()

    @property
    def is_tag(self) -> bool:
        """Whether it says what the transfer settles."""
        return self.action in TAGS

    @property
    def corrects(self) -> bool:
        """Whether it names other invoices than were proposed; which part of one was meant makes no correction."""
        return (
            self.is_tag and self.proposed is not None and _named(self.allocations) != _named(self.proposed.allocations)
        )


def in_force(history: Sequence[Decision]) -> Decision | None:
    """Of all decisions on one transfer, the first one first, the one that counts: the last that nobody has withdrawn."""
    standing: list[Decision] = []
    for decision in history:
        if decision.action is not Action.WITHDRAW:
            standing.append(decision)
        elif standing:
            standing.pop()
    return standing[-1] if standing else None


def _named(allocations: Sequence[Allocation]) -> set[str]:
    return {one.invoice_id for one in allocations}


class DecisionError(ValueError):
    """A decision that cannot be taken; nothing was recorded. The message says why and what to do.

    `transfer_id` names which of the decisions that were wanted together it is, where it is one of them.
    """

    transfer_id: str | None = None


class ConflictError(DecisionError):
    """Somebody else decided on the transfer since it was shown. `theirs` is what he did."""

    def __init__(self, told: str, theirs: Decision) -> None:
        super().__init__(told)
        self.theirs = theirs


class OverSettledError(DecisionError):
    """An invoice has less open than is to be settled, perhaps since somebody settled it meanwhile. `invoice_id` names it."""

    def __init__(self, told: str, invoice_id: str) -> None:
        super().__init__(told)
        self.invoice_id = invoice_id
