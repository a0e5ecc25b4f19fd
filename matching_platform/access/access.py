"""Who may use the desk and its API, kept in the desk's database; it holds across processes and restarts."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, delete, exists, insert, select, update

from matching_platform.access import attempts, log, passwords
from matching_platform.access.keys import TOKEN_PREFIX, digest, new_key
from matching_platform.access.log import Entry, Event
from matching_platform.access.settings import DeskSettings
from matching_platform.access.tables import INVITATIONS, METADATA, SECRETS, SESSIONS, TOKENS, USERS
from matching_platform.access.users import (
    AccessError,
    Account,
    LoginError,
    Role,
    Token,
    TooManyError,
    User,
    folded,
    name_given,
)
from matching_platform.database import create, writing

INVITATION: Final = timedelta(hours=24)
# When a session or token was last seen is written at most that often, and not at every request.
_SEEN_EVERY: Final = timedelta(minutes=1)
_SEEN_SHARE: Final = 20
_MOST_DAYS: Final = 3660
_FORM_KEY: Final = "forms"


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Access:
    """Users, sessions, tokens and the audit log of one database. Safe to share between threads.

    `address` is always that of the peer; empty for the command line.
    """

    engine: Engine
    settings: DeskSettings = field(default_factory=DeskSettings)
    clock: Callable[[], datetime] = utc_now

    def __post_init__(self) -> None:
        create(self.engine, METADATA)

    # Users

    def invite(self, name: str, role: Role, actor: str, address: str = "") -> str:
        """Adds a user; the key of the link by which he sets his password, good once and for 24 hours."""
        given = name_given(name)
        with writing(self.engine) as connection:
            if self._row(connection, given):
                raise AccessError(f"there is a user '{given}' already; give him a new link, or choose another name")
            self._add(connection, given, role)
            key = self._open_invitation(connection, given)
            self._write(connection, actor, Event.INVITED, f"{given} as {role}", address)
        return key

    def renew(self, name: str, actor: str, address: str = "") -> str:
        """The key of a new link for a user who has lost his password or his link; his password holds until then."""
        with writing(self.engine) as connection:
            user = self._known(connection, name)
            if not user.active:
                raise AccessError(f"the user '{user.name}' is deactivated; activate him first")
            key = self._open_invitation(connection, user.name)
            self._write(connection, actor, Event.LINK_RENEWED, user.name, address)
        return key

    def invited(self, key: str) -> User | None:
        """Whose link it is, while it is good; that uses nothing up."""
        with self.engine.connect() as connection:
            return self._invited(connection, key)

    def welcome(self, key: str, password: str, address: str = "") -> User:
        """Sets the password of him whose link it is, and uses the link up; his sessions end.

        PasswordError where the password is too weak, AccessError where the link is not good any more.
        """
        user = self.invited(key)
        if user is None:
            self.refused("", Event.LINK_REFUSED, "", address)
            raise AccessError("this link was used, or is older than 24 hours; ask an admin for a new one")
        passwords.check(password, user.name)
        kept = passwords.hashed(password)
        with writing(self.engine) as connection:
            # Of two who use the link at once, one comes first.
            if self._invited(connection, key) is None:
                raise AccessError("this link was just used; ask an admin for a new one")
            connection.execute(delete(INVITATIONS).where(INVITATIONS.c.name == user.name))
            connection.execute(update(USERS).where(USERS.c.name == user.name).values(password=kept))
            self._end_sessions(connection, user.name)
            self._write(connection, user.name, Event.PASSWORD_SET, user.name, address)
        return user

    def set_role(self, name: str, role: Role, actor: str, address: str = "") -> None:
        """What the user may do from his next request on; his sessions end."""
        with writing(self.engine) as connection:
            user = self._known(connection, name)
            if user.role != role:
                self._change(connection, user.name, role=role)
                self._write(connection, actor, Event.ROLE_CHANGED, f"{user.name}: {user.role} to {role}", address)

    def set_active(self, name: str, active: bool, actor: str, address: str = "") -> None:
        """Whether the user may log in; a deactivated one is out at once, and stays in the audit log."""
        with writing(self.engine) as connection:
            user = self._known(connection, name)
            if user.active != active:
                self._change(connection, user.name, active=active)
                connection.execute(delete(INVITATIONS).where(INVITATIONS.c.name == user.name))
                event = Event.ACTIVATED if active else Event.DEACTIVATED
                self._write(connection, actor, event, user.name, address)

    def users(self) -> list[Account]:
        """All users, by name."""
        asked = select(USERS, INVITATIONS.c.until).outerjoin(INVITATIONS).order_by(USERS.c.name)
        now = self.clock()
        with self.engine.connect() as connection:
            return [
                Account(
                    row.name,
                    Role(row.role),
                    row.active,
                    row.password is not None,
                    row.since,
                    row.until if row.until and now < row.until else None,
                )
                for row in connection.execute(asked)
            ]

    def has_users(self) -> bool:
        """Whether anybody can log in with a password."""
        with self.engine.connect() as connection:
            able = exists().where(USERS.c.active, USERS.c.password.is_not(None))
            return bool(connection.scalar(select(able)))

    def proxied(self, name: str, role: Role | None, address: str) -> User | None:
        """A person whom the proxy logged in, remembered here; None where no group lets him in, or he is deactivated."""
        given = name_given(name)
        with self.engine.connect() as connection:
            row = self._row(connection, given)
        if role is None or (row and not row.active):
            self.refused(given, Event.PROXY_REFUSED, given, address)
            return None
        if row is None or row.role != role:
            self._remember(given, role, address)
        return User(given, role)

    # Sessions

    def login(self, name: str, password: str, address: str, *, shared: bool = False) -> str:
        """The key of a new session; LoginError or TooManyError, which do not say whether there is such a user.

        Failures of a `shared` address, from which everybody comes, make nobody wait.
        """
        given = folded(name)
        counted, now = attempts.keys(given, "" if shared else address), self.clock()
        with writing(self.engine) as connection:
            wait = attempts.take(connection, counted, now)
            found = self._row(connection, given)
        about = found.name if found else ""
        if wait:
            self.refused("", Event.LOGIN_DELAYED, about, address)
            raise TooManyError(wait.total_seconds())
        kept = found.password if found and found.active else None
        right = passwords.verify(kept, password)
        renewed = passwords.hashed(password) if right and passwords.outdated(kept or "") else kept
        with writing(self.engine) as connection:
            # What changed while the password was hashed holds.
            still = self._row(connection, given)
            if right and still and still.active and still.password == kept:
                attempts.forgive(connection, counted)
                connection.execute(update(USERS).where(USERS.c.name == given).values(password=renewed))
                key = self._begin_session(connection, given)
                self._write(connection, given, Event.LOGIN, given, address)
                return key
            if found:
                self._write(connection, "", Event.LOGIN_REFUSED, about, address)
        if found is None:
            self.refused("", Event.LOGIN_REFUSED, "", address)
        raise LoginError("the name or the password is wrong")

    def session(self, key: str) -> User | None:
        """Whose session it is; None where it ended."""
        now = self.clock()
        asked = select(USERS, SESSIONS.c.started, SESSIONS.c.seen).join(SESSIONS)
        with self.engine.connect() as connection:
            row = connection.execute(asked.where(SESSIONS.c.digest == digest(key))).first()
        if row is None or not row.active or self._is_over(row.started, row.seen, now):
            return None
        if now - row.seen >= min(_SEEN_EVERY, self._idle / _SEEN_SHARE):
            with writing(self.engine) as connection:
                connection.execute(update(SESSIONS).where(SESSIONS.c.digest == digest(key)).values(seen=now))
        return _user(row)

    def logout(self, key: str, address: str = "") -> None:
        """Ends a session, where it has not ended."""
        with writing(self.engine) as connection:
            name = connection.scalar(
                delete(SESSIONS).where(SESSIONS.c.digest == digest(key)).returning(SESSIONS.c.name)
            )
            if name:
                self._write(connection, name, Event.LOGOUT, name, address)

    def form_token(self, owner: str) -> str:
        """What a form carries so that no other site can send it: bound to `owner`, the session or person it is for."""
        return hmac.new(self._form_key, owner.encode(), "sha256").hexdigest()

    # Tokens

    def issue_token(self, name: str, role: Role, actor: str, days: float | None = None, address: str = "") -> str:
        """A new bearer token, good for `days` or until it is revoked; it is shown this once."""
        given, now = name_given(name), self.clock()
        if days is not None and not 0 < days <= _MOST_DAYS:
            raise AccessError(f"a token lasts more than 0 and at most {_MOST_DAYS} days, not {days:g}")
        token = f"{TOKEN_PREFIX}{new_key()}"
        with writing(self.engine) as connection:
            if any(one.name == given and one.active(now) for one in _tokens(connection)):
                raise AccessError(f"there is a token '{given}' already; revoke it first, or choose another name")
            expires = None if days is None else now + timedelta(days=days)
            row = {"name": given, "role": role, "issued": now, "issued_by": actor, "expires": expires}
            connection.execute(insert(TOKENS).values(digest=digest(token), **row))
            self._write(connection, actor, Event.TOKEN_ISSUED, f"{given} as {role}", address)
        return token

    def revoke_token(self, name: str, actor: str, address: str = "") -> None:
        """Ends a token; the next request with it is refused."""
        given, now = folded(name), self.clock()
        with writing(self.engine) as connection:
            good = (TOKENS.c.name == given, TOKENS.c.revoked.is_(None))
            if not connection.execute(update(TOKENS).where(*good).values(revoked=now)).rowcount:
                raise AccessError(f"there is no token '{given}' that could be revoked")
            self._write(connection, actor, Event.TOKEN_REVOKED, given, address)

    def bearer(self, text: str, address: str = "") -> User | None:
        """Whose token it is, named token:NAME; None where it is unknown, expired or revoked."""
        now, hashed = self.clock(), digest(text)
        with self.engine.connect() as connection:
            row = connection.execute(select(TOKENS).where(TOKENS.c.digest == hashed)).first()
        if row is None:
            return None
        name = f"token:{row.name}"
        if not _token(row).active(now):
            self.refused(name, Event.TOKEN_REFUSED, row.name, address)
            return None
        if row.last_used is None or now - row.last_used >= _SEEN_EVERY:
            with writing(self.engine) as connection:
                connection.execute(update(TOKENS).where(TOKENS.c.digest == hashed).values(last_used=now))
        return User(name, Role(row.role))

    def tokens(self) -> list[Token]:
        """All tokens ever issued, the last one first."""
        with self.engine.connect() as connection:
            return _tokens(connection)

    def any_token(self) -> bool:
        """Whether a token was ever issued: from then on the API wants one, also when the last is revoked."""
        with self.engine.connect() as connection:
            return bool(connection.scalar(select(exists().select_from(TOKENS))))

    # The audit log

    def note(self, actor: str, action: str, about: str, address: str = "") -> None:
        """Appends a line to the audit log."""
        with writing(self.engine) as connection:
            self._write(connection, actor, action, about, address)

    def refused(self, actor: str, action: str, about: str, address: str) -> None:
        """Appends a refusal; one that repeats is written once an hour."""
        line = (self.clock(), actor, action, about, address)
        with self.engine.connect() as connection:
            if log.is_known(connection, *line):
                return
        with writing(self.engine) as connection:
            log.write(connection, *line)

    def audit(self, text: str = "", before: int | None = None, limit: int = 100) -> list[Entry]:
        """The audit log, the last line first: at most `limit` lines before the number `before`, with `text` in them."""
        with self.engine.connect() as connection:
            return log.read(connection, text, before, limit)

    # What these share

    @property
    def _idle(self) -> timedelta:
        return timedelta(minutes=self.settings.idle_minutes)

    @cached_property
    def _form_key(self) -> bytes:
        asked = select(SECRETS.c.value).where(SECRETS.c.name == _FORM_KEY)
        with writing(self.engine) as connection:
            kept: str | None = connection.scalar(asked)
            if kept is None:
                kept = new_key()
                connection.execute(insert(SECRETS).values(name=_FORM_KEY, value=kept))
        return kept.encode()

    def _is_over(self, started: datetime, seen: datetime, now: datetime) -> bool:
        return now - started >= timedelta(hours=self.settings.session_hours) or now - seen >= self._idle

    def _row(self, connection: Connection, name: str) -> Row[Any] | None:
        return connection.execute(select(USERS).where(USERS.c.name == name)).first()

    def _known(self, connection: Connection, name: str) -> User:
        row = self._row(connection, folded(name))
        if row is None:
            raise AccessError(f"there is no user '{name}'; invite him first")
        return _user(row)

    def _add(self, connection: Connection, name: str, role: Role) -> None:
        connection.execute(insert(USERS).values(name=name, role=role, active=True, since=self.clock()))

    def _change(self, connection: Connection, name: str, **values: Any) -> None:
        connection.execute(update(USERS).where(USERS.c.name == name).values(**values))
        self._end_sessions(connection, name)

    def _remember(self, name: str, role: Role, address: str) -> None:
        with writing(self.engine) as connection:
            row = self._row(connection, name)
            if row is None:
                self._add(connection, name, role)
                self._write(connection, name, Event.PROXY_PERSON, f"{name} as {role}", address)
            elif row.role != role:
                self._change(connection, name, role=role)
                self._write(connection, name, Event.ROLE_CHANGED, f"{name}: {row.role} to {role}", address)

    def _open_invitation(self, connection: Connection, name: str) -> str:
        key = new_key()
        connection.execute(delete(INVITATIONS).where(INVITATIONS.c.name == name))
        row = {"name": name, "digest": digest(key), "until": self.clock() + INVITATION}
        connection.execute(insert(INVITATIONS).values(**row))
        return key

    def _invited(self, connection: Connection, key: str) -> User | None:
        good = (INVITATIONS.c.digest == digest(key), INVITATIONS.c.until > self.clock(), USERS.c.active)
        row = connection.execute(select(USERS).join(INVITATIONS).where(*good)).first()
        return _user(row) if row else None

    def _begin_session(self, connection: Connection, name: str) -> str:
        key, now = new_key(), self.clock()
        oldest = now - timedelta(hours=self.settings.session_hours)
        connection.execute(
            delete(SESSIONS).where((SESSIONS.c.started <= oldest) | (SESSIONS.c.seen <= now - self._idle))
        )
        connection.execute(insert(SESSIONS).values(digest=digest(key), name=name, started=now, seen=now))
        return key

    def _end_sessions(self, connection: Connection, name: str) -> None:
        connection.execute(delete(SESSIONS).where(SESSIONS.c.name == name))

    def _write(self, connection: Connection, actor: str, action: str, about: str, address: str) -> None:
        log.write(connection, self.clock(), actor, action, about, address)


def _user(row: Row[Any]) -> User:
    return User(row.name, Role(row.role), row.active)


def _token(row: Row[Any]) -> Token:
    return Token(row.name, Role(row.role), row.issued, row.issued_by, row.expires, row.revoked, row.last_used)


def _tokens(connection: Connection) -> list[Token]:
    return [_token(row) for row in connection.execute(select(TOKENS).order_by(TOKENS.c.issued.desc()))]
