"""The tables of access. Keys, tokens and links are kept as hashes alone; the audit log only grows."""

from typing import Final

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table

from matching_platform.database import Moment, append_only

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
