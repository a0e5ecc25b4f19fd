"""The tables of access. Keys, tokens and links are kept as hashes alone; the audit log only grows."""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    inspect,
)
from sqlalchemy.types import TypeDecorator

from matching_platform.database import append_only, writing


class Moment(TypeDecorator[datetime]):
    """A time in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.replace(tzinfo=UTC)


METADATA: Final = MetaData()

USERS: Final = Table(
    "users",
    METADATA,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("password", String),  # None: invited, or logged in by a proxy
    Column("since", Moment, nullable=False),
)
# The last link of each user; a new one replaces it.
INVITATIONS: Final = Table(
    "invitations",
    METADATA,
    Column("name", ForeignKey(USERS.c.name), primary_key=True),
    Column("digest", String, nullable=False, unique=True),
    Column("until", Moment, nullable=False),
)
SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("name", ForeignKey(USERS.c.name), nullable=False, index=True),
    Column("started", Moment, nullable=False),
    Column("seen", Moment, nullable=False),
)
# Rows stay when a token is revoked: whether one was ever issued decides who may use the API.
TOKENS: Final = Table(
    "tokens",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("issued", Moment, nullable=False),
    Column("issued_by", String, nullable=False),
    Column("expires", Moment),
    Column("revoked", Moment),
    Column("last_used", Moment),
)
ATTEMPTS: Final = Table(
    "attempts",
    METADATA,
    Column("key", String, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last", Moment, nullable=False),
)
SECRETS: Final = Table("secrets", METADATA, Column("name", String, primary_key=True), Column("value", String))
AUDIT: Final = append_only(
    Table(
        "audit",
        METADATA,
        Column("number", Integer, primary_key=True, autoincrement=True),
        Column("at", Moment, nullable=False),
        Column("actor", String, nullable=False),
        Column("action", String, nullable=False),
        Column("about", String, nullable=False),
        Column("address", String, nullable=False),
        Index("audit_action", "action", "at"),
        sqlite_autoincrement=True,
    )
)


def create(engine: Engine) -> None:
    """Makes the tables that are missing."""
    if not METADATA.tables.keys() <= set(inspect(engine).get_table_names()):
        with writing(engine) as connection:
            METADATA.create_all(connection)
