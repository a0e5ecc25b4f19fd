"""What was just done, said once on the page that comes next, with a way back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import Depends, Query

from matching_platform.desk.review import Review
from matching_platform.review.cases import Filter, Row, Status
from matching_platform.review.decisions import Decision

# Accepted, and undone, at once, at most.
MOST: Final = 50
_NUMBERS: Final = re.compile(r"(\d{1,15})-(\d{1,15})")


@dataclass(frozen=True)
class Toast:
    """Decisions that were just made. `row` is of the transfer where it was one, else all were accepted."""

    numbers: Sequence[int]
    row: Row | None


@dataclass(frozen=True)
class Recent:
    """What a query string says of it; see `said`."""

    numbers: str
    transfer_id: str


def recent(done: Annotated[str, Query(max_length=40)] = "", of: Annotated[str, Query(max_length=200)] = "") -> Recent:
    return Recent(done, of)


Done = Annotated[Recent, Depends(recent)]


def said(made: Sequence[Decision]) -> str:
    """Decisions as a query string hands them on; those made together have numbers in a row."""
    numbers = [one.number for one in made]
    given = {"done": f"{min(numbers)}-{max(numbers)}"}
    return urlencode(given | ({"of": made[0].transfer_id} if len(made) == 1 else {}))


def toast(review: Review, recent: Recent) -> Toast | None:
    """What there is to say; nothing where the transfer was decided again meanwhile."""
    found = _NUMBERS.fullmatch(recent.numbers)
    if not found:
        return None
    first, last = int(found[1]), int(found[2])
    if not recent.transfer_id:
        return Toast(range(first, last + 1), None) if 0 <= last - first < MOST else None
    row = _decided(review, recent.transfer_id, first)
    return Toast((first,), row) if row else None


def _decided(review: Review, transfer_id: str, number: int) -> Row | None:
    """The transfer as it stands, where `number` is its last decision."""
    made = (one for one in review.decisions(text=transfer_id).rows if one.number == number)
    for decision in made:
        found = review.queue(f"{decision.booked_on:%Y-%m}", Filter(frozenset(Status), transfer_id)).rows
        return next((row for row in found if row.last == decision and row.transfer_id == transfer_id), None)
    return None
