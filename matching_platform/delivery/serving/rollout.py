"""A new version takes over without a lost request, on this machine.

The new server is started beside the old one and checked; one line on the deployment record moves the traffic; then the
old one is stopped, when it has answered what it was asked. Whatever was killed on the way, the next call puts right.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from filelock import FileLock
from pydantic import TypeAdapter

from matching_platform.delivery import probe
from matching_platform.delivery.probe import Probe
from matching_platform.delivery.serving import processes
from matching_platform.delivery.serving.front import ANSWER_SECONDS, HOST, SERVED_BY, deployments

# Given the URL of a server, the problems it has; none, and it may have the traffic.
Accept = Callable[[str], Sequence[str]]

START_SECONDS: Final = 90.0
# A server that failed has no request to finish.
_FAILED_GRACE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.1
_LOG_TAIL: Final = 2000
_WORKER: Final = "_bentoml_impl.worker.service"
_CARD: Final = TypeAdapter(dict[str, Any])
# Of another server, perhaps the one we run in.
_NOT_INHERITED: Final = frozenset(
    ("MATCHING_PLATFORM_MODEL", "PROMETHEUS_MULTIPROC_DIR", "BENTOML_PORT", "BENTOML_HOST")
)


class RolloutError(RuntimeError):
    """The version was not rolled out; what served before serves on. The message says why."""


@dataclass(frozen=True)
class Deployment:
    """What answers at `url`; `changed` is False where it did so already."""

    version: str
    bento: Path
    address: str
    url: str
    changed: bool


@dataclass(frozen=True)
class Status:
    """What the record says should serve, and whether its process and the front run; `strays` should not be there."""

    url: str
    version: str | None
    bento: Path | None
    address: str | None
    server: bool
    front: bool
    strays: int


class Rollout:
    """What is deployed from `folder`, which holds record and logs, at `http://127.0.0.1:<port>`."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.url = folder, port, f"http://{HOST}:{port}"
        self.record = deployments(folder)
        self._front = f"front:{port}"
        self._lock = FileLock(folder / "lock")

    def deploy(self, bento: Path, accept: Accept | None = None) -> Deployment:
        """Makes the bento at `bento` serve; changes nothing where it does.

        Before it gets traffic, a new server must come up, name its version, answer the packed probe as its model did
        when packed, and have no problems that `accept` finds. Otherwise RolloutError, and the old one serves on.
        """
        bento = bento.resolve()
        try:
            wanted = probe.read(bento)
        except (OSError, ValueError, TypeError) as error:
            raise RolloutError(f"{bento} is no bento of ours; pack the model again ({error})") from error
        with self._lock:
            self._check_port()
            self._sweep()
            if address := self._serving(bento, wanted):
                return Deployment(wanted.version, bento, address, self.url, changed=self._ensure_front())
            address = self._start_checked(bento, wanted, accept)
            self._ensure_front()
            self.record.append({"version": wanted.version, "bento": str(bento), "address": address})
            self._sweep()
            with _answering(self.url):
                served_by = _get(f"{self.url}/readyz").headers.get(SERVED_BY)
            if served_by != address:
                raise RolloutError(f"{self.url} does not lead to {address}, though the record does; deploy again")
        return Deployment(wanted.version, bento, address, self.url, changed=True)

    def resume(self) -> Deployment:
        """What was deployed last serves again, after a reboot say; RolloutError where nothing ever was."""
        last = self.record.last()
        if last is None:
            raise RolloutError(f"nothing was ever deployed from {self.folder}")
        return self.deploy(Path(last.payload["bento"]))

    def stop(self) -> None:
        """Ends front and servers; the record stays, so `resume` is the way back."""
        with self._lock:
            processes.stop((process for _, process in processes.find(self.folder)), ANSWER_SECONDS)

    def status(self) -> Status:
        last = self.record.last()
        payload = last.payload if last else {}
        roles = [role for role, _ in processes.find(self.folder)]
        return Status(
            url=self.url,
            version=payload.get("version"),
            bento=Path(payload["bento"]) if payload else None,
            address=payload.get("address"),
            server=payload.get("address") in roles,
            front=self._front in roles,
            strays=len([role for role in roles if role not in self._wanted_roles()]),
        )

    def _wanted_roles(self) -> set[str]:
        last = self.record.last()
        return {self._front, last.payload["address"]} if last else {self._front}

    def _sweep(self) -> None:
        """Stops what the record does not name: old servers, and those of a rollout that was killed."""
        wanted = self._wanted_roles()
        strays = [process for role, process in processes.find(self.folder) if role not in wanted]
        processes.stop(strays, ANSWER_SECONDS)
        for place in self.folder.glob("servers/*"):
            if place.name not in wanted:
                shutil.rmtree(place)

    def _serving(self, bento: Path, wanted: Probe) -> str | None:
        """The address where the bento serves already and well."""
        last = self.record.last()
        if last is None or last.payload["bento"] != str(bento) or last.payload["version"] != wanted.version:
            return None
        address = str(last.payload["address"])
        server = self._process(address)
        if server is None:
            return None
        try:
            _check(f"http://{address}", wanted)
        except RolloutError:
            processes.stop([server], _FAILED_GRACE_SECONDS)
            return None
        return address

    def _start_checked(self, bento: Path, wanted: Probe, accept: Accept | None) -> str:
        address = f"{HOST}:{_free_port()}"
        place = self.folder / "servers" / address
        place.mkdir(parents=True)
        log = place / "server.log"
        server = processes.start(_serve(bento, address), self.folder, address, log, _environment(place))
        try:
            _await_ready(server, address, log)
            _check(f"http://{address}", wanted)
            with _answering(address):
                problems = accept(f"http://{address}") if accept else ()
            if problems:
                raise RolloutError(f"{bento} is not accepted: {'; '.join(problems)}")
        except BaseException:
            processes.stop([server], _FAILED_GRACE_SECONDS)
            raise
        return address

    def _ensure_front(self) -> bool:
        """Whether it had to be started."""
        if self._process(self._front):
            return False
        log = self.folder / "front.log"
        command = [sys.executable, "-m", "matching_platform.delivery.serving.front", str(self.folder), str(self.port)]
        front = processes.start(command, self.folder, self._front, log, os.environ)
        _wait_for(lambda: not _is_free(self.port), front, "the front", log)
        return True

    def _check_port(self) -> None:
        if not self._process(self._front) and not _is_free(self.port):
            raise RolloutError(f"another program listens on port {self.port}; stop it, or choose another port")

    def _process(self, role: str) -> psutil.Process | None:
        return next((process for found, process in processes.find(self.folder) if found == role), None)


def _serve(bento: Path, address: str) -> list[str]:
    host, port = address.split(":")
    return [sys.executable, "-m", "bentoml", "serve", str(bento), "--host", host, "--port", port]


def _environment(place: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    own = {"BENTOML_HOME": str(place), "BENTOML_DO_NOT_TRACK": "true"}
    # A stored bento is a version, which never changes: not by compiled files either.
    return {**inherited, **own, "PYTHONDONTWRITEBYTECODE": "1"}


def _await_ready(server: psutil.Process, address: str, log: Path) -> None:
    worker: psutil.Process | None = None

    def ready() -> bool:
        nonlocal worker
        worker = worker or processes.child(server, _WORKER)
        if worker and not processes.alive(worker):
            # Its supervisor would start it again and again.
            raise RolloutError(f"the server does not come up: {_tail(log)}")
        try:
            return _get(f"http://{address}/readyz", seconds=1.0).is_success
        except httpx.HTTPError:
            return False

    _wait_for(ready, server, "the server", log)


def _check(url: str, wanted: Probe) -> None:
    """RolloutError where the server at `url` is not ready, serves another version, or answers otherwise than packed."""
    with _answering(url):
        _get(f"{url}/readyz").raise_for_status()
        version = _CARD.validate_json(_get(f"{url}/model").raise_for_status().content).get("version")
    if version != wanted.version:
        raise RolloutError(f"{url} serves {version}, not {wanted.version}")
    with _answering(url):
        answer = httpx.post(f"{url}/match", json=wanted.request, timeout=ANSWER_SECONDS, trust_env=False)
    if answer.status_code != httpx.codes.OK:
        raise RolloutError(f"{url}/match answers {answer.status_code} to the packed request: {answer.text}")
    with _answering(url):
        given = probe.given(answer.content)
    if different := probe.differences(wanted.proposals, given):
        raise RolloutError(f"{url} does not answer as the packed model did: {'; '.join(different)}")


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """RolloutError where what is asked within does not come, or not as the JSON that it should be."""
    try:
        yield
    except (httpx.HTTPError, ValueError) as error:
        raise RolloutError(f"{url} does not answer as it must: {error!r}") from error


def _wait_for(holds: Callable[[], bool], process: psutil.Process, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        if not processes.alive(process):
            raise RolloutError(f"{name} does not come up: {_tail(log)}")
        if time.monotonic() > deadline:
            raise RolloutError(f"{name} was not ready after {START_SECONDS:.0f} s; see {log}")
        time.sleep(_POLL_SECONDS)


def _get(url: str, seconds: float = 10.0) -> httpx.Response:
    return httpx.get(url, timeout=seconds, trust_env=False)


def _tail(log: Path) -> str:
    return f"{log} ends with\n{log.read_text(errors='replace')[-_LOG_TAIL:]}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) != 0
