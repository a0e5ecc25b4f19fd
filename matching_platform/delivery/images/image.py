"""What an image is, and who builds one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

# Newer tags sort after older ones, so image automation can pick the newest.
_TIME: Final = "%Y%m%d%H%M%S"
_TAG: Final = re.compile(r"(?P<time>\d{14})-(?P<model>[a-z0-9][a-z0-9._-]*)")


class ImageError(RuntimeError):
    """An image could not be built, found or read; the message says why, and what to do next."""


@dataclass(frozen=True)
class Image:
    """An image in a registry; it is its digest that counts, since a tag may move.

    `repository` is a registry's host and the name there (`127.0.0.1:5000/matching-service`), `size` the bytes of its
    compressed layers, `model` the version it serves, `bento` the SHA-256 of what it was built from, and `base` the image
    it rests on.
    """

    repository: str
    tag: str
    digest: str
    size: int
    model: str
    bento: str
    base: str

    @property
    def reference(self) -> str:
        """What pulls exactly this image."""
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True)
class Built:
    """An image, what its builder wrote meanwhile, and its bill of materials (CycloneDX, JSON).

    `reused` where the registry held the image of this bento already, and `seconds` went into finding it.
    """

    image: Image
    log: str
    materials: dict[str, Any]
    seconds: float
    reused: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


class Builder(Protocol):
    """Makes images of bentos."""

    def build(self, bento: Path, digest: str, model: str) -> Built:
        """The image of the bento in folder `bento`, whose SHA-256 is `digest`, serving version `model`; ImageError."""
        ...


def tag_of(model: str, when: datetime) -> str:
    """`YYYYMMDDHHMMSS-<model>`, in UTC as `when` is."""
    return f"{when:{_TIME}}-{model}"


def model_of(tag: str) -> str:
    """The model that a tag names, without or with a promotion's prefix; ImageError where it names none."""
    found = _TAG.search(tag)
    if found is None:
        raise ImageError(f"the tag '{tag}' is none of ours; they look like 20240131235959-<model>")
    return found["model"]
