"""A new version takes over without a lost request, on this machine.

The new server is started beside the old one and checked; entries on the deployment record move the traffic, at once or
step by step; then the old one is stopped, when it has answered what it was asked. Whatever was killed on the way, the
next call puts right.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from filelock import FileLock

from matching_platform.delivery.images.image import Image
from matching_platform.delivery.probe import Probe
from matching_platform.delivery.serving import checks, processes, traffic
from matching_platform.delivery.serving.front import ANSWER_SECONDS, HOST, SERVED_BY, deployments
from matching_platform.delivery.serving.place import Accept, CandidateError, Deployment, Reading, Release, RolloutError
from matching_platform.delivery.serving.servers import FRONT, PROCESSES, Server, Servers, home_of, log_of
from matching_platform.delivery.serving.steps import AT_ONCE, Seen, Step, Steps, seen
from matching_platform.predictions.log import CLOSE_SECONDS

START_SECONDS: Final = 90.0
# A server that failed has no request to finish.
_FAILED_GRACE_SECONDS: Final = 1.0
# More than the service lets a request take, and its log afterwards.
_GRACE_SECONDS: Final = ANSWER_SECONDS + CLOSE_SECONDS + 5
_POLL_SECONDS: Final = 0.1
_OBSERVE_SECONDS: Final = 0.5
_LOG_TAIL: Final = 2000
_WORKER: Final = "_bentoml_impl.worker.service"


@dataclass(frozen=True)
class Status:
    """What the record says should serve, and whether its server and the front run; `strays` should not be there."""

    url: str
    model: str | None
    bento: Path | None
    image: Image | None
    address: str | None
    server: bool
    front: bool
    strays: int


class Rollout:
    """A place on this machine: what is deployed from `folder`, which holds record and logs, at `http://127.0.0.1:<port>`.

    Where the kind of server is to be another, `stop` comes first.
    """

    def __init__(
        self, name: str, folder: Path, port: int, servers: Servers = PROCESSES, steps: Steps = AT_ONCE
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.folder, self.port, self.url = name, folder, port, f"http://{HOST}:{port}"
        self.record = deployments(folder)
        self._servers, self._steps = servers, steps
        self._front = f"{FRONT}{port}"
        self._lock = FileLock(folder / "lock")

    def deploy(self, release: Release, accept: Accept | None = None) -> Deployment:
        """Makes `release` serve; changes nothing where it does.

        Before it gets traffic, a new server must come up, name its version, answer the packed probe as its model did
        when packed, and have no problems that `accept` finds. Then it passes the steps, where another one serves.
        Otherwise CandidateError, and the old one serves on.
        """
        release = self._servers.served(release)
        wanted = checks.packed(release)
        with self._lock:
            self._check_port()
            self._settle()
            self._sweep()
            if self._serves(release, wanted):
                return self._deployment(release, changed=self._ensure_front())
            server = self._start_checked(release, wanted, accept)
            told = self._take_over(server)
            self.record.append(_entry(release, server.address))
            self._sweep()
            with checks.answering(self.url):
                served_by = checks.get(f"{self.url}/readyz").headers.get(SERVED_BY)
            if served_by != server.address:
                raise RolloutError(
                    f"{self.url} does not lead to {server.address}, though the record does; deploy again"
                )
        return self._deployment(release, changed=True, steps=told)

    def resume(self) -> Deployment:
        """What was deployed last serves again, after a reboot say; RolloutError where nothing ever was."""
        last = self._last()
        if last is None:
            raise RolloutError(f"nothing was ever deployed from {self.folder}")
        return self.deploy(_release(last))

    def serving(self) -> str | None:
        """The model that answers now; None where none does."""
        return checks.serving(self.url)

    def traffic(self) -> Reading:
        """See Place."""
        return traffic.read(self.url)

    def terminate(self) -> None:
        """Ends the server in force, when it has answered what it was asked; the front has none then until the next call."""
        with self._lock:
            last = self._last()
            server = self._server(last["address"]) if last else None
            if server is None:
                raise RolloutError(f"nothing serves at {self.url} that could end; deploy first")
            server.stop(_GRACE_SECONDS)

    def stop(self) -> bool:
        """Ends front and servers, and says whether any ran; the record stays, so `resume` is the way back."""
        with self._lock:
            found = [process for _, process in processes.find(self.folder)]
            processes.stop(found, _GRACE_SECONDS)
            servers = self._servers.find(self.folder)
            for server in servers:
                server.stop(_GRACE_SECONDS)
            return bool(found or servers)

    def status(self) -> Status:
        last = self._last()
        release = _release(last) if last else None
        address = last["address"] if last else None
        running = self._running()
        return Status(
            url=self.url,
            model=release.model if release else None,
            bento=release.bento if release else None,
            image=release.image if release else None,
            address=address,
            server=address in running,
            front=self._front in running,
            strays=len(running - self._wanted()),
        )

    def _last(self) -> dict[str, Any] | None:
        """What the record names."""
        last = self.record.last()
        return last.payload if last else None

    def _running(self) -> set[str]:
        """The addresses of servers, and the roles of fronts, that belong to the folder."""
        return {
            *(role for role, _ in processes.find(self.folder)),
            *(server.address for server in self._servers.find(self.folder)),
        }

    def _wanted(self) -> set[str]:
        last = self._last() or {}
        named = (last, last.get("challenger") or {})
        return {self._front, *(one["address"] for one in named if one)}

    def _settle(self) -> None:
        """Takes the traffic from the challenger of a rollout that was killed: nobody watches over it any more."""
        last = self._last()
        if last and last.get("challenger"):
            self.record.append({**last, "challenger": None})

    def _sweep(self) -> None:
        """Stops what the record does not name: old servers, and those of a rollout that was killed."""
        wanted = self._wanted()
        strays = [process for role, process in processes.find(self.folder) if role not in wanted]
        processes.stop(strays, _GRACE_SECONDS)
        for server in self._servers.find(self.folder):
            if server.address not in wanted:
                server.stop(_GRACE_SECONDS)
        homes = {home_of(self.folder, address) for address in wanted}
        for place in self.folder.glob("servers/*"):
            if place not in homes:
                shutil.rmtree(place)

    def _serves(self, release: Release, wanted: Probe) -> bool:
        """Whether the release serves already and well."""
        last = self._last()
        if last is None or _made(_release(last)) != _made(release):
            return False
        server = self._server(last["address"])
        if server is None:
            return False
        try:
            checks.check(f"http://{server.address}", wanted)
        except RolloutError:
            server.stop(_FAILED_GRACE_SECONDS)
            return False
        return True

    def _start_checked(self, release: Release, wanted: Probe, accept: Accept | None) -> Server:
        address = f"{HOST}:{_free_port()}"
        log = log_of(self.folder, address)
        log.parent.mkdir(parents=True)
        server = self._servers.start(release, address, self.folder)
        with _stopped_on_failure(server), _to_blame():
            _await_ready(server, log)
            checks.check(f"http://{address}", wanted)
            with checks.answering(address):
                problems = accept(f"http://{address}") if accept else ()
            if problems:
                raise RolloutError(f"{release.model} is not accepted: {'; '.join(problems)}")
        return server

    def _take_over(self, server: Server) -> tuple[str, ...]:
        """Leads the traffic to the new server step by step, and tells what was seen; at once where no other serves."""
        with _stopped_on_failure(server):
            self._ensure_front()
            last = self._last()
            if last is None or self._server(last["address"]) is None:
                return ()
            try:
                return tuple(str(self._step(step, last, server)) for step in self._steps.steps())
            except BaseException:
                self.record.append({**last, "challenger": None})
                raise

    def _step(self, step: Step, good: Mapping[str, Any], server: Server) -> Seen:
        """One step, in which the good server stands by; RolloutError where a limit is passed."""
        before = traffic.observe(self.url).servers.get(server.address)
        self.record.append({**good, "challenger": asdict(step.challenger(server.address))})
        until = time.monotonic() + step.seconds
        while True:
            time.sleep(max(0.0, min(_OBSERVE_SECONDS, until - time.monotonic())))
            servers = traffic.observe(self.url).servers
            found = seen(step, before, servers.get(server.address), servers.get(good["address"]))
            ended = time.monotonic() >= until
            if problems := found.problems(self._steps) if ended else found.failing(self._steps):
                raise CandidateError(f"the new server did not pass the step '{step.name}': {'; '.join(problems)}")
            if ended:
                return found

    def _deployment(self, release: Release, *, changed: bool, steps: tuple[str, ...] = ()) -> Deployment:
        digest = release.image.digest if release.image else None
        return Deployment(self.name, release.model, digest, self.url, changed, steps)

    def _ensure_front(self) -> bool:
        """Whether it had to be started."""
        if self._process(self._front):
            return False
        log = self.folder / "front.log"
        module = "matching_platform.delivery.serving.front"
        command = [sys.executable, "-m", module, str(self.folder), "--port", str(self.port)]
        front = processes.start(command, self.folder, self._front, log, os.environ)
        _wait_for(lambda: not _is_free(self.port), front, "the front", log)
        return True

    def _check_port(self) -> None:
        if not self._process(self._front) and not _is_free(self.port):
            raise RolloutError(f"another program listens on port {self.port}; stop it, or choose another port")

    def _server(self, address: str) -> Server | None:
        """The server at `address` where it runs."""
        found = (server for server in self._servers.find(self.folder) if server.address == address)
        return next((server for server in found if server.process and processes.alive(server.process)), None)

    def _process(self, role: str) -> psutil.Process | None:
        return next((process for found, process in processes.find(self.folder) if found == role), None)


def _entry(release: Release, address: str) -> dict[str, Any]:
    """A line of the record, which is what the front reads as well."""
    return {
        "version": release.model,
        "bento": str(release.bento),
        "image": asdict(release.image) if release.image else None,
        "address": address,
        "challenger": None,
    }


def _release(entry: Mapping[str, Any]) -> Release:
    image = entry.get("image")
    return Release(entry["version"], Path(entry["bento"]), Image(**image) if image else None)


def _made(release: Release) -> tuple[str, Path, str | None]:
    """What a server of the release is made of: an image may have got another tag."""
    return release.model, release.bento, release.image.reference if release.image else None


def _await_ready(server: Server, log: Path) -> None:
    worker: psutil.Process | None = None

    def ready() -> bool:
        nonlocal worker
        worker = worker or (processes.child(server.process, _WORKER) if server.process else None)
        if worker and not processes.alive(worker):
            # Its supervisor would start it again and again.
            raise RolloutError(f"the server does not come up: {_tail(log)}")
        try:
            return checks.get(f"http://{server.address}/readyz", seconds=1.0).is_success
        except httpx.HTTPError:
            return False

    _wait_for(ready, server.process, "the server", log)


@contextmanager
def _stopped_on_failure(server: Server) -> Iterator[None]:
    """Whatever goes wrong within, the server does not outlive it."""
    try:
        yield
    except BaseException:
        server.stop(_FAILED_GRACE_SECONDS)
        raise


@contextmanager
def _to_blame() -> Iterator[None]:
    """What goes wrong within is the new server's fault."""
    try:
        yield
    except RolloutError as error:
        raise CandidateError(str(error)) from error


def _wait_for(holds: Callable[[], bool], process: psutil.Process | None, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        if process is None or not processes.alive(process):
            raise RolloutError(f"{name} does not come up: {_tail(log)}")
        if time.monotonic() > deadline:
            raise RolloutError(f"{name} was not ready after {START_SECONDS:.0f} s; see {log}")
        time.sleep(_POLL_SECONDS)


def _tail(log: Path) -> str:
    return f"{log} ends with\n{log.read_text(errors='replace')[-_LOG_TAIL:]}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) != 0
