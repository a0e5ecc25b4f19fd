"""For whoever runs the desk: whether it lives, whether it can work, and its metrics."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def lives() -> dict[str, str]:
    """Answered as long as the process is not stuck."""
    return {"status": "alive"}


@router.get("/readyz", response_model=None)
def ready(request: Request) -> Any:
    """200 where the database answers, else 503."""
    try:
        with request.app.state.platform.database.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return JSONResponse({"status": "the database does not answer"}, 503)
    return {"status": "ready"}


@router.get("/metrics")
def metrics(request: Request) -> Response:
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
