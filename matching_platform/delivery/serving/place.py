"""A place where a model serves, `staging` or `production`, whatever keeps the servers there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic.dataclasses import dataclass as checked

from matching_platform.delivery.images.image import Image

# Given the URL of a server, the problems it has; none, and it may have the traffic.
Accept = Callable[[str], Sequence[str]]


class RolloutError(RuntimeError):
    """The version was not rolled out; what served before serves on. The message says why."""


class CandidateError(RolloutError):
    """What is to serve does not: it did not come up, answers otherwise than its model, or passed a limit.

    Any other RolloutError says nothing about it: a port is taken, an engine or a cluster does not answer.
    """


@dataclass(frozen=True)
class Release:
    """What is to serve: a model, packed in folder `bento`, and its image where servers are made of images."""

    model: str
    bento: Path
    image: Image | None = None


@dataclass(frozen=True)
class Deployment:
    """What answers at `url`; `changed` is False where it did so already, `steps` tells what was seen on the way."""

    place: str
    model: str
    digest: str | None
    url: str
    changed: bool
    steps: tuple[str, ...] = ()


@checked(frozen=True)
class Reading:
    """How many matchings the server in force was asked for, and how many it failed, since the front counts it."""

    front: str
    server: str | None
    requests: int
    errors: int

    def since(self, earlier: "Reading | None") -> tuple[int, int]:
        """Requests and errors since `earlier`; where the front or the server is another by now, all of them."""
        if earlier is None or (earlier.front, earlier.server) != (self.front, self.server):
            return self.requests, self.errors
        return self.requests - earlier.requests, self.errors - earlier.errors


class Place(Protocol):
    """A stable address, and the servers behind it."""

    @property
    def name(self) -> str: ...

    @property
    def url(self) -> str: ...

    def deploy(self, release: Release, accept: Accept | None = None) -> Deployment:
        """Makes `release` answer at the address, and changes nothing where it does.

        CandidateError where the release is to blame, RolloutError where something else is. Before it gets traffic, a
        server must come up, name its version, answer the packed probe as its model did when packed, and have no problems
        that `accept` finds. Otherwise what served before serves on.
        """
        ...

    def serving(self) -> str | None:
        """The model that answers now; None where none does."""
        ...

    def traffic(self) -> Reading:
        """What the servers in force were asked for and failed, so far; RolloutError where nobody tells."""
        ...

    def terminate(self) -> None:
        """Ends one server as a replacement would, with time for what it was asked; returns when it has ended."""
        ...

    def stop(self) -> bool:
        """Ends what runs here, where that is this machine's to decide; whether there was anything."""
        ...
