"""The front between real servers over HTTP: who answers, who gets copies, and what is counted."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from matching_platform.delivery.serving import front
from matching_platform.delivery.serving.figures import Comparison
from matching_platform.delivery.serving.front import SERVED_BY, Challenger, Routes
from matching_platform.delivery.serving.traffic import observe, read
from matching_platform_tests.delivery.parts import free_port

ROW = {"transfer_id": "t1", "invoice_id": "i1", "amount": 1.0, "decision": "auto", "confidence": 0.9}
PROPOSALS = {"proposals": [ROW]}
OTHERWISE = {"proposals": [{**ROW, "invoice_id": "i2"}]}


@dataclass
class Stub:
    """A server that gives one answer, after a while."""

    answer: Any = field(default_factory=lambda: PROPOSALS)
    status: int = 200
    seconds: float = 0.0
    asked: list[bytes] = field(default_factory=list)
    address: str = ""

    async def handle(self, request: Request) -> Response:
        self.asked.append(await request.body())
        time.sleep(self.seconds)
        target = request.scope["path"] + (f"?{unquote(request.url.query)}" if request.url.query else "")
        return JSONResponse({**self.answer, "target": target}, self.status)


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """The application's host and port, served by a thread."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class House:
    """A front with servers behind it; `routes` may be changed at any time."""

    url: str
    client: httpx.Client
    routes: Routes | None = None

    def match(self, number: int = 0, path: str = "/match") -> httpx.Response:
        return self.client.post(f"{self.url}{path}", content=json.dumps({"number": number}))

    def await_counted(self, holds: Callable[[Comparison], bool]) -> Comparison:
        deadline = time.monotonic() + 10
        while not holds(found := observe(self.url)):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def serve(stack: ExitStack) -> Callable[..., Stub]:
    def started(**options: Any) -> Stub:
        stub = Stub(**options)
        app = Starlette(routes=[Route("/{path:path}", stub.handle, methods=["GET", "POST"])])
        stub.address = stack.enter_context(running(app))
        return stub

    return started


@pytest.fixture
def house(stack: ExitStack, client: httpx.Client) -> House:
    built = House("", client)
    built.url = f"http://{stack.enter_context(running(front.create_app(lambda: built.routes)))}"
    return built


def test_before_anything_is_deployed_it_says_so(house: House) -> None:
    response = house.match()
    assert response.status_code == 503
    assert response.json() == {"error": "nothing is deployed yet"}
    assert observe(house.url).servers == {}
    assert httpx.get(f"{house.url}/front/livez", trust_env=False).status_code == 200


def test_a_server_that_is_gone_is_told_and_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_ATTEMPT_PAUSES", (0.0, 0.0))
    house.routes = Routes(f"127.0.0.1:{free_port()}")
    response = house.match()
    assert response.status_code == 502
    assert "does not answer" in response.json()["error"]
    reading = read(house.url)
    assert (reading.server, reading.requests, reading.errors) == (house.routes.address, 1, 1)


@pytest.mark.parametrize("target", ["/match", "/match?a=b%20c&d", "/model", "/ways/%C3%A4?x"])
def test_requests_are_passed_on_as_they_came(house: House, serve: Callable[..., Stub], target: str) -> None:
    server = serve(status=418)
    house.routes = Routes(server.address)
    response = house.match(path=target)
    assert (response.status_code, response.headers[SERVED_BY]) == (418, server.address)
    assert server.asked == [b'{"number": 0}']
    assert response.json()["target"] == unquote(target)


def test_a_switch_holds_for_the_next_request(house: House, serve: Callable[..., Stub]) -> None:
    one, other = serve(), serve()
    for server in (one, other, one):
        house.routes = Routes(server.address)
        assert house.match().headers[SERVED_BY] == server.address


def test_a_canary_answers_its_share_and_the_same_request_always_alike(house: House, serve: Callable[..., Stub]) -> None:
    good, challenger = serve(), serve()
    house.routes = Routes(good.address, Challenger(challenger.address, share=0.25))
    first = [house.match(number).headers[SERVED_BY] for number in range(200)]
    again = [house.match(number).headers[SERVED_BY] for number in range(20)]
    assert again == first[:20]
    assert 25 < first.count(challenger.address) < 75
    assert {house.match(number, "/model").headers[SERVED_BY] for number in range(20)} == {good.address}
    found = observe(house.url)
    assert found.servers[good.address].requests + found.servers[challenger.address].requests == 220
    assert (found.server, found.challenger) == (good.address, challenger.address)


FAILING = {
    "it fails": ({"status": 500}, 200, 1),
    "it refuses what the good one answers": ({"status": 400}, 200, 1),
    "it takes too long": ({"seconds": 0.6}, 200, 1),
    "both refuse": ({"status": 400, "good": 400}, 400, 0),
    "both fail": ({"status": 500, "good": 503}, 503, 1),
}


@pytest.mark.parametrize(("fault", "status", "errors"), FAILING.values(), ids=FAILING)
def test_what_a_challenger_does_not_answer_the_good_one_does(
    house: House,
    serve: Callable[..., Stub],
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    status: int,
    errors: int,
) -> None:
    monkeypatch.setattr(front, "CHALLENGER_SECONDS", 0.3)
    options = dict(fault)
    good, challenger = serve(status=options.pop("good", 200)), serve(**options)
    house.routes = Routes(good.address, Challenger(challenger.address, share=1.0))
    response = house.match()
    assert (response.status_code, response.headers[SERVED_BY]) == (status, good.address)
    counts = observe(house.url).servers
    assert (counts[challenger.address].requests, counts[challenger.address].errors) == (1, errors)
    assert counts[good.address].errors == (status >= 500)


def test_a_challenger_that_is_gone_loses_nothing(house: House, serve: Callable[..., Stub]) -> None:
    good, gone = serve(), f"127.0.0.1:{free_port()}"
    house.routes = Routes(good.address, Challenger(gone, share=1.0))
    assert house.match().headers[SERVED_BY] == good.address
    assert observe(house.url).servers[gone].errors == 1


SHADOWS = {
    "it answers the same": ({}, (4, 0, 4, 0)),
    "it answers otherwise": ({"answer": OTHERWISE}, (4, 0, 4, 4)),
    "it fails": ({"status": 500}, (4, 4, 0, 0)),
    "its answer is not of the form": ({"answer": {}}, (4, 4, 0, 0)),
}


@pytest.mark.parametrize(("options", "expected"), SHADOWS.values(), ids=SHADOWS)
def test_a_shadow_gets_copies_and_is_compared(
    house: House, serve: Callable[..., Stub], options: dict[str, Any], expected: tuple[int, ...]
) -> None:
    good, shadow = serve(), serve(**options)
    house.routes = Routes(good.address, Challenger(shadow.address, shadow=True))
    for number in range(4):
        assert house.match(number).headers[SERVED_BY] == good.address
    house.match(path="/model")
    counts = house.await_counted(lambda found: found.servers[shadow.address].requests == 4).servers[shadow.address]
    assert shadow.asked == good.asked[:4]
    assert (counts.requests, counts.errors, counts.compared, counts.different) == expected
    assert all("transfer t1: expected i1 1.0" in told for told in counts.differences)
    assert len(counts.differences) == expected[3]
    assert counts.p95 is not None


def test_a_slow_shadow_slows_nothing_and_copies_are_dropped(
    house: House, serve: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, shadow = serve(), serve(seconds=1.0)
    house.routes = Routes(good.address, Challenger(shadow.address, shadow=True))
    started = time.monotonic()
    for number in range(front._COPIES + 10):
        assert house.match(number).status_code == 200
    assert time.monotonic() - started < 5
    counts = observe(house.url).servers[shadow.address]
    assert counts.dropped > 0
    assert counts.copies + counts.dropped == front._COPIES + 10


def test_counting_ends_with_a_server(house: House, serve: Callable[..., Stub]) -> None:
    one, other = serve(), serve()
    house.routes = Routes(one.address, Challenger(other.address, share=1.0))
    house.match()
    house.routes = Routes(one.address)
    house.match()
    assert observe(house.url).servers.keys() == {one.address}


def test_prometheus_reads_the_same_figures(house: House, serve: Callable[..., Stub]) -> None:
    good, shadow = serve(), serve(answer=OTHERWISE)
    house.routes = Routes(good.address, Challenger(shadow.address, shadow=True))
    house.match()
    house.await_counted(lambda found: found.servers[shadow.address].requests == 1)
    text = httpx.get(f"{house.url}/front/metrics", trust_env=False).text
    samples = {
        (sample.name, sample.labels["server"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("le", "+Inf") == "+Inf"
    }
    for server, different in ((good, 0), (shadow, 1)):
        assert samples["front_requests_total", server.address] == 1
        assert samples["front_errors_total", server.address] == 0
        assert samples["front_different_total", server.address] == different
        assert samples["front_seconds_bucket", server.address] == samples["front_seconds_count", server.address] == 1


def test_routes_in_a_file_are_read_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    routes = front.written(file)
    assert routes() is None
    file.write_text('{"address": "a:1", "challenger": null}')
    assert routes() == Routes("a:1")
    # A mounted ConfigMap changes by a link that leads elsewhere.
    new = tmp_path / "new.json"
    new.write_text('{"address": "a:1", "challenger": {"address": "b:2", "share": 0.1}}')
    new.replace(file)
    assert routes() == Routes("a:1", Challenger("b:2", 0.1))
    for broken in ("{", "{}", '{"address": "a:1", "challenger": {"share": 1}}'):
        new.write_text(broken)
        new.replace(file)
        assert routes() == Routes("a:1", Challenger("b:2", 0.1))
    file.unlink()
    assert routes() == Routes("a:1", Challenger("b:2", 0.1))


def test_routes_on_a_record_are_the_last_entry(tmp_path: Path) -> None:
    record = front.deployments(tmp_path)
    routes = front.recorded(record)
    assert routes() is None
    record.append({"version": "one", "bento": "one", "address": "a:1"})
    assert routes() == Routes("a:1")
