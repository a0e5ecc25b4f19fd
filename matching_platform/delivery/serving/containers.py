"""Servers that are containers of a release's image, pulled by its digest. The engine is asked what runs here."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from matching_platform.delivery.serving.place import Release, RolloutError
from matching_platform.delivery.serving.servers import log_of

# The marks that a container carries.
_FOLDER: Final = "matching-platform.rollout"
_ADDRESS: Final = "matching-platform.address"
_PORT: Final = 3000
# The user `bentoml` of the image.
_UID: Final = 1034
_PIDS: Final = 512
_LOG_SIZE: Final = "20mb"
# A pull takes longest.
_ENGINE_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Container:
    """A container that serves, or has ended."""

    engine: str
    id: str
    address: str
    process: psutil.Process | None

    def stop(self, grace: float) -> None:
        # The engine sends SIGTERM first.
        limit = grace + _ENGINE_SECONDS
        _run([self.engine, "rm", "--force", "--ignore", "--time", f"{grace:.0f}", self.id], limit)


@dataclass(frozen=True)
class Mount:
    """A folder of this machine that a container sees as `inside`; `writable` by the image's user."""

    outside: Path
    inside: str
    writable: bool = False

    def prepare(self) -> None:
        """Makes what is written, and lets the image's user write in it and in what lies beneath.

        RolloutError where there is no folder to read: an empty one would say that nothing was ever written there.
        """
        if not self.writable:
            if not self.outside.is_dir():
                raise RolloutError(
                    f"there is no folder {self.outside}, which the servers read; see that the store is mounted here, and "
                    "materialize deployment, which makes it"
                )
            return
        self.outside.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            for folder, _, _ in os.walk(self.outside):
                os.chown(folder, _UID, _UID)


@dataclass(frozen=True)
class ContainerServers:
    """Containers that may use so much `memory` ("2g") and so many `cpus`, and nothing else of this machine but `mounts`.

    `variables` are in their environment.

    They have a network of their own, of which one port is published on the loopback address: with the host's network,
    which would be as fast, a server could reach all that listens on this machine.
    """

    memory: str = "2g"
    cpus: float = 2.0
    engine: str = "podman"
    variables: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()

    def served(self, release: Release) -> Release:
        if release.image is None:
            raise RolloutError(f"there is no image of {release.model}; build it first, or serve without containers")
        return release

    def start(self, release: Release, address: str, folder: Path) -> Container:
        image = self.served(release).image
        assert image is not None
        log = log_of(folder, address)
        log.touch()
        command = [self.engine, "run", "--detach", "--quiet", *_trust(image.repository), *self._limits()]
        command += ["--label", f"{_FOLDER}={folder.resolve()}", "--label", f"{_ADDRESS}={address}"]
        command += [
            "--log-driver",
            "k8s-file",
            "--log-opt",
            f"path={log.resolve()}",
            "--log-opt",
            f"max-size={_LOG_SIZE}",
        ]
        command += ["--publish", f"{address}:{_PORT}", *self._passed_on(), image.reference]
        try:
            started = _run(command, variables=self.variables)
        except RolloutError:
            # The engine keeps what it could create and not start.
            self._remove(folder, address)
            raise
        return next(self._found("id", started.strip()))

    def find(self, folder: Path) -> list[Container]:
        return list(self._found("label", f"{_FOLDER}={folder.resolve()}"))

    def _remove(self, folder: Path, address: str) -> None:
        for container in self.find(folder):
            if container.address == address:
                container.stop(0)

    def _limits(self) -> Iterator[str]:
        yield from ("--user", f"{_UID}:{_UID}", "--cap-drop", "all", "--security-opt", "no-new-privileges")
        yield from ("--memory", self.memory, "--cpus", f"{self.cpus:g}", "--pids-limit", str(_PIDS))
        # All that is written lies in memory.
        yield from ("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:rw,nosuid,nodev,mode=1777")
        # The libraries would count the machine's cores.
        threads = str(max(1, int(self.cpus)))
        yield from ("--env", f"OMP_NUM_THREADS={threads}", "--env", f"POLARS_MAX_THREADS={threads}")

    def _passed_on(self) -> Iterator[str]:
        for name in self.variables:
            yield from ("--env", name)  # Its value, which may be secret, is no part of a command line.
        if self.mounts and os.geteuid():
            yield from ("--userns", f"keep-id:uid={_UID},gid={_UID}")  # The image's user is then who we are.
        for mount in self.mounts:
            mount.prepare()
            yield from ("--volume", f"{mount.outside.resolve()}:{mount.inside}:{'rw' if mount.writable else 'ro'}")

    def _found(self, what: str, value: str) -> Iterator[Container]:
        listed = _run([self.engine, "ps", "--all", "--no-trunc", "--filter", f"{what}={value}", "--format", "json"])
        for found in json.loads(listed):
            yield Container(self.engine, found["Id"], found["Labels"][_ADDRESS], _process(found))


def _process(found: dict[str, Any]) -> psutil.Process | None:
    """The container's first process, as this machine sees it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(found["Pid"]) if found["Pid"] else None
    return None


def _trust(repository: str) -> list[str]:
    """A registry on this machine speaks plain HTTP."""
    return ["--tls-verify=false"] if repository.startswith(("127.0.0.1:", "localhost:")) else []


def _run(command: list[str], seconds: float = _ENGINE_SECONDS, variables: Mapping[str, str] | None = None) -> str:
    engine, environment = command[0], {**os.environ, **(variables or {})}
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds, env=environment)
    except FileNotFoundError as error:
        raise RolloutError(f"there is no {engine} here; install it, or serve without containers") from error
    except subprocess.TimeoutExpired as error:
        raise RolloutError(
            f"{engine} {command[1]} took more than {seconds:.0f} s; see whether {engine} is well"
        ) from error
    except subprocess.CalledProcessError as error:
        raise RolloutError(f"{engine} {command[1]} failed: {error.stderr.strip()}") from error
    return result.stdout
