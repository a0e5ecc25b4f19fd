"""What the API takes and answers: amounts as text with two places, dates as YYYY-MM-DD, times in UTC."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from matching_platform.intake.taking import Preview
from matching_platform.intake.taking import Taken as TakenFile
from matching_platform.ledger.money import decimal
from matching_platform.ledger.openapi import MONEY
from matching_platform.review.cases import Status
from matching_platform.review.decisions import Action

_T = TypeVar("_T")

# What no text of ours holds, and no database takes.
TEXT: Final = r"^[^\u0000]*$"
MONTH: Final = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
LARGEST_NUMBER: Final = 2**63 - 1
MOST_DECISIONS: Final = 1000
MOST_ALLOCATIONS: Final = 1000


def _minor(given: Any) -> int:
    if not (isinstance(given, str) and re.fullmatch(MONEY, given)):
        raise ValueError("is not an amount, which is text with two places, for instance '120.00'")
    return int(given.replace(".", ""))


Money = Annotated[str, BeforeValidator(decimal), WithJsonSchema({"type": "string", "pattern": MONEY})]
MoneyIn = Annotated[int, BeforeValidator(_minor), WithJsonSchema({"type": "string", "pattern": MONEY})]
Time = Annotated[datetime, BeforeValidator(lambda given: given.replace(tzinfo=given.tzinfo or UTC))]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]
Id = Annotated[str, Field(min_length=1, max_length=500, pattern=TEXT)]
Note = Annotated[str, Field(max_length=2000, pattern=TEXT)]


class _Answer(BaseModel):
    """Read from what the review room answers, by the same names."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Allocation(_Answer):
    """A part of an invoice, in the invoice's currency; negative for a credit note."""

    invoice_id: str
    amount: Money


class Proposed(_Answer):
    """What the person was shown."""

    model: str
    decision: str
    confidence: Share
    allocations: tuple[Allocation, ...]


class Decision(_Answer):
    """A decision as it was made. `supersedes` is the number of the last one before it on the same transfer."""

    number: Number
    transfer_id: str
    booked_on: date
    decided_at: Time
    actor: str
    action: Action
    allocations: tuple[Allocation, ...]
    proposed: Proposed | None
    supersedes: Number | None
    note: str


class Row(_Answer):
    """A transfer in a list. `stake` is money at stake times uncertainty, in the company's main currency."""

    transfer_id: str
    booked_on: date
    amount: Money
    currency: str
    direction: Literal["in", "out"]
    payer: str
    title: str
    status: Status
    decision: Literal["auto", "review", "none"]
    confidence: Share
    stake: Money
    counterparty: str
    invoices: Number
    alike: str
    last: Decision | None


class Invoice(_Answer):
    """An invoice, and what of it is still open now."""

    invoice_id: str
    number: str
    counterparty_id: str
    counterparty_name: str
    direction: Literal["sale", "purchase"]
    issued_on: date
    due_on: date
    amount: Money
    open: Money
    currency: str
    reference: str | None


class Settles(_Answer):
    """A part of an invoice that a set settles."""

    invoice: Invoice
    amount: Money


class Option(_Answer):
    """A set that could be the right one, and the share that the model gives it; no parts: it settles nothing."""

    share: Share
    parts: tuple[Settles, ...]


class Mark(_Answer):
    """What of the title was recognised: its characters from `start` up to `end`. What is not exact only resembles it."""

    start: Number
    end: Number
    kind: Literal["number", "reference", "name"]
    invoice_id: str
    is_exact: bool


class Case(_Answer):
    """All about one transfer. Whoever decides gives `expected` back."""

    row: Row
    account: str | None
    proposal: Option
    runners_up: tuple[Option, ...]
    evidence: tuple[str, ...]
    marks: tuple[Mark, ...]
    model: str
    booked_from: float
    history: tuple[Decision, ...]
    settled: tuple[Settles, ...] | None
    expected: Number


class Precision(_Answer):
    """Of the unattended bookings that could be judged, how many held, with the 95 % interval."""

    right: Number
    judged: Number
    low: Share
    high: Share


class Summary(_Answer):
    """The numbers of a month; money is in `currency`."""

    month: str
    currency: str
    transfers: Number
    booked: Number
    booked_money: Money
    waiting: Number
    waiting_money: Money
    doubtful_money: Money
    decided: Number
    later: Number
    tagged: Number
    precision: Precision | None
    frozen: str


class Page(_Answer, Generic[_T]):
    """A page of a list, `number` from 1."""

    rows: tuple[_T, ...]
    number: Number
    pages: Number
    total: Number


class Booking(_Answer):
    """A line for the ledger: a part of an invoice settled, or a booking before it reversed."""

    number: Number
    booked_at: Time
    transfer_id: str
    booked_on: date
    invoice_id: str
    amount: Money
    currency: str
    entry: Literal["book", "reverse"]
    by: Literal["unattended", "person"]
    actor: str
    decision: Number | None


class Bookings(_Answer):
    """Bookings in the order of their numbers. Ask again with `after` = `last`; at once where there are `more`."""

    bookings: tuple[Booking, ...]
    last: Number
    more: bool


class Decisions(_Answer):
    """What was decided."""

    decisions: tuple[Decision, ...]


class Months(_Answer):
    """The months with proposals."""

    months: tuple[str, ...]


class Invoices(_Answer):
    """Open invoices that were found."""

    invoices: tuple[Invoice, ...]


class Skipped(_Answer):
    """What of a file is no row of its table."""

    where: str
    text: str
    reason: str


class Taken(_Answer):
    """A file that was taken: `rows` are its rows, of which `new` were not there before; it was taken in spite of its
    `contradictions`."""

    number: Number
    at: Time
    actor: str
    name: str
    format: str
    table: Literal["transfers", "invoices"]
    rows: Number
    new: Number
    months: tuple[str, ...]
    sha256: str
    contradictions: tuple[str, ...]


class Imports(_Answer):
    """What was taken."""

    imports: tuple[Taken, ...]


class Look(_Answer):
    """What is in a file. `problem` says why it cannot be taken; `taken` when it was. A statement with `contradictions` does
    not add up to its own balances and totals, and is taken only with `unbalanced`. No run will see the months `beyond`
    those that are configured."""

    name: str
    format: str
    table: Literal["transfers", "invoices"]
    rows: Number
    new: Number
    months: tuple[str, ...]
    beyond: tuple[str, ...]
    notes: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    contradictions: tuple[str, ...]
    problem: str | None
    taken: Taken | None

    @classmethod
    def of(cls, preview: Preview, beyond: Sequence[str], taken: TakenFile | None) -> "Look":
        """`taken` where the file was taken, now or before."""
        same = ("name", "format", "table", "rows", "new", "months", "notes", "contradictions")
        return cls(
            **{name: getattr(preview, name) for name in same},
            beyond=tuple(beyond),
            skipped=tuple(Skipped(**row) for row in preview.skipped.to_dicts()),
            problem=None if preview.problem is None else str(preview.problem),
            taken=None if taken is None else Taken.model_validate(taken),
        )


class AllocationIn(_Asked):
    """A part of an invoice that is to be settled; negative for a credit note."""

    invoice_id: Id
    amount: MoneyIn


class WantedIn(_Asked):
    """A decision to be made. `expected` is that of the case it was made on: the number of the transfer's last decision."""

    transfer_id: Id
    action: Literal["accept", "change", "nothing", "later"]
    allocations: Annotated[list[AllocationIn], Field(max_length=MOST_ALLOCATIONS)] = []
    expected: Number = 0
    note: Note = ""


class WantedList(_Asked):
    """Decisions of which all are taken, or none."""

    decisions: Annotated[list[WantedIn], Field(min_length=1, max_length=MOST_DECISIONS)]


class Refusal(BaseModel):
    """Why nothing was done, and what to do. Rows are counted from 1."""

    model_config = ConfigDict(extra="allow")

    error: str
    field: str | None = None
    row: int | None = None
    column: str | None = None
    table: str | None = None
    invoice_id: str | None = None
    theirs: Decision | None = None

    def content(self) -> dict[str, Any]:
        """As JSON, of where it is wrong only what is known."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}
