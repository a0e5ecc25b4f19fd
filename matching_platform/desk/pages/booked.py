"""What was booked unattended, and why."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse

from matching_platform.desk.dependencies import Reviewing
from matching_platform.desk.pages.common import READER, PageNumber, Text, pager
from matching_platform.desk.rendering import render

router = APIRouter()


@router.get("/booked", dependencies=READER)
def booked(
    request: Request,
    review: Reviewing,
    month: Annotated[str, Query(max_length=7)] = "",
    text: Text = "",
    page: PageNumber = 1,
) -> HTMLResponse:
    """A month's unattended bookings; the newest month where none is named."""
    months = review.months()
    chosen = month if month in months else months[-1] if months else ""
    return render(
        request,
        "booked.html",
        month=chosen,
        months=months,
        text=text,
        page=review.booked(chosen, text.strip(), page) if chosen else None,
        summary=review.summary(chosen) if chosen else None,
        address=pager("/booked", month=chosen, text=text),
    )
