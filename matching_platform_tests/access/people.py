"""A desk's people in a database of their own, with a clock that the test moves, and hashes that cost little."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from argon2 import PasswordHasher

from matching_platform.access import Access, Role
from matching_platform.database import connect

PASSWORD: Final = "a few words are easy"
OTHER: Final = "quite another few words"
HOME: Final = "10.1.2.3"
# Argon2 as weak as it can be: what is tried is what rests on it.
QUICK: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **how: float) -> None:
        self.now += timedelta(**how)


def opened(folder: Path, clock: Clock | None = None, **more: Any) -> Access:
    """The people of the database in a folder; opened again, as after a restart."""
    return Access(connect(f"sqlite:///{folder / 'desk.sqlite'}"), clock=clock or Clock(), **more)


def add(access: Access, name: str, role: Role = Role.READER, password: str = PASSWORD) -> str:
    """A user who has chosen his password; his name."""
    access.welcome(access.invite(name, role, "root"), password)
    return name


def lines(access: Access) -> list[tuple[str, str, str, str]]:
    """The audit log, the first line first, without numbers and times."""
    return [(one.actor, one.action, one.about, one.address) for one in reversed(access.audit(limit=1000))]
