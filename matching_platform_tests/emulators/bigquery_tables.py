"""Datasets and tables of the BigQuery test server: resources as the REST API shows them, rows in DuckDB.

A dataset is a DuckDB schema "project.dataset". TIMESTAMP is a plain DuckDB TIMESTAMP in UTC, since DuckDB's wheel has no
time zones. A table partitioned by ingestion time has the columns _PARTITIONTIME and _PARTITIONDATE, which its schema hides.
"""

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

LOCATION: Final = "US"
HIDDEN_DATASET: Final = "_anonymous_results"

_STATUS: Final = {"notFound": 404, "duplicate": 409, "accessDenied": 403, "conditionNotMet": 412, "notImplemented": 501}
_NAMES: Final = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "DECIMAL": "NUMERIC"}
_PARTITIONS: Final = {"YEAR": "%Y", "MONTH": "%Y%m", "DAY": "%Y%m%d", "HOUR": "%Y%m%d%H"}

Json = dict[str, Any]


class Refusal(Exception):
    """An error in BigQuery's words, with BigQuery's reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message, self.status = reason, message, _STATUS.get(reason, 400)

    def describe(self) -> Json:
        return {"reason": self.reason, "message": self.message, "domain": "global"}


class Reference(NamedTuple):
    """The full name of a table."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}"

    @property
    def duck(self) -> str:
        return f"{quoted(self.project + '.' + self.dataset)}.{quoted(self.table)}"

    def resource(self) -> Json:
        return {"projectId": self.project, "datasetId": self.dataset, "tableId": self.table}

    @classmethod
    def of(cls, resource: Json) -> tuple["Reference", str | None]:
        """The table that a resource names, and the partition that its decorator names."""
        name, _, partition = resource["tableId"].partition("$")
        return cls(resource["projectId"], resource["datasetId"], name), partition or None


@dataclass(frozen=True)
class _Type:
    standard: str
    duck: str
    arrow: pa.DataType
    size: str


_TYPES: Final = {
    "STRING": _Type("STRING", "VARCHAR", pa.string(), "2 + strlen({0})"),
    "BYTES": _Type("BYTES", "BLOB", pa.binary(), "2 + octet_length({0})"),
    "INTEGER": _Type("INT64", "BIGINT", pa.int64(), "8"),
    "FLOAT": _Type("FLOAT64", "DOUBLE", pa.float64(), "8"),
    "BOOLEAN": _Type("BOOL", "BOOLEAN", pa.bool_(), "1"),
    "DATE": _Type("DATE", "DATE", pa.date32(), "8"),
    "TIMESTAMP": _Type("TIMESTAMP", "TIMESTAMP", pa.timestamp("us", tz="UTC"), "8"),
    "NUMERIC": _Type("NUMERIC", "DECIMAL(38, 9)", pa.decimal128(38, 9), "16"),
}
_OF_DUCK: Final = {
    **dict.fromkeys(["BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "UBIGINT", "UHUGEINT"], "INTEGER"),
    **dict.fromkeys(["UINTEGER", "USMALLINT", "UTINYINT", '"NULL"'], "INTEGER"),
    "DOUBLE": "FLOAT",
    "FLOAT": "FLOAT",
    "VARCHAR": "STRING",
    "BLOB": "BYTES",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "DECIMAL": "NUMERIC",
}


@dataclass(frozen=True)
class Column:
    """A column of a table or of a result; `mode` is NULLABLE, REQUIRED or REPEATED."""

    name: str
    type: str
    mode: str = "NULLABLE"

    @property
    def repeated(self) -> bool:
        return self.mode == "REPEATED"

    @property
    def standard(self) -> str:
        name = _TYPES[self.type].standard
        return f"ARRAY<{name}>" if self.repeated else name

    @property
    def duck(self) -> str:
        return _TYPES[self.type].duck + ("[]" if self.repeated else "")

    @property
    def arrow(self) -> pa.Field:
        kind = _TYPES[self.type].arrow
        return pa.field(self.name, pa.list_(kind) if self.repeated else kind, nullable=self.mode != "REQUIRED")

    def resource(self) -> Json:
        return {"name": self.name, "type": self.type, "mode": self.mode}

    def definition(self) -> str:
        return f"{quoted(self.name)} {self.duck}{' NOT NULL' if self.mode == 'REQUIRED' else ''}"

    def bytes(self) -> str:
        """SQL of the bytes that BigQuery counts for one value."""
        name = quoted(self.name)
        size = _TYPES[self.type].size
        if self.repeated:
            return f"coalesce(list_sum(list_transform({name}, lambda v: {size.format('v')})), 0)"
        return f"CASE WHEN {name} IS NULL THEN 0 ELSE {size.format(name)} END"

    def stored(self, value: str) -> str:
        """SQL of `value` as this column stores it: of its type, an array never null."""
        return f"coalesce(CAST({value} AS {self.duck}), [])" if self.repeated else f"CAST({value} AS {self.duck})"

    @classmethod
    def of(cls, resource: Json) -> "Column":
        name = _NAMES.get(resource["type"].upper(), resource["type"].upper())
        if name not in _TYPES:
            raise Refusal("notImplemented", f"This server has no type {name} (field {resource['name']}).")
        return cls(resource["name"], name, resource.get("mode", "NULLABLE").upper())

    @classmethod
    def of_duck(cls, name: str, duck: str) -> "Column":
        element = duck.removesuffix("[]")
        base = _OF_DUCK.get(element.split("(")[0])
        if base is None or element.endswith("]"):
            raise Refusal("notImplemented", f"This server has no result of type {duck} (column {name}).")
        return cls(name, base, "REPEATED" if element != duck else "NULLABLE")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@dataclass
class Table:
    """A table, its columns, and when each of its partitions was changed, in milliseconds."""

    reference: Reference
    resource: Json
    columns: list[Column]
    partitions: dict[str | None, int] = field(default_factory=dict)
    modified: int = 0

    @property
    def partitioning(self) -> Json | None:
        return self.resource.get("timePartitioning")

    @property
    def by_ingestion(self) -> bool:
        return self.partitioning is not None and "field" not in self.partitioning

    @property
    def partition_column(self) -> str | None:
        return self.partitioning.get("field", "_PARTITIONTIME") if self.partitioning else None

    def partition_id(self, alias: str | None = None) -> str:
        """SQL of the partition that a row belongs to."""
        if self.partitioning is None:
            return "CAST(NULL AS VARCHAR)"
        column = (f"{quoted(alias)}." if alias else "") + quoted(self.partition_column or "")
        return f"coalesce(strftime({column}, '{_PARTITIONS[self.partitioning['type']]}'), '__NULL__')"

    def start(self, partition: str) -> datetime:
        assert self.partitioning is not None
        return datetime.strptime(partition, _PARTITIONS[self.partitioning["type"]])

    def bounds(self, partition: str) -> tuple[datetime, datetime]:
        """The least and the greatest value of the partitioning column in a partition."""
        start = self.start(partition)
        if self.by_ingestion:
            return start, start
        assert self.partitioning is not None
        step = {"YEAR": timedelta(366), "MONTH": timedelta(31), "DAY": timedelta(1), "HOUR": timedelta(hours=1)}
        end = self.start((start + step[self.partitioning["type"]]).strftime(_PARTITIONS[self.partitioning["type"]]))
        column = next(c for c in self.columns if c.name == self.partition_column)
        return start, end - (timedelta(1) if column.type == "DATE" else timedelta(microseconds=1))

    def check_decorator(self, partition: str) -> None:
        if self.partitioning is None:
            raise Refusal("invalid", f"Table {self.reference} is not partitioned, so ${partition} names nothing in it")
        try:
            valid = self.start(partition).strftime(_PARTITIONS[self.partitioning["type"]]) == partition
        except ValueError:
            valid = partition == "__NULL__"
        if not valid:
            kind = self.partitioning["type"]
            raise Refusal("invalid", f"Invalid partition decorator ${partition} of {kind} partitioned {self.reference}")

    def create(self) -> str:
        columns = [column.definition() for column in self.columns]
        if self.by_ingestion:
            assert self.partitioning is not None
            columns += [
                f"\"_PARTITIONTIME\" TIMESTAMP DEFAULT date_trunc('{self.partitioning['type']}', {NOW})",
                '"_PARTITIONDATE" DATE GENERATED ALWAYS AS (CAST("_PARTITIONTIME" AS DATE))',
            ]
        return f"CREATE TABLE {self.reference.duck} ({', '.join(columns)})"


NOW: Final = "CAST(get_current_timestamp() AS TIMESTAMP)"


class Figures(NamedTuple):
    """What a partition holds."""

    rows: int
    bytes: dict[str, int]


class Catalog:
    """All datasets and tables. Every use of `connection` holds `lock`."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.lock = threading.RLock()
        self.datasets: dict[tuple[str, str], Json] = {}
        self.tables: dict[Reference, Table] = {}
        self._last = 0

    def now(self) -> int:
        """Milliseconds since 1970, later at every call: no two changes share a moment."""
        self._last = max(time.time_ns() // 1_000_000, self._last + 1)
        return self._last

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self.lock:
            self.connection.begin()
            try:
                yield self.connection
            except BaseException:
                self.connection.rollback()
                raise
            self.connection.commit()

    # Datasets

    def dataset(self, project: str, dataset: str) -> Json:
        found = self.datasets.get((project, dataset))
        if found is None:
            raise Refusal("notFound", f"Not found: Dataset {project}:{dataset} was not found in location {LOCATION}")
        return found

    def create_dataset(self, project: str, resource: Json) -> Json:
        dataset = resource["datasetReference"]["datasetId"]
        if (project, dataset) in self.datasets:
            raise Refusal("duplicate", f"Already Exists: Dataset {project}:{dataset}")
        stamp = str(self.now())
        with self.transaction() as connection:
            connection.execute(f"CREATE SCHEMA {quoted(project + '.' + dataset)}")
        self.datasets[project, dataset] = {
            "kind": "bigquery#dataset",
            "location": LOCATION,
            "creationTime": stamp,
            "lastModifiedTime": stamp,
            **resource,
            "id": f"{project}:{dataset}",
            "etag": stamp,
            "datasetReference": {"projectId": project, "datasetId": dataset},
        }
        return self.datasets[project, dataset]

    def drop_dataset(self, project: str, dataset: str, contents: bool) -> None:
        self.dataset(project, dataset)
        inside = [reference for reference in self.tables if reference[:2] == (project, dataset)]
        if inside and not contents:
            raise Refusal("invalid", f"Dataset {project}:{dataset} is still in use")
        with self.transaction() as connection:
            connection.execute(f"DROP SCHEMA {quoted(project + '.' + dataset)} CASCADE")
        for reference in inside:
            del self.tables[reference]
        del self.datasets[project, dataset]

    def anonymous(self, project: str) -> Reference:
        """A name for a result that has no destination, in a dataset that no list shows."""
        if (project, HIDDEN_DATASET) not in self.datasets:
            self.create_dataset(project, {"datasetReference": {"datasetId": HIDDEN_DATASET}})
        return Reference(project, HIDDEN_DATASET, f"anon{uuid.uuid4().hex}")

    # Tables

    def find(self, reference: Reference) -> Table | None:
        table = self.tables.get(reference)
        if table is not None and int(table.resource.get("expirationTime") or 2**62) <= time.time() * 1000:
            self.drop_table(reference)
            return None
        return table

    def table(self, reference: Reference) -> Table:
        self.dataset(reference.project, reference.dataset)
        found = self.find(reference)
        if found is None:
            raise Refusal("notFound", f"Not found: Table {reference} was not found in location {LOCATION}")
        return found

    def new_table(self, reference: Reference, resource: Json, columns: list[Column]) -> Table:
        """A table that is not in the catalog yet, checked."""
        self.dataset(reference.project, reference.dataset)
        kept = {k: v for k, v in resource.items() if v is not None and k not in ("schema", "tableReference")}
        table = Table(reference, {**kept, "creationTime": str(self.now())}, columns, modified=self.now())
        if table.partitioning is not None and not table.by_ingestion:
            named = [c for c in columns if c.name == table.partition_column]
            if not named or named[0].type not in ("DATE", "TIMESTAMP"):
                message = (
                    f"The field specified for partitioning cannot be found in the schema: {table.partition_column}"
                )
                raise Refusal("invalid", message)
        unknown = set(resource.get("clustering", {}).get("fields", [])) - {c.name for c in columns}
        if unknown:
            raise Refusal(
                "invalid", f"The field specified for clustering cannot be found in the schema: {min(unknown)}"
            )
        return table

    def create_table(self, resource: Json) -> Table:
        reference, _ = Reference.of(resource["tableReference"])
        if resource.get("view") or resource.get("externalDataConfiguration"):
            raise Refusal("notImplemented", f"This server keeps neither views nor external tables ({reference}).")
        columns = [Column.of(field) for field in resource.get("schema", {}).get("fields", [])]
        table = self.new_table(reference, resource, columns)
        if self.find(reference) is not None:
            raise Refusal("duplicate", f"Already Exists: Table {reference}")
        with self.transaction() as connection:
            connection.execute(table.create())
        self.tables[reference] = table
        return table

    def patch_table(self, reference: Reference, changes: Json) -> Table:
        """Changes the resource, and the schema by new columns and relaxed modes."""
        table = self.table(reference)
        wanted = [Column.of(f) for f in changes.get("schema", {}).get("fields", [])] or table.columns
        old = {column.name: column for column in table.columns}
        dropped = set(old) - {column.name for column in wanted}
        if dropped:
            raise Refusal(
                "invalid", f"Provided Schema does not match Table {reference}. Field {min(dropped)} is missing"
            )
        with self.transaction() as connection:
            for column in wanted:
                self._alter(connection, table, old.get(column.name), column)
        table.columns = wanted
        table.resource.update({k: v for k, v in changes.items() if k not in ("schema", "tableReference", "etag")})
        table.resource = {k: v for k, v in table.resource.items() if v is not None}
        table.modified = self.now()
        return table

    def _alter(self, connection: duckdb.DuckDBPyConnection, table: Table, old: Column | None, column: Column) -> None:
        if old is None:
            if column.mode == "REQUIRED":
                message = f"Provided Schema does not match Table {table.reference}. Cannot add required fields"
                raise Refusal("invalid", f"{message} to an existing schema. (field: {column.name})")
            default = " DEFAULT []" if column.repeated else ""
            connection.execute(f"ALTER TABLE {table.reference.duck} ADD COLUMN {column.definition()}{default}")
        elif (old.mode, column.mode) == ("REQUIRED", "NULLABLE") and old.type == column.type:
            connection.execute(f"ALTER TABLE {table.reference.duck} ALTER {quoted(column.name)} DROP NOT NULL")
        elif (old.type, old.mode) != (column.type, column.mode):
            raise _mismatch(table.reference, old, column)

    def drop_table(self, reference: Reference) -> None:
        with self.transaction() as connection:
            connection.execute(f"DROP TABLE {reference.duck}")
        del self.tables[reference]

    def drop_partition(self, reference: Reference, partition: str) -> None:
        table = self.table(reference)
        table.check_decorator(partition)
        if partition not in table.partitions:
            raise Refusal("notFound", f"Not found: Partition {reference}${partition}")
        with self.transaction() as connection:
            connection.execute(f"DELETE FROM {reference.duck} WHERE {table.partition_id()} = {text(partition)}")
        del table.partitions[partition]
        table.modified = self.now()

    def figures(self, table: Table) -> dict[str | None, Figures]:
        """Rows and bytes of each partition that was ever written; a table without partitions has one, None."""
        sums = [f"coalesce(sum({column.bytes()}), 0)" for column in table.columns]
        query = (
            f"SELECT {table.partition_id()}, {', '.join(['count(*)', *sums])} FROM {table.reference.duck} GROUP BY 1"
        )
        with self.lock:
            rows = self.connection.execute(query).fetchall()
        names = [column.name for column in table.columns]
        found = {row[0]: Figures(row[1], dict(zip(names, map(int, row[2:]), strict=True))) for row in rows}
        empty = Figures(0, dict.fromkeys(names, 0))
        known = list(table.partitions) if table.partitioning else [None]
        return {partition: found.get(partition, empty) for partition in known}

    def touch(self, table: Table, partitions: Sequence[str | None], *, prune: bool = False) -> None:
        """Notes that a job changed `partitions`; with `prune`, those that it emptied are gone."""
        if not partitions:
            return
        table.modified = self.now()
        table.partitions.update(dict.fromkeys(partitions, table.modified))
        if prune and table.partitioning:
            figures = self.figures(table)
            for partition in partitions:
                if not figures[partition].rows:
                    del table.partitions[partition]

    # Writing

    def write(self, configuration: Json, columns: list[Column], rows: str) -> tuple[Table, int]:
        """Writes the rows of a DuckDB query as a load or query job's configuration asks; all of it or nothing.

        Returns the table and the number of rows written.
        """
        reference, partition = Reference.of(configuration["destinationTable"])
        disposition = configuration.get("writeDisposition", "WRITE_APPEND")
        if disposition not in ("WRITE_APPEND", "WRITE_TRUNCATE", "WRITE_EMPTY"):
            raise Refusal("notImplemented", f"This server has no writeDisposition {disposition}.")
        table = self.find(reference)
        if table is None:
            return self._write_new(configuration, reference, partition, columns, rows)
        for name in ("timePartitioning", "clustering"):
            _check_specification(table, name, configuration.get(name))
        if partition:
            table.check_decorator(partition)
        if disposition == "WRITE_TRUNCATE" and partition is None:
            fresh = self.new_table(reference, table.resource, columns)
            return fresh, self._store(
                fresh, None, rows, columns, before=[f"DROP TABLE {reference.duck}", fresh.create()]
            )
        before = []
        where = f"WHERE {table.partition_id()} = {text(partition)}" if partition else ""
        if disposition == "WRITE_TRUNCATE":
            before = [f"DELETE FROM {reference.duck} {where}"]
        elif disposition == "WRITE_EMPTY" and self._any(f"FROM {reference.duck} {where}"):
            raise Refusal("duplicate", f"Already Exists: Table {reference}{'$' + partition if partition else ''}")
        merged = _merged(table, columns, configuration.get("schemaUpdateOptions", []))
        written = self._store(table, partition, rows, columns, before=before, merged=merged)
        if disposition == "WRITE_TRUNCATE":
            self.touch(table, [partition])
        return table, written

    def _write_new(
        self, configuration: Json, reference: Reference, partition: str | None, columns: list[Column], rows: str
    ) -> tuple[Table, int]:
        if configuration.get("createDisposition") == "CREATE_NEVER":
            raise Refusal("notFound", f"Not found: Table {reference} was not found in location {LOCATION}")
        properties = {k: v for k, v in configuration.items() if k in ("timePartitioning", "clustering")}
        table = self.new_table(reference, properties, columns)
        if partition:
            table.check_decorator(partition)
        return table, self._store(table, partition, rows, columns, before=[table.create()])

    def replace(self, table: Table, columns: list[Column], rows: str) -> int:
        """Puts `table` with the rows of a query in the place of the one that may have been there."""
        before = [f"DROP TABLE IF EXISTS {table.reference.duck}", table.create()]
        return self._store(table, None, rows, columns, before=before)

    def _any(self, rows: str) -> bool:
        with self.lock:
            return bool(self.connection.execute(f"SELECT 1 {rows} LIMIT 1").fetchall())

    def _store(
        self,
        table: Table,
        partition: str | None,
        rows: str,
        given: list[Column],
        *,
        before: list[str],
        merged: list[Column] | None = None,
    ) -> int:
        columns = merged or table.columns
        old = {column.name: column for column in table.columns}
        names = {column.name for column in given}
        values = [f"{c.stored(quoted(c.name) if c.name in names else 'NULL')} AS {quoted(c.name)}" for c in columns]
        if table.by_ingestion:
            assert table.partitioning is not None
            moment = f"TIMESTAMP '{table.start(partition)}'" if partition else NOW
            values.append(f"date_trunc('{table.partitioning['type']}', {moment}) AS \"_PARTITIONTIME\"")
        stage = f"stage_{uuid.uuid4().hex}"
        with self.transaction() as connection:
            connection.execute(f"CREATE TEMP TABLE {stage} AS SELECT {', '.join(values)} FROM ({rows})")
            for column in columns:
                if column.mode == "REQUIRED" and self._any(f"FROM {stage} WHERE {quoted(column.name)} IS NULL"):
                    raise Refusal("invalid", f"Required field {column.name} cannot be null")
                if column.repeated and self._any(f"FROM {stage} WHERE list_contains({quoted(column.name)}, NULL)"):
                    raise Refusal("invalid", f"Array cannot have a null element; error in writing field {column.name}")
            if partition and self._any(f"FROM {stage} WHERE {table.partition_id()} <> {text(partition)}"):
                message = "Some rows belong to different partitions rather than destination partition"
                raise Refusal("invalid", f"{message} {table.reference}${partition}")
            for statement in before:
                connection.execute(statement)
            for column in columns if merged else []:
                self._alter(connection, table, old.get(column.name), column)
            listed = [quoted(c.name) for c in columns] + ['"_PARTITIONTIME"'] * table.by_ingestion
            names_ = ", ".join(listed)
            connection.execute(f"INSERT INTO {table.reference.duck} ({names_}) SELECT {names_} FROM {stage}")
            query = f"SELECT {table.partition_id()}, count(*) FROM {stage} GROUP BY 1"
            touched = dict(connection.execute(query).fetchall())
            connection.execute(f"DROP TABLE {stage}")
        table.columns = columns
        self.tables[table.reference] = table
        self.touch(table, list(touched))
        return sum(touched.values())

    def fetch(self, columns: list[Column], query: str) -> pa.Table:
        """The rows of a DuckDB query as Arrow, exactly of these columns' types."""
        values = ", ".join(f"CAST({quoted(c.name)} AS {c.duck}) AS {quoted(c.name)}" for c in columns)
        with self.lock:
            found = self.connection.sql(f"SELECT {values} FROM ({query})").to_arrow_table()
        return found.cast(pa.schema([column.arrow.with_nullable(True) for column in columns]))


def _mismatch(reference: Reference, old: Column, new: Column) -> Refusal:
    what, was, now = ("type", old.type, new.type) if old.type != new.type else ("mode", old.mode, new.mode)
    message = f"Provided Schema does not match Table {reference}."
    return Refusal("invalid", f"{message} Field {old.name} has changed {what} from {was} to {now}")


def _check_specification(table: Table, name: str, asked: Json | None) -> None:
    has = table.resource.get(name)
    keys = ("type", "field", "fields")
    if asked is not None and {k: asked.get(k) for k in keys} != {k: (has or {}).get(k) for k in keys}:
        kind = {"timePartitioning": "partitioning", "clustering": "clustering"}[name]
        raise Refusal(
            "invalid",
            f"Incompatible table {kind} specification. Expects {kind} specification {has or 'none'}, "
            f"but input {kind} specification is {asked}",
        )


def _merged(table: Table, given: list[Column], options: list[str]) -> list[Column]:
    """The table's columns after a job that writes `given`: refused, or with the additions that the job allows."""
    new = {column.name: column for column in given}
    message = f"Provided Schema does not match Table {table.reference}."
    merged = []
    for column in table.columns:
        other = new.pop(column.name, None)
        if other is None and column.mode == "REQUIRED":
            raise Refusal("invalid", f"{message} Field {column.name} is missing in new schema")
        if other is not None and other.type != column.type:
            raise _mismatch(table.reference, column, other)
        relaxed = other is not None and (column.mode, other.mode) == ("REQUIRED", "NULLABLE")
        if relaxed and "ALLOW_FIELD_RELAXATION" not in options:
            raise _mismatch(table.reference, column, other)
        if other is not None and column.repeated != other.repeated:
            raise _mismatch(table.reference, column, other)
        merged.append(other if relaxed else column)
    if new and "ALLOW_FIELD_ADDITION" not in options:
        raise Refusal("invalid", f"{message} Cannot add fields (field: {next(iter(new))})")
    return merged + list(new.values())
