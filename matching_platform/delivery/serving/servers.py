"""The servers of a place: processes here, containers in their own room. A rollout starts, finds and ends them alike."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import psutil

from matching_platform.delivery.serving import processes
from matching_platform.delivery.serving.place import Release
from matching_platform.predictions import settings

# Of another server, perhaps the one we run in; so is what begins with `settings.PREFIX`.
_NOT_INHERITED: Final = frozenset(
    ("MATCHING_PLATFORM_MODEL", "PROMETHEUS_MULTIPROC_DIR", "BENTOML_PORT", "BENTOML_HOST")
)


# The role of what is no server, followed by its port.
FRONT: Final = "front:"


class Server(Protocol):
    """A server that was started, and may have ended."""

    @property
    def address(self) -> str: ...

    @property
    def process(self) -> psutil.Process | None:
        """What supervises the service's workers; None where it has ended."""
        ...

    def stop(self, grace: float) -> None:
        """Asks it to end, waits up to `grace` seconds for what is under way, then kills it; nothing of it is left."""
        ...


class Servers(Protocol):
    """One kind of server."""

    def served(self, release: Release) -> Release:
        """What of the release such a server is made of; RolloutError where that is missing."""
        ...

    def start(self, release: Release, address: str, folder: Path) -> Server:
        """Starts a server that belongs to `folder` and outlives us; it writes to `log_of(folder, address)`."""
        ...

    def find(self, folder: Path) -> Sequence[Server]:
        """All of this kind that belong to `folder`, whoever started them."""
        ...


def home_of(folder: Path, address: str) -> Path:
    """What a server writes lies here; without a colon, at which engines cut a log's path."""
    return folder / "servers" / address.replace(":", "-")


def log_of(folder: Path, address: str) -> Path:
    """Where a server writes its log."""
    return home_of(folder, address) / "server.log"


@dataclass(frozen=True)
class BentoProcess:
    """`bentoml serve`, with its workers."""

    address: str
    process: psutil.Process

    def stop(self, grace: float) -> None:
        processes.stop([self.process], grace)


@dataclass(frozen=True)
class BentoServers:
    """Processes that serve the packed bento with the packages installed here, with `variables` in their environment."""

    variables: Mapping[str, str] = field(default_factory=dict)

    def served(self, release: Release) -> Release:
        return replace(release, bento=release.bento.resolve(), image=None)

    def start(self, release: Release, address: str, folder: Path) -> BentoProcess:
        host, port = address.split(":")
        command = [sys.executable, "-m", "bentoml", "serve", str(release.bento), "--host", host, "--port", port]
        log = log_of(folder, address)
        return BentoProcess(address, processes.start(command, folder, address, log, self._environment(log.parent)))

    def find(self, folder: Path) -> list[BentoProcess]:
        found = processes.find(folder)
        return [BentoProcess(role, process) for role, process in found if not role.startswith(FRONT)]

    def _environment(self, home: Path) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in _NOT_INHERITED and not name.startswith(settings.PREFIX)
        }
        own = {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
        # A stored bento is a version, which never changes: not by compiled files either.
        return {**inherited, **self.variables, **own, "PYTHONDONTWRITEBYTECODE": "1"}


PROCESSES: Final = BentoServers()
