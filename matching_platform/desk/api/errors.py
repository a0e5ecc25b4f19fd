"""Whatever is wrong is answered in one form, `shapes.Refusal`, with the field and the row named."""

import logging
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from matching_platform.desk.api.shapes import Decision, Refusal
from matching_platform.intake.incoming import IntakeError
from matching_platform.review.decisions import ConflictError, DecisionError, OverSettledError

_log: Final = logging.getLogger("uvicorn.error")
# What the frameworks' own refusals lack: what to do.
_TOLD: Final = {
    400: "the body cannot be read as JSON; send it as /api/openapi.json describes",
    404: "there is no such address; /api/openapi.json lists them all",
    405: "this address takes other methods; /api/openapi.json lists them",
    413: "the request is too large; send less at a time",
}
_DESCRIBED: Final = {
    400: "Not what is described here; nothing was done",
    401: "Without a token that is in force",
    403: "The token's role does not permit it",
    404: "There is no such thing",
    409: "Somebody was faster, or an invoice has less open; nothing was done",
    413: "The request is too large",
    503: "What answers this does not answer itself; try again",
}


class NotAnsweringError(RuntimeError):
    """Something that we rest on does not answer; the message says what, and what to do."""


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its description."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": Refusal, "description": _DESCRIBED[status]} for status in statuses
    }
    if 413 in described:
        # Where its length was told in advance, the framework answers before we are asked.
        described[413]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return described


def refuse(status: int, error: str, headers: dict[str, str] | None = None, **where: Any) -> JSONResponse:
    """A refusal, with `where` it is wrong."""
    return JSONResponse(Refusal(error=error, **where).content(), status, headers)


def handle(app: FastAPI) -> None:
    """Makes `app` answer errors in the form of the API."""
    handlers: dict[type[Exception], Callable[..., Any]] = {
        RequestValidationError: _invalid,
        HTTPException: _refused,
        ConflictError: _conflict,
        OverSettledError: lambda _, error: refuse(409, str(error), invoice_id=error.invoice_id),
        DecisionError: lambda _, error: refuse(400, str(error)),
        IntakeError: lambda _, error: refuse(400, str(error), field=error.field),
        LookupError: _unknown,
        NotAnsweringError: lambda _, error: refuse(503, str(error)),
        OperationalError: _no_database,
        # Nobody is there to read it.
        ClientDisconnect: lambda _request, _error: refuse(400, "the client went away before its whole body had come"),
        Exception: lambda _request, _error: refuse(500, "an error of ours; the desk's log says more"),
    }
    for error, handler in handlers.items():
        app.add_exception_handler(error, handler)


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """400 for the first thing that is wrong. In a body, a place in the first list is a row, counted from 1."""
    first = error.errors()[0]
    part, *place = first["loc"]
    if first["type"] == "json_invalid":
        return refuse(400, f"the body is not JSON: {first['ctx']['error']} at character {place[0]}")
    row = next((step for step in place if isinstance(step, int)), None) if part == "body" else None
    field = ".".join(str(step) for step in (place if row is None else place[place.index(row) + 1 :]))
    problem = first["msg"].removeprefix("Value error, ")
    problem = problem[:1].lower() + problem[1:]
    where = ["" if row is None else f"row {row + 1}", field and f"field {field}"]
    told = ", ".join(filter(None, where)) or "the body"
    return refuse(400, f"{told}: {problem}", field=field or None, row=None if row is None else row + 1)


async def _refused(request: Request, error: HTTPException) -> JSONResponse:
    told, headers = _TOLD.get(error.status_code, str(error.detail)), dict(error.headers or {})
    if error.status_code == 405:
        # Of the address, and not of the first route that has it.
        methods = request.app.openapi()["paths"].get(request.scope["route"].path_format, {})
        headers["Allow"] = ", ".join(sorted(method.upper() for method in methods))
    return refuse(error.status_code, told, headers)


async def _conflict(_: Request, error: ConflictError) -> JSONResponse:
    return refuse(409, str(error), theirs=Decision.model_validate(error.theirs))


async def _unknown(_: Request, error: LookupError) -> JSONResponse:
    if type(error) is not LookupError:
        # A key or an index that is missing is an error of ours.
        raise error
    return refuse(404, str(error))


async def _no_database(_: Request, error: OperationalError) -> JSONResponse:
    _log.warning("the desk's database does not answer: %s", error.orig)
    return refuse(503, "the desk's database does not answer; try again in a minute")
