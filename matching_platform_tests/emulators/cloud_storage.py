"""Cloud Storage for tests: `gcp-storage-emulator`, in memory, behind a proxy that keeps what the store rests on.

The emulator keeps objects and answers listings, metadata and downloads. It heeds no preconditions, cuts a carriage
return off the end of a multipart upload, and refuses a chunk of a resumable upload that comes a second time. The proxy
therefore takes all uploads itself and hands the emulator whole objects, one writer at a time. It fails on demand.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from gcp_storage_emulator.server import create_server

Call = Literal["upload", "download", "list", "get", "delete", "other"]
How = int | Literal["drop", "lost answer", "hang"]

_JSON: Final = {"content-type": "application/json; charset=UTF-8"}

# Of a chunk that is not the last, Cloud Storage keeps whole multiples of this.
QUANTUM: Final = 256 * 1024

_API: Final = r"(?:/storage/v1)?/b/(?P<bucket>[^/]+)"
_UPLOAD: Final = re.compile(r"(?:/resumable)?/upload/storage/v1/b/(?P<bucket>[^/]+)/o")
_LIST: Final = re.compile(rf"{_API}/o")
_OBJECT: Final = re.compile(rf"(?:/download)?{_API}/o/(?P<name>[^/]+)")
_COMPOSE: Final = re.compile(rf"{_API}/o/(?P<name>[^/]+)/compose")
_COPY: Final = re.compile(rf"{_API}/o/[^/]+/(?:copyTo|rewriteTo)/b/(?P<to>[^/]+)/o/(?P<name>[^/]+)")


class Answer(NamedTuple):
    """What goes back to the client."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


@dataclass(frozen=True)
class Request:
    """One request as it came; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def call(self) -> Call:
        if _UPLOAD.fullmatch(self.path):
            return "upload"
        if self.method == "DELETE":
            return "delete"
        if self.method == "GET" and _LIST.fullmatch(self.path):
            return "list"
        if self.method == "GET" and (self.path.startswith("/download/") or self.query.get("alt") == "media"):
            return "download"
        return "get" if self.method == "GET" else "other"

    def condition(self, name: str) -> int | None:
        """The generation that `ifGenerationMatch`, `ifGenerationNotMatch` (also as headers) or `generation` names."""
        header = "x-goog-" + re.sub(r"([A-Z])", r"-\1", name).lower()
        value = self.query.get(name, self.headers.get(header))
        return None if value is None else int(value)


@dataclass
class Fault:
    """What is to go wrong; `happened` counts how often it has."""

    call: Call | Literal["any"]
    how: How
    times: int
    after: int
    happened: int = 0

    def befalls(self, call: Call) -> bool:
        """Whether it befalls this request, the next one of its kind."""
        if self.call not in ("any", call):
            return False
        self.after -= 1
        due = self.after < 0 and self.happened < self.times
        self.happened += due
        return due


@dataclass
class _Session:
    """A resumable upload; `answer` once it is complete."""

    request: Request
    metadata: dict[str, Any]
    data: bytearray = field(default_factory=bytearray)
    answer: Answer | None = None


class Server:
    """The running server: `endpoint` is for STORAGE_EMULATOR_HOST, `requests` what has come so far.

    `delay`, in seconds, stands for the way to Google; `most_at_once` says how many requests were there together.
    """

    def __init__(self, emulator: int) -> None:
        self.requests: list[Request] = []
        self.delay = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self.stopped = threading.Event()
        self._emulator = emulator
        self._faults: list[Fault] = []
        self._sessions: dict[str, _Session] = {}
        self._numbers = count()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cloud": self}))
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"

    def bucket(self, name: str) -> str:
        """Creates an empty bucket and returns its URL."""
        self._forward("POST", "/storage/v1/b", json.dumps({"name": name}).encode(), _JSON)
        return f"gs://{name}"

    def fail(self, call: Call | Literal["any"], how: How, times: int = 1, after: int = 0) -> Fault:
        """Makes the next requests of a kind fail, `times` of them, once `after` of them have passed.

        `how` is an HTTP status, before anything took effect; "drop", a connection that ends in the middle of an upload
        or of the answer to anything else; "lost answer", one that ends after the request took effect; or "hang".
        """
        self._faults.append(Fault(call, how, times, after))
        return self._faults[-1]

    def heal(self) -> None:
        """Forgets the faults that have not happened yet, and the requests so far."""
        self._faults.clear()
        self.requests.clear()
        self.delay, self.most_at_once = 0.0, 0

    def reset(self) -> None:
        """Forgets everything: buckets, uploads, faults, requests."""
        self._forward("GET", "/wipe")
        self._sessions.clear()
        self.heal()

    @contextmanager
    def present(self) -> Iterator[None]:
        """Counts a request while it is there."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def take(self, request: Request) -> How | None:
        """Notes the request and says how it is to fail."""
        with self._lock:
            self.requests.append(request)
            return next((fault.how for fault in self._faults if fault.befalls(request.call)), None)

    def answer(self, request: Request, body: bytes) -> Answer:
        """Carries out a request, as Cloud Storage would."""
        if upload := _UPLOAD.fullmatch(request.path):
            return self._upload(request, unquote(upload["bucket"]), body)
        found = (pattern.fullmatch(request.path) for pattern in (_COPY, _COMPOSE, _OBJECT))
        route = next((match for match in found if match), None)
        with self._lock:
            if route:
                bucket = route.groupdict().get("to") or route["bucket"]
                if refusal := self._refusal(request, unquote(bucket), unquote(route["name"])):
                    return refusal
            target = f"{request.path}?{urlencode(request.query)}"
            return self._forward(request.method, target, body, request.headers)

    def receive(self, request: Request, body: bytes) -> None:
        """Keeps the part of a chunk that came before the connection ended."""
        session = self._sessions.get(request.query.get("upload_id", ""))
        if session:
            start, _ = _range(request, len(body))
            session.data[start:] = body[: len(body) // QUANTUM * QUANTUM]

    def _upload(self, request: Request, bucket: str, body: bytes) -> Answer:
        if "upload_id" in request.query:
            return self._chunk(request, bucket, body)
        if request.query["uploadType"] == "resumable":
            metadata = {"name": request.query.get("name"), **json.loads(body or b"{}")}
            if refusal := self._refusal(request, bucket, metadata["name"]):
                return refusal
            metadata.setdefault("contentType", request.headers.get("x-upload-content-type"))
            upload = f"{next(self._numbers)}"
            self._sessions[upload] = _Session(request, metadata)
            place = f"{self.endpoint}{request.path}?{urlencode({**request.query, 'upload_id': upload})}"
            return Answer(200, {"Location": place})
        if request.query["uploadType"] == "multipart":
            metadata, body = _parts(request.headers["content-type"], body)
        else:
            metadata = {"contentType": request.headers.get("content-type")}
        return self._write(request, bucket, {"name": request.query.get("name"), **metadata}, body)

    def _chunk(self, request: Request, bucket: str, body: bytes) -> Answer:
        """Takes the next part, or one that overlaps what is there already; the last one completes the object."""
        session = self._sessions.get(request.query["upload_id"])
        if session is None:
            return _error(404, "No such upload")
        if request.method == "DELETE":
            del self._sessions[request.query["upload_id"]]
            return Answer(499)
        if session.answer:
            return session.answer
        start, total = _range(request, len(body))
        if not body:  # The client asks how much there is.
            start = len(session.data)
        if start > len(session.data):
            return _error(400, f"The upload has {len(session.data)} bytes, not {start}")
        session.data[start:] = body
        if len(session.data) == total:
            answer = self._write(session.request, bucket, session.metadata, bytes(session.data))
            session.answer = answer if answer.status == 200 else None
            return answer
        del session.data[len(session.data) // QUANTUM * QUANTUM :]
        return Answer(308, {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {})

    def _write(self, request: Request, bucket: str, metadata: Mapping[str, Any], data: bytes) -> Answer:
        """Stores a whole object where the request's precondition holds; nothing comes between the two."""
        with self._lock:
            if refusal := self._refusal(request, bucket, metadata["name"]):
                return refusal
            # Of the emulator's ways to take an object, this one alone takes every content as it is.
            told = {name: value for name, value in metadata.items() if value is not None}
            target = f"/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name={quote(told['name'], safe='')}"
            begun = self._forward("POST", target, json.dumps(told).encode(), _JSON)
            if begun.status != 200:
                return begun
            place = urlsplit(begun.headers["Location"])
            return self._forward("PUT", f"{place.path}?{place.query}", data)

    def _refusal(self, request: Request, bucket: str, name: str) -> Answer | None:
        """The answer where the request is about another generation than the object has, which is 0 if there is none."""
        names = ("ifGenerationMatch", "ifGenerationNotMatch", "generation")
        wanted, unwanted, exact = (request.condition(name) for name in names)
        if wanted is unwanted is exact is None:
            return None
        found = self._forward("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}")
        generation = int(json.loads(found.body)["generation"]) if found.status == 200 else 0
        if exact not in (None, generation):
            return _error(404, "No such object")
        return None if wanted in (None, generation) and unwanted != generation else _PRECONDITION_FAILED

    def _forward(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Answer:
        connection = HTTPConnection("127.0.0.1", self._emulator)
        passed = {name: headers[name] for name in ("content-type", "range") if name in headers}
        try:
            connection.request(method, target, body or None, passed)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    cloud: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True  # The client went away in the middle.

    def _serve(self) -> None:
        with self.cloud.present():
            self._carry_out()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def _carry_out(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, url.path, dict(parse_qsl(url.query, keep_blank_values=True)), headers)
        how, size = self.cloud.take(request), int(headers.get("content-length", 0))
        self.close_connection = isinstance(how, str)
        if how == "drop" and request.call == "upload":
            self.cloud.receive(request, self.rfile.read(size // 2))
            return
        body = self.rfile.read(size)
        if how == "hang":
            self.cloud.stopped.wait()
        elif isinstance(how, int):
            self._reply(_error(how, "The server was told to fail"))
        else:
            answer = self.cloud.answer(request, body)
            if how != "lost answer":
                self._reply(answer, whole=how != "drop")

    def _reply(self, answer: Answer, whole: bool = True) -> None:
        self.send_response(answer.status)
        for name in answer.headers.keys() - {"Content-Length", "Date", "Server"}:
            self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.body) if whole else len(answer.body) + 1))
        self.end_headers()
        self.wfile.write(answer.body if whole else answer.body[: len(answer.body) // 2])

    def log_message(self, *_: object) -> None:
        """Nothing: `requests` tells what came."""


@contextmanager
def serve() -> Iterator[Server]:
    """A server on a free port of this machine, empty, for as long as the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    emulator = create_server("127.0.0.1", port, in_memory=True)
    emulator.start()
    try:
        server = Server(port)
        with server.running():
            yield server
    finally:
        emulator.stop()


def _error(status: int, message: str, reason: str = "") -> Answer:
    told = {"message": message, "domain": "global", "reason": reason}
    body = json.dumps({"error": {"code": status, "message": message, "errors": [told]}}).encode()
    return Answer(status, _JSON, body)


_PRECONDITION_FAILED: Final = _error(
    412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet"
)


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Metadata and content of a multipart upload. How its first line ends tells how the content does."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    assert boundary, content_type
    line = b"\r\n" if body.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
    delimiter = b"--" + boundary[1].encode()
    _, metadata, content = body.split(delimiter + line, 2)
    headers, content = content.split(line * 2, 1)
    kind = re.search(rb"(?i)content-type: *([^\r\n]+)", headers)
    told = json.loads(metadata.split(line * 2, 1)[1])
    return {"contentType": kind[1].decode() if kind else None, **told}, content[: content.rindex(line + delimiter)]


def _range(request: Request, size: int) -> tuple[int, int | None]:
    """Where a chunk begins, and how long the whole is where that is known: `bytes 0-9/20`, `bytes 0-9/*`, or none."""
    given = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers.get("content-range", ""))
    if given is None:
        return 0, size
    return int(given[1] or 0), None if given[2] == "*" else int(given[2])
