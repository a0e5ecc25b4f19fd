"""The database of the desk: SQLite on a laptop, PostgreSQL elsewhere; one writer at a time, and readers never wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    DDL,
    Connection,
    DateTime,
    Dialect,
    Engine,
    MetaData,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.types import TypeDecorator

# What serializes writers on PostgreSQL; any number that nobody else locks.
_LOCK: Final = 4_137_201
_WAIT_SECONDS: Final = 30
_ADDRESSES: Final = "sqlite:///PATH or postgresql://USER@HOST/NAME"
_POSTGRESQL_DRIVER: Final = "postgresql+psycopg2"
_REFUSED: Final = "rows of %(table)s are never changed or deleted"
_SQLITE: Final = """
CREATE TRIGGER %(table)s_no_{verb} BEFORE {verb} ON %(table)s {when}
BEGIN SELECT RAISE(ABORT, '{refused}'); END"""
# INSERT OR REPLACE takes the row of the same key away without a DELETE that a trigger would see.
_KNOWN: Final = "WHEN EXISTS (SELECT 1 FROM %(table)s WHERE {key} = NEW.{key})"
_POSTGRESQL: Final = """
CREATE OR REPLACE FUNCTION %(table)s_stay() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{refused}'; END $$;
CREATE TRIGGER %(table)s_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON %(table)s EXECUTE FUNCTION %(table)s_stay()"""


class Moment(TypeDecorator[datetime]):
    """A time in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.replace(tzinfo=UTC)


class DatabaseError(ValueError):
    """What is named is no database that can be used; the message says what can, and holds no password."""


def connect(url: str) -> Engine:
    """An engine for `url`, sqlite:///PATH or postgresql://USER@HOST/NAME; SQLite's file is made, in a folder that is there.

    DatabaseError where it is something else.
    """
    try:
        made = make_url(url)
    except ArgumentError as error:
        raise DatabaseError(f"the address of a database is {_ADDRESSES}") from error
    if made.get_backend_name() == "postgresql":
        return create_engine(made.set(drivername=_POSTGRESQL_DRIVER), pool_pre_ping=True)
    if made.get_backend_name() != "sqlite":
        raise DatabaseError(f"{made.get_backend_name()} is not read here; the address of a database is {_ADDRESSES}")
    if made.database and not (folder := Path(made.database).parent).is_dir():
        raise DatabaseError(f"{folder}, where {Path(made.database).name} would lie, is not there; make that folder")
    engine = create_engine(made, connect_args={"timeout": _WAIT_SECONDS})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction all of whose reads are of one moment."""
    # Not for writers: what they see must be no older than their lock.
    moment = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**moment) as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nobody else writes, in this process or another; committed at the end, or nothing happened."""
    with engine.connect().execution_options(matching_platform_writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        yield connection


def create(engine: Engine, metadata: MetaData) -> None:
    """Makes the tables that are missing."""
    if not metadata.tables.keys() <= set(inspect(engine).get_table_names()):
        with writing(engine) as connection:
            metadata.create_all(connection)


def append_only(table: Table) -> Table:
    """The same table, of one key, which when it is made gets triggers that refuse to change, replace or delete its rows."""
    (key,) = table.primary_key.columns.keys()
    for verb, when in {"UPDATE": "", "DELETE": "", "INSERT": _KNOWN.format(key=key)}.items():
        ddl = DDL(_SQLITE.format(verb=verb, when=when, refused=_REFUSED))
        event.listen(table, "after_create", ddl.execute_if(dialect="sqlite"))
    ddl = DDL(_POSTGRESQL.format(refused=_REFUSED))
    event.listen(table, "after_create", ddl.execute_if(dialect="postgresql"))
    return table


def _prepare(connection: Any, _: Any) -> None:
    # The driver would begin transactions by itself, and too late for a writer to see what it then changes.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("matching_platform_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
