"""The images that the stand-in for Docker has pushed, read as a registry's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matching_platform.delivery.images.image import Image, model_of


@dataclass(frozen=True)
class Shelf:
    """A registry's images as the stand-in for Docker leaves them."""

    name: str
    folder: Path

    def find(self, bento: str, base: str, model: str) -> Image | None:
        found = (self._read(path) for path in (self.folder / "pushed").glob("*"))
        return next((image for image in found if (image.bento, image.base, image.model) == (bento, base, model)), None)

    def image(self, digest: str, tag: str) -> Image:
        return self._read(self.folder / "pushed" / digest)

    def materials(self, image: Image) -> dict[str, Any]:
        return {"components": [image.bento]}

    def _read(self, path: Path) -> Image:
        told = json.loads(path.read_text())
        repository, tag = told["name"].rsplit(":", 1)
        given = told["arguments"]
        return Image(repository, tag, path.name, path.stat().st_size, model_of(tag), given["BENTO"], given["BASE"])
