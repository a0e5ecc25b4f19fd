"""Datasets and tables of the BigQuery test server: resources as the REST API shows them, rows in DuckDB.

A dataset is a DuckDB schema "project.dataset". TIMESTAMP is a plain DuckDB TIMESTAMP in UTC, since DuckDB's wheel has no
time zones. A table partitioned by ingestion time has the columns _PARTITIONTIME and _PARTITIONDATE, which its schema hides.
"""

import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

LOCATION: Final = "US"
HIDDEN_DATASET: Final = "_anonymous_results"
NOW: Final = "CAST(get_current_timestamp() AS TIMESTAMP)"

_STATUS: Final = {"notFound": 404, "duplicate": 409, "conditionNotMet": 412, "notImplemented": 501}
_LEGACY: Final = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
_PARTITIONS: Final = {
    "YEAR": ("%Y", timedelta(days=366)),
    "MONTH": ("%Y%m", timedelta(days=31)),
    "DAY": ("%Y%m%d", timedelta(days=1)),
    "HOUR": ("%Y%m%d%H", timedelta(hours=1)),
}

Json = dict[str, Any]


class Refusal(Exception):
    """An error in BigQuery's words, with BigQuery's reason and HTTP status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message, self.status = reason, message, _STATUS.get(reason, 400)


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


class _Type(NamedTuple):
    standard: str
    duck: str
    arrow: pa.DataType
    bytes: str


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
_INTEGERS: Final = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    '"NULL"',
)
_OF_DUCK: Final = {
    **{kind.duck.split("(")[0]: name for name, kind in _TYPES.items()},
    **dict.fromkeys(_INTEGERS, "INTEGER"),
    **dict.fromkeys(["TIMESTAMP WITH TIME ZONE"], "TIMESTAMP"),
}


@dataclass(frozen=True)
class Column:
    """A column of a table or of a result; `mode` is NULLABLE, REQUIRED or REPEATED."""

    name: str
    type: str
    mode: str = "NULLABLE"
    description: str | None = field(default=None, compare=False)

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
        return pa.field(self.name, pa.list_(kind) if self.repeated else kind)

    def resource(self) -> Json:
        described = {"description": self.description} if self.description else {}
        return {"name": self.name, "type": self.type, "mode": self.mode} | described

    def definition(self) -> str:
        more = {"REQUIRED": " NOT NULL", "REPEATED": " DEFAULT []"}
        return f"{quoted(self.name)} {self.duck}{more.get(self.mode, '')}"

    def bytes(self) -> str:
        """SQL of the bytes that BigQuery counts for one value."""
        name, size = quoted(self.name), _TYPES[self.type].bytes
        if self.repeated:
            return f"coalesce(list_sum(list_transform({name}, lambda v: {size.format('v')})), 0)"
        return f"CASE WHEN {name} IS NULL THEN 0 ELSE {size.format(name)} END"

    def stored(self, value: str) -> str:
        """SQL of `value` as this column stores it: of its type, an array never null."""
        return f"coalesce(CAST({value} AS {self.duck}), [])" if self.repeated else f"CAST({value} AS {self.duck})"

    @classmethod
    def of(cls, resource: Json) -> "Column":
        name = resource["type"].upper()
        if _LEGACY.get(name, name) not in _TYPES:
            raise Refusal("notImplemented", f"This server has no type {name} (field {resource['name']}).")
        mode = resource.get("mode", "NULLABLE").upper()
        return cls(resource["name"], _LEGACY.get(name, name), mode, resource.get("description"))

    @classmethod
    def of_duck(cls, name: str, duck: str) -> "Column":
        element = duck.removesuffix("[]")
        kind = _OF_DUCK.get(element.split("(")[0])
        if kind is None or element.endswith("]"):
            raise Refusal("notImplemented", f"This server has no result of type {duck} (column {name}).")
        return cls(name, kind, "NULLABLE" if element == duck else "REPEATED")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def listed(columns: Iterable[Column]) -> list[str]:
    return [quoted(column.name) for column in columns]


@dataclass
class Table:
    """A table, its columns, and when each of its partitions was changed, in milliseconds."""

    reference: Reference
    resource: Json
    columns: list[Column]
    partitions: dict[str | None, int] = field(default_factory=dict)
    modified: int = 0
    is_view: bool = False

    @property
    def partitioning(self) -> Json | None:
        return self.resource.get("timePartitioning")

    @property
    def by_ingestion(self) -> bool:
        return self.partition_column == "_PARTITIONTIME"

    @property
    def partition_column(self) -> str | None:
        return self.partitioning.get("field", "_PARTITIONTIME") if self.partitioning else None

    @property
    def _format(self) -> str:
        return _PARTITIONS[(self.partitioning or {})["type"]][0]

    def partition_id(self, alias: str | None = None) -> str:
        """SQL of the partition that a row belongs to; null in a table without partitions."""
        if self.partition_column is None:
            return "CAST(NULL AS VARCHAR)"
        column = ".".join(quoted(name) for name in (alias, self.partition_column) if name)
        return f"coalesce(strftime({column}, '{self._format}'), '__NULL__')"

    def within(self, partition: str | None) -> str:
        """SQL of the condition that a row belongs to the partition, if there is one."""
        return f"{self.partition_id()} = '{partition}'" if partition else "TRUE"

    def check_decorator(self, partition: str | None) -> None:
        if partition is None:
            return
        if self.partitioning is None:
            raise Refusal("invalid", f"Table {self.reference} is not partitioned, so ${partition} names nothing in it")
        try:
            valid = datetime.strptime(partition, self._format).strftime(self._format) == partition
        except ValueError:
            valid = partition == "__NULL__"
        if not valid:
            kind = self.partitioning["type"]
            raise Refusal(
                "invalid", f"Invalid partition decorator ${partition} of {self.reference}, partitioned by {kind}"
            )

    def bounds(self, partition: str | None) -> tuple[datetime, datetime] | None:
        """The least and the greatest value that the partitioning column has in a partition; none where it is null."""
        if partition is None or partition == "__NULL__":
            return None
        start = datetime.strptime(partition, self._format)
        if self.by_ingestion:
            return start, start
        step = _PARTITIONS[(self.partitioning or {})["type"]][1]
        end = datetime.strptime((start + step).strftime(self._format), self._format)
        is_date = any(column.type == "DATE" for column in self.columns if column.name == self.partition_column)
        return start, end - (timedelta(days=1) if is_date else timedelta(microseconds=1))

    def create(self) -> str:
        columns = [column.definition() for column in self.columns]
        if self.by_ingestion:
            columns += [
                f'"_PARTITIONTIME" TIMESTAMP DEFAULT {self.arrival(None)}',
                '"_PARTITIONDATE" DATE GENERATED ALWAYS AS (CAST("_PARTITIONTIME" AS DATE))',
            ]
        return f"CREATE TABLE {self.reference.duck} ({', '.join(columns)})"

    def arrival(self, partition: str | None) -> str:
        """SQL of the _PARTITIONTIME of rows that arrive now, in the named partition if there is one."""
        bounds = self.bounds(partition)
        moment = f"TIMESTAMP '{bounds[0]}'" if bounds else NOW
        return f"date_trunc('{(self.partitioning or {})['type']}', {moment})"

    def selected(self, rows: str, given: Iterable[str] | None = None) -> str:
        """SQL of rows with this table's columns, those not `given` empty."""
        there = {column.name for column in self.columns} if given is None else set(given)
        values = [c.stored(quoted(c.name) if c.name in there else "NULL") for c in self.columns]
        return (
            f"SELECT {', '.join(f'{v} AS {n}' for v, n in zip(values, listed(self.columns), strict=True))} FROM {rows}"
        )


class Figures(NamedTuple):
    """What a partition holds: rows, and bytes by column."""

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

    @contextmanager
    def registered(self, rows: pa.Table) -> Iterator[str]:
        """A name by which SQL can read `rows`."""
        name = f"arrow_{uuid.uuid4().hex}"
        self.connection.register(name, rows)
        try:
            yield name
        finally:
            self.connection.unregister(name)

    def fetch(self, columns: list[Column], query: str) -> pa.Table:
        """The rows of a DuckDB query as Arrow, exactly of these columns' types."""
        values = ", ".join(f"{column.stored(quoted(column.name))} AS {quoted(column.name)}" for column in columns)
        with self.lock:
            found = self.connection.sql(f"SELECT {values} FROM ({query})").to_arrow_table()
        return found.cast(pa.schema([column.arrow for column in columns]))

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

    def drop_dataset(self, project: str, dataset: str, *, contents: bool) -> None:
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
        """A name for a result, in a dataset that no list shows."""
        if (project, HIDDEN_DATASET) not in self.datasets:
            self.create_dataset(project, {"datasetReference": {"datasetId": HIDDEN_DATASET}})
        return Reference(project, HIDDEN_DATASET, f"anon{uuid.uuid4().hex}")

    # Tables

    def find(self, reference: Reference) -> Table | None:
        """The table, if there is one that has not expired."""
        table = self.tables.get(reference)
        if table is not None and float(table.resource.get("expirationTime", "inf")) <= time.time() * 1000:
            self.drop_table(reference)
            return None
        return table

    def table(self, reference: Reference) -> Table:
        self.dataset(reference.project, reference.dataset)
        found = self.find(reference)
        if found is None:
            raise Refusal("notFound", f"Not found: Table {reference} was not found in location {LOCATION}")
        return found

    def new_table(self, reference: Reference, properties: Json, columns: list[Column]) -> Table:
        """A table that is not in the catalog yet, checked."""
        self.dataset(reference.project, reference.dataset)
        kept = {k: v for k, v in properties.items() if v is not None and k not in ("schema", "tableReference")}
        table = Table(reference, {**kept, "creationTime": str(self.now())}, columns, modified=self.now())
        types = {column.name: column.type for column in columns}
        by_column = table.partitioning is not None and not table.by_ingestion
        if by_column and types.get(table.partition_column or "") not in ("DATE", "TIMESTAMP"):
            message = "The field specified for partitioning is no DATE or TIMESTAMP of the schema"
            raise Refusal("invalid", f"{message}: {table.partition_column}")
        for name in kept.get("clustering", {}).get("fields", []):
            if name not in types:
                raise Refusal("invalid", f"The field specified for clustering cannot be found in the schema: {name}")
        return table

    def create_table(self, resource: Json) -> Table:
        reference, _ = Reference.of(resource["tableReference"])
        if resource.get("view") or resource.get("externalDataConfiguration"):
            raise Refusal("notImplemented", f"This server keeps neither views nor external tables ({reference}).")
        columns = [Column.of(item) for item in resource.get("schema", {}).get("fields", [])]
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
        columns = [Column.of(item) for item in changes.get("schema", {}).get("fields", [])] or table.columns
        missing = {column.name for column in table.columns} - {column.name for column in columns}
        if missing:
            raise Refusal(
                "invalid", f"Provided Schema does not match Table {reference}. Field {min(missing)} is missing"
            )
        with self.transaction() as connection:
            self._alter(connection, table, columns)
        table.columns = columns
        kept = table.resource | {k: v for k, v in changes.items() if k not in ("schema", "tableReference", "etag")}
        table.resource = {k: v for k, v in kept.items() if v is not None}
        table.modified = self.now()
        return table

    def _alter(self, connection: duckdb.DuckDBPyConnection, table: Table, columns: list[Column]) -> None:
        """Gives the table these columns, in place of some that they widen."""
        old = {column.name: column for column in table.columns}
        for column in columns:
            was = old.get(column.name, column)
            narrows = (was.mode, column.mode) == ("NULLABLE", "REQUIRED")
            if narrows or (was.type, was.repeated) != (column.type, column.repeated):
                raise _mismatch(table.reference, was, column)
            if column.name not in old:
                if column.mode == "REQUIRED":
                    message = f"Provided Schema does not match Table {table.reference}. Cannot add required fields"
                    raise Refusal("invalid", f"{message} to an existing schema. (field: {column.name})")
                connection.execute(f"ALTER TABLE {table.reference.duck} ADD COLUMN {column.definition()}")
            elif was.mode != column.mode:
                connection.execute(f"ALTER TABLE {table.reference.duck} ALTER {quoted(column.name)} DROP NOT NULL")

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
            connection.execute(f"DELETE FROM {reference.duck} WHERE {table.within(partition)}")
        del table.partitions[partition]
        table.modified = self.now()

    def figures(self, table: Table) -> dict[str | None, Figures]:
        """Rows and bytes of each partition that was written; a table without partitions has one, None."""
        sums = ["count(*)", *(f"coalesce(sum({column.bytes()}), 0)" for column in table.columns)]
        query = f"SELECT {table.partition_id()}, {', '.join(sums)} FROM {table.reference.duck} GROUP BY 1"
        with self.lock:
            rows = self.connection.execute(query).fetchall()
        names = [column.name for column in table.columns]
        found = {row[0]: Figures(row[1], dict(zip(names, map(int, row[2:]), strict=True))) for row in rows}
        empty = Figures(0, dict.fromkeys(names, 0))
        return {
            partition: found.get(partition, empty) for partition in (table.partitions if table.partitioning else [None])
        }

    def touch(self, table: Table, partitions: Iterable[str | None], *, prune: bool = False) -> None:
        """Notes that a job changed `partitions`; with `prune`, those that it emptied are gone."""
        touched = list(partitions)
        if not touched:
            return
        table.modified = self.now()
        table.partitions.update(dict.fromkeys(touched, table.modified))
        figures = self.figures(table) if prune else {}
        for partition in touched:
            if table.partitioning and partition in figures and not figures[partition].rows:
                del table.partitions[partition]

    # Writing

    def write(self, configuration: Json, columns: list[Column], rows: str) -> int:
        """Writes the rows of a DuckDB query as a load or query job's configuration asks; all of them or none.

        Returns their number.
        """
        reference, partition = Reference.of(configuration["destinationTable"])
        disposition = configuration.get("writeDisposition", "WRITE_APPEND")
        if disposition not in ("WRITE_APPEND", "WRITE_TRUNCATE", "WRITE_EMPTY"):
            raise Refusal("notImplemented", f"This server has no writeDisposition {disposition}.")
        table, names = self.find(reference), {column.name for column in columns}
        if table is None:
            if configuration.get("createDisposition") == "CREATE_NEVER":
                raise Refusal("notFound", f"Not found: Table {reference} was not found in location {LOCATION}")
            properties = {key: configuration.get(key) for key in ("timePartitioning", "clustering")}
            table = self.new_table(reference, properties, columns)
            table.check_decorator(partition)
            return self._store(table, partition, columns, rows, names, [table.create()])
        for key in ("timePartitioning", "clustering"):
            _check_specification(table, key, configuration.get(key))
        table.check_decorator(partition)
        if disposition == "WRITE_TRUNCATE" and partition is None:
            return self.replace(self.new_table(reference, table.resource, columns), columns, rows)
        if disposition == "WRITE_EMPTY" and self._any(reference.duck, table.within(partition)):
            raise Refusal("duplicate", f"Already Exists: Table {reference}{'$' + partition if partition else ''}")
        delete = [f"DELETE FROM {reference.duck} WHERE {table.within(partition)}"]
        merged = _merged(table, columns, configuration.get("schemaUpdateOptions", []))
        written = self._store(table, partition, merged, rows, names, delete if disposition == "WRITE_TRUNCATE" else [])
        if disposition == "WRITE_TRUNCATE" and not written:
            self.touch(table, [partition])
        return written

    def replace(self, table: Table, columns: list[Column], rows: str) -> int:
        """Puts `table` with the rows of a query in the place of the one that may have been there."""
        before = [f"DROP TABLE IF EXISTS {table.reference.duck}", table.create()]
        return self._store(table, None, table.columns, rows, {column.name for column in columns}, before)

    def _store(
        self, table: Table, partition: str | None, columns: list[Column], rows: str, given: set[str], before: list[str]
    ) -> int:
        """Runs `before`, then adds the rows to the table, which gets these columns; nothing if a row is refused."""
        staged = Table(table.reference, table.resource, columns)
        stage = f"stage_{uuid.uuid4().hex}"
        names = listed(columns) + ['"_PARTITIONTIME"'] * table.by_ingestion
        select = staged.selected(f"({rows})", given)
        if table.by_ingestion:
            select = f'SELECT *, {table.arrival(partition)} AS "_PARTITIONTIME" FROM ({select})'
        with self.transaction() as connection:
            connection.execute(f"CREATE TEMP TABLE {stage} AS {select}")
            self._check_rows(staged, stage, partition)
            for statement in before:
                connection.execute(statement)
            self._alter(connection, table, columns)
            both = ", ".join(names)
            connection.execute(f"INSERT INTO {table.reference.duck} ({both}) SELECT {both} FROM {stage}")
            counted = connection.execute(f"SELECT {table.partition_id()}, count(*) FROM {stage} GROUP BY 1").fetchall()
            connection.execute(f"DROP TABLE {stage}")
        table.columns = columns
        self.tables[table.reference] = table
        self.touch(table, [partition for partition, _ in counted])
        return sum(count for _, count in counted)

    def _check_rows(self, table: Table, stage: str, partition: str | None) -> None:
        for column in table.columns:
            name = quoted(column.name)
            if column.mode == "REQUIRED" and self._any(stage, f"{name} IS NULL"):
                raise Refusal("invalid", f"Required field {column.name} cannot be null")
            if column.repeated and self._any(stage, f"len({name}) > list_count({name})"):
                raise Refusal("invalid", f"Array cannot have a null element; error in writing field {column.name}")
        if partition and self._any(stage, f"NOT {table.within(partition)}"):
            message = "Some rows belong to different partitions rather than destination partition"
            raise Refusal("invalid", f"{message} {table.reference}${partition}")

    def _any(self, rows: str, condition: str) -> bool:
        return bool(self.connection.execute(f"SELECT 1 FROM {rows} WHERE {condition} LIMIT 1").fetchall())


def _mismatch(reference: Reference, old: Column, new: Column) -> Refusal:
    what, was, now = ("type", old.type, new.type) if old.type != new.type else ("mode", old.mode, new.mode)
    message = f"Provided Schema does not match Table {reference}."
    return Refusal("invalid", f"{message} Field {old.name} has changed {what} from {was} to {now}")


def _check_specification(table: Table, name: str, asked: Json | None) -> None:
    has, keys = table.resource.get(name) or {}, ("type", "field", "fields")
    if asked is not None and {key: asked.get(key) for key in keys} != {key: has.get(key) for key in keys}:
        kind = {"timePartitioning": "partitioning", "clustering": "clustering"}[name]
        message = f"Incompatible table {kind} specification. Expects {kind} specification {has or 'none'}"
        raise Refusal("invalid", f"{message}, but input {kind} specification is {asked}")


def _merged(table: Table, given: list[Column], options: list[str]) -> list[Column]:
    """The table's columns after a job that writes `given`: refused, or with the additions that the job allows."""
    new = {column.name: column for column in given}
    message, merged = f"Provided Schema does not match Table {table.reference}.", []
    for column in table.columns:
        other = new.pop(column.name, None)
        if other is None and column.mode == "REQUIRED":
            raise Refusal("invalid", f"{message} Field {column.name} is missing in new schema")
        relaxes = other is not None and (column.mode, other.mode) == ("REQUIRED", "NULLABLE")
        differs = other is not None and (column.type, column.repeated) != (other.type, other.repeated)
        if other is not None and (differs or (relaxes and "ALLOW_FIELD_RELAXATION" not in options)):
            raise _mismatch(table.reference, column, other)
        merged.append(other if other is not None and relaxes else column)
    if new and "ALLOW_FIELD_ADDITION" not in options:
        raise Refusal("invalid", f"{message} Cannot add fields (field: {min(new)})")
    return merged + list(new.values())
