"""A place where a model serves, `staging` or `production`, whatever keeps the servers there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from matching_platform.delivery.images.image import Image

# Given the URL of a server, the problems it has; none, and it may have the traffic.
Accept = Callable[[str], Sequence[str]]


class RolloutError(RuntimeError):
    """The version was not rolled out; what served before serves on. The message says why."""


@dataclass(frozen=True)
class Release:
    """What is to serve: a model, packed in folder `bento`, and its image where servers are made of images."""

    model: str
    bento: Path
    image: Image | None = None


@dataclass(frozen=True)
class Deployment:
    """What answers at `url`; `changed` is False where it did so already."""

    place: str
    model: str
    digest: str | None
    url: str
    changed: bool


class Place(Protocol):
    """A stable address, and the servers behind it."""

    @property
    def name(self) -> str: ...

    @property
    def url(self) -> str: ...

    def deploy(self, release: Release, accept: Accept | None = None) -> Deployment:
        """Makes `release` answer at the address, and changes nothing where it does; RolloutError where it fails.

        Before it gets traffic, a server must come up, name its version, answer the packed probe as its model did when
        packed, and have no problems that `accept` finds. Otherwise what served before serves on.
        """
        ...

    def serving(self) -> str | None:
        """The model that answers now; None where none does."""
        ...

    def terminate(self) -> None:
        """Ends one server as a replacement would, with time for what it was asked; returns when it has ended."""
        ...

    def stop(self) -> None:
        """Ends what runs here, where that is this machine's to decide."""
        ...
