"""A BigQuery for tests: REST v2 and the Storage Read API on loopback ports, for Google's real clients, over DuckDB.

One statement a job; types STRING, BYTES, INT64, FLOAT64, BOOL, DATE, TIMESTAMP, NUMERIC and arrays of them. What it does
not know it refuses with 501 `notImplemented`, which no client retries.
"""

import base64
import email
import json
import math
import re
import socket
import threading
import traceback
import uuid
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from matching_platform_tests.emulators.bigquery_read import ReadServer
from matching_platform_tests.emulators.bigquery_sql import Reader, Statement, prepare
from matching_platform_tests.emulators.bigquery_tables import (
    HIDDEN_DATASET,
    LOCATION,
    Catalog,
    Column,
    Json,
    Reference,
    Refusal,
    Table,
    text,
)

PAGE_ROWS: Final = 500
HANG_SECONDS: Final = 60.0

_REASONS: Final = {
    403: "accessDenied",
    404: "notFound",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
    500: "internalError",
    502: "badGateway",
    503: "backendError",
}
_PROJECT: Final = r"/bigquery/v2/projects/(?P<project>[^/]+)"
_DATASET: Final = rf"{_PROJECT}/datasets/(?P<dataset>[^/]+)"
_TABLE: Final = rf"{_DATASET}/tables/(?P<table>[^/:]+)"
_ROUTES: Final = [
    (method, re.compile(pattern + "$"), call)
    for method, pattern, call in [
        ("POST", "/token", "token"),
        ("GET", f"{_PROJECT}/datasets", "datasets.list"),
        ("POST", f"{_PROJECT}/datasets", "datasets.insert"),
        ("GET", _DATASET, "datasets.get"),
        ("PATCH|PUT", _DATASET, "datasets.patch"),
        ("DELETE", _DATASET, "datasets.delete"),
        ("GET", f"{_DATASET}/tables", "tables.list"),
        ("POST", f"{_DATASET}/tables", "tables.insert"),
        ("GET", _TABLE, "tables.get"),
        ("PATCH|PUT", _TABLE, "tables.patch"),
        ("DELETE", _TABLE, "tables.delete"),
        ("POST", f"{_TABLE}:testIamPermissions", "tables.testIamPermissions"),
        ("GET", f"{_TABLE}/data", "tabledata.list"),
        ("POST", f"{_PROJECT}/jobs", "jobs.insert"),
        ("GET", f"{_PROJECT}/jobs/(?P<job>[^/]+)", "jobs.get"),
        ("POST", f"{_PROJECT}/jobs/(?P<job>[^/]+)/cancel", "jobs.cancel"),
        ("POST", f"{_PROJECT}/queries", "jobs.query"),
        ("GET", f"{_PROJECT}/queries/(?P<job>[^/]+)", "jobs.getQueryResults"),
        ("POST|PUT", f"/(?:resumable/)?upload{_PROJECT}/jobs", "upload"),
    ]
]


class _Request:
    """A request: names from its path, values of its query, its body."""

    def __init__(self, method: str, target: str, headers: Any, body: bytes) -> None:
        parts = urlsplit(target)
        self.method, self.headers, self.body = method, headers, body
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.call, self.path = self._route(parts.path)

    def _route(self, path: str) -> tuple[str, dict[str, str]]:
        for methods, pattern, call in _ROUTES:
            found = pattern.match(path)
            if found and self.method in methods.split("|"):
                return call, {name: unquote(value) for name, value in found.groupdict().items()}
        return "", {}

    @property
    def json(self) -> Json:
        return json.loads(self.body) if self.body else {}

    @property
    def project(self) -> str:
        return self.path["project"]

    @property
    def table(self) -> tuple[Reference, str | None]:
        return Reference.of(
            {"projectId": self.project, "datasetId": self.path["dataset"], "tableId": self.path["table"]}
        )


class _Answer:
    """An answer: a status, JSON and headers."""

    def __init__(self, body: Json | None = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = {"Content-Type": "application/json; charset=UTF-8", **(headers or {})}
        self.body = b"" if body is None else json.dumps(body).encode()


class BigQueryServer:
    """The running server: where it listens, what it has seen, and what shall go wrong."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        prepare(self.catalog.connection)
        self.jobs: list[Json] = []
        self._uploads: dict[str, tuple[Json, bytearray]] = {}
        self._faults: defaultdict[str, deque[int | str]] = defaultdict(deque)
        self._denied: set[str] = set()
        self._closing = threading.Event()
        self._http = _HttpServer(self)
        self._read = ReadServer(self.catalog, self.next_fault, self.hang)
        self.rest = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.token_uri = f"{self.rest}/token"
        self.read = self._read.address
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def fail(self, call: str, how: int | str, times: int = 1) -> None:
        """Lets the next `times` calls fail: with an HTTP status, by "drop" in the middle of the answer, or "hang".

        A call is a method like jobs.insert, jobs.getQueryResults, tabledata.list, upload, token, CreateReadSession,
        ReadRows. A status is answered instead of doing what was asked; a dropped or hanging call has done it.
        """
        known = {call for _, _, call in _ROUTES} | {"CreateReadSession", "ReadRows"}
        if call not in known or not (how in _REASONS or how in ("drop", "hang")):
            raise ValueError(f"{call} cannot fail with {how}; calls are {sorted(known)}.")
        self._faults[call].extend([how] * times)

    def heal(self) -> None:
        """Forgets the faults that have not happened yet."""
        self._faults.clear()

    def deny(self, *permissions: str) -> None:
        """Leaves these permissions out of every answer of testIamPermissions."""
        self._denied.update(permissions)

    def next_fault(self, call: str) -> int | str | None:
        return self._faults[call].popleft() if self._faults[call] else None

    def hang(self) -> None:
        self._closing.wait(HANG_SECONDS)

    def close(self) -> None:
        self._closing.set()
        self._read.close()
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()
        self._thread.join()
        self.catalog.connection.close()

    def answer(self, request: _Request) -> _Answer:
        try:
            if not request.call:
                raise Refusal("notImplemented", f"This server has no {request.method} here.")
            method = getattr(self, "_" + re.sub(r"[.]|(?=[A-Z])", "_", request.call).lower())
            with self.catalog.lock:
                return method(request)
        except Refusal as refusal:
            return _error(refusal.status, refusal.reason, refusal.message)
        except Exception as error:  # noqa: BLE001 - a client would retry a 500 or a broken connection for ten minutes
            return _error(501, "notImplemented", f"{error!r}\n{traceback.format_exc()}")

    def _token(self, request: _Request) -> _Answer:
        return _Answer({"access_token": uuid.uuid4().hex, "expires_in": 3600, "token_type": "Bearer"})

    # Datasets

    def _datasets_list(self, request: _Request) -> _Answer:
        shown = [
            {k: v for k, v in resource.items() if k in ("kind", "id", "datasetReference", "labels", "location")}
            for (project, dataset), resource in self.catalog.datasets.items()
            if project == request.project and (dataset != HIDDEN_DATASET or request.query.get("all") == "true")
        ]
        return _Answer({"kind": "bigquery#datasetList", "datasets": shown})

    def _datasets_insert(self, request: _Request) -> _Answer:
        return _Answer(self.catalog.create_dataset(request.project, request.json))

    def _datasets_get(self, request: _Request) -> _Answer:
        return _Answer(self.catalog.dataset(request.project, request.path["dataset"]))

    def _datasets_patch(self, request: _Request) -> _Answer:
        resource = self.catalog.dataset(request.project, request.path["dataset"])
        _check_etag(request, resource["etag"])
        resource.update({k: v for k, v in request.json.items() if k not in ("datasetReference", "etag")})
        resource["etag"] = resource["lastModifiedTime"] = str(self.catalog.now())
        return _Answer(resource)

    def _datasets_delete(self, request: _Request) -> _Answer:
        contents = request.query.get("deleteContents") == "true"
        self.catalog.drop_dataset(request.project, request.path["dataset"], contents)
        return _Answer(status=204)

    # Tables

    def _tables_list(self, request: _Request) -> _Answer:
        self.catalog.dataset(request.project, request.path["dataset"])
        kept = ("kind", "id", "tableReference", "type", "timePartitioning", "clustering", "labels", "creationTime")
        tables = [
            {k: v for k, v in self._table_resource(table).items() if k in kept}
            for reference, table in list(self.catalog.tables.items())
            if reference[:2] == (request.project, request.path["dataset"]) and self.catalog.find(reference)
        ]
        return _Answer({"kind": "bigquery#tableList", "tables": tables, "totalItems": len(tables)})

    def _tables_insert(self, request: _Request) -> _Answer:
        return _Answer(self._table_resource(self.catalog.create_table(request.json)))

    def _tables_get(self, request: _Request) -> _Answer:
        reference, partition = request.table
        return _Answer(self._table_resource(self.catalog.table(reference), partition))

    def _tables_patch(self, request: _Request) -> _Answer:
        reference, _ = request.table
        _check_etag(request, str(self.catalog.table(reference).modified))
        return _Answer(self._table_resource(self.catalog.patch_table(reference, request.json)))

    def _tables_delete(self, request: _Request) -> _Answer:
        reference, partition = request.table
        self.catalog.table(reference)
        if partition:
            self.catalog.drop_partition(reference, partition)
        else:
            self.catalog.drop_table(reference)
        return _Answer(status=204)

    def _tables_test_iam_permissions(self, request: _Request) -> _Answer:
        self.catalog.table(request.table[0])
        return _Answer({"permissions": [p for p in request.json["permissions"] if p not in self._denied]})

    def _table_resource(self, table: Table, partition: str | None = None) -> Json:
        figures = self.catalog.figures(table)
        if partition:
            figures = {partition: figures[partition]} if partition in figures else {}
        modified = str(table.modified)
        return {
            "kind": "bigquery#table",
            "type": "TABLE",
            "location": LOCATION,
            **table.resource,
            "id": str(table.reference),
            "etag": modified,
            "lastModifiedTime": modified,
            "tableReference": table.reference.resource(),
            "schema": {"fields": [column.resource() for column in table.columns]},
            "numRows": str(sum(f.rows for f in figures.values())),
            "numBytes": str(sum(sum(f.bytes.values()) for f in figures.values())),
        }

    def _tabledata_list(self, request: _Request) -> _Answer:
        reference, partition = request.table
        table = self.catalog.table(reference)
        asked = request.query.get("selectedFields")
        columns = [c for c in table.columns if not asked or c.name in asked.split(",")]
        where = f"WHERE {table.partition_id()} = {text(partition)}" if partition else ""
        page = self._page(request.query, columns, f"SELECT * FROM {reference.duck} {where}")
        return _Answer({"kind": "bigquery#tableDataList", "totalRows": "0", "rows": [], **page})

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

    def _jobs_insert(self, request: _Request) -> _Answer:
        return _Answer(self._insert_job(request.project, request.json))

    def _jobs_get(self, request: _Request) -> _Answer:
        return _Answer(self._job(request))

    def _jobs_cancel(self, request: _Request) -> _Answer:
        return _Answer({"kind": "bigquery#jobCancelResponse", "job": self._job(request)})

    def _job(self, request: _Request) -> Json:
        for job in self.jobs:
            if _job_key(job) == (request.project, request.path["job"]):
                return job
        raise Refusal("notFound", f"Not found: Job {request.project}:{LOCATION}.{request.path['job']}")

    def _jobs_query(self, request: _Request) -> _Answer:
        asked = request.json
        if asked.get("queryResultsFormat", "STRUCT_ENCODING") != "STRUCT_ENCODING":
            raise Refusal("notImplemented", "This server answers queries in STRUCT_ENCODING only.")
        outer = ("labels", "dryRun", "jobTimeoutMs")
        inner = ("query", "defaultDataset", "queryParameters", "parameterMode", "maximumBytesBilled", "useLegacySql")
        configuration: Json = {k: v for k, v in asked.items() if k in outer}
        configuration["query"] = {k: v for k, v in asked.items() if k in inner}
        return _Answer(self._results(self._insert_job(request.project, {"configuration": configuration}), asked))

    def _jobs_get_query_results(self, request: _Request) -> _Answer:
        return _Answer(self._results(self._job(request), request.query))

    def _results(self, job: Json, asked: Json) -> Json:
        """What jobs.query and jobs.getQueryResults answer for a job."""
        error = job["status"].get("errorResult")
        if error:
            raise Refusal(error["reason"], error["message"])
        statistics = job["statistics"]
        results: Json = {
            "kind": "bigquery#queryResponse",
            "jobReference": job["jobReference"],
            "jobComplete": True,
            "cacheHit": False,
            "totalBytesProcessed": statistics["totalBytesProcessed"],
            "schema": statistics["query"].get("schema", {"fields": []}),
        }
        if "numDmlAffectedRows" in statistics["query"]:
            results["numDmlAffectedRows"] = statistics["query"]["numDmlAffectedRows"]
        if statistics["query"]["statementType"] == "SELECT" and not job["configuration"].get("dryRun"):
            reference, _ = Reference.of(job["configuration"]["query"]["destinationTable"])
            columns = [Column.of(field) for field in results["schema"]["fields"]]
            results |= self._page(asked, columns, f"SELECT * FROM {reference.duck}")
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
            refusal = error if isinstance(error, Refusal) else Refusal("invalidQuery", str(error))
            if job["configuration"].get("dryRun"):
                raise refusal from error
            described = {"reason": refusal.reason, "message": refusal.message}
            job["status"] |= {"errorResult": described, "errors": [described]}
        return job

    def _run(self, project: str, job: Json, data: bytes | None) -> None:
        configuration = job["configuration"]
        if "query" in configuration:
            configuration["jobType"] = "QUERY"
            self._run_query(project, job)
        elif "load" in configuration and data is not None:
            configuration["jobType"] = "LOAD"
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
            raise Refusal(
                "bytesBilledLimitExceeded",
                f"Query exceeded limit for bytes billed: {limit}. {statement.bytes_billed} or higher required.",
            )
        if job["configuration"].get("dryRun"):
            return
        outcome = statement.run()
        statistics = job["statistics"]["query"]
        if outcome.destination:
            configuration["destinationTable"] = outcome.destination.reference.resource()
        if outcome.changed is not None:
            statistics["dmlStats"] = {name: str(count) for name, count in outcome.changed.items()}
            statistics["numDmlAffectedRows"] = str(sum(outcome.changed.values()))
        if outcome.operation:
            statistics["ddlOperationPerformed"] = outcome.operation
            if statement.target:
                statistics["ddlTargetTable"] = statement.target.reference.resource()

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
        connection = self.catalog.connection
        connection.register("uploaded", rows)
        try:
            _table, written = self.catalog.write(configuration, columns, "SELECT * FROM uploaded")
        finally:
            connection.unregister("uploaded")
        job["statistics"]["load"] = {
            "inputFiles": "1",
            "inputFileBytes": str(len(data)),
            "badRecords": "0",
            "outputRows": str(written),
            "outputBytes": str(rows.nbytes),
        }

    def _upload(self, request: _Request) -> _Answer:
        """A load job with its file: in one request of two parts, or in chunks of a session."""
        if request.method == "PUT":
            return self._upload_chunk(request)
        if request.query.get("uploadType") == "resumable":
            session = uuid.uuid4().hex
            self._uploads[session] = (request.json, bytearray())
            path = f"/upload/bigquery/v2/projects/{request.project}/jobs"
            return _Answer({}, headers={"Location": f"{self.rest}{path}?uploadType=resumable&upload_id={session}"})
        head = b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n"
        parts = email.message_from_bytes(head + request.body, policy=HTTP).get_payload()
        resource, data = (part.get_payload(decode=True) for part in parts)
        return _Answer(self._insert_job(request.project, json.loads(resource), data))

    def _upload_chunk(self, request: _Request) -> _Answer:
        resource, received = self._uploads[request.query["upload_id"]]
        found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers["Content-Range"])
        assert found is not None, request.headers["Content-Range"]
        start, total = found.groups()
        if start is not None and int(start) != len(received):
            raise Refusal("invalid", f"The chunk starts at {start}, but {len(received)} bytes were received.")
        received += request.body
        if total == "*" or len(received) < int(total):
            return _Answer(status=308, headers={"Range": f"bytes=0-{len(received) - 1}"} if received else {})
        return _Answer(self._insert_job(request.project, resource, bytes(received)))


def _check_etag(request: _Request, etag: str) -> None:
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
        "billingTier": 1,
        "totalBytesBilled": "0" if job["configuration"].get("dryRun") else str(statement.bytes_billed),
        "totalSlotMs": "1",
        "referencedTables": [table.reference.resource() for table in statement.tables],
    }
    if statement.kind == "SELECT":
        job["statistics"]["query"]["schema"] = {"fields": [column.resource() for column in statement.columns]}


def _columns_of(schema: pa.Schema, configuration: Json) -> list[Column]:
    """The columns that a Parquet file brings, checked against the schema that the job gives, if any."""
    lists = configuration.get("parquetOptions", {}).get("enableListInference", False)
    found = {column.name: column for column in (_column_of(field, lists=lists) for field in schema)}
    given = configuration.get("schema", {}).get("fields")
    if not given:
        return list(found.values())
    columns = [Column.of(field) for field in given]
    for column in columns:
        has = found.pop(column.name, None)
        if has is not None and (has.type != column.type or has.repeated != column.repeated):
            message = f"Error while reading data, error message: Parquet column '{column.name}' has type {has.standard}"
            raise Refusal("invalid", f"{message} which does not match the target type {column.standard}.")
    if found:
        raise Refusal("invalid", f"Provided Schema does not match the file. Cannot add fields (field: {min(found)})")
    return columns


def _column_of(field: pa.Field, *, lists: bool) -> Column:
    kind, mode = field.type, "NULLABLE" if field.nullable else "REQUIRED"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not lists:
            message = "is a list; this server loads lists with enableListInference only"
            raise Refusal("notImplemented", f"Parquet column '{field.name}' {message}.")
        kind, mode = kind.value_type, "REPEATED"
    checks = [
        (pa.types.is_integer, "INTEGER"),
        (pa.types.is_null, "INTEGER"),
        (pa.types.is_floating, "FLOAT"),
        (pa.types.is_boolean, "BOOLEAN"),
        (pa.types.is_string, "STRING"),
        (pa.types.is_large_string, "STRING"),
        (pa.types.is_binary, "BYTES"),
        (pa.types.is_large_binary, "BYTES"),
        (pa.types.is_date, "DATE"),
        (lambda t: pa.types.is_timestamp(t) and t.tz is not None, "TIMESTAMP"),
        (lambda t: pa.types.is_decimal(t) and t.scale <= 9 and t.precision - t.scale <= 29, "NUMERIC"),
        (pa.types.is_dictionary, "STRING"),
    ]
    for check, name in checks:
        if check(kind):
            return Column(field.name, name, mode)
    raise Refusal("invalid", f"Parquet column '{field.name}' of type {kind} fits no type that this server has.")


def _rows(table: pa.Table) -> list[Json]:
    """Rows as the REST API writes them."""
    columns = [[_cell(value) for value in column.to_pylist()] for column in _microseconds(table).columns]
    return [{"f": [{"v": value} for value in row]} for row in zip(*columns, strict=True)]


def _microseconds(table: pa.Table) -> pa.Table:
    moment, number = pa.timestamp("us", tz="UTC"), pa.int64()
    swap = {moment: number, pa.list_(moment): pa.list_(number)}
    return table.cast(pa.schema([field.with_type(swap.get(field.type, field.type)) for field in table.schema]))


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
        case float():
            return (
                repr(value) if math.isfinite(value) else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
            )
    return str(value)


def _error(status: int, reason: str, message: str) -> _Answer:
    errors = [{"message": message, "domain": "global", "reason": reason}]
    return _Answer({"error": {"code": status, "message": message, "errors": errors}}, status)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, server: BigQueryServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server = server
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._open):
            with_suppressed(connection)


def with_suppressed(connection: socket.socket) -> None:
    from contextlib import suppress

    with suppress(OSError):  # the client may have closed it already
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _HttpServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = self.server.server
        request = _Request(self.command, self.path, self.headers, body)
        fault = server.next_fault(request.call)
        if isinstance(fault, int):
            answer = _error(fault, _REASONS[fault], f"{request.call} failed with {fault} as asked")
        else:
            answer = server.answer(request)
        if fault == "hang":
            server.hang()
        self._send(answer, whole=fault != "drop")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _send(self, answer: _Answer, *, whole: bool) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if whole else answer.body[: len(answer.body) // 2])
        self.wfile.flush()
        if not whole:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Tests read what the server has seen from its `jobs`."""


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
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "test",
        "private_key": private.decode(),
        "client_email": "tests@test-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": server.token_uri,
    }
    path = folder / "credentials.json"
    path.write_text(json.dumps(account))
    return path
