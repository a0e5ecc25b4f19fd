"""A BigQuery for tests: REST v2 and the Storage Read API on loopback ports, for Google's real clients, over DuckDB.

One statement a job; types STRING, BYTES, INT64, FLOAT64, BOOL, DATE, TIMESTAMP, NUMERIC and arrays of them. What it does
not know it refuses with 501 `notImplemented`, which no client retries.
"""

import base64
import email
import json
import math
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from email.policy import HTTP
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from matching_platform_tests.emulators.bigquery_dialect import prepare
from matching_platform_tests.emulators.bigquery_http import REASONS, Answer, Faults, HttpServer, Request
from matching_platform_tests.emulators.bigquery_read import ReadServer
from matching_platform_tests.emulators.bigquery_sql import Reader, Statement
from matching_platform_tests.emulators.bigquery_tables import (
    HIDDEN_DATASET,
    LOCATION,
    Catalog,
    Column,
    Json,
    Reference,
    Refusal,
    Table,
)

PAGE_ROWS: Final = 500

_PROJECT: Final = r"/bigquery/v2/projects/(?P<project>[^/]+)"
_DATASET: Final = rf"{_PROJECT}/datasets/(?P<dataset>[^/]+)"
_TABLE: Final = rf"{_DATASET}/tables/(?P<table>[^/:]+)"
_ROUTES: Final = [
    ("POST", "/token", "token"),
    ("GET", rf"{_PROJECT}/datasets", "datasets.list"),
    ("POST", rf"{_PROJECT}/datasets", "datasets.insert"),
    ("GET", _DATASET, "datasets.get"),
    ("PATCH|PUT", _DATASET, "datasets.patch"),
    ("DELETE", _DATASET, "datasets.delete"),
    ("GET", rf"{_DATASET}/tables", "tables.list"),
    ("POST", rf"{_DATASET}/tables", "tables.insert"),
    ("GET", _TABLE, "tables.get"),
    ("PATCH|PUT", _TABLE, "tables.patch"),
    ("DELETE", _TABLE, "tables.delete"),
    ("POST", rf"{_TABLE}:testIamPermissions", "tables.testIamPermissions"),
    ("GET", rf"{_TABLE}/data", "tabledata.list"),
    ("POST", rf"{_PROJECT}/jobs", "jobs.insert"),
    ("GET", rf"{_PROJECT}/jobs/(?P<job>[^/]+)", "jobs.get"),
    ("POST", rf"{_PROJECT}/jobs/(?P<job>[^/]+)/cancel", "jobs.cancel"),
    ("POST", rf"{_PROJECT}/queries", "jobs.query"),
    ("GET", rf"{_PROJECT}/queries/(?P<job>[^/]+)", "jobs.getQueryResults"),
    ("POST|PUT", rf"/upload{_PROJECT}/jobs", "upload"),
]
_CALLS: Final = {call for _, _, call in _ROUTES} | {"CreateReadSession", "ReadRows"}
_OF_ARROW: Final = {
    **dict.fromkeys(["string", "large_string", "string_view"], "STRING"),
    **dict.fromkeys(["binary", "large_binary", "binary_view"], "BYTES"),
    **dict.fromkeys(["halffloat", "float", "double"], "FLOAT"),
    "null": "INTEGER",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
}


@dataclass
class _Upload:
    """A session of chunks: the load job that it is for, what has arrived, and the job once it has run."""

    resource: Json
    received: bytearray = field(default_factory=bytearray)
    job: Json | None = None


class BigQueryServer:
    """The running server: where it listens, what it has seen, and what shall go wrong."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        prepare(self.catalog.connection)
        self.jobs: list[Json] = []
        self._results: dict[tuple[str, str], Reference] = {}
        self._uploads: dict[str, _Upload] = {}
        self._denied: set[str] = set()
        self._faults = Faults()
        self._http = HttpServer(_ROUTES, self._answer, self._faults)
        self._read = ReadServer(self.catalog, self._faults)
        self.rest, self.read = self._http.url, self._read.address
        self.token_uri = f"{self.rest}/token"

    def fail(self, call: str, how: int | str, times: int = 1) -> None:
        """Lets the next `times` calls fail: with an HTTP status, by "drop" in the middle of the answer, or "hang".

        A call is a method like jobs.insert, jobs.getQueryResults, tabledata.list, upload, token, CreateReadSession,
        ReadRows. A status is answered instead of doing what was asked; a dropped or hanging call has done it.
        """
        if call not in _CALLS or not (how in REASONS or how in ("drop", "hang")):
            raise ValueError(f"{call} cannot fail with {how}; calls are {sorted(_CALLS)}.")
        self._faults.add(call, how, times)

    def heal(self) -> None:
        """Takes back every failure that is still to come."""
        self._faults.clear()

    def deny(self, *permissions: str) -> None:
        """Leaves these permissions out of every answer of testIamPermissions."""
        self._denied.update(permissions)

    def close(self) -> None:
        self._faults.close()
        self._read.close()
        self._http.close()
        self.catalog.connection.close()

    def _answer(self, request: Request) -> Answer:
        if not request.call:
            raise Refusal("notImplemented", f"This server has no {request.method} here.")
        method = getattr(self, "_" + re.sub(r"\.|(?=[A-Z])", "_", request.call).lower())
        with self.catalog.lock:
            return method(request)

    def _token(self, request: Request) -> Answer:
        return Answer({"access_token": uuid.uuid4().hex, "expires_in": 3600, "token_type": "Bearer"})

    # Datasets

    def _datasets_list(self, request: Request) -> Answer:
        shown = [
            {key: resource[key] for key in ("kind", "id", "datasetReference", "location")}
            for (project, dataset), resource in self.catalog.datasets.items()
            if project == request.path["project"] and (dataset != HIDDEN_DATASET or request.query.get("all") == "true")
        ]
        return Answer({"kind": "bigquery#datasetList", "datasets": shown})

    def _datasets_insert(self, request: Request) -> Answer:
        return Answer(self.catalog.create_dataset(request.path["project"], request.json))

    def _datasets_get(self, request: Request) -> Answer:
        return Answer(self.catalog.dataset(**request.path))

    def _datasets_patch(self, request: Request) -> Answer:
        resource = self.catalog.dataset(**request.path)
        _check_etag(request, resource["etag"])
        resource.update({k: v for k, v in request.json.items() if k not in ("datasetReference", "etag")})
        resource["etag"] = resource["lastModifiedTime"] = str(self.catalog.now())
        return Answer(resource)

    def _datasets_delete(self, request: Request) -> Answer:
        self.catalog.drop_dataset(**request.path, contents=request.query.get("deleteContents") == "true")
        return Answer(status=204)

    # Tables

    def _tables_list(self, request: Request) -> Answer:
        self.catalog.dataset(**request.path)
        inside = [reference for reference in list(self.catalog.tables) if reference[:2] == tuple(request.path.values())]
        tables = [self._table_resource(table) for reference in inside if (table := self.catalog.find(reference))]
        return Answer({"kind": "bigquery#tableList", "tables": tables, "totalItems": len(tables)})

    def _tables_insert(self, request: Request) -> Answer:
        return Answer(self._table_resource(self.catalog.create_table(request.json)))

    def _tables_get(self, request: Request) -> Answer:
        reference, partition = _named(request)
        return Answer(self._table_resource(self.catalog.table(reference), partition))

    def _tables_patch(self, request: Request) -> Answer:
        reference, _ = _named(request)
        _check_etag(request, str(self.catalog.table(reference).modified))
        return Answer(self._table_resource(self.catalog.patch_table(reference, request.json)))

    def _tables_delete(self, request: Request) -> Answer:
        reference, partition = _named(request)
        self.catalog.table(reference)
        if partition:
            self.catalog.drop_partition(reference, partition)
        else:
            self.catalog.drop_table(reference)
        return Answer(status=204)

    def _tables_test_iam_permissions(self, request: Request) -> Answer:
        self.catalog.table(_named(request)[0])
        return Answer({"permissions": [name for name in request.json["permissions"] if name not in self._denied]})

    def _table_resource(self, table: Table, partition: str | None = None) -> Json:
        figures = self.catalog.figures(table)
        shown = [figure for name, figure in figures.items() if partition in (None, name)]
        return {
            "kind": "bigquery#table",
            "type": "TABLE",
            "location": LOCATION,
            **table.resource,
            "id": str(table.reference),
            "etag": str(table.modified),
            "lastModifiedTime": str(table.modified),
            "tableReference": table.reference.resource(),
            "schema": {"fields": [column.resource() for column in table.columns]},
            "numRows": str(sum(figure.rows for figure in shown)),
            "numBytes": str(sum(sum(figure.bytes.values()) for figure in shown)),
        }

    def _tabledata_list(self, request: Request) -> Answer:
        reference, partition = _named(request)
        table = self.catalog.table(reference)
        asked = request.query.get("selectedFields")
        columns = [column for column in table.columns if not asked or column.name in asked.split(",")]
        rows = f"SELECT * FROM {reference.duck} WHERE {table.within(partition)}"
        return Answer({"kind": "bigquery#tableDataList", **self._page(request.query, columns, rows)})

    def _page(self, asked: Json, columns: list[Column], query: str) -> Json:
        """The rows that a request asks for, and a token for those that follow."""
        start = int(asked.get("pageToken") or asked.get("startIndex") or 0)
        limit = min(int(asked.get("maxResults", PAGE_ROWS)), PAGE_ROWS)
        [(total,)] = self.catalog.connection.execute(f"SELECT count(*) FROM ({query})").fetchall()
        page: Json = {"totalRows": str(total)}
        if limit:
            page["rows"] = _rows(self.catalog.fetch(columns, f"{query} LIMIT {limit} OFFSET {start}"))
        if start + limit < total:
            page["pageToken"] = str(start + limit)
        return page

    # Jobs

    def _jobs_insert(self, request: Request) -> Answer:
        return Answer(self._insert_job(request.path["project"], request.json))

    def _jobs_get(self, request: Request) -> Answer:
        return Answer(self._job(request))

    def _jobs_cancel(self, request: Request) -> Answer:
        return Answer({"kind": "bigquery#jobCancelResponse", "job": self._job(request)})

    def _jobs_query(self, request: Request) -> Answer:
        asked = request.json
        if asked.get("queryResultsFormat", "STRUCT_ENCODING") != "STRUCT_ENCODING":
            raise Refusal("notImplemented", "This server answers queries in STRUCT_ENCODING only.")
        outer = ("labels", "dryRun")
        inner = ("query", "defaultDataset", "queryParameters", "parameterMode", "maximumBytesBilled", "useLegacySql")
        configuration: Json = {key: asked[key] for key in outer if key in asked}
        configuration["query"] = {key: asked[key] for key in inner if key in asked}
        job = self._insert_job(request.path["project"], {"configuration": configuration})
        return Answer(self._query_results(job, asked))

    def _jobs_get_query_results(self, request: Request) -> Answer:
        return Answer(self._query_results(self._job(request), request.query))

    def _job(self, request: Request) -> Json:
        for job in self.jobs:
            if _job_key(job) == (request.path["project"], request.path["job"]):
                return job
        raise Refusal("notFound", f"Not found: Job {request.path['project']}:{LOCATION}.{request.path['job']}")

    def _query_results(self, job: Json, asked: Json) -> Json:
        """What jobs.query and jobs.getQueryResults answer for a job."""
        error = job["status"].get("errorResult")
        if error:
            raise Refusal(error["reason"], error["message"])
        statistics = job["statistics"]["query"]
        results: Json = {
            "kind": "bigquery#queryResponse",
            "jobReference": job["jobReference"],
            "jobComplete": True,
            "cacheHit": False,
            "totalBytesProcessed": statistics["totalBytesProcessed"],
            "schema": statistics.get("schema", {"fields": []}),
        }
        if "numDmlAffectedRows" in statistics:
            results["numDmlAffectedRows"] = statistics["numDmlAffectedRows"]
        found = self._results.get(_job_key(job))
        if found:
            results |= self._page(asked, self.catalog.table(found).columns, f"SELECT * FROM {found.duck}")
        return results

    def _insert_job(self, project: str, resource: Json, data: bytes | None = None) -> Json:
        """Runs a job to its end; its errors stand in its status."""
        identifier = resource.get("jobReference", {}).get("jobId") or f"job_{uuid.uuid4().hex}"
        if any(_job_key(job) == (project, identifier) for job in self.jobs):
            raise Refusal("duplicate", f"Already Exists: Job {project}:{LOCATION}.{identifier}")
        now = str(self.catalog.now())
        job: Json = {
            "kind": "bigquery#job",
            "id": f"{project}:{LOCATION}.{identifier}",
            "selfLink": f"{self.rest}/bigquery/v2/projects/{project}/jobs/{identifier}",
            "jobReference": {"projectId": project, "jobId": identifier, "location": LOCATION},
            "configuration": resource["configuration"],
            "statistics": {"creationTime": now, "startTime": now, "endTime": now},
            "status": {"state": "DONE"},
        }
        self.jobs.append(job)
        try:
            self._run(project, job, data)
        except (Refusal, duckdb.Error) as error:
            reason = "invalidQuery" if data is None else "invalid"
            refusal = error if isinstance(error, Refusal) else Refusal(reason, str(error))
            if job["configuration"].get("dryRun"):
                raise refusal from error
            described = {"reason": refusal.reason, "message": refusal.message}
            job["status"] |= {"errorResult": described, "errors": [described]}
        return job

    def _run(self, project: str, job: Json, data: bytes | None) -> None:
        if "query" in job["configuration"]:
            job["configuration"]["jobType"] = "QUERY"
            self._run_query(project, job)
        elif "load" in job["configuration"] and data is not None:
            job["configuration"]["jobType"] = "LOAD"
            self._run_load(job, data)
        else:
            raise Refusal("notImplemented", "This server runs queries and loads of uploaded files.")

    def _run_query(self, project: str, job: Json) -> None:
        configuration = job["configuration"]["query"]
        if configuration.get("useLegacySql"):
            raise Refusal("notImplemented", "This server knows no legacy SQL.")
        statement = Reader(self.catalog, project, configuration).read()
        _report(job, statement)
        limit = int(configuration.get("maximumBytesBilled") or 2**62)
        if statement.bytes_billed > limit:
            message = f"Query exceeded limit for bytes billed: {limit}. {statement.bytes_billed} or higher required."
            raise Refusal("bytesBilledLimitExceeded", message)
        if job["configuration"].get("dryRun"):
            return
        if statement.kind != "SELECT":
            job["statistics"]["query"] |= statement.run()
            return
        found = self.catalog.anonymous(project)
        self.catalog.write({"destinationTable": found.resource()}, statement.columns, statement.sql)
        if "destinationTable" in configuration:
            configuration.setdefault("writeDisposition", "WRITE_EMPTY")
            self.catalog.write(configuration, statement.columns, f"SELECT * FROM {found.duck}")
        configuration.setdefault("destinationTable", found.resource())
        self._results[_job_key(job)] = found

    def _run_load(self, job: Json, data: bytes) -> None:
        configuration = job["configuration"]["load"]
        if configuration.get("sourceFormat") != "PARQUET":
            raise Refusal("notImplemented", "This server loads Parquet only.")
        try:
            rows = pq.read_table(BytesIO(data))
        except pa.ArrowInvalid as error:
            raise Refusal("invalid", f"Error while reading data, error message: {error}") from error
        columns = _columns_of(rows.schema, configuration)
        for name in [column.name for column in columns if column.name not in rows.column_names]:
            rows = rows.append_column(name, pa.nulls(rows.num_rows))
        with self.catalog.registered(rows) as uploaded:
            written = self.catalog.write(configuration, columns, f"SELECT * FROM {uploaded}")
        job["statistics"]["load"] = {
            "inputFiles": "1",
            "inputFileBytes": str(len(data)),
            "badRecords": "0",
            "outputRows": str(written),
            "outputBytes": str(rows.nbytes),
        }

    def _upload(self, request: Request) -> Answer:
        """A load job with its file: in one request of two parts, or in chunks of a session."""
        if request.method == "PUT":
            return self._upload_chunk(request)
        project = request.path["project"]
        if request.query.get("uploadType") == "resumable":
            session = uuid.uuid4().hex
            self._uploads[session] = _Upload(request.json)
            path = f"/upload/bigquery/v2/projects/{project}/jobs"
            return Answer({}, headers={"Location": f"{self.rest}{path}?uploadType=resumable&upload_id={session}"})
        head = b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n"
        parts = email.message_from_bytes(head + request.body, policy=HTTP).get_payload()
        resource, data = (part.get_payload(decode=True) for part in parts)
        return Answer(self._insert_job(project, json.loads(resource), data))

    def _upload_chunk(self, request: Request) -> Answer:
        upload = self._uploads[request.query["upload_id"]]
        found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers["Content-Range"])
        assert found is not None, request.headers["Content-Range"]
        start, total = found.groups()
        if start is not None and upload.job is None:
            upload.received[int(start) :] = request.body
        size = len(upload.received)
        if upload.job is None and (total == "*" or size < int(total)):
            return Answer(status=308, headers={"Range": f"bytes=0-{size - 1}"} if size else {})
        if upload.job is None:
            upload.job = self._insert_job(request.path["project"], upload.resource, bytes(upload.received))
        return Answer(upload.job)


def _named(request: Request) -> tuple[Reference, str | None]:
    path = request.path
    return Reference.of({"projectId": path["project"], "datasetId": path["dataset"], "tableId": path["table"]})


def _check_etag(request: Request, etag: str) -> None:
    asked = request.headers.get("If-Match")
    if asked and asked != etag:
        raise Refusal("conditionNotMet", f"Precondition Failed: the etag is {etag}, not {asked}")


def _job_key(job: Json) -> tuple[str, str]:
    return job["jobReference"]["projectId"], job["jobReference"]["jobId"]


def _report(job: Json, statement: Statement) -> None:
    """Puts what is known of a statement before it runs into its job's statistics."""
    processed = str(statement.bytes_processed)
    job["statistics"]["totalBytesProcessed"] = processed
    job["statistics"]["query"] = {
        "statementType": statement.kind,
        "cacheHit": False,
        "totalBytesProcessed": processed,
        "totalBytesBilled": "0" if job["configuration"].get("dryRun") else str(statement.bytes_billed),
        "billingTier": 1,
        "totalSlotMs": "1",
        "referencedTables": [table.reference.resource() for table in statement.tables],
    }
    if statement.columns:
        job["statistics"]["query"]["schema"] = {"fields": [column.resource() for column in statement.columns]}


def _columns_of(schema: pa.Schema, configuration: Json) -> list[Column]:
    """The columns that a Parquet file brings, checked against the schema that the job gives, if any."""
    lists = configuration.get("parquetOptions", {}).get("enableListInference", False)
    found = {item.name: _column_of(item, lists=lists) for item in schema}
    given = configuration.get("schema", {}).get("fields")
    if not given:
        return list(found.values())
    columns = [Column.of(item) for item in given]
    for column in columns:
        has = found.pop(column.name, column)
        if has.type != column.type or has.repeated != column.repeated:
            message = f"Error while reading data, error message: Parquet column '{column.name}' has type {has.standard}"
            raise Refusal("invalid", f"{message} which does not match the target type {column.standard}.")
    if found:
        raise Refusal("invalid", f"Provided Schema does not match the file. Cannot add fields (field: {min(found)})")
    return columns


def _column_of(item: pa.Field, *, lists: bool) -> Column:
    kind, mode = item.type, "NULLABLE" if item.nullable else "REQUIRED"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not lists:
            message = "is a list; this server loads lists with enableListInference only"
            raise Refusal("notImplemented", f"Parquet column '{item.name}' {message}.")
        kind, mode = kind.value_type, "REPEATED"
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    name = _OF_ARROW.get(str(kind))
    if pa.types.is_integer(kind):
        name = "INTEGER"
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        name = "TIMESTAMP"
    elif pa.types.is_decimal(kind) and kind.scale <= 9 and kind.precision - kind.scale <= 29:
        name = "NUMERIC"
    if name is None:
        raise Refusal("invalid", f"Parquet column '{item.name}' of type {kind} fits no type that this server has.")
    return Column(item.name, name, mode)


def _rows(table: pa.Table) -> list[Json]:
    """Rows as the REST API writes them, moments in microseconds."""
    moment, number = pa.timestamp("us", tz="UTC"), pa.int64()
    swap = {moment: number, pa.list_(moment): pa.list_(number)}
    plain = table.cast(pa.schema([item.with_type(swap.get(item.type, item.type)) for item in table.schema]))
    columns = [[_cell(value) for value in column.to_pylist()] for column in plain.columns]
    return [{"f": [{"v": value} for value in row]} for row in zip(*columns, strict=True)]


def _cell(value: Any) -> Any:
    match value:
        case None:
            return None
        case list():
            return [{"v": _cell(element)} for element in value]
        case bool():
            return "true" if value else "false"
        case bytes():
            return base64.b64encode(value).decode()
        case Decimal():
            plain = format(value, "f")
            return plain.rstrip("0").rstrip(".") if "." in plain else plain
        case float() if not math.isfinite(value):
            return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[str(value)]
        case float():
            return repr(value)
    return str(value)


@contextmanager
def serve() -> Iterator[BigQueryServer]:
    """Runs a fresh, empty BigQuery until the end of the block."""
    server = BigQueryServer()
    try:
        yield server
    finally:
        server.close()


def credentials_file(server: BigQueryServer, folder: Path) -> Path:
    """Writes a service account's JSON file for GOOGLE_APPLICATION_CREDENTIALS, whose tokens come from `server`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    account = {
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "test",
        "private_key": key.private_bytes(encoding, form, serialization.NoEncryption()).decode(),
        "client_email": "tests@test-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": server.token_uri,
    }
    path = folder / "credentials.json"
    path.write_text(json.dumps(account))
    return path
