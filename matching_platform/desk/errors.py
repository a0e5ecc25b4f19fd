"""Errors as pages: what is wrong, and what to do. Below /api, the API answers for itself."""

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matching_platform.desk.i18n import mark
from matching_platform.desk.rendering import render_instead

_log: Final = logging.getLogger("uvicorn.error")
# By status, a title and what to do; where a detail was given, it comes before.
_TOLD: Final[dict[int, tuple[str, str]]] = {
    400: (mark("That did not work"), mark("What was sent is not what this page takes. Go back, and open it anew.")),
    404: (mark("Not found"), mark("The list shows what there is.")),
    409: (mark("Somebody was faster"), mark("Nothing was changed. Look at the list, and decide again.")),
    413: (mark("Too large"), mark("Send less at a time.")),
    500: (
        mark("Something broke"),
        mark("It was written to the desk's log. Look whether what you did was recorded before you try again."),
    ),
    503: (mark("Not answering"), mark("The desk's database does not answer. Try again in a minute.")),
}


def handle(app: FastAPI) -> None:
    """Makes `app` answer errors with pages."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, lambda request, _: page(request, 404))
    app.add_exception_handler(OperationalError, _no_database)
    app.add_middleware(Broken)


@dataclass(frozen=True)
class Broken:
    """Answers an error of ours with a page; inside the layers that add headers, which the framework's own answer escapes."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ClientDisconnect:
            return  # Nobody is there to be answered.
        except Exception:
            if scope["type"] != "http" or begun:
                raise
            _log.exception("%s %s broke", scope["method"], scope["path"])
            await page(Request(scope), 500)(scope, receive, send)


def page(request: Request, status: int, detail: str = "") -> Response:
    """An error as a page, its status a known one."""
    title, advice = _TOLD.get(status, _TOLD[500 if status >= 500 else 400])
    return render_instead(request, "error.html", status, status=status, title=title, advice=advice, detail=detail)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # Starlette's own details say no more than the status does.
    usual = HTTPStatus(error.status_code).phrase
    response = page(request, error.status_code, "" if error.detail == usual else str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _no_database(request: Request, error: Exception) -> Response:
    assert isinstance(error, OperationalError)
    _log.warning("the desk's database does not answer: %s", error.orig)
    return page(request, 503)
