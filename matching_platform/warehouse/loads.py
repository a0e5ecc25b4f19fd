"""What BigQuery is given: partitions that are replaced as a whole, and keys that lie there for a day or two."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import BinaryIO, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core import exceptions as api
from google.cloud import bigquery

from matching_platform.ledger.months import first_day, next_month
from matching_platform.warehouse.queries import Queries, explained, insistent

UPLOAD_RETRIES: Final = 6  # at doubling intervals, a minute in all
_SCRATCH_DAYS: Final = 2
_TYPES: Final = {
    pl.String: "STRING",
    pl.Date: "DATE",
    pl.Datetime: "TIMESTAMP",
    pl.Decimal: "NUMERIC",
    pl.Int64: "INTEGER",
    pl.Float64: "FLOAT",
    pl.Boolean: "BOOLEAN",
}


@dataclass(frozen=True)
class Target:
    """A table to write: PROJECT.DATASET.TABLE, its columns, the date whose month is the partition, and its clustering."""

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


@dataclass(frozen=True)
class Loads:
    """Load jobs, each with the labels of the step's `queries`."""

    queries: Queries

    def make(self, target: Target) -> bigquery.Table:
        """Makes the table where there is none; an older one gets the columns that it lacks."""
        wanted = bigquery.Table(target.name, target.schema)
        wanted.time_partitioning = bigquery.TimePartitioning("MONTH", target.partitioned_by)
        if target.clustered_by:
            wanted.clustering_fields = list(target.clustered_by)
        with explained(f"making {target.name}"):
            found = self.queries.client.create_table(wanted, exists_ok=True)
            held = {column.name for column in found.schema}
            new = [column for column in target.schema if column.name not in held]
            if not new or target.partitioned_by not in held:
                return found
            found.schema = [*found.schema, *new]
            return self.queries.client.update_table(found, ["schema"])

    def replace(self, target: Target, month: str, rows: pl.DataFrame) -> None:
        """Replaces a partition by one load job, which takes effect as a whole or not at all."""
        what = f"writing {target.name} of {month}"
        if rows.is_empty():
            column, first, beyond = target.partitioned_by, first_day(month), first_day(next_month(month))
            self.queries.run(f"DELETE FROM `{target.name}` WHERE {column} >= '{first}' AND {column} < '{beyond}'", what)
            return
        # The table's own partitions and clustering hold; a job that names them must name all of them.
        config = bigquery.LoadJobConfig(
            schema=target.schema, write_disposition="WRITE_TRUNCATE", create_disposition="CREATE_NEVER"
        )
        with _parquet(rows.to_arrow()) as file:
            self._load(file, f"{target.name}${month.replace('-', '')}", config, what)

    def append(self, target: Target, rows: pl.DataFrame, name: str) -> None:
        """Adds rows by one load job, at most once for a table and a `name`: who says the same again gets the same job.

        `name` is of letters, digits, '_' and '-'.
        """
        table = self.make(target)
        # The job of a table that was dropped is not that of the one made in its place.
        job = f"{table.dataset_id}-{table.table_id}-{table.created:%Y%m%d%H%M%S%f}-{name}"
        config = bigquery.LoadJobConfig(
            schema=target.schema, write_disposition="WRITE_APPEND", create_disposition="CREATE_NEVER"
        )
        with _parquet(rows.to_arrow()) as file, explained(f"adding to {target.name}"):
            for attempt in insistent():
                with attempt:
                    self._started(file, target.name, config, job, table.location).result()

    def _started(
        self, file: BinaryIO, name: str, config: bigquery.LoadJobConfig, job: str, location: str
    ) -> bigquery.LoadJob:
        """The load job of this name, whoever started it. One that failed stays so; the next bears the next number."""
        client, numbers = self.queries.client, count()
        while True:
            named = f"{job}-{next(numbers)}"
            try:
                return client.load_table_from_file(
                    file,
                    name,
                    rewind=True,
                    num_retries=UPLOAD_RETRIES,
                    job_id=named,
                    location=location,
                    job_config=self._told(config),
                )
            except api.Conflict:
                found = client.get_job(named, location=location)
            if isinstance(found, bigquery.LoadJob) and not found.error_result:
                return found

    def scratch(self, dataset: str, name: str, rows: pa.Table) -> bigquery.Table:
        """A table with these rows in `dataset`, named by what they are: the same rows are loaded once a day."""
        day = datetime.now(UTC).strftime("%Y%m%d")
        with _parquet(rows) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type] # a file, whatever it says
            full = f"{dataset}.{name}_{day}_{digest[:16]}"
            with explained(f"making {full}"):
                try:
                    return self.queries.client.get_table(full)
                except api.NotFound:
                    self._make_scratch(dataset)
                    config = bigquery.LoadJobConfig(write_disposition="WRITE_TRUNCATE")
                    self._load(file, full, config, f"loading {full}")
                return self.queries.client.get_table(full)

    def drop(self, name: str) -> None:
        with explained(f"dropping {name}"):
            self.queries.client.delete_table(name, not_found_ok=True)

    def _make_scratch(self, name: str) -> None:
        """Makes the dataset beside that of the results, in the same location."""
        dataset = bigquery.Dataset(name)
        dataset.default_table_expiration_ms = _SCRATCH_DAYS * 24 * 3600 * 1000
        dataset.location = self.queries.client.get_dataset(name.removesuffix("_scratch")).location
        self.queries.client.create_dataset(dataset, exists_ok=True)

    def _load(self, file: BinaryIO, name: str, config: bigquery.LoadJobConfig, what: str) -> None:
        self._told(config)
        with explained(what):
            for attempt in insistent():
                with attempt:
                    self.queries.client.load_table_from_file(
                        file, name, rewind=True, num_retries=UPLOAD_RETRIES, job_config=config
                    ).result()

    def _told(self, config: bigquery.LoadJobConfig) -> bigquery.LoadJobConfig:
        """The same for a file of Parquet, with the labels of the step."""
        config.source_format = "PARQUET"
        lists = bigquery.ParquetOptions()
        lists.enable_list_inference = True
        config.parquet_options = lists
        config.labels = self.queries.labels
        return config


@contextmanager
def _parquet(rows: pa.Table) -> Iterator[BinaryIO]:
    """The rows as a Parquet file at its beginning."""
    with tempfile.TemporaryFile() as file:
        pq.write_table(rows, file, compression="zstd")
        file.seek(0)
        yield file


def _type(dtype: pl.DataType) -> str:
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    return next(name for kind, name in _TYPES.items() if isinstance(inner, kind) or inner == kind)
