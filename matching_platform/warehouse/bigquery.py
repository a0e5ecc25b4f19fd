"""BigQuery: raw tables in one dataset, results in another, and candidates joined where the keys lie."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import grpc
import polars as pl
import pyarrow as pa
from google.api_core import exceptions as api
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from google.cloud.bigquery_storage_v1.types import DataFormat, ReadSession

from matching_platform.ledger.months import first_day, next_month
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.matching.candidates import Pairs, Question, find
from matching_platform.store.record import Record
from matching_platform.store.versions import Store
from matching_platform.warehouse import candidates
from matching_platform.warehouse.expressions import growth, taken, unknown, with_keys, within
from matching_platform.warehouse.folder import months_of, storable
from matching_platform.warehouse.loads import Loads, Target
from matching_platform.warehouse.queries import USD_PER_TIB, Budget, Queries, explained
from matching_platform.warehouse.tables import (
    APPENDED,
    MONTH,
    NUMBER,
    PUBLISHED,
    Published,
    grown,
    publishable,
    raw_name,
)
from matching_platform.warehouse.turns import turn
from matching_platform.warehouse.warehouse import HeldError, WarehouseError

if TYPE_CHECKING:
    import ibis.expr.types as ir

# Where a test server for the Storage Read API listens, as BIGQUERY_EMULATOR_HOST is for all the rest.
READ_EMULATOR: Final = "BIGQUERY_READ_EMULATOR_HOST"

SMALL_QUESTION: Final = 5_000  # transfers, for which arrays take some seconds
# Seconds; a table takes 1,500 load jobs a day.
APPEND_PAUSE: Final = 90.0
_BEFORE_ALL: Final = date(1900, 1, 1)
_LOADED: Final = "_PARTITIONTIME"  # the pseudo column of tables that are partitioned by the time of loading
# Ibis's names of the types that raw columns may have.
READABLE: Final = {
    "STRING": "string",
    "DATE": "date",
    "NUMERIC": "decimal(38, 9)",
    "INTEGER": "int64",
    "FLOAT": "float64",
    "BOOLEAN": "boolean",
    "TIMESTAMP": "timestamp('UTC')",
}


@dataclass(frozen=True)
class BigQueryWarehouse:
    """The raw tables in `raw_dataset`, partitioned by month or day, and the platform's own tables in `dataset`.

    Both are called DATASET or PROJECT.DATASET. Raw tables are partitioned by a date or by the time of their loading: a row
    belongs to the month of its partition. Of rows that are still in a streaming buffer `months` tells nothing until they are
    in a partition. `store` keeps what each run was billed; `query_limit` and `run_budget` are in bytes.
    """

    client: bigquery.Client
    reader: BigQueryReadClient
    store: Store
    raw_dataset: str
    dataset: str
    query_limit: int
    run_budget: int
    labels: Mapping[str, str]
    budget: Budget | None = None

    @cached_property
    def queries(self) -> Queries:
        return Queries(self.client, self.reader, self.query_limit, self.labels, self.budget)

    def charged_to(self, run: str, step: str) -> "BigQueryWarehouse":
        budget = Budget(Record(self.store, f"spending/{run}"), self.run_budget)
        return replace(self, labels={**self.labels, "run": run, "step": step}, budget=budget)

    def costs(self) -> dict[str, float]:
        billed = self.queries.billed
        of_run = {"bytes billed in this run": self.budget.spent} if self.budget else {}
        return {"bytes billed": billed, "estimated cost, USD": billed / 2**40 * USD_PER_TIB, **of_run}

    def months(self) -> dict[str, dict[str, str]]:
        names = {raw_name(name): name for name in RAW_TABLES}
        found: dict[str, dict[str, str]] = {name: {} for name in RAW_TABLES}
        for batch in self.queries.batches(self._partitions_sql(list(names)), "looking for new months"):
            for row in batch.to_pylist():
                month = f"{row['month'][:4]}-{row['month'][4:]}"
                found[names[row["table_name"]]][month] = f"{row['total']}-{row['changed']:x}"
        return {name: dict(sorted(months.items())) for name, months in found.items()}

    def read_month(self, table: str, month: str) -> pl.DataFrame:
        """The rows of `month` as they came, in an order of their own; columns that the contract does not know are left."""
        raw = self._raw(table)
        wanted = [column.name for column in TABLES[table].columns if column.name in raw.table.columns]
        return self._frame(raw.of(month).select(wanted), f"reading {raw.name} of {month}").sort(pl.all())

    def taken(self, table: str, month: str) -> pl.Series:
        raw = self._raw(table)
        expression = taken(raw.of(month), raw.before(month), str(TABLES[table].key))
        return self._frame(expression, f"comparing the keys of {raw.name} of {month} with earlier ones")["key"]

    def unknown_invoices(self, month: str) -> pl.Series:
        matches, invoices = self._raw("matches"), self._raw("invoices")
        expression = unknown(matches.of(month), invoices.every())
        return self._frame(expression, f"looking for the invoices of {matches.name} of {month}")["key"]

    def write_months(self, table: str, frames: Mapping[str, pl.DataFrame]) -> None:
        """Replaces months of a raw table that this method has made, partitioned by MONTH; never of a company's own."""
        types = {column.name: column.external_dtype for column in TABLES[table].columns}
        target = Target(f"{self._raw_dataset}.{raw_name(table)}", {**types, MONTH: pl.Date()}, MONTH, ())
        if self.loads.make(target).time_partitioning.field != MONTH:
            raise WarehouseError(
                f"{target.name} was made by somebody else, and is not overwritten; name another dataset"
            )
        for month, frame in frames.items():
            rows = storable(table, frame)
            unfit = [name for name, dtype in rows.schema.items() if dtype != types[name]]
            if unfit:
                raise WarehouseError(
                    f"{raw_name(table)} of {month}, column {unfit[0]}: holds a value that does not fit its type; nothing of "
                    "this month was written"
                )
            self.loads.replace(target, month, rows.with_columns(pl.lit(first_day(month)).alias(MONTH)))

    def load_folder(self, folder: Path) -> None:
        """Replaces every month found in a folder of the three tables, see `folder.months_of`."""
        for name, months in months_of(folder).items():
            self.write_months(name, months)

    def rows_with(self, table: str, keys: pl.Series) -> pl.DataFrame:
        """The rows in the columns of the contract that the table has."""
        raw = self._raw_if_made(table)
        if raw is None:
            return TABLES[table].schema.to_frame()
        wanted = self.loads.scratch(self._scratch, f"{raw_name(table)}_keys", pa.table({"key": keys.unique().sort()}))
        columns = [column.name for column in TABLES[table].columns if column.name in raw.table.columns]
        found = with_keys(raw.every(), _expression(wanted), str(TABLES[table].key)).select(columns)
        return self._frame(found, f"looking for rows of {raw.name} by their keys")

    def add_rows(self, table: str, frame: pl.DataFrame) -> None:
        """One MERGE, which takes effect as a whole; only into tables that this class has made, partitioned by MONTH. Whoever
        adds at the same time, here or elsewhere, waits for the turn."""
        columns, key = list(TABLES[table].schema), str(TABLES[table].key)
        name = self._make_raw(table)
        for other in set(RAW_TABLES) - {table}:
            if self._raw_if_made(other) is None:
                self._make_raw(other)
        rows = frame.select(columns).with_columns(frame[TABLES[table].partitioned_by].dt.month_start().alias(MONTH))
        with turn(Record(self.store, f"turns/{raw_name(table)}"), f"adding to {name}"):
            held = self.rows_with(table, rows[key])
            if not held.is_empty():
                raise HeldError(f"{name} holds {key} '{held[key][0]}' already; nothing was added")
            added = self.loads.scratch(self._scratch, raw_name(table), rows.to_arrow())
            listed = ", ".join((*columns, MONTH))
            given = ", ".join(f"added.{column}" for column in (*columns, MONTH))
            # What runs again after a lost answer finds its keys there.
            self.queries.run(
                f"MERGE INTO `{name}` held USING `{self._scratch}.{added.table_id}` added ON held.{key} = added.{key} "
                f"WHEN NOT MATCHED THEN INSERT ({listed}) VALUES ({given})",
                f"adding rows to {name}",
            )

    def _make_raw(self, table: str) -> str:
        """The name of a raw table, made where there is none; WarehouseError where it is a company's own."""
        types = {column.name: column.external_dtype for column in TABLES[table].columns}
        target = Target(f"{self._raw_dataset}.{raw_name(table)}", {**types, MONTH: pl.Date()}, MONTH, ())
        if self.loads.make(target).time_partitioning.field != MONTH:
            raise WarehouseError(
                f"{target.name} was made by somebody else, and no rows are added to it; bring the rows to where that is "
                "filled from, or name another dataset"
            )
        return target.name

    def _raw_if_made(self, table: str) -> "_Raw | None":
        name = f"{self._raw_dataset}.{raw_name(table)}"
        with explained(f"looking at {name}"):
            try:
                self.client.get_table(name)
            except api.NotFound:
                return None
        return self._raw(table)

    def publish(self, table: str, month: str, frame: pl.DataFrame) -> None:
        target = self._target(PUBLISHED[table])
        self.loads.make(target)
        self.loads.replace(target, month, publishable(table, frame))

    append_pause = APPEND_PAUSE

    def append(self, table: str, frame: pl.DataFrame, after: int) -> None:
        """One load job, named by `after`: whoever else appends after the same number gets that job."""
        self.loads.append(self._target(APPENDED[table]), publishable(table, frame), f"after-{after}")

    def last_appended(self, table: str) -> int:
        held = self._made(table)
        if held is None:
            return 0
        last = self._frame(held.agg(last=held[NUMBER].max()), f"looking for the last row of {table}")["last"][0]
        return int(last or 0)

    def appended(self, table: str) -> dict[str, str]:
        held = self._made(table)
        if held is None:
            return {}
        found = self._frame(growth(held, APPENDED[table].partitioned_by), f"looking for months of {table}")
        return {month: f"{rows}-{last}" for month, rows, last in sorted(found.rows())}

    def read_appended(self, table: str, month: str) -> pl.DataFrame:
        held = self._made(table)
        if held is None:
            return pl.DataFrame(schema=APPENDED[table].columns)
        rows = self._frame(within(held, APPENDED[table].partitioned_by, month), f"reading {table} of {month}")
        return grown(table, rows)

    def _target(self, table: Published) -> Target:
        return Target(f"{self._dataset}.{table.name}", table.columns, table.partitioned_by, table.clustered_by)

    def _made(self, table: str) -> "ir.Table | None":
        """A table of ours, None where there is none yet."""
        name = f"{self._dataset}.{table}"
        with explained(f"looking at {name}"):
            try:
                return _expression(self.client.get_table(name))
            except api.NotFound:
                return None

    def candidates(self, question: Question) -> Pairs:
        """Joined here where that is sooner than a job of BigQuery takes to begin."""
        if len(question.transfers.asked) < SMALL_QUESTION:
            return find(question)
        made = {
            name: self.loads.scratch(self._scratch, name, rows) for name, rows in candidates.tables(question).items()
        }
        sql = _sql(candidates.pairs(**{name: _expression(table) for name, table in made.items()}))
        return candidates.collected(self.queries.batches(sql, "joining candidates"), question)

    def raw_types(self, table: str) -> dict[str, str]:
        """BigQuery's type of each column of a raw table; WarehouseError where its months cannot be read."""
        return self._raw(table).types

    def try_reading(self) -> None:
        """WarehouseError where the Storage Read API would not give what a query found."""
        project, dataset = self._raw_dataset.split(".")
        table = f"projects/{project}/datasets/{dataset}/tables/{raw_name('transfers')}"
        with explained(f"reading {self._raw_dataset}.{raw_name('transfers')} by the Storage Read API"):
            self.reader.create_read_session(
                parent=f"projects/{self.client.project}",
                read_session=ReadSession(table=table, data_format=DataFormat.ARROW),
                max_stream_count=1,
            )

    def try_writing(self) -> None:
        """WarehouseError where a table of results could not be made, written and dropped."""
        target = Target(f"{self._dataset}.doctor_{uuid4().hex}", {"made_on": pl.Date()}, "made_on", ())
        self.loads.make(target)
        try:
            self.loads.replace(target, "2024-01", pl.DataFrame({"made_on": [date(2024, 1, 1)]}))
        finally:
            self.loads.drop(target.name)

    def try_joining(self) -> None:
        """WarehouseError where keys could not be loaded and joined."""
        rows = pa.table({"made": [uuid4().hex]})
        table = self.loads.scratch(self._scratch, "doctor", rows)
        try:
            for _ in self.queries.batches(_sql(_expression(table)), "reading what was loaded"):
                pass
        finally:
            self.loads.drop(f"{self._scratch}.{table.table_id}")

    @cached_property
    def loads(self) -> Loads:
        return Loads(self.queries)

    @property
    def _raw_dataset(self) -> str:
        return self._full(self.raw_dataset)

    @property
    def _dataset(self) -> str:
        return self._full(self.dataset)

    @property
    def _scratch(self) -> str:
        """The dataset of keys that are joined."""
        return f"{self._dataset}_scratch"

    def _full(self, dataset: str) -> str:
        return dataset if "." in dataset else f"{self.client.project}.{dataset}"

    def _raw(self, table: str) -> "_Raw":
        name = f"{self._raw_dataset}.{raw_name(table)}"
        with explained(f"looking at {name}"):
            held = self.client.get_table(name)
        types, by = {field.name: field.field_type for field in held.schema}, held.time_partitioning
        if (
            by is None
            or by.type_ not in ("MONTH", "DAY")
            or types.get(by.field, "TIMESTAMP") not in ("DATE", "TIMESTAMP")
        ):
            column = TABLES[table].partitioned_by
            raise WarehouseError(
                f"{name} is not partitioned by month or day; partition it by month of {column}, a date"
            )
        return _Raw(name, _expression(held), by.field or _LOADED, types)

    def _frame(self, expression: "ir.Table", what: str) -> pl.DataFrame:
        schema = expression.schema().to_polars()
        batches = self.queries.batches(_sql(expression), what)
        parts = [pl.DataFrame(batch).cast(dict(schema)) for batch in batches]
        return pl.concat([pl.DataFrame(schema=schema), *parts])

    def _partitions_sql(self, names: list[str]) -> str:
        listed = ", ".join(f"'{name}'" for name in names)
        return f"""
            SELECT table_name, SUBSTR(partition_id, 1, 6) AS month, SUM(total_rows) AS total,
                   UNIX_MILLIS(MAX(last_modified_time)) AS changed
            FROM `{self._raw_dataset}.INFORMATION_SCHEMA.PARTITIONS`
            WHERE table_name IN ({listed}) AND partition_id NOT IN ('__NULL__', '__UNPARTITIONED__')
            GROUP BY table_name, month"""


@dataclass(frozen=True)
class _Raw:
    """A raw table and the column by which it is partitioned."""

    name: str
    table: "ir.Table"
    partitioned_by: str
    types: dict[str, str]

    def of(self, month: str) -> "ir.Table":
        column = self._column
        return self.table.filter(
            column >= self._moment(first_day(month)), column < self._moment(first_day(next_month(month)))
        )

    def before(self, month: str) -> "ir.Table":
        return self.table.filter(self._column < self._moment(first_day(month)))

    def every(self) -> "ir.Table":
        """All rows, for tables that ask for a filter of their partitions."""
        return self.table.filter(self._column >= self._moment(_BEFORE_ALL))

    @property
    def _column(self) -> "ir.Column":
        return self.table[self.partitioned_by]

    def _moment(self, day: date) -> "ir.Scalar":
        import ibis

        midnight = datetime.combine(day, time(), UTC)
        return ibis.literal(day if self._column.type().is_date() else midnight, self._column.type())


def reader() -> BigQueryReadClient:
    """A client of the Storage Read API, with the credentials of the environment."""
    host = os.environ.get(READ_EMULATOR)
    if host:
        channel = grpc.insecure_channel(host)
        return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
    return BigQueryReadClient()


def _expression(table: bigquery.Table) -> "ir.Table":
    """A table as Ibis sees it, without asking for a connection: those of its columns that the platform may read."""
    import ibis

    held = {field.name: field.field_type for field in table.schema if field.mode != "REPEATED"}
    if table.time_partitioning and table.time_partitioning.field is None:
        held[_LOADED] = "TIMESTAMP"
    schema = {name: READABLE[kind] for name, kind in held.items() if kind in READABLE}
    return ibis.table(schema, name=table.table_id, catalog=table.project, database=table.dataset_id)


def _sql(expression: "ir.Table") -> str:
    import ibis

    return str(ibis.to_sql(expression, dialect="bigquery"))
