"""The matching service: transfers and open invoices in, proposals out."""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import bentoml
import psutil
from anyio import CapacityLimiter, to_thread
from bentoml.metrics import Counter, Gauge
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from matching_platform.ledger.validation import LedgerError
from matching_platform.ledger.wire import from_rows, proposal_rows

MODEL = "MATCHING_PLATFORM_MODEL"
# The largest request; the rows of 64 MiB of JSON take about ten times that in memory.
BODY_BYTES = 64 * 2**20
# The unit of `ru_maxrss`.
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class RequestError(ValueError):
    """A body that is not a JSON object with both tables."""


class TooLargeError(ValueError):
    """A body of more than BODY_BYTES."""


async def match(request: Request) -> Response:
    """`{"transfers": [...], "invoices": [...]}` in; `{"model": "...", "proposals": [...]}`, or 400 or 413, out."""
    service = bentoml.get_current_service()
    try:
        body = await _body(request)
        # In a thread, so that probes are answered meanwhile.
        answer = await to_thread.run_sync(service.answer, body, limiter=service.turn)
    except TooLargeError as error:
        return JSONResponse({"error": str(error)}, status_code=413)
    except RequestError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    except LedgerError as error:
        where = {"table": error.source, "row": error.row, "column": error.column}
        return JSONResponse({"error": str(error), **where}, status_code=400)
    finally:
        service.measure()
    return JSONResponse(answer)


async def model(_: Request) -> Response:
    """The model's card: version, until when it learned, its figures."""
    service = bentoml.get_current_service()
    return JSONResponse({**service.matcher.card, "version": service.version})


app = Starlette(routes=[Route("/match", match, methods=["POST"]), Route("/model", model)])


@bentoml.asgi_app(app)
@bentoml.service(name="matching-platform", traffic={"timeout": 120})
class MatchingService:
    """One model, loaded before the first request is taken; BentoML adds /healthz, /readyz and /metrics."""

    def __init__(self) -> None:
        # The supervising process imports this module as well, and is spared torch.
        from matching_platform.matching.matcher import Matcher

        folder = Path(os.environ.get(MODEL) or Path(__file__).parent / "model")
        self.matcher = Matcher.load(folder)
        self.matcher.warm_up()
        packed_as = bentoml.server_context.bento_version
        self.version = folder.name if packed_as == "not available" else packed_as
        # A matching uses all cores; two at a time would only take longer.
        self.turn = CapacityLimiter(1)
        self.transfers = Counter(
            "matching_transfers_total", documentation="Transfers matched, by decision", labelnames=["decision"]
        )
        self.process = psutil.Process()
        self.memory = _gauge("matching_memory_bytes", "Resident memory after the last request")
        self.peak_memory = _gauge("matching_peak_memory_bytes", "Most resident memory since the start")
        _gauge("matching_start_time_seconds", "When the process started, in Unix time").set(self.process.create_time())
        self.measure()

    def measure(self) -> None:
        """Notes how much memory is in use, of the process that matches; its supervisor has some of its own."""
        self.memory.set(self.process.memory_info().rss)
        self.peak_memory.set(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES)

    def answer(self, body: bytearray) -> dict[str, Any]:
        """The answer to a request's body; RequestError or LedgerError where it is not what the contract says."""
        tables = _tables(body)
        transfers = from_rows("transfers", tables["transfers"])
        invoices = from_rows("open_invoices", tables["invoices"], source="invoices")
        proposals = self.matcher.propose(transfers, invoices)
        decided = proposals.unique("transfer_id").group_by("decision").len()
        for decision, count in decided.iter_rows():
            self.transfers.labels(decision).inc(count)
        return {"model": self.version, "proposals": proposal_rows(proposals)}


def _gauge(name: str, documentation: str) -> Gauge:
    """A figure that is the newest process's, should one have ended and another taken its place."""
    return Gauge(name, documentation=documentation, multiprocess_mode="mostrecent")


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
