"""BigQuery: raw tables in one dataset, results in another, and candidates joined where the keys lie."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from uuid import uuid4

import grpc
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core import exceptions as api
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from google.cloud.bigquery_storage_v1.types import DataFormat, ReadSession

from matching_platform.ledger.months import first_day, next_month
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.matching.candidates import Pairs, Question
from matching_platform.store.record import Record
from matching_platform.store.versions import Store
from matching_platform.warehouse import candidates
from matching_platform.warehouse.expressions import taken, unknown
from matching_platform.warehouse.folder import months_of, storable
from matching_platform.warehouse.queries import USD_PER_TIB, Budget, Queries, explained
from matching_platform.warehouse.tables import MONTH, PUBLISHED, publishable, raw_name
from matching_platform.warehouse.warehouse import WarehouseError

if TYPE_CHECKING:
    import ibis.expr.types as ir

# Where a test server for the Storage Read API listens, as BIGQUERY_EMULATOR_HOST is for all the rest.
READ_EMULATOR: Final = "BIGQUERY_READ_EMULATOR_HOST"

UPLOAD_RETRIES: Final = 6  # at doubling intervals, a minute in all
_SCRATCH_DAYS: Final = 2
_LOADED: Final = "_PARTITIONTIME"  # the pseudo column of tables that are partitioned by the time of loading
_TYPES: Final = {
    pl.String: "STRING",
    pl.Date: "DATE",
    pl.Decimal: "NUMERIC",
    pl.Int64: "INTEGER",
    pl.Float64: "FLOAT",
    pl.Boolean: "BOOLEAN",
}
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

    Raw tables are partitioned by a date or by the time of their loading: a row belongs to the month of its partition. Rows
    that are still in a streaming buffer are seen once they are in a partition. `store` keeps what each run was billed;
    `query_limit` and `run_budget` are in bytes.
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

    @classmethod
    def of(cls, client: bigquery.Client, store: Store, **terms: Any) -> "BigQueryWarehouse":
        """The warehouse of `client`, its other fields in `terms`."""
        warehouse = cls(client, reader_of(client), store, **terms)
        # Whatever else asks through this client, as Ibis does when it connects, is bound as well.
        client.default_query_job_config = bigquery.QueryJobConfig(
            maximum_bytes_billed=warehouse.query_limit, labels=warehouse.queries.labels
        )
        return warehouse

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
        expression = unknown(matches.of(month), invoices.table)
        return self._frame(expression, f"looking for the invoices of {matches.name} of {month}")["key"]

    def write_months(self, table: str, frames: Mapping[str, pl.DataFrame]) -> None:
        types = {column.name: column.external_dtype for column in TABLES[table].columns}
        target = _Target(f"{self.raw_dataset}.{raw_name(table)}", {**types, MONTH: pl.Date()}, MONTH, ())
        self._make(target)
        for month, frame in frames.items():
            rows = storable(table, frame)
            unfit = [name for name, dtype in rows.schema.items() if dtype != types[name]]
            if unfit:
                raise WarehouseError(
                    f"{raw_name(table)} of {month}, column {unfit[0]}: holds a value that is no {_type(types[unfit[0]])}; "
                    "nothing of this month was written"
                )
            self._replace(target, month, rows.with_columns(pl.lit(first_day(month)).alias(MONTH)))

    def load_folder(self, folder: Path) -> None:
        """Replaces every month found in a folder of the three tables, see `folder.months_of`."""
        for name, months in months_of(folder).items():
            self.write_months(name, months)

    def publish(self, table: str, month: str, frame: pl.DataFrame) -> None:
        published = PUBLISHED[table]
        target = _Target(f"{self.dataset}.{table}", published.columns, published.partitioned_by, published.clustered_by)
        self._make(target)
        self._replace(target, month, publishable(table, frame))

    def candidates(self, question: Question) -> Pairs:
        tables = {name: self._scratch(name, table) for name, table in candidates.tables(question).items()}
        sql = _sql(candidates.pairs(**tables))
        return candidates.collected(self.queries.batches(sql, "joining candidates"), question)

    def raw_types(self, table: str) -> dict[str, str]:
        """BigQuery's type of each column of a raw table; WarehouseError where it is not there, or not by month or day."""
        name = self._raw(table).name
        with explained(f"looking at {name}"):
            return {column.name: column.field_type for column in self.client.get_table(name).schema}

    def try_reading(self) -> None:
        """WarehouseError where the Storage Read API would not give what a query found."""
        name = f"{self.raw_dataset}.{raw_name('transfers')}"
        table = f"projects/{self.client.project}/datasets/{self.raw_dataset}/tables/{raw_name('transfers')}"
        with explained(f"reading {name} by the Storage Read API"):
            self.reader.create_read_session(
                parent=f"projects/{self.client.project}",
                read_session=ReadSession(table=table, data_format=DataFormat.ARROW),
                max_stream_count=1,
            )

    def try_writing(self) -> None:
        """WarehouseError where a table of results could not be made, written and dropped."""
        target = _Target(f"{self.dataset}.doctor_{uuid4().hex}", {"made_on": pl.Date()}, "made_on", ())
        self._make(target)
        try:
            self._replace(target, "2024-01", pl.DataFrame({"made_on": [date(2024, 1, 1)]}))
        finally:
            with explained(f"dropping {target.name}"):
                self.client.delete_table(target.name, not_found_ok=True)

    def _raw(self, table: str) -> "_Raw":
        name = f"{self.raw_dataset}.{raw_name(table)}"
        with explained(f"looking at {name}"):
            held = self.client.get_table(name)
            partitioning = held.time_partitioning
            if partitioning is None or partitioning.type_ not in ("MONTH", "DAY"):
                column = TABLES[table].partitioned_by
                raise WarehouseError(f"{name} is not partitioned by month or day; partition it by month of {column}")
            return _Raw(name, _expression(held), partitioning.field or _LOADED)

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
            FROM `{self.client.project}.{self.raw_dataset}.INFORMATION_SCHEMA.PARTITIONS`
            WHERE table_name IN ({listed}) AND partition_id NOT IN ('__NULL__', '__UNPARTITIONED__')
            GROUP BY table_name, month"""

    def _make(self, target: "_Target") -> None:
        """Makes the table where there is none; an older one gets the columns that it lacks."""
        wanted = bigquery.Table(f"{self.client.project}.{target.name}", target.schema)
        wanted.time_partitioning = bigquery.TimePartitioning("MONTH", target.partitioned_by)
        if target.clustered_by:
            wanted.clustering_fields = list(target.clustered_by)
        with explained(f"making {target.name}"):
            found = self.client.create_table(wanted, exists_ok=True)
            held = {column.name for column in found.schema}
            if new := [column for column in target.schema if column.name not in held]:
                found.schema = [*found.schema, *new]
                self.client.update_table(found, ["schema"])

    def _replace(self, target: "_Target", month: str, rows: pl.DataFrame) -> None:
        """Replaces a partition by one load job, which takes effect as a whole or not at all."""
        what = f"writing {target.name} of {month}"
        if rows.is_empty():
            date = target.partitioned_by
            first, beyond = first_day(month), first_day(next_month(month))
            self.queries.run(f"DELETE FROM `{target.name}` WHERE {date} >= '{first}' AND {date} < '{beyond}'", what)
            return
        config = bigquery.LoadJobConfig(
            schema=target.schema,
            write_disposition="WRITE_TRUNCATE",
            create_disposition="CREATE_NEVER",
        )
        with _parquet(rows.to_arrow()) as file:
            self._load(file, f"{target.name}${month.replace('-', '')}", config, what)

    def _load(self, file: BinaryIO, name: str, config: bigquery.LoadJobConfig, what: str) -> None:
        config.source_format = "PARQUET"
        lists = bigquery.ParquetOptions()
        lists.enable_list_inference = True
        config.parquet_options = lists
        config.labels = self.queries.labels
        with explained(what):
            job = self.client.load_table_from_file(
                file, name, rewind=True, num_retries=UPLOAD_RETRIES, job_config=config
            )
            job.result()

    def _scratch(self, name: str, rows: pa.Table) -> "ir.Table":
        """A table of the scratch dataset with these rows, named by what they are: the same rows are loaded once a day."""
        dataset = f"{self.dataset}_scratch"
        day = datetime.now(UTC).strftime("%Y%m%d")
        with _parquet(rows) as file:
            full = f"{dataset}.{name}_{day}_{hashlib.sha256(file.read()).hexdigest()[:16]}"
            with explained(f"making {full}"):
                try:
                    return _expression(self.client.get_table(full))
                except api.NotFound:
                    self._make_scratch(dataset)
                    config = bigquery.LoadJobConfig(write_disposition="WRITE_TRUNCATE")
                    self._load(file, full, config, f"loading {full}")
                return _expression(self.client.get_table(full))

    def _make_scratch(self, name: str) -> None:
        dataset = bigquery.Dataset(f"{self.client.project}.{name}")
        dataset.default_table_expiration_ms = _SCRATCH_DAYS * 24 * 3600 * 1000
        dataset.location = self.client.location
        self.client.create_dataset(dataset, exists_ok=True)


@dataclass(frozen=True)
class _Raw:
    """A raw table and the column by which it is partitioned."""

    name: str
    table: "ir.Table"
    partitioned_by: str

    def of(self, month: str) -> "ir.Table":
        column = self._column
        return self.table.filter(
            column >= self._moment(first_day(month)), column < self._moment(first_day(next_month(month)))
        )

    def before(self, month: str) -> "ir.Table":
        return self.table.filter(self._column < self._moment(first_day(month)))

    @property
    def _column(self) -> "ir.Column":
        return self.table[self.partitioned_by]

    def _moment(self, day: date) -> "ir.Scalar":
        import ibis

        midnight = datetime.combine(day, time(), UTC)
        return ibis.literal(day if self._column.type().is_date() else midnight, self._column.type())


@dataclass(frozen=True)
class _Target:
    """A table to write: its full name, its columns, the date whose month is the partition, and its clustering."""

    name: str
    columns: Mapping[str, pl.DataType]
    partitioned_by: str
    clustered_by: tuple[str, ...]

    @property
    def schema(self) -> list[bigquery.SchemaField]:
        return [
            bigquery.SchemaField(name, _type(dtype), mode="REPEATED" if isinstance(dtype, pl.List) else "NULLABLE")
            for name, dtype in self.columns.items()
        ]


def reader_of(client: bigquery.Client) -> BigQueryReadClient:
    """The client of the Storage Read API beside `client`, with the credentials of the environment."""
    host = os.environ.get(READ_EMULATOR)
    if host:
        channel = grpc.insecure_channel(host)
        return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
    return BigQueryReadClient(client_options={"quota_project_id": client.project})


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


def _type(dtype: pl.DataType) -> str:
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    return next(name for kind, name in _TYPES.items() if isinstance(inner, kind) or inner == kind)


@contextmanager
def _parquet(rows: pa.Table) -> Iterator[BinaryIO]:
    """The rows as a Parquet file at its beginning."""
    with tempfile.TemporaryFile() as file:
        pq.write_table(rows, file, compression="zstd")
        file.seek(0)
        yield file
