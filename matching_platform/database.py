"""The database of the desk: SQLite on a laptop, PostgreSQL elsewhere; one writer at a time, and readers never wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import DDL, Connection, Engine, Table, create_engine, event, make_url, text

# What serializes writers on PostgreSQL; any number that nobody else locks.
_LOCK: Final = 4_137_201
_WAIT_SECONDS: Final = 30
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


def connect(url: str) -> Engine:
    """An engine for `url`, such as sqlite:///desk.sqlite or postgresql+psycopg2://…; the file of SQLite is made."""
    made = make_url(url)
    if made.get_backend_name() != "sqlite":
        return create_engine(made, pool_pre_ping=True)
    if made.database and made.database != ":memory:":
        Path(made.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(made, connect_args={"timeout": _WAIT_SECONDS})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nobody else writes, in this process or another; committed at the end, or nothing happened."""
    with engine.connect().execution_options(matching_platform_writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        yield connection


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
