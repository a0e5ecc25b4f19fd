"""The stable address: sends each request to the server that the deployment record names at that moment.

A process of its own, `python -m matching_platform.delivery.serving.front FOLDER PORT`, which a switch does not touch.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from matching_platform.store.record import Record
from matching_platform.store.versions import Store

HOST: Final = "127.0.0.1"
RECORD: Final = "deployments"
# The service's own limit, `traffic.timeout`.
ANSWER_SECONDS: Final = 120.0
SERVED_BY: Final = "x-served-by"
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


def deployments(folder: Path) -> Record:
    """What was deployed from `folder`; the last entry's `address` gets the traffic."""
    return Record(Store(folder), RECORD)


def create_app(record: Record) -> Starlette:
    """The front as an ASGI application."""
    client = httpx.AsyncClient(
        headers={"accept-encoding": "identity"},
        # Longer than the service itself allows a request to take.
        timeout=httpx.Timeout(ANSWER_SECONDS + 10, connect=5.0),
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    async def forward(request: Request) -> Response:
        body = await request.body()
        for pause in _ATTEMPT_PAUSES:
            await asyncio.sleep(pause)
            # Read for every request: some 0.1 ms, and a switch holds from the moment it is on the record.
            last = record.last()
            if last is None:
                return JSONResponse({"error": "nothing is deployed yet"}, status_code=503)
            address = last.payload["address"]
            try:
                url = httpx.URL(f"http://{address}{request.url.path}", query=request.url.query.encode())
                answer = await client.request(request.method, url, headers=_passed(request.headers), content=body)
            except httpx.ReadTimeout:
                return JSONResponse({"error": f"the server at {address} took too long"}, status_code=504)
            except httpx.TransportError:
                continue  # It stopped between our look at the record and the call; a successor may be there.
            return Response(answer.content, answer.status_code, {**_passed(answer.headers), SERVED_BY: address})
        return JSONResponse({"error": f"the server at {address} does not answer; deploy again"}, status_code=502)

    return Starlette(routes=[Route("/{path:path}", forward, methods=_METHODS)], lifespan=lifespan)


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


if __name__ == "__main__":
    uvicorn.run(create_app(deployments(Path(sys.argv[1]))), host=HOST, port=int(sys.argv[2]), access_log=False)
