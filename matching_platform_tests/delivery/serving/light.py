"""Servers that come up in a second: they answer the packed probe as the model did, perhaps with faults."""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from matching_platform.delivery import probe
from matching_platform.delivery.images.image import Image
from matching_platform.delivery.serving.front import SERVED_BY
from matching_platform.delivery.serving.place import Release
from matching_platform_tests.containers.engine import Engine

# Makes the release of a light bento of a version, perhaps with faults.
Make = Callable[..., Release]

SERVICE = """
import itertools, json, os, time
from pathlib import Path
import bentoml
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

PROBE = json.loads((Path(__file__).parent / "probe.json").read_text())
ASKED = itertools.count()

def match(request):
    asked = next(ASKED)
    time.sleep({seconds})
    return JSONResponse({{"model": PROBE["version"], "proposals": {proposals}}})

def model(request):
    return JSONResponse({{"version": {version}}})

@bentoml.asgi_app(Starlette(routes=[Route("/match", match, methods=["POST"]), Route("/model", model)]))
@bentoml.service(name="matching-platform")
class MatchingService:
    def __init__(self):
        {start}
"""


def make(
    bento: Path,
    folder: Path,
    version: str,
    *,
    seconds: float | str = 0.0,
    proposals: str = 'PROBE["proposals"]',
    named: str = 'PROBE["version"]',
    start: str = "pass",
) -> Release:
    """A bento in `folder` that differs from the real one in its service and version; the faults are Python expressions.

    `asked` counts the matchings before, of which the first is the probe's.
    """
    path = folder / version
    shutil.copytree(bento, path)
    service = SERVICE.format(seconds=seconds, proposals=proposals, version=named, start=start)
    (path / "src" / "service.py").write_text(service)
    packed = json.loads((path / "src" / probe.FILE).read_text())
    (path / "src" / probe.FILE).write_text(json.dumps({**packed, "version": version}))
    return Release(version, path)


# The same without BentoML, for an image that is made in a second.
CONTAINER_SERVICE = """
import itertools, json, os, signal, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROBE = json.loads(open("/probe.json").read())
ASKED = itertools.count()

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(lambda: {{"version": {named}}} if self.path == "/model" else {{}})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        asked = next(ASKED)
        time.sleep({seconds})
        self.answer(lambda: {{"model": PROBE["version"], "proposals": {proposals}}})

    def answer(self, made):
        try:
            status, body = 200, json.dumps(made()).encode()
        except NameError:
            status, body = 500, b"out of order"
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

{start}
ThreadingHTTPServer.daemon_threads = False
server = ThreadingHTTPServer(("0.0.0.0", 3000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
"""

CONTAINERFILE = """
FROM {base}
COPY server.py probe.json /
ENTRYPOINT ["python3", "-u", "/server.py"]
"""


@dataclass(frozen=True)
class Asked:
    """A request of live traffic: its status, the model that answered, the server's address, and how long it took."""

    status: int
    model: str | None
    server: str | None
    seconds: float


@dataclass
class Traffic:
    """What became of the requests so far."""

    asked: list[Asked] = field(default_factory=list)

    @property
    def statuses(self) -> set[int]:
        return {one.status for one in self.asked}

    @property
    def models(self) -> set[str | None]:
        return {one.model for one in self.asked}

    def await_more(self, requests: int) -> None:
        """Returns when so many more were answered."""
        wanted, deadline = len(self.asked) + requests, time.monotonic() + 60
        while len(self.asked) < wanted:
            assert time.monotonic() < deadline, "the traffic stands still"
            time.sleep(0.01)


def make_image(engine: Engine, base: str, repository: str, release: Release, **faults: str | float) -> Release:
    """The release with an image of a light server in the registry."""
    expressions = {"seconds": 0.0, "proposals": 'PROBE["proposals"]', "named": 'PROBE["version"]', "start": "pass"}
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(release.bento / "src" / probe.FILE, context)
        Path(context, "server.py").write_text(CONTAINER_SERVICE.format(**{**expressions, **faults}))
        Path(context, "Containerfile").write_text(CONTAINERFILE.format(base=base))
        name = f"{repository}:20240131235959-{release.model}"
        engine.podman("build", "--quiet", "--tag", name, context)
        engine.podman("push", "--quiet", "--digestfile", f"{context}/digest", name)
        digest = Path(context, "digest").read_text().strip()
    engine.podman("rmi", name)
    image = Image(repository, name.rpartition(":")[2], digest, 1, release.model, "0" * 64, base)
    return replace(release, image=image)


@contextmanager
def traffic(
    url: str, clients: int = 3, *, once: bool = False, request: dict[str, Any] = probe.REQUEST
) -> Iterator[Traffic]:
    """Live matchings, each a little different, from so many clients at once; all are answered at the end."""
    found, done, numbers = Traffic(), threading.Event(), count()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while True:
                started = time.perf_counter()
                answer = client.post("/match", json={**request, "number": next(numbers)})
                seconds = time.perf_counter() - started
                model = answer.json()["model"] if answer.is_success else None
                found.asked.append(Asked(answer.status_code, model, answer.headers.get(SERVED_BY), seconds))
                if once or done.wait(0.005):
                    return

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        done.set()
        for thread in threads:
            thread.join()


def served(url: str) -> Any:
    """The version that /model names."""
    return httpx.get(f"{url}/model", trust_env=False).raise_for_status().json()["version"]
