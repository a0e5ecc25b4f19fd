"""Users and what each may do, and how access refuses."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import ceil
from typing import Final, Literal

_NAME: Final = re.compile(r"\w[\w.@+-]{0,99}")


class Role(StrEnum):
    """What a user may do; each may do what the ones before it may."""

    READER = "reader"
    BOOKER = "booker"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether who has this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class User:
    """Who asks: a person, `token:NAME` for a program, or `local` for a program of this machine."""

    name: str
    role: Role
    active: bool = True


# Who uses the API of a laptop on which no token was ever issued.
LOCAL: Final = User("local", Role.BOOKER)


@dataclass(frozen=True)
class Account:
    """A user as admins see him; times are UTC. `invited_until` is None where no link is open."""

    name: str
    role: Role
    active: bool
    has_password: bool
    since: datetime
    invited_until: datetime | None


@dataclass(frozen=True)
class Token:
    """A bearer token, without what makes it one; times are UTC. `last_used` is exact to a minute."""

    name: str
    role: Role
    issued: datetime
    issued_by: str
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None

    def active(self, now: datetime) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


class AccessError(ValueError):
    """What access refuses; the message says what to do next."""


class PasswordError(AccessError):
    """A password that is not taken: of a length that is none, the user's own name, or one of the commonest."""

    def __init__(self, reason: Literal["length", "name", "common"], told: str) -> None:
        super().__init__(told)
        self.reason = reason


class LoginError(AccessError):
    """A name and a password that do not belong together; it is not said which of them is wrong."""


class TooManyError(LoginError):
    """Too many failed logins; `wait` is in seconds."""

    def __init__(self, wait: float) -> None:
        self.wait = ceil(wait)
        super().__init__(f"too many failed logins; try again in {self.wait} s")


def folded(name: str) -> str:
    """A name as it is kept: names that differ by case alone are one."""
    # A database takes no NUL.
    return unicodedata.normalize("NFKC", name.replace("\0", "")).strip().casefold()


def name_given(name: str) -> str:
    """The name of a new user or token, folded; AccessError where it cannot be one."""
    given = folded(name)
    if not _NAME.fullmatch(given) or given == LOCAL.name:
        raise AccessError(
            f"'{name[:100]}' is no name: give up to 100 letters, digits, '.', '@', '+', '-' or '_', and not '{LOCAL.name}'"
        )
    return given


def role_given(role: str) -> Role:
    """The role of that name; AccessError where there is none."""
    try:
        return Role(role)
    except ValueError as error:
        raise AccessError(f"'{role[:100]}' is no role; give one of {', '.join(Role)}") from error
