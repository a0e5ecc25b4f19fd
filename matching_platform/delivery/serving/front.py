"""The stable address: sends each request to the server that the routes name at that moment.

`python -m matching_platform.delivery.serving.front SOURCE [--host HOST] [--port PORT]` is a process of its own, which a
switch does not touch. SOURCE is the folder of a rollout, whose deployment record holds the routes, or a JSON file that is
read again when it changes:

    {"address": "host:port", "challenger": {"address": "host:port", "share": 0.1, "shadow": true}}

The server at `address` is the good one. A challenger answers its share of the matchings, and gets copies of the others
where it is a shadow; what it fails to answer is answered by the good one.
"""

import argparse
import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

import httpx
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from matching_platform.delivery import probe
from matching_platform.delivery.serving.figures import Comparison, Figures
from matching_platform.predictions.headers import COPY, PURPOSE

if TYPE_CHECKING:
    from matching_platform.store.record import Record

HOST: Final = "127.0.0.1"
RECORD: Final = "deployments"
# The service's own limit, `traffic.timeout`.
ANSWER_SECONDS: Final = 120.0
# A challenger that takes longer has failed, and the good one still has its own time.
CHALLENGER_SECONDS: Final = 30.0
SERVED_BY: Final = "x-served-by"
COMPARISON: Final = "/front/comparison"
_COPIES: Final = 32
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# They speak of one connection, and there are two.
_HOP_BY_HOP: Final = frozenset(
    (
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
        *("host", "content-length", "date", "accept-encoding"),
    )
)
# Matching changes nothing, so a request may be sent again. Time enough for a crashed worker to come back.
_ATTEMPT_PAUSES: Final = (0.0, 0.05, 0.2, 1.0, 3.0)

_log: Final = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Challenger:
    """A server on trial, the share of the matchings that it answers, and whether it gets copies of the others."""

    address: str
    share: float = 0.0
    shadow: bool = False


@dataclass(frozen=True)
class Routes:
    """Where requests go."""

    address: str
    challenger: Challenger | None = None


Source = Callable[[], Routes | None]
_ROUTES: Final = TypeAdapter(Routes)


class _Call(NamedTuple):
    """A request as it is passed on."""

    method: str
    path: str
    query: bytes
    headers: dict[str, str]
    body: bytes

    @property
    def matching(self) -> bool:
        return (self.method, self.path) == ("POST", "/match")


class _Copy(NamedTuple):
    """A matching that was answered, for the challenger to answer as well."""

    call: _Call
    address: str
    answer: bytes


def deployments(folder: Path) -> "Record":
    """What was deployed from `folder`; the last entry holds the routes."""
    # A cluster's front, which reads a file, is spared the store.
    from matching_platform.store.record import Record
    from matching_platform.store.versions import Store

    return Record(Store(folder), RECORD)


def recorded(record: "Record") -> Source:
    """The routes on a deployment record."""

    def routes() -> Routes | None:
        # Read for every request: some 0.1 ms, and a switch holds from the moment it is on the record.
        last = record.last()
        return _ROUTES.validate_python(last.payload) if last else None

    return routes


def written(file: Path) -> Source:
    """The routes in a JSON file. While it is missing or wrong, those that it held before."""
    seen: object = None
    routes: Routes | None = None

    def read() -> Routes | None:
        nonlocal seen, routes
        stamp = _stamp(file)
        if stamp != seen:
            seen = stamp
            try:
                routes = _ROUTES.validate_json(file.read_bytes())
            except (OSError, ValueError) as error:
                _log.warning("%s holds no routes, so those before are kept: %s", file, error)
        return routes

    return read


class Front:
    """Passes requests on, and counts what became of the matchings."""

    def __init__(self, source: Source, client: httpx.AsyncClient) -> None:
        self._source, self._client = source, client
        self._name, self._figures = uuid4().hex, Figures()
        self._copies: asyncio.Queue[_Copy] = asyncio.Queue(_COPIES)
        self._registry = CollectorRegistry()
        self._registry.register(self._figures)

    async def forward(self, request: Request) -> Response:
        """The answer of a server, with its address in the header `x-served-by`."""
        query = request.url.query.encode()
        call = _Call(request.method, request.url.path, query, _passed(request.headers), await request.body())
        routes = self._routes()
        challenger = routes.challenger if routes and call.matching else None
        if challenger and _is_its_share(call.body, challenger.share):
            return await self._answer_of_challenger(challenger, call)
        answer = await self._answer(call)
        if challenger and challenger.shadow and answer.status_code == httpx.codes.OK:
            self._copy(_Copy(call, challenger.address, bytes(answer.body)))
        return answer

    async def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def comparison(self, _: Request) -> Response:
        routes = self._routes()
        challenger = routes.challenger.address if routes and routes.challenger else None
        found = Comparison(self._name, routes.address if routes else None, challenger, self._figures.counts())
        return JSONResponse(asdict(found))

    async def shadow(self) -> None:
        """Sends the copies, one after the other, and compares their answers, until it is cancelled."""
        while True:
            copy = await self._copies.get()
            started = time.perf_counter()
            call = copy.call._replace(headers={**copy.call.headers, PURPOSE: COPY})
            answer = await self._ask_challenger(copy.address, call)
            seconds = time.perf_counter() - started
            found = await asyncio.to_thread(_compared, copy.answer, answer)
            tally = self._figures.of(copy.address)
            tally.add(seconds, failed=found is None)
            if found:
                tally.compare(*found)

    def _routes(self) -> Routes | None:
        routes = self._source()
        if routes:
            self._figures.keep({routes.address, *([routes.challenger.address] if routes.challenger else [])})
        return routes

    async def _answer(self, call: _Call) -> Response:
        """What the good server answers, wherever the routes say that it is."""
        started, address = time.perf_counter(), ""
        response: Response = JSONResponse({"error": "nothing is deployed yet"}, status_code=503)
        for pause in _ATTEMPT_PAUSES:
            await asyncio.sleep(pause)
            routes = self._routes()
            if routes is None:
                return response
            address = routes.address
            try:
                response = _response(await self._ask(address, call), address)
                break
            except httpx.ReadTimeout:
                response = _problem(504, f"the server at {address} took too long", address)
                break
            except httpx.TransportError:
                # It stopped between our look at the routes and the call; a successor may be there.
                response = _problem(502, f"the server at {address} does not answer; deploy again", address)
        if call.matching:
            self._figures.of(address).add(time.perf_counter() - started, failed=response.status_code >= 500)
        return response

    async def _answer_of_challenger(self, challenger: Challenger, call: _Call) -> Response:
        """What the challenger answers; where that is no success, what the good server does."""
        started = time.perf_counter()
        answer = await self._ask_challenger(challenger.address, call)
        seconds = time.perf_counter() - started
        if answer and answer.is_success:
            self._figures.of(challenger.address).add(seconds, failed=False)
            return _response(answer, challenger.address)
        response = await self._answer(call)
        # Both refuse a malformed request, and that is no failure.
        failed = answer is None or answer.is_server_error or response.status_code < 400
        self._figures.of(challenger.address).add(seconds, failed=failed)
        return response

    def _copy(self, copy: _Copy) -> None:
        tally = self._figures.of(copy.address)
        try:
            self._copies.put_nowait(copy)
            tally.copies += 1
        except asyncio.QueueFull:
            tally.dropped += 1

    async def _ask_challenger(self, address: str, call: _Call) -> httpx.Response | None:
        try:
            async with asyncio.timeout(CHALLENGER_SECONDS):
                return await self._ask(address, call)
        except (httpx.RequestError, TimeoutError):
            return None

    async def _ask(self, address: str, call: _Call) -> httpx.Response:
        url = httpx.URL(f"http://{address}{call.path}", query=call.query or None)
        return await self._client.request(call.method, url, headers=call.headers, content=call.body)


def create_app(source: Source) -> Starlette:
    """The front as an ASGI application."""
    client = httpx.AsyncClient(
        headers={"accept-encoding": "identity"},
        # Longer than the service itself allows a request to take.
        timeout=httpx.Timeout(ANSWER_SECONDS + 10, connect=5.0),
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,
    )
    front = Front(source, client)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            shadow = asyncio.create_task(front.shadow())
            yield
            shadow.cancel()

    return Starlette(
        routes=[
            Route("/front/livez", _alive),
            Route("/front/metrics", front.metrics),
            Route(COMPARISON, front.comparison),
            Route("/{path:path}", front.forward, methods=_METHODS),
        ],
        lifespan=lifespan,
    )


async def _alive(_: Request) -> Response:
    return Response()


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes when the file does; None where there is none."""
    with contextlib.suppress(OSError):
        status = file.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _is_its_share(body: bytes, share: float) -> bool:
    """Decided by the body, so that a request that is sent again goes to the same server."""
    return int.from_bytes(blake2b(body, digest_size=8).digest()) < share * 2**64


def _compared(expected: bytes, answer: httpx.Response | None) -> tuple[int, list[str]] | None:
    """How many transfers were answered, and the differences; None where the answer is none."""
    try:
        if answer is None or not answer.is_success:
            return None
        proposals, given = probe.given(expected), probe.given(answer.content)
    except ValueError:
        return None
    return len({row["transfer_id"] for row in proposals}), probe.differences(proposals, given)


def _response(answer: httpx.Response, address: str) -> Response:
    return Response(answer.content, answer.status_code, {**_passed(answer.headers), SERVED_BY: address})


def _problem(status: int, problem: str, address: str) -> JSONResponse:
    return JSONResponse({"error": problem}, status, {SERVED_BY: address})


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def main() -> None:
    parser = argparse.ArgumentParser(description="The stable address in front of the servers.")
    parser.add_argument("source", type=Path, help="the folder of a rollout, or a JSON file with the routes")
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    source = recorded(deployments(given.source)) if given.source.is_dir() else written(given.source)
    uvicorn.run(create_app(source), host=given.host, port=given.port, access_log=False)


if __name__ == "__main__":
    main()
