"""What pages share: who asks, what is listed, what was sent."""

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import quote, urlencode

from fastapi import Depends, Path, Query
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse

from matching_platform.desk.review import PATIENCE, Review
from matching_platform.desk.security import MOST_FIELDS, booker, reader
from matching_platform.review.cases import Case, Filter, OpenInvoice, Row, Status
from matching_platform.review.decisions import Allocation, Decision, Wanted

Show = Status | Literal["all"]
_LONGEST: Final = 200
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}")
# int64's, so that a database takes it.
_LARGEST: Final = 2**63 - 1

# For pages that do not look who asks.
READER: Final = [Depends(reader)]
BOOKER: Final = [Depends(booker)]

Text = Annotated[str, Query(max_length=_LONGEST)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]
Transfer = Annotated[str, Path(max_length=_LONGEST)]


@dataclass(frozen=True)
class Listing:
    """The list that a person works through: which rows of a month, and what they must hold."""

    show: Show = Status.WAITING
    text: str = ""

    @property
    def filter(self) -> Filter:
        return Filter(frozenset(Status) if self.show == "all" else frozenset({self.show}), self.text)

    @property
    def query(self) -> str:
        """As a query string with its question mark, '' where it is the usual list."""
        given = {"show": "" if self.show == Status.WAITING else self.show, "text": self.text}
        found = urlencode({name: value for name, value in given.items() if value})
        return f"?{found}" if found else ""

    def case(self, transfer_id: str, *parts: str) -> str:
        """The address of a transfer's page in this list, or of one below it."""
        return address("cases", transfer_id, *parts) + self.query

    def month(self, month: str) -> str:
        """The address of the list."""
        return address("months", month) + self.query


def listing(show: Show = Status.WAITING, text: Text = "") -> Listing:
    return Listing(show, text.strip())


async def sent(request: Request) -> FormData:
    """The form of the request, bounded."""
    return await request.form(max_fields=MOST_FIELDS)


async def closing(request: Request) -> AsyncIterator[None]:
    """Closes the files of a form in the end, whoever read it and whatever came of it."""
    try:
        yield
    finally:
        await request.close()


Listed = Annotated[Listing, Depends(listing)]
Sent = Annotated[FormData, Depends(sent)]


def case_of(review: Review, transfer_id: str, patience: float = PATIENCE) -> Case:
    """The case of a transfer, see `Review.case`; 404 where there is none."""
    try:
        return review.case(transfer_id, patience)
    except LookupError as error:
        raise HTTPException(404, str(error)) from error


def invoices_of(review: Review, decisions: Iterable[Decision | Wanted]) -> dict[str, OpenInvoice]:
    """The invoices that decisions speak of, by id."""
    found = {}
    for invoice_id in {part.invoice_id for one in decisions for part in one.allocations}:
        # What was decided stays on record, whatever became of the invoice's month.
        with suppress(LookupError):
            found[invoice_id] = review.invoice(invoice_id)
    return found


def rows_of(review: Review, decisions: Iterable[Decision]) -> dict[str, Row]:
    """The transfers that decisions are about, by id."""
    found = {}
    for transfer_id in {one.transfer_id for one in decisions}:
        with suppress(LookupError):
            found[transfer_id] = review.row(transfer_id)
    return found


def month_of(case: Case) -> str:
    """The month of the transfer."""
    return f"{case.row.booked_on:%Y-%m}"


def text_of(form: FormData, name: str) -> str:
    """A field's text, '' where it is missing or a file."""
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def texts_of(form: FormData, name: str) -> list[str]:
    """All texts of a field, each once."""
    return list(dict.fromkeys(value for value in form.getlist(name) if isinstance(value, str)))


def number_of(form: FormData, name: str) -> int:
    """A field that we filled with a whole number; 400 where somebody else filled it."""
    try:
        return _number(text_of(form, name))
    except ValueError as error:
        raise HTTPException(400, f"the field '{name}' holds no number; open the page anew") from error


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or abs(int(text)) > _LARGEST:
        raise ValueError(f"'{text}' is no whole number")
    return int(text)


def part(invoice_id: str, amount: int) -> str:
    """A part of an invoice as a field's text."""
    return f"{amount}:{invoice_id}"


def parts_of(form: FormData, name: str = "part") -> tuple[Allocation, ...]:
    """What `part` wrote; 400 where somebody else did."""
    found = [text.partition(":") for text in texts_of(form, name)]
    try:
        return tuple(Allocation(invoice_id, _number(amount)) for amount, _, invoice_id in found)
    except ValueError as error:
        raise HTTPException(400, f"the field '{name}' holds no part of an invoice; open the page anew") from error


def address(*parts: str) -> str:
    """A path of the desk; parts may hold anything."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def extended(address: str, query: str) -> str:
    """`address` with more to its query string."""
    return f"{address}{'&' if '?' in address else '?'}{query}"


def pager(path: str, **query: str) -> Callable[[int], str]:
    """What gives the address of a page of a list."""
    return lambda number: f"{path}?{urlencode({name: text for name, text in query.items() if text} | {'page': number})}"


def see(address: str) -> RedirectResponse:
    """Go and look there."""
    return RedirectResponse(address, 303)
