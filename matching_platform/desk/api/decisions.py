"""Decisions: to make them, to undo them, and what was decided."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from matching_platform.desk.api.access import BOOKER, READER
from matching_platform.desk.api.errors import responses
from matching_platform.desk.api.shapes import LARGEST_NUMBER, Decision, Decisions, Number, WantedIn, WantedList
from matching_platform.desk.audit import deciding, undoing
from matching_platform.desk.dependencies import Booker, Reviewing
from matching_platform.review.decisions import Action, Allocation, Wanted

router = APIRouter(tags=["decisions"], responses=responses(400, 401, 403, 503))


@router.post(
    "/decisions",
    status_code=201,
    response_model=Decisions,
    dependencies=BOOKER,
    responses=responses(404, 409, 413),
)
def decide(request: Request, review: Reviewing, booker: Booker, wanted: WantedList) -> Any:
    """Takes all of them or none. Where somebody decided meanwhile, 409 says in `theirs` what."""
    return {"decisions": review.decide([_wanted(one) for one in wanted.decisions], booker.name, deciding(request))}


@router.post(
    "/decisions/{number}/undo",
    status_code=201,
    response_model=Decision,
    dependencies=BOOKER,
    responses=responses(404, 409),
)
def undo(
    request: Request, review: Reviewing, booker: Booker, number: Annotated[int, Path(ge=1, le=LARGEST_NUMBER)]
) -> Any:
    """Withdraws a decision that is its transfer's last; both stay on the record."""
    if not any(made.number == number for made in review.decisions_after(number - 1, 1)):
        raise LookupError(f"there is no decision {number}; /api/decisions lists them")
    return review.undo(number, booker.name, undoing(request))


@router.get("/decisions", response_model=Decisions, dependencies=READER)
def decisions(
    review: Reviewing,
    after: Annotated[Number, Query(description="The number of the last one that you have")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Any:
    """Decisions in the order in which they were made."""
    return {"decisions": review.decisions_after(after, limit)}


def _wanted(given: WantedIn) -> Wanted:
    parts = tuple(Allocation(part.invoice_id, part.amount) for part in given.allocations)
    return Wanted(given.transfer_id, Action(given.action), parts, given.expected, given.note)
