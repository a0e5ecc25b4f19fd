"""Proposals like one another, to be accepted at once."""

from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from matching_platform.desk.audit import deciding, undoing
from matching_platform.desk.dependencies import Booker, Reviewing
from matching_platform.desk.i18n import mark, translator
from matching_platform.desk.pages.common import (
    READER,
    Listed,
    Listing,
    Sent,
    Transfer,
    case_of,
    extended,
    month_of,
    number_of,
    part,
    parts_of,
    see,
    text_of,
    texts_of,
)
from matching_platform.desk.pages.done import MOST, numbers_of, said
from matching_platform.desk.rendering import render
from matching_platform.desk.review import Review
from matching_platform.review.cases import Case, Offer, Row, Status
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
        made = review.decide(wanted, user.name, deciding(request))
    except DecisionError as error:
        case, left = case_of(review, transfer_id), frozenset(ticked) - {error.transfer_id}
        refused = review.row(error.transfer_id) if error.transfer_id else None
        return _page(request, review, case, listed, 409, problem=str(error), refused=refused, ticked=left)
    return see(extended(listed.month(month_of(case)), said(made)))


@router.post("/undo")
def undo(request: Request, listed: Listed, review: Reviewing, user: Booker, form: Sent) -> Response:
    """Takes back what the same person accepted at once, the last one first."""
    numbers = numbers_of(text_of(form, "numbers"))
    if not numbers:
        raise HTTPException(
            400, "the field 'numbers' does not name decisions that were made at once; open the page anew"
        )
    try:
        made = review.undo_all(sorted(numbers, reverse=True), user.name, undoing(request))
    except DecisionError as error:
        raise HTTPException(409, str(error)) from error
    except LookupError as error:
        raise HTTPException(404, str(error)) from error
    return see(extended(listed.month(f"{made[-1].booked_on:%Y-%m}"), said(made)))


def others(review: Review, case: Case) -> list[Row]:
    """What waits like `case`, without it."""
    if case.row.status != Status.WAITING:
        return []
    return [row for row in review.alike(case.row.transfer_id) if row.transfer_id != case.row.transfer_id]


def _page(
    request: Request, review: Review, case: Case, listed: Listing, status: int = 200, **more: Any
) -> HTMLResponse:
    offers = review.proposed([case.row.transfer_id, *(row.transfer_id for row in others(review, case)[: MOST - 1])])
    ticked = frozenset(one.row.transfer_id for one in offers)
    given: dict[str, Any] = {"problem": "", "refused": None, "ticked": ticked} | more
    return render(
        request,
        "alike.html",
        status,
        case=case,
        offers=offers,
        listed=listed,
        month=month_of(case),
        lowest=min(one.row.confidence for one in offers),
        money=_sums(offers),
        part=part,
        **given,
    )


def _sums(offers: list[Offer]) -> dict[tuple[str, str], int]:
    """The sum by direction and currency, of what goes out below 0."""
    sums: dict[tuple[str, str], int] = {}
    for row in (one.row for one in offers):
        key = row.direction, row.currency
        sums[key] = sums.get(key, 0) + (row.amount if row.direction == "in" else -row.amount)
    return sums
