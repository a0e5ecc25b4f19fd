"""A client of an application in this process, which says from where it asks."""

import asyncio

import httpx
from starlette.types import ASGIApp


class _Application(httpx.BaseTransport):
    def __init__(self, app: ASGIApp, peer: str) -> None:
        self._application = httpx.ASGITransport(app, client=(peer, 50_000))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def answer() -> httpx.Response:
            given = await self._application.handle_async_request(request)
            return httpx.Response(given.status_code, headers=given.headers, content=await given.aread())

        return asyncio.run(answer())


def asking(app: ASGIApp, base: str = "http://127.0.0.1:3457", peer: str = "127.0.0.1") -> httpx.Client:
    """Asks `app` at the address `base`, as if from `peer`."""
    return httpx.Client(transport=_Application(app, peer), base_url=base)
