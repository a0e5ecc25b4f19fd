"""Files that were looked at and not taken yet: kept in memory for the one who brought them, as much as there is room for."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

import polars as pl

from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.taking import Preview

# Bytes that all held files, and what was read of them, have together.
ROOM: Final = 256 * 2**20
MOST: Final = 50  # of a person
_SMALL: Final = 2**10  # bytes of a look that holds nothing else


@dataclass(frozen=True)
class Look:
    """A file of a person, with what was found in it or why it cannot be read."""

    name: str
    key: str  # the SHA-256 of its content
    preview: Preview | None
    error: IntakeError | None = None

    @property
    def size(self) -> int:
        """Bytes, as far as they can be told."""
        if self.preview is None:
            return _SMALL
        frames = (value for value in vars(self.preview).values() if isinstance(value, pl.DataFrame))
        return _SMALL + len(self.preview.content) + sum(int(frame.estimated_size()) for frame in frames)


class Held:
    """Looks by person, MOST of each; where room is wanting, the one that came first goes. Safe for many threads."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._looks: OrderedDict[tuple[str, str], Look] = OrderedDict()
        self._lock = Lock()

    def put(self, person: str, look: Look) -> None:
        """Keeps a look; it takes the place of an earlier one at the same content."""
        _forget_the_way(look.preview.problem if look.preview else look.error)
        with self._lock:
            self._looks[person, look.key] = look
            theirs = [key for key in self._looks if key[0] == person]
            for key in theirs[:-MOST]:
                del self._looks[key]
            while len(self._looks) > 1 and sum(one.size for one in self._looks.values()) > self._room:
                self._looks.popitem(last=False)

    def of(self, person: str) -> list[Look]:
        """All of a person's, the first one first."""
        with self._lock:
            return [look for (whose, _), look in self._looks.items() if whose == person]

    def get(self, person: str, key: str) -> Look | None:
        with self._lock:
            return self._looks.get((person, key))

    def drop(self, person: str, key: str) -> None:
        with self._lock:
            self._looks.pop((person, key), None)


def _forget_the_way(error: BaseException | None) -> None:
    """An error's traceback holds all that was read on its way."""
    if error:
        error.__cause__ = error.__context__ = error.__traceback__ = None
