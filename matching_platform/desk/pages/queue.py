"""The month's list: what waits for a person, the most valuable doubt first, with the numbers of the month above it."""

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from matching_platform.desk import labels
from matching_platform.desk.dependencies import Reviewing
from matching_platform.desk.pages.common import READER, Listed, Listing, PageNumber, extended, see
from matching_platform.desk.pages.common import address as path
from matching_platform.desk.pages.done import Done, toast
from matching_platform.desk.rendering import render
from matching_platform.review.cases import Status, Summary

router = APIRouter()


@router.get("/", dependencies=READER)
def newest(review: Reviewing) -> Response:
    """The newest month with something that waits, else the newest; without any, what to do first."""
    months = review.months()
    if not months:
        return see("/start")
    waiting = (month for month in reversed(months) if review.summary(month).waiting)
    return see(path("months", next(waiting, months[-1])))


@router.get("/months/{month}", dependencies=READER)
def queue(
    request: Request, month: str, listed: Listed, review: Reviewing, done: Done, page: PageNumber = 1
) -> HTMLResponse:
    """A month's list, page by page."""
    months = review.months()
    if month not in months:
        raise HTTPException(404, f"there are no proposals of {month[:7]}")
    summary = review.summary(month)
    return render(
        request,
        "queue.html",
        month=month,
        months=months,
        summary=summary,
        counts=_counts(summary),
        listed=listed,
        page=review.queue(month, listed.filter, page),
        address=lambda number: extended(listed.month(month), f"page={number}"),
        other=lambda show: Listing(show, listed.text).query,
        labels=labels,
        toast=toast(review, done),
        refusal=review.outbox.refusal,
    )


def _counts(summary: Summary) -> dict[str, int]:
    """How many rows each tab has."""
    return {status: getattr(summary, status) for status in Status} | {"all": summary.transfers}
