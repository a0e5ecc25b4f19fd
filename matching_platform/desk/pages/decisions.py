"""Who decided what, and when."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse

from matching_platform.desk import labels
from matching_platform.desk.dependencies import Reviewing
from matching_platform.desk.pages.common import READER, PageNumber, Text, invoices_of, pager, rows_of
from matching_platform.desk.pages.done import Done, toast
from matching_platform.desk.rendering import render

router = APIRouter()


@router.get("/decisions", dependencies=READER)
def decisions(
    request: Request,
    review: Reviewing,
    done: Done,
    month: Annotated[str, Query(max_length=7)] = "",
    actor: Text = "",
    text: Text = "",
    page: PageNumber = 1,
) -> HTMLResponse:
    """All decisions, the newest first."""
    months = review.months()
    found = review.decisions(month if month in months else None, actor.strip() or None, text.strip(), page)
    return render(
        request,
        "decisions.html",
        month=month,
        months=months,
        actor=actor,
        text=text,
        page=found,
        labels=labels,
        invoices=invoices_of(review, found.rows),
        transfers=rows_of(review, found.rows),
        toast=toast(review, done),
        address=pager("/decisions", month=month, actor=actor, text=text),
    )
