"""Other invoices for a transfer: searched, ticked, their amounts written, until the sum meets the amount."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from matching_platform.desk import formats
from matching_platform.desk.choosing import Chosen, Rest, choose, convert
from matching_platform.desk.dependencies import Reviewing
from matching_platform.desk.i18n import locale_of
from matching_platform.desk.pages.common import (
    BOOKER,
    Listed,
    Listing,
    Sent,
    Transfer,
    case_of,
    number_of,
    text_of,
    texts_of,
)
from matching_platform.desk.rendering import render
from matching_platform.desk.review import Review
from matching_platform.review.cases import Case, OpenInvoice, Settles

router = APIRouter()

# Invoices that one transfer may settle here, and of those that a search finds, how many are shown.
_TICKED: Final = 500
_FOUND: Final = 50
_LONGEST: Final = 200


@dataclass(frozen=True)
class Choice:
    """What a person has put together so far. `expected` is the last decision that he has seen."""

    chosen: Chosen
    rest: Rest
    search: str
    note: str
    expected: int


@dataclass(frozen=True)
class Refusal:
    """Why a decision was not taken, and the invoice that has less open than was thought, where that is why."""

    problem: str
    invoice: OpenInvoice | None = None


@router.get("/cases/{transfer_id:path}/change", dependencies=BOOKER)
def begin(request: Request, transfer_id: Transfer, listed: Listed, review: Reviewing) -> HTMLResponse:
    """What is in force is ticked, else what is proposed."""
    case = case_of(review, transfer_id)
    parts = case.proposal.parts if case.settled is None else case.settled
    typed = {part.invoice.invoice_id: _typed(request, part) for part in parts}
    rest: Rest = "full" if sum(part.amount for part in parts) > case.row.amount else "part"
    chosen = choose(case.row, [part.invoice for part in parts], typed, rest, locale_of(request))
    return show_choice(request, review, case, listed, Choice(chosen, rest, "", "", case.expected))


@router.post("/cases/{transfer_id:path}/change", dependencies=BOOKER)
def go_on(request: Request, transfer_id: Transfer, listed: Listed, review: Reviewing, form: Sent) -> HTMLResponse:
    """The same with what was searched, ticked and written; nothing is decided."""
    case = case_of(review, transfer_id)
    return show_choice(request, review, case, listed, choice_of(request, review, case, form))


def choice_of(request: Request, review: Review, case: Case, form: FormData, *, as_seen: bool = False) -> Choice:
    """What a form of this page says, with what is open now, or, `as_seen`, with what was open when it was shown.

    404 where it ticks an invoice that does not exist.
    """
    ticked = _invoices(review, case.row.transfer_id, texts_of(form, "invoice")[:_TICKED])
    typed = {invoice.invoice_id: text_of(form, f"amount-{invoice.invoice_id}") for invoice in ticked}
    named = [invoice.invoice_id for invoice in ticked if f"open-{invoice.invoice_id}" in form]
    seen = {invoice_id: number_of(form, f"open-{invoice_id}") for invoice_id in named} if as_seen else {}
    rest: Rest = "full" if text_of(form, "rest") == "full" else "part"
    chosen = choose(case.row, ticked, typed, rest, locale_of(request), seen)
    search, note = text_of(form, "search")[:_LONGEST].strip(), text_of(form, "note")
    return Choice(chosen, rest, search, note, number_of(form, "expected"))


def show_choice(
    request: Request,
    review: Review,
    case: Case,
    listed: Listing,
    choice: Choice,
    status: int = 200,
    refusal: Refusal | None = None,
) -> HTMLResponse:
    """The page with a choice, and why it was refused where it was."""
    ticked = {line.invoice.invoice_id for line in choice.chosen.lines}
    found = review.search(case.row.transfer_id, choice.search, _FOUND)
    return render(
        request,
        "change.html",
        status,
        case=case,
        row=case.row,
        listed=listed,
        choice=choice,
        chosen=choice.chosen,
        found=[invoice for invoice in found if invoice.invoice_id not in ticked],
        more=len(found) >= _FOUND,
        convert=convert,
        refusal=refusal,
    )


def _invoices(review: Review, transfer_id: str, invoice_ids: Iterable[str]) -> list[OpenInvoice]:
    try:
        return [review.invoice(invoice_id, transfer_id) for invoice_id in invoice_ids]
    except LookupError as error:
        raise HTTPException(404, str(error)) from error


def _typed(request: Request, part: Settles) -> str:
    """What is written for a part that does not settle all that is open."""
    return "" if part.amount == part.invoice.open else formats.plain(part.amount, locale_of(request))
