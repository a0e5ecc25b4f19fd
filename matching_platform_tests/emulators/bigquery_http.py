"""HTTP of the BigQuery test server: requests, answers, and what is asked to go wrong with them."""

import json
import re
import socket
import threading
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from matching_platform_tests.emulators.bigquery_tables import Json, Refusal

HANG_SECONDS: Final = 60.0
REASONS: Final = {
    403: "accessDenied",
    404: "notFound",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
    500: "internalError",
    502: "badGateway",
    503: "backendError",
}

Route = tuple[str, str, str]
"""HTTP methods joined by |, a pattern of the path, and the call's name."""


class Faults:
    """What is asked to go wrong, by call, in order."""

    def __init__(self) -> None:
        self._next: defaultdict[str, deque[int | str]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._healed = threading.Event()

    def add(self, call: str, how: int | str, times: int) -> None:
        with self._lock:
            self._next[call].extend([how] * times)

    def take(self, call: str) -> int | str | None:
        with self._lock:
            return self._next[call].popleft() if self._next[call] else None

    def clear(self) -> None:
        with self._lock:
            self._next.clear()

    def hang(self) -> None:
        self._healed.wait(HANG_SECONDS)

    def close(self) -> None:
        self._healed.set()


class Request:
    """A request: its call, names from its path, values of its query, its body."""

    def __init__(self, routes: Sequence[Route], method: str, target: str, headers: Any, body: bytes) -> None:
        parts = urlsplit(target)
        self.method, self.headers, self.body = method, headers, body
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.call, self.path = "", dict[str, str]()
        for methods, pattern, call in routes:
            found = re.fullmatch(pattern, parts.path)
            if found and method in methods.split("|"):
                self.call, self.path = call, {name: unquote(value) for name, value in found.groupdict().items()}

    @property
    def json(self) -> Json:
        return json.loads(self.body) if self.body else {}


class Answer:
    """An answer: JSON, a status and headers."""

    def __init__(self, body: Json | None = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = {"Content-Type": "application/json; charset=UTF-8"} | (headers or {})
        self.body = b"" if body is None else json.dumps(body).encode()

    @classmethod
    def error(cls, status: int, reason: str, message: str) -> "Answer":
        errors = [{"message": message, "domain": "global", "reason": reason}]
        return cls({"error": {"code": status, "message": message, "errors": errors}}, status)


class HttpServer(ThreadingHTTPServer):
    """Answers every request by `answer` on a thread of its connection, unless a fault is asked for."""

    daemon_threads = False

    def __init__(self, routes: Sequence[Route], answer: Callable[[Request], Answer], faults: Faults) -> None:
        self.routes, self.faults, self._answer = routes, faults, answer
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def answer(self, request: Request) -> Answer:
        try:
            return self._answer(request)
        except Refusal as refusal:
            return Answer.error(refusal.status, refusal.reason, refusal.message)
        except Exception as error:  # noqa: BLE001 - clients would retry a 500 or a broken connection for ten minutes
            return Answer.error(501, "notImplemented", f"{error!r}\n{traceback.format_exc()}")

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        for connection in list(self._open):
            with suppress(OSError):  # its client may have closed it
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: HttpServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.server.routes, self.command, self.path, self.headers, body)
        fault = self.server.faults.take(request.call)
        if isinstance(fault, int):
            self._send(Answer.error(fault, REASONS[fault], f"{request.call} failed with {fault} as asked"))
            return
        answer = self.server.answer(request)
        if fault == "hang":
            self.server.faults.hang()
        self._send(answer, whole=fault != "drop")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _send(self, answer: Answer, *, whole: bool = True) -> None:
        self.close_connection |= not whole
        if not whole and not answer.body:
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if whole else answer.body[: len(answer.body) // 2])

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):  # a client that has timed out reads no answer
            super().handle_one_request()
            return
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Says nothing: what the server has seen stands in its `jobs`."""
