"""The matching service: transfers and open invoices in, proposals out, and a log of both."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import bentoml
from anyio import CapacityLimiter, to_thread
from bentoml._internal.server.http import instruments
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from matching_platform.ledger.openapi import service as described
from matching_platform.ledger.validation import LedgerError
from matching_platform.ledger.wire import from_rows, proposal_rows
from matching_platform.predictions.headers import ASKED, PURPOSE, PURPOSES, REQUEST_ID
from matching_platform.predictions.served import Served
from matching_platform.predictions.settings import received

MODEL = "MATCHING_PLATFORM_MODEL"
# The largest request; the rows of 64 MiB of JSON take about ten times that in memory.
BODY_BYTES = 64 * 2**20
PATHS = frozenset(("/match", "/model", "/openapi.json", "/healthz", "/livez", "/readyz", "/metrics"))


class RequestError(ValueError):
    """A body that is not a JSON object with both tables."""


class TooLargeError(ValueError):
    """A body of more than BODY_BYTES."""


class NamedPaths(instruments.RunnerTrafficMetricsMiddleware):
    """BentoML's metrics have the path as a label: what somebody makes up has one in common, and metrics stay few."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] not in PATHS:
            scope = {**scope, "path": "/unknown", "raw_path": b"/unknown"}
        elif scope["type"] == "http" and scope["path"] == "/metrics":
            bentoml.get_current_service().tell()
        await super().__call__(scope, receive, send)


# BentoML lets nobody stand before its metrics, and looks this name up when it makes the application.
instruments.RunnerTrafficMetricsMiddleware = NamedPaths


async def match(request: Request) -> Response:
    """`{"transfers": [...], "invoices": [...]}` in; `{"model": "...", "proposals": [...]}`, or 400 or 413, out."""
    service = bentoml.get_current_service()
    asked = Asked(request)
    try:
        body = await _body(request)
        # In a thread, so that probes are answered meanwhile.
        answer = await to_thread.run_sync(service.answer, body, asked, limiter=service.turn)
        asked.outcome = "answered"
    except TooLargeError as error:
        asked.outcome = "too_large"
        return JSONResponse({"error": str(error)}, status_code=413)
    except RequestError as error:
        asked.outcome = "refused"
        return JSONResponse({"error": str(error)}, status_code=400)
    except LedgerError as error:
        asked.outcome = "refused"
        where = {"table": error.source, "row": error.row, "column": error.column}
        return JSONResponse({"error": str(error), **where}, status_code=400)
    finally:
        service.metrics.asked(asked.outcome, asked.seconds)
    return JSONResponse(answer, headers={REQUEST_ID: asked.id})


async def model(_: Request) -> Response:
    """The model's card: version, until when it learned, its figures."""
    service = bentoml.get_current_service()
    return JSONResponse({**service.matcher.card, "version": service.version})


async def description(_: Request) -> Response:
    """The OpenAPI description of this service."""
    return JSONResponse(described())


class Asked:
    """A request on its way: when it came, what for, and what became of it."""

    def __init__(self, request: Request) -> None:
        purpose = request.headers.get(PURPOSE)
        self.id, self.at, self._began = uuid4().hex, datetime.now(UTC), time.perf_counter()
        self.purpose = purpose if purpose in PURPOSES else ASKED
        self.outcome = "failed"

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began


app = Starlette(
    routes=[
        Route("/match", match, methods=["POST"]),
        Route("/model", model),
        Route("/openapi.json", description),
    ]
)


@bentoml.asgi_app(app)
@bentoml.service(name="matching-platform", traffic={"timeout": 120})
class MatchingService:
    """One model, loaded before the first request is taken; BentoML adds /healthz, /readyz and /metrics.

    Where the environment names a store, what is answered is logged there, and the record there says what may be booked
    unattended; without one, the model decides alone.
    """

    def __init__(self) -> None:
        # The supervising process imports this module as well, and is spared torch.
        from matching_platform.matching.matcher import Matcher
        from matching_platform.predictions.keeping import Keeping
        from matching_platform.predictions.metrics import ServiceMetrics

        folder = Path(os.environ.get(MODEL) or Path(__file__).parent / "model")
        self.matcher = Matcher.load(folder)
        self.matcher.warm_up()
        packed_as = bentoml.server_context.bento_version
        self.version = folder.name if packed_as == "not available" else packed_as
        # A matching uses all cores; two at a time would only take longer.
        self.turn = CapacityLimiter(1)
        self.metrics = ServiceMetrics(self.version, self.matcher.card["trained_until"])
        given = received(os.environ)
        self.keeping = Keeping.start(*given) if given else None
        self.tell()

    @bentoml.on_shutdown
    def close(self) -> None:
        """BentoML calls it when the last request is answered."""
        if self.keeping:
            self.keeping.close()

    @property
    def booked_from(self) -> float:
        """From which confidence this model may book unattended now."""
        own = self.matcher.auto_from
        return self.keeping.booked_from(self.version, own) if self.keeping else own

    def tell(self) -> None:
        """Brings the metrics up to date that change without a request."""
        self.metrics.measure()
        self.metrics.set("matching_booked_from", self.booked_from)
        if self.keeping:
            self.keeping.tell(self.metrics)

    def answer(self, body: bytearray, asked: Asked) -> dict[str, Any]:
        """The answer to a request's body; RequestError or LedgerError where it is not what the contract says."""
        tables = _tables(body)
        transfers = from_rows("transfers", tables["transfers"])
        invoices = from_rows("open_invoices", tables["invoices"], source="invoices")
        # By the model's own threshold, which settles who pays which of two alike; what may be booked is decided afterwards.
        proposals, booked_from = self.matcher.propose(transfers, invoices), self.matcher.auto_from
        if self.keeping:
            proposals, booked_from = self.keeping.decided(proposals, self.version, booked_from)
        self.metrics.proposed(proposals)
        if self.keeping:
            taken = asked.id, asked.at, asked.purpose, self.version, asked.seconds * 1000, booked_from
            self.keeping.log.take(Served(*taken, transfers, invoices, proposals))
        return {"model": self.version, "proposals": proposal_rows(proposals)}


async def _body(request: Request) -> bytearray:
    """The request's body; TooLargeError as soon as there is more of it than we take."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES:
                raise TooLargeError(f"the body is larger than {BODY_BYTES / 2**20:.0f} MiB; send fewer rows at a time")
    except ClientDisconnect as error:
        raise RequestError("the client went away before its whole body had come") from error
    return body


def _tables(body: bytearray) -> dict[str, Any]:
    try:
        tables = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(tables, dict):
        raise RequestError('the body is not an object; send {"transfers": [...], "invoices": [...]}')
    for name in ("transfers", "invoices"):
        if name not in tables:
            raise RequestError(f"'{name}' is missing; send it as a list of rows")
    return tables
