"""The Storage Read API of the BigQuery test server: gRPC on the official messages, rows as Arrow."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from matching_platform_tests.emulators.bigquery_http import Faults
from matching_platform_tests.emulators.bigquery_sql import Reader
from matching_platform_tests.emulators.bigquery_tables import Catalog, Reference, Refusal

BATCH_ROWS: Final = 256
MAX_STREAMS: Final = 3

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
}


class ReadServer:
    """Serves CreateReadSession and ReadRows."""

    def __init__(self, catalog: Catalog, faults: Faults) -> None:
        self._catalog, self._faults = catalog, faults
        self._streams: dict[str, pa.Table] = {}
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16))
        handlers = {
            "CreateReadSession": grpc.unary_unary_rpc_method_handler(
                self._create_read_session,
                request_deserializer=types.CreateReadSessionRequest.deserialize,
                response_serializer=types.ReadSession.serialize,
            ),
            "ReadRows": grpc.unary_stream_rpc_method_handler(
                self._read_rows,
                request_deserializer=types.ReadRowsRequest.deserialize,
                response_serializer=types.ReadRowsResponse.serialize,
            ),
        }
        service = "google.cloud.bigquery.storage.v1.BigQueryRead"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()

    def _create_read_session(
        self, request: types.CreateReadSessionRequest, context: grpc.ServicerContext
    ) -> types.ReadSession:
        self._fail("CreateReadSession", context)
        session = request.read_session
        if session.data_format != types.DataFormat.ARROW:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "This server reads as Arrow only.")
        try:
            rows = self._snapshot(session)
        except Refusal as refusal:
            context.abort(_CODES[refusal.status], refusal.message)
        asked = request.max_stream_count or request.preferred_min_stream_count or MAX_STREAMS
        count = min(asked, MAX_STREAMS, -(-rows.num_rows // BATCH_ROWS))
        name = f"{request.parent}/locations/us/sessions/{uuid.uuid4().hex}"
        step = -(-rows.num_rows // count) if count else 0
        with self._lock:
            parts = {f"{name}/streams/{i}": rows.slice(i * step, step) for i in range(count)}
            self._streams.update(parts)
        return types.ReadSession(
            name=name,
            table=session.table,
            data_format=types.DataFormat.ARROW,
            arrow_schema=types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes()),
            streams=[types.ReadStream(name=part) for part in parts],
            estimated_row_count=rows.num_rows,
        )

    def _snapshot(self, session: types.ReadSession) -> pa.Table:
        """The rows of the session's table as they are now, with its fields and its restriction."""
        _, project, _, dataset, _, table = session.table.split("/")
        reference = Reference(project, dataset, table)
        options = session.read_options
        with self._catalog.lock:
            columns = [column.name for column in self._catalog.table(reference).columns]
            unknown = set(options.selected_fields) - set(columns)
            if unknown:
                message = f"The following selected fields do not exist in the table schema: {min(unknown)}"
                raise Refusal("invalid", message)
            chosen = [f"`{name}`" for name in columns if name in (options.selected_fields or columns)]
            where = f" WHERE {options.row_restriction}" if options.row_restriction else ""
            query = f"SELECT {', '.join(chosen)} FROM `{project}`.`{dataset}`.`{table}`{where}"
            statement = Reader(self._catalog, project, {"query": query}).read()
            return self._catalog.fetch(statement.columns, statement.sql)

    def _read_rows(
        self, request: types.ReadRowsRequest, context: grpc.ServicerContext
    ) -> Iterator[types.ReadRowsResponse]:
        drops = self._fail("ReadRows", context)
        with self._lock:
            rows = self._streams.get(request.read_stream)
        if rows is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: stream {request.read_stream}")
        schema: types.ArrowSchema | None = types.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
        for start in range(request.offset, rows.num_rows, BATCH_ROWS):
            batch = rows.slice(start, BATCH_ROWS).combine_chunks().to_batches()[0]
            yield types.ReadRowsResponse(
                arrow_schema=schema,
                arrow_record_batch=types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes()),
                row_count=batch.num_rows,
            )
            schema = None
            if drops:
                context.abort(grpc.StatusCode.UNAVAILABLE, "The stream was broken.")

    def _fail(self, call: str, context: grpc.ServicerContext) -> bool:
        """Does what was asked to go wrong before an answer; true if the answer is to break off."""
        fault = self._faults.take(call)
        if fault == "hang":
            self._faults.hang()
        elif isinstance(fault, int):
            context.abort(_CODES[fault], f"{call} failed with {fault} as asked")
        elif fault == "drop" and call != "ReadRows":
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return fault == "drop"
