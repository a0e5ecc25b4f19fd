"""What people decided: an append-only table, in which a later decision supersedes an earlier one and both stay."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class Action(StrEnum):
    """What a person did."""

    ACCEPT = "accept"  # as proposed
    CHANGE = "change"  # other invoices, or other amounts
    NOTHING = "nothing"  # the transfer settles nothing
    LATER = "later"  # ask later: no tag
    WITHDRAW = "withdraw"  # undo: as if the decision in force had never been made


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
    def is_tag(self) -> bool:
        """Whether it says what the transfer settles."""
        return self.action in (Action.ACCEPT, Action.CHANGE, Action.NOTHING)

    @property
    def corrects(self) -> bool:
        """Whether it says otherwise than what was proposed."""
        return self.is_tag and self.proposed is not None and set(self.allocations) != set(self.proposed.allocations)


def in_force(history: Sequence[Decision]) -> Decision | None:
    """Of all decisions on one transfer, the first one first, the one that counts: the last that nobody has withdrawn."""
    standing: list[Decision] = []
    for decision in history:
        if decision.action is not Action.WITHDRAW:
            standing.append(decision)
        elif standing:
            standing.pop()
    return standing[-1] if standing else None


class DecisionError(ValueError):
    """A decision that cannot be taken; nothing was recorded. The message says why and what to do."""


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
