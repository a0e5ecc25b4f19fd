"""One transfer: what is proposed for it and why, and what a person decides."""

from typing import Any, Final

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from matching_platform.desk import labels
from matching_platform.desk.audit import deciding, undoing
from matching_platform.desk.choosing import convert
from matching_platform.desk.dependencies import Booker, Reviewing
from matching_platform.desk.i18n import mark
from matching_platform.desk.pages.alike import others
from matching_platform.desk.pages.change import Refusal, choice_of, show_choice
from matching_platform.desk.pages.common import (
    READER,
    Listed,
    Listing,
    Sent,
    Transfer,
    case_of,
    extended,
    invoices_of,
    month_of,
    number_of,
    part,
    parts_of,
    see,
    text_of,
)
from matching_platform.desk.pages.done import Done, said, toast
from matching_platform.desk.rendering import render
from matching_platform.desk.review import PATIENCE, Review
from matching_platform.desk.titles import pieces
from matching_platform.review.cases import Case, OpenInvoice, Option
from matching_platform.review.decisions import (
    Action,
    ConflictError,
    DecisionError,
    OverSettledError,
    Wanted,
)

router = APIRouter()

RUNNERS_UP: Final = 3
LONGEST_NOTE: Final = 500
# From which part of the proposal's own share on a runner-up is so near.
_BEHIND: Final = ((0.5, mark("close behind")), (0.1, mark("behind")), (0.0, mark("far behind")))


@router.post("/cases/{transfer_id:path}/decision")
def decide(
    request: Request, transfer_id: Transfer, listed: Listed, review: Reviewing, user: Booker, form: Sent
) -> Response:
    """Decides, and goes on to the next one of the list."""
    if text_of(form, "action") not in set(Action) - {Action.WITHDRAW}:
        raise HTTPException(400, "the form names no decision; open the page anew")
    action, allocations = Action(text_of(form, "action")), parts_of(form)
    choice = None
    if "choice" in form:
        case = case_of(review, transfer_id)
        choice = choice_of(request, review, case, form, as_seen=True)
        if choice.chosen.errors or not choice.chosen.lines:
            return show_choice(request, review, case, listed, choice, 422)
        allocations = choice.chosen.allocations
    note = text_of(form, "note")[:LONGEST_NOTE].strip()
    wanted = Wanted(transfer_id, action, allocations, number_of(form, "expected"), note)
    try:
        before, after = review.neighbours(transfer_id, listed.filter)
        made = review.decide([wanted], user.name, deciding(request))
    except LookupError as error:
        raise HTTPException(404, str(error)) from error
    except ConflictError as error:
        case = case_of(review, transfer_id)
        return _page(request, review, case, listed, 409, theirs=error.theirs, mine=wanted)
    except DecisionError as error:
        case = case_of(review, transfer_id)
        refusal = Refusal(str(error), tight(review, transfer_id, error))
        if choice:
            return show_choice(request, review, case, listed, choice_of(request, review, case, form), 409, refusal)
        return _page(request, review, case, listed, 409, refusal=refusal)
    following = after or before
    month = f"{made[0].booked_on:%Y-%m}"
    return see(extended(listed.case(following) if following else listed.month(month), said(made)))


@router.post("/cases/{transfer_id:path}/undo")
def undo(
    request: Request, transfer_id: Transfer, listed: Listed, review: Reviewing, user: Booker, form: Sent
) -> Response:
    """Takes the transfer's last decision back, and shows it again."""
    try:
        made = review.undo(number_of(form, "number"), user.name, undoing(request))
    except DecisionError as error:
        return _page(request, review, case_of(review, transfer_id), listed, 409, refusal=Refusal(str(error)))
    except LookupError as error:
        raise HTTPException(404, str(error)) from error
    return see(extended(listed.case(made.transfer_id), said([made])))


@router.get("/cases/{transfer_id:path}", dependencies=READER)
def show(request: Request, transfer_id: Transfer, listed: Listed, review: Reviewing, done: Done) -> HTMLResponse:
    """A transfer with its proposal, the evidence, runners-up and what was decided.

    Who comes from another page of the desk sees at once whose transfer it is, and the rest once it is proposed anew.
    """
    boosted = "HX-Boosted" in request.headers
    case = case_of(review, transfer_id, 0 if boosted else PATIENCE)
    return _page(request, review, case, listed, toast=toast(review, done), awaits=boosted and case.is_pending)


def _page(
    request: Request, review: Review, case: Case, listed: Listing, status: int = 200, **more: Any
) -> HTMLResponse:
    """More: `toast`; `refusal` of a decision; `theirs` and `mine`, where two people decided on the transfer; `awaits`, where
    the page is to ask for what is proposed."""
    before, after = review.neighbours(case.row.transfer_id, listed.filter)
    given: dict[str, Any] = {"toast": None, "refusal": None, "theirs": None, "mine": None, "awaits": False} | more
    decided = [*case.history, *(one for one in (given["theirs"], given["mine"]) if one)]
    return render(
        request,
        "case.html",
        status,
        case=case,
        row=case.row,
        listed=listed,
        month=month_of(case),
        before=before,
        after=after,
        pieces=pieces(case.row.title, case.marks),
        invoices=invoices_of(review, decided),
        named={mark.invoice_id: review.invoice(mark.invoice_id) for mark in case.marks},
        runners_up=_ranked(case)[:RUNNERS_UP],
        convert=convert,
        alike=len(others(review, case)),
        part=part,
        labels=labels,
        **given,
    )


def _ranked(case: Case) -> list[tuple[Option, str]]:
    """The runners-up with how far behind the proposal they are, in words: what the model gives a set among all that it
    compared is no confidence, and is not to be read beside one."""
    left = 1 - sum(option.share for option in case.runners_up)
    return [
        (option, next(words for least, words in _BEHIND if option.share >= least * left)) for option in case.runners_up
    ]


def tight(review: Review, transfer_id: str, error: DecisionError) -> OpenInvoice | None:
    """The invoice of which less is open for a transfer than was thought."""
    return review.invoice(error.invoice_id, transfer_id) if isinstance(error, OverSettledError) else None
