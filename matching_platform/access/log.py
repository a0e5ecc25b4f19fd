"""The audit log: who did what, to whom, when and from where. It only grows."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, insert, or_, select

from matching_platform.access.tables import AUDIT

# A refusal that repeats is written once in that time: nobody fills the disk with refusals.
ONCE_IN: Final = timedelta(hours=1)
LONGEST: Final = 300


class Event(StrEnum):
    """What access itself writes; the desk adds decisions and imports."""

    LOGIN = "login"
    LOGIN_REFUSED = "login refused"
    LOGIN_DELAYED = "login delayed"
    LOGOUT = "logout"
    INVITED = "invited"
    LINK_RENEWED = "new link"
    LINK_REFUSED = "link refused"
    PASSWORD_SET = "password set"
    ROLE_CHANGED = "role changed"
    DEACTIVATED = "deactivated"
    ACTIVATED = "activated"
    PROXY_PERSON = "first seen through the proxy"
    PROXY_REFUSED = "refused through the proxy"
    TOKEN_ISSUED = "token issued"
    TOKEN_REVOKED = "token revoked"
    TOKEN_REFUSED = "token refused"
    REFUSED = "refused"


@dataclass(frozen=True)
class Entry:
    """One line of the audit log. An empty actor is somebody unknown; an empty address, the command line."""

    number: int
    at: datetime
    actor: str
    action: str
    about: str
    address: str


def write(connection: Connection, at: datetime, actor: str, action: str, about: str, address: str) -> None:
    """Appends a line; what is too long for one is cut."""
    line = {"actor": _cut(actor), "action": _cut(action), "about": _cut(about), "address": _cut(address)}
    connection.execute(insert(AUDIT).values(at=at, **line))


def is_known(connection: Connection, at: datetime, actor: str, action: str, about: str, address: str) -> bool:
    """Whether the same was written within ONCE_IN."""
    same = (AUDIT.c.actor == _cut(actor), AUDIT.c.about == _cut(about), AUDIT.c.address == _cut(address))
    found = select(AUDIT.c.number).where(AUDIT.c.action == action, AUDIT.c.at > at - ONCE_IN, *same).limit(1)
    return connection.execute(found).first() is not None


def read(connection: Connection, text: str, before: int | None, limit: int) -> list[Entry]:
    """The last entries first, of those before the number `before`; with `text` in actor, action, about or address."""
    asked = select(AUDIT).order_by(AUDIT.c.number.desc()).limit(limit)
    if before is not None:
        asked = asked.where(AUDIT.c.number < before)
    if text:
        searched = (AUDIT.c.actor, AUDIT.c.action, AUDIT.c.about, AUDIT.c.address)
        asked = asked.where(or_(*(column.icontains(_cut(text), autoescape=True) for column in searched)))
    return [Entry(*row) for row in connection.execute(asked)]


def _cut(text: str) -> str:
    # A database takes no NUL.
    return text.replace("\0", "")[:LONGEST]
