"""The embedded warehouse: one DuckDB file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from matching_platform.ledger.money import DECIMAL
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import read_raw, table_path
from matching_platform.ledger.schema import RAW_TABLES, TABLES, Kind
from matching_platform.warehouse.expressions import MONTH, fingerprints, keys, rows_of, taken

if TYPE_CHECKING:
    import duckdb
    from ibis.backends.duckdb import Backend

_WAIT_FOR_OTHERS: Final = 60  # seconds; a month is written in well under one

# An ISO date, and perhaps a time of day.
_DATE: Final = r"^(\d{4}-\d\d-\d\d)(?:[T ].*)?$"

_FINER: Final = pl.Decimal(38, 6)  # tells 12.345 from 12.34


class WarehouseError(RuntimeError):
    """The warehouse cannot be used; the message says what to do."""


@dataclass(frozen=True)
class DuckWarehouse:
    """The tables raw_invoices, raw_transfers and raw_matches in the DuckDB file at `path`.

    Columns have the contract's types and one more, `month`, the partition that delivered the row. A month with a value
    that its column cannot hold widens the column to text: raw rows are kept as they came and judged on reading.
    Connections are short, because DuckDB lets one process write or many read; whoever comes second waits a little.
    """

    path: Path

    def months(self, table: str) -> dict[str, str]:
        """The fingerprint of each month of `table` ('invoices', 'transfers', 'matches'), by one query."""
        with self._connect() as backend:
            found = backend.to_polars(fingerprints(backend.table(raw_name(table))))
        return {month: f"{rows}-{total:x}" for month, rows, total in sorted(found.rows())}

    def read_month(self, table: str, month: str) -> pl.DataFrame:
        """The rows of `month` as they came.

        A column that must have values and has none in the whole month was not delivered, and is left out.
        """
        with self._connect() as backend:
            frame: pl.DataFrame = backend.to_polars(rows_of(backend.table(raw_name(table)), month))
        required = {column.name for column in TABLES[table].columns if not column.nullable}
        absent = [name for name in frame.columns if name in required and frame[name].null_count() == len(frame)]
        return frame.drop(absent) if len(frame) else frame

    def ids(self, table: str) -> pl.Series:
        """The keys of `table` in all months, also of months that are not valid."""
        with self._connect() as backend:
            found: pl.DataFrame = backend.to_polars(keys(backend.table(raw_name(table)), str(TABLES[table].key)))
        return found["key"]

    def taken(self, table: str, month: str) -> pl.Series:
        """The keys of `month` that an earlier month of `table` has already."""
        with self._connect() as backend:
            found: pl.DataFrame = backend.to_polars(
                taken(backend.table(raw_name(table)), str(TABLES[table].key), month)
            )
        return found["key"]

    def write_month(self, table: str, month: str, frame: pl.DataFrame) -> None:
        """Replaces `month` by the rows of `frame`, all of them or, should the process die, none."""
        self.write_months(table, {month: frame})

    def write_months(self, table: str, frames: Mapping[str, pl.DataFrame]) -> None:
        """`write_month` for many months in one transaction; without any, there is at least the table."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        parts = [_storable(table, frame).with_columns(pl.lit(month).alias(MONTH)) for month, frame in frames.items()]
        with self._connect(write=True) as backend:
            backend.con.execute(_create(table))
            if parts:
                _replace(backend.con, table, list(frames), pl.concat(parts, how="diagonal_relaxed"))

    def load_folder(self, folder: Path) -> None:
        """Replaces every month found in a folder of the three tables, `.parquet` or `.csv`; a table may have no rows.

        A match belongs to the month in which its transfer was booked; where there is no such transfer, to the month of
        its tag, and it is refused there. Raises WarehouseError where a table is absent or a row's month cannot be told.
        """
        tables = {name: _read_raw(folder, name) for name in RAW_TABLES}
        booked = _with_month(tables["transfers"], "booked_on").select("transfer_id", MONTH)
        last = booked[MONTH].max()
        tagged = _with_month(tables["matches"], "tagged_on").rename({MONTH: "_tagged"})
        months = {
            "invoices": _with_month(tables["invoices"], "issued_on"),
            "transfers": _with_month(tables["transfers"], "booked_on"),
            "matches": tagged.join(booked.unique("transfer_id"), on="transfer_id", how="left", maintain_order="left")
            .with_columns(pl.coalesce(MONTH, pl.min_horizontal("_tagged", pl.lit(last))).alias(MONTH))
            .drop("_tagged"),
        }
        for name, frame in months.items():
            if frame[MONTH].has_nulls():
                row = frame[MONTH].is_null().arg_true()[0] + 1
                column = "tagged_on" if name == "matches" else TABLES[name].partitioned_by
                raise WarehouseError(f"{folder}/{name}: row {row}, column {column}: is not a date (YYYY-MM-DD)")
            parts = frame.partition_by(MONTH, as_dict=True, include_key=False)
            self.write_months(name, {str(month): part for (month,), part in parts.items()})

    @contextmanager
    def _connect(self, *, write: bool = False) -> Iterator["Backend"]:
        if not write and not self.path.exists():
            raise WarehouseError(f"there is no warehouse at {self.path}; load a folder of tables into it first")
        # Imported here: once a module that types refer to holds it, DuckDB 2.0 reports itself as leaked at every exit.
        import ibis

        patience = Retrying(
            retry=retry_if_exception(_is_busy),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            stop=stop_after_delay(_WAIT_FOR_OTHERS),
            reraise=True,
        )
        backend = patience(ibis.duckdb.connect, str(self.path), read_only=not write)
        try:
            yield backend
        finally:
            backend.disconnect()


def raw_name(table: str) -> str:
    """The name of a table of the contract in a warehouse."""
    return f"raw_{table}"


def _is_busy(error: BaseException) -> bool:
    """Whether another process, or another connection of this one, holds the file in a way that excludes us."""
    import duckdb

    locked = isinstance(error, duckdb.IOException) and "lock" in str(error)
    return locked or (isinstance(error, duckdb.ConnectionException) and "different configuration" in str(error))


def _create(table: str) -> str:
    types = {Kind.AMOUNT: "DECIMAL(18, 2)", Kind.DATE: "DATE"}
    columns = [f"{column.name} {types.get(column.kind, 'VARCHAR')}" for column in TABLES[table].columns]
    return f"CREATE TABLE IF NOT EXISTS {raw_name(table)} ({', '.join(columns)}, {MONTH} VARCHAR NOT NULL)"


def _storable(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The contract's columns of `frame` in the contract's types, or as text where a value does not fit."""
    columns = [column for column in TABLES[table].columns if column.name in frame.columns]
    return frame.select(_fitted(frame[column.name], column.external_dtype) for column in columns)


def _fitted(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    fitted = _as_date(values) if dtype == pl.Date else values.cast(dtype, strict=False)
    lossless = fitted.null_count() == values.null_count()
    if dtype == DECIMAL:
        lossless = lossless and (values.cast(_FINER, strict=False) == fitted.cast(_FINER)).all()
    return fitted if lossless else values.cast(pl.String, strict=False)


def _replace(connection: "duckdb.DuckDBPyConnection", table: str, months: list[str], rows: pl.DataFrame) -> None:
    """Replaces `months` of `table` by `rows` in one transaction, widening columns that cannot hold them."""
    name = raw_name(table)
    connection.register("incoming", rows.to_arrow())
    connection.begin()
    held = {column: kind for column, kind, *_ in connection.execute(f"DESCRIBE {name}").fetchall()}
    for column, dtype in rows.schema.items():
        if column not in held:
            connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} VARCHAR")
        elif dtype == pl.String and held[column] != "VARCHAR":
            connection.execute(f"ALTER TABLE {name} ALTER {column} TYPE VARCHAR")
    connection.execute(f"DELETE FROM {name} WHERE {MONTH} IN (SELECT unnest(?))", [months])
    connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
    connection.commit()


def _read_raw(folder: Path, name: str) -> pl.DataFrame:
    path = table_path(folder, name)
    if path is None:
        raise WarehouseError(f"{folder} holds neither {name}.parquet nor {name}.csv")
    return read_raw(path)


def _with_month(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    days = _as_date(frame[column]).alias("_day")
    return frame.with_columns(days).with_columns(month_of("_day").alias(MONTH)).drop("_day")


def _as_date(values: pl.Series) -> pl.Series:
    """Null where a value is not a date."""
    if values.dtype == pl.String:
        return values.str.strip_chars().str.extract(_DATE).str.to_date("%Y-%m-%d", strict=False)
    return values.cast(pl.Date, strict=False)
