"""A desk that is really served, in this process, on a port that the system chose."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import httpx
import uvicorn
from fastapi import FastAPI

from matching_platform_tests.waiting import until


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The URL of the application, which ends with the context."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", proxy_headers=False, server_header=False))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            assert server.started
            yield url
        finally:
            server.should_exit = True
            thread.join()


def client(url: str, token: str = "", **given: object) -> httpx.Client:
    """A program at the desk, with its token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False, **given)  # type: ignore[arg-type]
