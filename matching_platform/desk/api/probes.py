"""For whoever runs the desk: whether it lives, whether it can work, and its metrics."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from matching_platform.desk.review import Review

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def lives() -> dict[str, str]:
    """Answered as long as the process is not stuck."""
    return {"status": "alive"}


@router.get("/readyz", response_model=None)
def ready(request: Request) -> Any:
    """200 where the database answers, else 503. `problem` says why people can read and not decide."""
    try:
        with request.app.state.platform.database.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return JSONResponse({"status": "the database does not answer"}, 503)
    review: Review = request.app.state.review
    refusal = review.outbox.refusal
    return {"status": "ready"} | ({"problem": refusal} if refusal else {})


@router.get("/metrics")
def metrics(request: Request) -> Response:
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
