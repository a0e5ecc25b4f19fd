"""Months and their transfers: numbers, queue, the case of one transfer, and invoices that it may pay."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from matching_platform.desk.api.access import READER
from matching_platform.desk.api.errors import responses
from matching_platform.desk.api.shapes import (
    LARGEST_NUMBER,
    MONTH,
    TEXT,
    Case,
    Invoices,
    Months,
    Page,
    Row,
    Summary,
)
from matching_platform.desk.dependencies import Reviewing
from matching_platform.desk.review import Review
from matching_platform.review.cases import Filter, Status

router = APIRouter(tags=["transfers"], dependencies=READER, responses=responses(400, 401, 403, 503))

Month = Annotated[str, Path(pattern=MONTH, examples=["2024-06"])]
TransferId = Annotated[str, Path(min_length=1, max_length=500, pattern=TEXT)]
Text = Annotated[str, Query(max_length=200, pattern=TEXT)]
Number = Annotated[int, Query(ge=1, le=LARGEST_NUMBER)]
Size = Annotated[int, Query(ge=1, le=500)]


@router.get("/months", response_model=Months)
def months(review: Reviewing) -> Any:
    """The months with proposals, the first one first."""
    review.refresh()
    return {"months": review.months()}


@router.get("/months/{month}/summary", response_model=Summary, responses=responses(404))
def summary(review: Reviewing, month: Month) -> Any:
    """How a month stands."""
    return review.summary(_known(review, month))


@router.get("/months/{month}/queue", response_model=Page[Row], responses=responses(404))
def queue(
    review: Reviewing,
    month: Month,
    status: Annotated[frozenset[Status] | None, Query(description="Waiting, where none is named")] = None,
    text: Annotated[str, Query(max_length=200, pattern=TEXT, description="In payer, title, id or amount")] = "",
    alike: Annotated[str, Query(max_length=500, pattern=TEXT, description="Rows with this `alike`")] = "",
    page: Number = 1,
    size: Size = 50,
) -> Any:
    """The transfers of a month, the most valuable doubt first."""
    wanted = Filter(statuses=status or Filter().statuses, text=text, alike=alike)
    return review.queue(_known(review, month), wanted, page, size)


# Ids may hold slashes.
@router.get("/transfers/{transfer_id:path}/invoices", response_model=Invoices, responses=responses(404))
def invoices(review: Reviewing, transfer_id: TransferId, text: Text = "", limit: Size = 50) -> Any:
    """Open invoices with the text in number, name, reference or amount; those of the transfer's payer first."""
    review.refresh()
    return {"invoices": review.search(transfer_id, text, limit)}


@router.get("/transfers/{transfer_id:path}", response_model=Case, responses=responses(404))
def case(review: Reviewing, transfer_id: TransferId) -> Any:
    """All about one transfer."""
    review.refresh()
    return review.case(transfer_id)


def _known(review: Review, month: str) -> str:
    """A month of which something is proposed; LookupError where nothing is."""
    review.refresh()
    if month not in review.months():
        raise LookupError(f"nothing is proposed for {month}; /api/months lists the months")
    return month
