"""Proposals like one another, to be accepted at once."""

from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from matching_platform.desk.audit import note_decided, note_undone
from matching_platform.desk.i18n import mark, translator
from matching_platform.desk.pages.common import (
    READER,
    Booker,
    Listed,
    Listing,
    Reviewing,
    Sent,
    Transfer,
    address,
    case_of,
    extended,
    month_of,
    number_of,
    part,
    parts_of,
    see,
    texts_of,
)
from matching_platform.desk.pages.done import MOST, said
from matching_platform.desk.rendering import render
from matching_platform.desk.review import Review
from matching_platform.review.cases import Case, Row, Status
from matching_platform.review.decisions import Action, DecisionError, Wanted

router = APIRouter()


@router.get("/cases/{transfer_id:path}/alike", dependencies=READER)
def alike(request: Request, transfer_id: Transfer, listed: Listed, review: Reviewing) -> HTMLResponse:
    """What rests on the same evidence for the same counterparty, and waits."""
    return _page(request, review, case_of(review, transfer_id), listed)


@router.post("/cases/{transfer_id:path}/alike")
def accept(
    request: Request, transfer_id: Transfer, listed: Listed, review: Reviewing, user: Booker, form: Sent
) -> Response:
    """Accepts all that are ticked as they were shown, or none of them."""
    case = case_of(review, transfer_id)
    ticked = texts_of(form, "transfer")[:MOST]
    if not ticked:
        return _page(request, review, case, listed, 422, problem=translator(request)(mark("Tick at least one.")))
    wanted = [
        Wanted(name, Action.ACCEPT, parts_of(form, f"part-{name}"), number_of(form, f"expected-{name}"))
        for name in ticked
    ]
    try:
        made = review.decide(wanted, user.name)
    except DecisionError as error:
        case = case_of(review, transfer_id)
        return _page(request, review, case, listed, 409, problem=str(error), ticked=frozenset(ticked))
    note_decided(request, made)
    return see(extended(listed.month(month_of(case)), said(made)))


@router.post("/undo")
def undo(request: Request, review: Reviewing, user: Booker, form: Sent) -> Response:
    """Takes back what was accepted at once, the last one first."""
    first, last = number_of(form, "first"), number_of(form, "last")
    if not 0 <= last - first < MOST:
        raise HTTPException(400, "these are too many decisions to be taken back at once")
    try:
        made = [review.undo(number, user.name) for number in range(last, first - 1, -1)]
    except DecisionError as error:
        raise HTTPException(409, str(error)) from error
    except LookupError as error:
        raise HTTPException(404, str(error)) from error
    note_undone(request, made)
    return see(address("months", f"{made[-1].booked_on:%Y-%m}"))


def others(review: Review, case: Case) -> list[Row]:
    """What waits like `case`, without it."""
    if case.row.status != Status.WAITING:
        return []
    return [row for row in review.alike(case.row.transfer_id) if row.transfer_id != case.row.transfer_id]


def _page(
    request: Request, review: Review, case: Case, listed: Listing, status: int = 200, **more: Any
) -> HTMLResponse:
    cases = [case, *(review.case(row.transfer_id) for row in others(review, case)[: MOST - 1])]
    given: dict[str, Any] = {"problem": "", "ticked": frozenset(one.row.transfer_id for one in cases)} | more
    return render(
        request,
        "alike.html",
        status,
        case=case,
        cases=cases,
        listed=listed,
        month=month_of(case),
        lowest=min(one.row.confidence for one in cases),
        money=_sums(cases),
        part=part,
        **given,
    )


def _sums(cases: list[Case]) -> dict[str, int]:
    """The sum by currency."""
    sums: dict[str, int] = {}
    for one in cases:
        sums[one.row.currency] = sums.get(one.row.currency, 0) + one.row.amount
    return sums
