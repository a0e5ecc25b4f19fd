"""The embedded warehouse: one DuckDB file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

import polars as pl
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from matching_platform.ledger.months import first_day, next_month
from matching_platform.ledger.schema import RAW_TABLES, TABLES, Kind
from matching_platform.matching.candidates import Pairs, Question
from matching_platform.warehouse import candidates
from matching_platform.warehouse.expressions import fingerprints, growth, rows_of, taken, unknown, with_keys, within
from matching_platform.warehouse.folder import months_of, storable
from matching_platform.warehouse.tables import APPENDED, MONTH, NUMBER, PUBLISHED, grown, publishable, raw_name
from matching_platform.warehouse.warehouse import HeldError, WarehouseError

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

_WAIT_FOR_OTHERS: Final = 60  # seconds; a month is written in well under one
_ADDING: Final = Lock()


@dataclass(frozen=True)
class DuckWarehouse:
    """The tables raw_invoices, raw_transfers and raw_matches in the DuckDB file at `path`.

    Columns have the contract's types and one more, `month`, the partition that delivered the row. A month with a value
    that its column cannot hold widens the column to text: raw rows are kept as they came and judged on reading.
    Connections are short, because DuckDB lets one process write or many read; whoever comes second waits a little.
    """

    path: Path

    def charged_to(self, run: str, step: str) -> "DuckWarehouse":  # noqa: ARG002 - what costs nothing is not summed
        return self

    def costs(self) -> dict[str, float]:
        return {}

    def months(self) -> dict[str, dict[str, str]]:
        with self._connect() as backend:
            held = [name for name in RAW_TABLES if raw_name(name) in _tables(backend)]
            found = {name: backend.to_polars(fingerprints(backend.table(raw_name(name)))) for name in held}
        return {
            name: {month: f"{rows}-{total:x}" for month, rows, total in sorted(frame.rows())}
            for name, frame in found.items()
        }

    def read_month(self, table: str, month: str) -> pl.DataFrame:
        """The rows of `month` as they came.

        A column that must have values and has none in the whole month was not delivered, and is left out.
        """
        with self._connect() as backend:
            frame: pl.DataFrame = backend.to_polars(rows_of(backend.table(raw_name(table)), month))
        required = {column.name for column in TABLES[table].columns if not column.nullable}
        absent = [name for name in frame.columns if name in required and frame[name].null_count() == len(frame)]
        return frame.drop(absent) if len(frame) else frame

    def taken(self, table: str, month: str) -> pl.Series:
        with self._connect() as backend:
            of_month, earlier = _around(backend.table(raw_name(table)), month)
            found: pl.DataFrame = backend.to_polars(taken(of_month, earlier, str(TABLES[table].key)))
        return found["key"]

    def unknown_invoices(self, month: str) -> pl.Series:
        with self._connect() as backend:
            named, _ = _around(backend.table(raw_name("matches")), month)
            found: pl.DataFrame = backend.to_polars(unknown(named, backend.table(raw_name("invoices"))))
        return found["key"]

    def write_month(self, table: str, month: str, frame: pl.DataFrame) -> None:
        """Replaces `month` by the rows of `frame`, all of them or, should the process die, none."""
        self.write_months(table, {month: frame})

    def write_months(self, table: str, frames: Mapping[str, pl.DataFrame]) -> None:
        """`write_month` for many months in one transaction; without any, there is at least the table."""
        parts = [storable(table, frame).with_columns(pl.lit(month).alias(MONTH)) for month, frame in frames.items()]
        with self._connect(write=True) as backend:
            backend.con.execute(_create(table))
            if parts:
                _replace(backend.con, table, list(frames), pl.concat(parts, how="diagonal_relaxed"))

    def load_folder(self, folder: Path) -> None:
        """Replaces every month found in a folder of the three tables, see `folder.months_of`."""
        for name, months in months_of(folder).items():
            self.write_months(name, months)

    def rows_with(self, table: str, keys: pl.Series) -> pl.DataFrame:
        if not self.path.exists():
            return TABLES[table].schema.to_frame()
        with self._connect() as backend:
            if raw_name(table) not in _tables(backend):
                return TABLES[table].schema.to_frame()
            return _rows_with(backend, table, keys).drop(MONTH)

    def add_rows(self, table: str, frame: pl.DataFrame) -> None:
        key, dated = str(TABLES[table].key), TABLES[table].partitioned_by
        rows = storable(table, frame).with_columns(frame[dated].dt.strftime("%Y-%m").alias(MONTH))
        # Other processes cannot open the file meanwhile, but threads of this one can.
        with _ADDING, self._connect(write=True) as backend:
            for name in RAW_TABLES:
                backend.con.execute(_create(name))
            held = _rows_with(backend, table, rows[key])
            if not held.is_empty():
                raise HeldError(f"{raw_name(table)} holds {key} '{held[key][0]}' already; nothing was added")
            with _transaction(backend.con):
                _insert(backend.con, table, rows)

    def publish(self, table: str, month: str, frame: pl.DataFrame) -> None:
        date = PUBLISHED[table].partitioned_by
        with self._connect(write=True) as backend, _transaction(backend.con) as connection:
            connection.register("incoming", publishable(table, frame).to_arrow())
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM incoming LIMIT 0")
            held = {column for column, *_ in connection.execute(f"DESCRIBE {table}").fetchall()}
            for column, kind, *_ in connection.execute("DESCRIBE SELECT * FROM incoming").fetchall():
                if column not in held:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            connection.execute(
                f"DELETE FROM {table} WHERE {date} >= ? AND {date} < ?",
                [first_day(month), first_day(next_month(month))],
            )
            connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")

    append_pause = 0.5

    def append(self, table: str, frame: pl.DataFrame, after: int) -> None:
        with _ADDING, self._connect(write=True) as backend, _transaction(backend.con) as connection:
            connection.register("incoming", publishable(table, frame).to_arrow())
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM incoming LIMIT 0")
            if _last(backend, table) == after:
                connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")

    def last_appended(self, table: str) -> int:
        with self._appended(table) as backend:
            return _last(backend, table) if backend else 0

    def appended(self, table: str) -> dict[str, str]:
        with self._appended(table) as backend:
            if backend is None:
                return {}
            found: pl.DataFrame = backend.to_polars(growth(backend.table(table), APPENDED[table].partitioned_by))
        return {month: f"{rows}-{last}" for month, rows, last in sorted(found.rows())}

    def read_appended(self, table: str, month: str) -> pl.DataFrame:
        with self._appended(table) as backend:
            if backend is None:
                return pl.DataFrame(schema=APPENDED[table].columns)
            rows: pl.DataFrame = backend.to_polars(within(backend.table(table), APPENDED[table].partitioned_by, month))
        return grown(table, rows)

    @contextmanager
    def _appended(self, table: str) -> Iterator["Backend | None"]:
        """A connection where the table is there."""
        if not self.path.exists():
            yield None
            return
        with self._connect() as backend:
            yield backend if table in _tables(backend) else None

    def candidates(self, question: Question) -> Pairs:
        return find(question)

    @contextmanager
    def _connect(self, *, write: bool = False) -> Iterator["Backend"]:
        if write:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.exists():
            raise WarehouseError(f"there is no warehouse at {self.path}; load a folder of tables into it first")
        # Imported here: once a module that types refer to holds it, DuckDB 2.0 reports itself as leaked at every exit.
        import ibis

        patience = Retrying(
            retry=retry_if_exception(_is_busy),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            stop=stop_after_delay(_WAIT_FOR_OTHERS),
            reraise=True,
        )
        try:
            backend = patience(ibis.duckdb.connect, str(self.path), read_only=not write)
        except Exception as error:
            if not _is_busy(error):
                raise
            raise WarehouseError(
                f"{self.path} is held open by another program; close it, and run this again ({str(error).splitlines()[0]})"
            ) from error
        try:
            yield backend
        finally:
            backend.disconnect()


def find(question: Question) -> Pairs:
    """The candidate pairs of a question, joined by DuckDB in memory."""
    import ibis

    backend = ibis.duckdb.connect()
    try:
        for name, table in candidates.tables(question).items():
            backend.con.register(name, table)
        tables = {name: backend.table(name) for name in candidates.TABLES}
        # Not Ibis's `to_pyarrow_batches`, which calls DuckDB by a name that 2.0 no longer has.
        answer = backend.con.sql(backend.compile(candidates.pairs(**tables)))
        return candidates.collected(answer.to_arrow_reader(), question)
    finally:
        backend.disconnect()


def _tables(backend: "Backend") -> set[str]:
    return {name for (name,) in backend.con.execute("SHOW TABLES").fetchall()}


def _last(backend: "Backend", table: str) -> int:
    (last,) = backend.con.execute(f"SELECT coalesce(max({NUMBER}), 0) FROM {table}").fetchone()
    return int(last)


def _around(table: "ir.Table", month: str) -> tuple["ir.Table", "ir.Table"]:
    """The rows of `month`, and those of all earlier ones."""
    return rows_of(table, month), table.filter(table[MONTH] < month)


@contextmanager
def _transaction(connection: "duckdb.DuckDBPyConnection") -> Iterator["duckdb.DuckDBPyConnection"]:
    connection.begin()
    try:
        yield connection
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _is_busy(error: BaseException) -> bool:
    """Whether another process, or another connection of this one, holds the file in a way that excludes us."""
    import duckdb

    locked = isinstance(error, duckdb.IOException) and "lock" in str(error)
    # A thread opens the file while another one does, or has it open in another way.
    return (
        locked
        or isinstance(error, duckdb.ResourceInUseException)
        or (isinstance(error, duckdb.ConnectionException) and "different configuration" in str(error))
    )


def _create(table: str) -> str:
    types = {Kind.AMOUNT: "DECIMAL(18, 2)", Kind.DATE: "DATE"}
    columns = [f"{column.name} {types.get(column.kind, 'VARCHAR')}" for column in TABLES[table].columns]
    return f"CREATE TABLE IF NOT EXISTS {raw_name(table)} ({', '.join(columns)}, {MONTH} VARCHAR NOT NULL)"


def _replace(connection: "duckdb.DuckDBPyConnection", table: str, months: list[str], rows: pl.DataFrame) -> None:
    """Replaces `months` of `table` by `rows` in one transaction, widening columns that cannot hold them."""
    with _transaction(connection):
        connection.execute(f"DELETE FROM {raw_name(table)} WHERE {MONTH} IN (SELECT unnest(?))", [months])
        _insert(connection, table, rows)


def _insert(connection: "duckdb.DuckDBPyConnection", table: str, rows: pl.DataFrame) -> None:
    name = raw_name(table)
    connection.register("incoming", rows.to_arrow())
    held = {column: kind for column, kind, *_ in connection.execute(f"DESCRIBE {name}").fetchall()}
    for column, dtype in rows.schema.items():
        if column not in held:
            connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} VARCHAR")
        elif dtype == pl.String and held[column] != "VARCHAR":
            connection.execute(f"ALTER TABLE {name} ALTER {column} TYPE VARCHAR")
    connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")


def _rows_with(backend: "Backend", table: str, keys: pl.Series) -> pl.DataFrame:
    backend.con.register("wanted", keys.unique().alias("key").to_frame().to_arrow())
    found: pl.DataFrame = backend.to_polars(
        with_keys(backend.table(raw_name(table)), backend.table("wanted"), str(TABLES[table].key))
    )
    return found
