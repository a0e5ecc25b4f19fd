"""What was just done, said once on the page that comes next, with a way back."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Depends, Query

from matching_platform.desk.pages.common import invoices_of
from matching_platform.desk.review import Review
from matching_platform.review.cases import Row
from matching_platform.review.decisions import Action, Decision

# Accepted, and undone, at once, at most.
MOST: Final = 500
# As long as MOST numbers can be, none in a row with another.
_LONGEST: Final = 10_000
_SPAN: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,15})")


@dataclass(frozen=True)
class Toast:
    """Decisions that were just made. `row` is of the transfer where it was one, else all were accepted, or taken `back`.

    `left` is what invoices were found for none of, minor units of the transfer's currency.
    """

    numbers: tuple[int, ...]
    row: Row | None
    back: bool = False
    left: int = 0

    @property
    def text(self) -> str:
        return spans_of(self.numbers)


@dataclass(frozen=True)
class Recent:
    """What a query string says of it; see `said`."""

    numbers: str
    transfer_id: str


def recent(
    done: Annotated[str, Query(max_length=_LONGEST)] = "", of: Annotated[str, Query(max_length=200)] = ""
) -> Recent:
    return Recent(done, of)


Done = Annotated[Recent, Depends(recent)]


def said(made: Sequence[Decision]) -> str:
    """Decisions as a query string hands them on, without those among them that had been made before."""
    moment = max(one.decided_at for one in made)
    fresh = [one for one in made if one.decided_at == moment]
    given = {"done": spans_of([one.number for one in fresh])}
    return urlencode(given | ({"of": fresh[0].transfer_id} if len(fresh) == 1 else {}))


def spans_of(numbers: Sequence[int]) -> str:
    """Numbers as text: of those in a row the first and the last one, such as 3-5,8-8."""
    ordered = sorted(numbers)
    firsts = [one for one, before in zip(ordered, [None, *ordered], strict=False) if before != one - 1]
    lasts = [one for one, after in zip(ordered, [*ordered[1:], None], strict=True) if after != one + 1]
    return ",".join(f"{first}-{last}" for first, last in zip(firsts, lasts, strict=True))


def numbers_of(text: str) -> tuple[int, ...]:
    """What `spans_of` wrote; none where it is something else, or more than are accepted at once."""
    spans = [_SPAN.fullmatch(part) for part in text[: _LONGEST + 1].split(",")]
    found = [(int(span[1]), int(span[2])) for span in spans if span]
    if len(found) < len(spans) or sum(max(0, last - first + 1) for first, last in found) > MOST:
        return ()
    return tuple(number for first, last in found for number in range(first, last + 1))


def toast(review: Review, recent: Recent) -> Toast | None:
    """What there is to say; nothing where the transfer was decided again meanwhile."""
    numbers = numbers_of(recent.numbers)
    if not numbers:
        return None
    if not recent.transfer_id:
        first = review.decisions_after(numbers[0] - 1, 1)
        return Toast(numbers, None, back=first[0].action is Action.WITHDRAW) if first else None
    with suppress(LookupError):
        row = review.row(recent.transfer_id)
        if row.last and (row.last.number,) == numbers:
            return Toast(numbers, row, left=_left(review, row, row.last))
    return None


def _left(review: Review, row: Row, decision: Decision) -> int:
    """What of a transfer a decision leaves over; 0 where it settles nothing, or invoices of other currencies."""
    invoices = invoices_of(review, [decision])
    if {invoices[one.invoice_id].currency for one in decision.allocations if one.invoice_id in invoices} != {
        row.currency
    }:
        return 0
    return max(0, row.amount - sum(one.amount for one in decision.allocations))
