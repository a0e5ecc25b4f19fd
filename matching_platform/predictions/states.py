"""How each server's log stands: one small file a server, overwritten as long as it lives.

It is no record: it only tells how far the log is whole, and whether its server ended as it should.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from matching_platform.store.files import CorruptError, Files, side_by_side

STATES: Final = "servers"

# `closed`: a clean end; `lost`: somebody has seen that it ended otherwise.
End = Literal["open", "closed", "lost"]


@dataclass(frozen=True)
class State:
    """What a server said last (UTC): what it had taken before `whole_until` is written, or counted as dropped."""

    server: str
    host: str
    pid: int
    started: float
    opened_at: datetime
    said_at: datetime
    whole_until: datetime
    written: int
    dropped: int
    end: End = "open"

    @property
    def told(self) -> str:
        """That it ended without closing, in words."""
        return (
            f"the server {self.server} ended without closing its log: requests after {self.whole_until:%Y-%m-%d %H:%M:%S}"
            " UTC may be missing, those of its last second, or since the store could no longer be written"
        )


_STATE: Final = TypeAdapter(State)


def save(files: Files, state: State) -> None:
    """Writes over what the server said before."""
    files.overwrite(_file(state.server), _STATE.dump_json(state))


def load(files: Files, servers: Iterable[str]) -> list[State]:
    """What these servers said last; CorruptError where that cannot be read."""
    return side_by_side(lambda server: _read(files, server), servers)


def names(files: Files) -> list[str]:
    """All servers of which something is known."""
    return [name.removesuffix(".json") for name in files.names(STATES) if name.endswith(".json")]


def mark_lost(files: Files, state: State) -> State:
    """Notes that the server is gone and had not closed its log."""
    lost = replace(state, end="lost")
    save(files, lost)
    return lost


def forget(files: Files, server: str) -> None:
    files.remove(_file(server))


def _read(files: Files, server: str) -> State:
    name = _file(server)
    try:
        return _STATE.validate_json(files.read(name))
    except ValidationError as error:
        raise CorruptError(files.path(name), "cannot be read; remove it, it only tells how a server ended") from error


def _file(server: str) -> str:
    return f"{STATES}/{server}.json"
