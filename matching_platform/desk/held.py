"""Files that were looked at and not taken yet: kept in memory for the one who brought them, as much as there is room for."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.taking import Preview

# Bytes that all held files have together.
ROOM: Final = 256 * 2**20


@dataclass(frozen=True)
class Look:
    """A file of a person, with what was found in it or why it cannot be read."""

    name: str
    key: str  # the SHA-256 of its content
    preview: Preview | None
    error: IntakeError | None = None

    @property
    def size(self) -> int:
        return len(self.preview.content) if self.preview else 0


class Held:
    """Looks by person; where room is wanting, the one that came first goes. Safe for many threads."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._looks: OrderedDict[tuple[str, str], Look] = OrderedDict()
        self._lock = Lock()

    def put(self, person: str, look: Look) -> None:
        """Keeps a look; it takes the place of an earlier one at the same content."""
        with self._lock:
            self._looks[person, look.key] = look
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
