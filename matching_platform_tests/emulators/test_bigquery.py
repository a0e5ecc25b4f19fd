"""The BigQuery test server, asked through Google's real clients."""

import datetime
import io
import math
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster_gcp import BigQueryResource
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from ibis import _

from matching_platform.warehouse import expressions
from matching_platform_tests.emulators.bigquery import BigQueryServer, credentials_file, serve
from matching_platform_tests.emulators.bigquery_read import BATCH_ROWS

pytestmark = [
    pytest.mark.cloud,
    # Google's clients announce that pandas-gbq will read Arrow and load frames in their place.
    pytest.mark.filterwarnings("ignore:Retrieving Arrow record batches directly:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Loading DataFrames via google-cloud-bigquery:PendingDeprecationWarning"),
]

PROJECT = "test-project"
MIB = 2**20
SCHEMA = [
    bigquery.SchemaField("id", "STRING", "REQUIRED"),
    bigquery.SchemaField("day", "DATE"),
    bigquery.SchemaField("amount", "NUMERIC"),
    bigquery.SchemaField("keys", "STRING", "REPEATED"),
]
ARROW = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("day", pa.date32()),
        ("amount", pa.decimal128(38, 9)),
        ("keys", pa.list_(pa.string())),
    ]
)
AMOUNTS = ["0.01", "12345678901234.56", "-0.000000001", "-99999999999999999999999999999.999999999", "7"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    with serve() as running:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", running.rest)
        yield running


@pytest.fixture
def client(server: BigQueryServer) -> Iterator[bigquery.Client]:
    """A client of a server with the empty dataset `d` and in it the tables `months` and `arrivals`."""
    with bigquery.Client(PROJECT, AnonymousCredentials()) as connected:
        connected.create_dataset("d")
        table = bigquery.Table(f"{PROJECT}.d.months", SCHEMA)
        table.time_partitioning = bigquery.TimePartitioning("MONTH", field="day")
        table.clustering_fields = ["id"]
        connected.create_table(table)
        arrivals = bigquery.Table(f"{PROJECT}.d.arrivals", SCHEMA)
        arrivals.time_partitioning = bigquery.TimePartitioning("MONTH")
        connected.create_table(arrivals)
        yield connected


@pytest.fixture
def storage(server: BigQueryServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryReadClient]:
    # BigQuery's client waits so long after the last batch of every result.
    monkeypatch.setattr("google.cloud.bigquery._pandas_helpers._PROGRESS_INTERVAL", 0.01)
    with grpc.insecure_channel(server.read) as channel:
        yield BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))


@pytest.fixture
def backend(client: bigquery.Client, storage: BigQueryReadClient) -> Any:
    return ibis.bigquery.connect(client=client, storage_client=storage, dataset_id="d")


def rows(month: int, count: int = 3, prefix: str = "i", keys: tuple[str, ...] = ("a", "ż")) -> pa.Table:
    columns = {
        "id": [f"{prefix}{month}-{i}" for i in range(count)],
        "day": [date(2024, month, 1 + i % 28) for i in range(count)],
        "amount": [Decimal(i) / 100 for i in range(count)],
        "keys": [list(keys)] * count,
    }
    return pa.table(columns, schema=ARROW)


def load(client: bigquery.Client, table: pa.Table, destination: str, **settings: Any) -> bigquery.LoadJob:
    """Loads a table in one request, or with `resumable` in chunks."""
    file = io.BytesIO()
    pq.write_table(table, file, compression="none", use_dictionary=False)
    size = None if settings.pop("resumable", False) else file.tell()
    job_id = settings.pop("job_id", None)
    options = bigquery.ParquetOptions()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(source_format="PARQUET", parquet_options=options, **settings)
    job = client.load_table_from_file(file, destination, rewind=True, size=size, job_config=config, job_id=job_id)
    return job.result()


def replace(client: bigquery.Client, table: pa.Table, destination: str, **settings: Any) -> bigquery.LoadJob:
    return load(client, table, destination, write_disposition="WRITE_TRUNCATE", schema=SCHEMA, **settings)


def values(client: bigquery.Client, sql: str, **settings: Any) -> list[tuple[Any, ...]]:
    config = bigquery.QueryJobConfig(**settings)
    return [row.values() for row in client.query(sql, job_config=config).result()]


def partitions(client: bigquery.Client, table: str = "months") -> dict[str | None, tuple[int, datetime.datetime]]:
    sql = f"""SELECT partition_id, total_rows, last_modified_time FROM d.INFORMATION_SCHEMA.PARTITIONS
              WHERE table_name = '{table}' ORDER BY partition_id"""
    return {partition: (count, changed) for partition, count, changed in values(client, sql)}


def dry(client: bigquery.Client, sql: str) -> int:
    return client.query(sql, job_config=bigquery.QueryJobConfig(dry_run=True)).total_bytes_processed


# Loads


@pytest.mark.parametrize("resumable", [False, True])
def test_a_load_replaces_one_partition_however_often_it_is_repeated(client: bigquery.Client, resumable: bool) -> None:
    replace(client, rows(1), "d.months$202401", resumable=resumable)
    replace(client, rows(2), "d.months$202402", resumable=resumable)
    for count in (5, 2, 2):
        job = replace(client, rows(1, count), "d.months$202401", resumable=resumable)
        assert job.output_rows == count
        assert {p: n for p, (n, _) in partitions(client).items()} == {"202401": count, "202402": 3}
    table = client.get_table("d.months")
    assert (table.num_rows, table.clustering_fields, table.time_partitioning.field) == (5, ["id"], "day")
    assert client.get_table("d.months$202402").num_rows == 3


def test_a_load_of_several_chunks_arrives_whole(client: bigquery.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google.cloud.bigquery.client._DEFAULT_CHUNKSIZE", MIB)  # 100 of them would slow the test
    table = pa.table({"id": [f"{i:040d}" for i in range(60_000)]})
    load(client, table, "d.noise", resumable=True)
    assert values(client, "SELECT COUNT(DISTINCT id) FROM d.noise") == [(60_000,)]


def test_an_empty_load_empties_its_partition_alone(client: bigquery.Client) -> None:
    replace(client, rows(1), "d.months$202401")
    replace(client, rows(2), "d.months$202402")
    replace(client, rows(1, 0), "d.months$202401")
    assert {p: n for p, (n, _) in partitions(client).items()} == {"202401": 0, "202402": 3}


def refused_columns() -> list[tuple[str, dict[str, Any], dict[str, Any], str]]:
    january = rows(1)
    floats = january.set_column(2, "amount", pa.array([0.5, 1.5, 2.5]))
    digits = january.set_column(2, "amount", pa.array([Decimal(1)] * 3, pa.decimal128(38, 12)))
    nulls = january.set_column(0, "id", pa.array([None, "b", "c"]))
    more = january.append_column("more", pa.array([1, 2, 3]))
    optional = january.set_column(0, pa.field("id", pa.string()), january["id"])
    whole = {"write_disposition": "WRITE_APPEND"}
    return [
        ("rows of another partition", {"table": rows(2)}, {}, "different partitions rather than destination partition"),
        ("floats for NUMERIC", {"table": floats}, {}, "does not match the target type NUMERIC"),
        ("too many decimal places", {"table": digits}, {}, "fits no type"),
        ("null in a required column", {"table": nulls}, {}, "Required field id cannot be null"),
        ("a new column", {"table": more}, {"schema": None}, r"Cannot add fields \(field: more\)"),
        ("a missing required column", {"table": january.drop(["id"])}, {"schema": None}, "id is missing in new schema"),
        ("an optional column", {"table": optional}, {"schema": None, **whole}, "mode from REQUIRED to NULLABLE"),
        ("floats without a schema", {"table": floats}, {"schema": None}, "has changed type from NUMERIC to FLOAT"),
        (
            "another partitioning",
            {"table": january},
            {"time_partitioning": bigquery.TimePartitioning("DAY")},
            "Incompat",
        ),
        ("a rest of a table", {"table": january}, {"write_disposition": "WRITE_EMPTY"}, "Already Exists"),
    ]


@pytest.mark.parametrize("case", refused_columns(), ids=lambda case: case[0])
def test_a_load_that_is_refused_says_why_once_and_changes_nothing(client: bigquery.Client, case: Any) -> None:
    _name, given, settings, message = case
    replace(client, rows(1, 2), "d.months$202401")
    before = partitions(client), values(client, "SELECT * FROM d.months ORDER BY id")
    kept = {"schema": SCHEMA, "write_disposition": "WRITE_TRUNCATE"} | settings
    with pytest.raises(exceptions.ClientError, match=message):
        load(client, given["table"], "d.months$202401", **{k: v for k, v in kept.items() if v is not None})
    assert (partitions(client), values(client, "SELECT * FROM d.months ORDER BY id")) == before


def test_a_load_makes_the_table_that_it_needs(client: bigquery.Client) -> None:
    partitioning = bigquery.TimePartitioning("DAY", field="day")
    load(client, rows(1), "d.made", time_partitioning=partitioning, clustering_fields=["id"], schema=SCHEMA)
    assert list(partitions(client, "made")) == ["20240101", "20240102", "20240103"]
    assert client.get_table("d.made").schema == client.get_table("d.months").schema
    with pytest.raises(exceptions.NotFound):
        load(client, rows(1), "d.never", create_disposition="CREATE_NEVER")


def test_a_load_may_add_columns_if_the_job_allows_it(client: bigquery.Client) -> None:
    replace(client, rows(1, 1), "d.months$202401")
    replace(client, rows(1, 1), "d.arrivals$202401")
    more = rows(2, 1).append_column("more", pa.array([5]))
    for table in ("months", "arrivals"):
        load(client, more, f"d.{table}", schema_update_options=["ALLOW_FIELD_ADDITION"])
        assert values(client, f"SELECT id, more FROM d.{table} ORDER BY id") == [("i1-0", None), ("i2-0", 5)]


def test_partitions_by_arrival_take_what_the_decorator_says(client: bigquery.Client) -> None:
    for month in (1, 2):
        replace(client, rows(5), f"d.arrivals$20240{month}")
    assert {p: n for p, (n, _) in partitions(client, "arrivals").items()} == {"202401": 3, "202402": 3}
    sql = "SELECT DISTINCT _PARTITIONTIME AS arrived FROM d.arrivals ORDER BY arrived"
    assert [row[0].month for row in values(client, sql)] == [1, 2]
    assert len(values(client, "SELECT * FROM d.arrivals LIMIT 1")[0]) == len(SCHEMA)
    client.delete_table("d.arrivals$202401")
    assert list(partitions(client, "arrivals")) == ["202402"]


# Values


@pytest.mark.parametrize("over", ["REST", "Storage Read"])
def test_amounts_stay_exact(client: bigquery.Client, storage: BigQueryReadClient, over: str) -> None:
    amounts = [Decimal(amount) for amount in AMOUNTS]
    table = pa.table({"id": list("abcde"), "day": [date(2024, 1, 1)] * 5, "amount": amounts}).cast(
        pa.schema([ARROW.field("id"), ARROW.field("day"), ARROW.field("amount")])
    )
    replace(client, table, "d.months$202401")
    result = client.query("SELECT id, amount, keys FROM d.months ORDER BY id").result()
    if over == "REST":
        assert [(row["amount"], row["keys"]) for row in result] == [(amount, []) for amount in amounts]
    else:
        read = result.to_arrow(bqstorage_client=storage)
        assert read.schema.field("amount").type == pa.decimal128(38, 9)
        assert read.to_pydict() == {"id": list("abcde"), "amount": amounts, "keys": [[]] * 5}
    assert values(client, "SELECT SUM(amount) FROM d.months WHERE id < 'd'") == [(Decimal("12345678901234.569999999"),)]


EXPRESSIONS: list[tuple[str, Any]] = [
    ("1.5", 1.5),
    ("7 / 2", 3.5),
    ("NUMERIC '10' / 3", Decimal("3.333333333")),
    ("NUMERIC '12345678901234.56' * 1.1", Decimal("13580246791358.016")),
    ("NUMERIC '1' / (-0.3)", Decimal("-3.333333333")),
    ("CASE WHEN TRUE THEN 0.1 ELSE NUMERIC '1' END", Decimal("0.1")),
    ("SAFE_DIVIDE(NUMERIC '1', 0)", None),
    ("IEEE_DIVIDE(1, 0)", math.inf),
    ("CAST(2.5 AS INT64)", 3),
    ("SAFE_CAST('1.5' AS INT64)", None),
    ("CAST(NUMERIC '12.50' AS STRING)", "12.5"),
    ("CAST(NUMERIC '100' AS STRING)", "100"),
    ("CAST('0.005' AS NUMERIC) = 0.005", True),
    ("ROUND(NUMERIC '2.345', 2)", Decimal("2.35")),
    ("TRIM('\\t\\u00a0a b\\n ')", "a b"),
    ("SUBSTR('abcdef', 0, 2)", "ab"),
    ("CONCAT('a', CAST(NULL AS STRING))", None),
    ("GREATEST(1, NULL)", None),
    ("REGEXP_REPLACE('a1b22', r'\\d+', '#')", "a#b#"),
    ("REGEXP_EXTRACT('INV-0012', r'-0*(\\d+)')", "12"),
    ("ARRAY_TO_STRING(['a', NULL, 'b'], '-')", "a-b"),
    ("SPLIT('a,b')[OFFSET(1)]", "b"),
    ("SPLIT('a,b')[SAFE_OFFSET(2)]", None),
    ("['ż', 'ó']", ["ż", "ó"]),
    ("DATE_ADD(DATE '2024-01-31', INTERVAL 1 MONTH)", date(2024, 2, 29)),
    ("DATE_TRUNC(DATE '2024-02-29', MONTH)", date(2024, 2, 1)),
    ("DATE_DIFF(DATE '2024-03-01', DATE '2024-02-28', DAY)", 2),
    ("EXTRACT(DAYOFWEEK FROM DATE '2024-03-03')", 1),
    ("FORMAT_DATE('%Y-%m', DATE '2024-02-29')", "2024-02"),
    ("TIMESTAMP '2024-01-01 02:00:00+02'", datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)),
    ("TIMESTAMP_DIFF(TIMESTAMP '2024-01-01 02:00:00', TIMESTAMP '2024-01-01 00:30:00', HOUR)", 1),
    ("2000000000 + 2000000000", 4_000_000_000),
    ("CAST(1.0 AS STRING)", "1"),
    ("b'\\x00\\xff'", b"\x00\xff"),
    ("FARM_FINGERPRINT('a') = FARM_FINGERPRINT('a') AND FARM_FINGERPRINT('a') != FARM_FINGERPRINT('b')", True),
    ("(SELECT STRING_AGG(x, '' ORDER BY x DESC) FROM UNNEST(['a', 'c', 'b']) AS x)", "cba"),
    ("(SELECT MAX(place) FROM UNNEST(['a', 'b']) AS x WITH OFFSET AS place)", 1),
    ("(SELECT AVG(x) FROM UNNEST([NUMERIC '0.1', NUMERIC '0.2']) AS x)", Decimal("0.15")),
]


def test_expressions_mean_what_they_mean_in_bigquery(client: bigquery.Client) -> None:
    sql = "SELECT " + ", ".join(f"{expression} AS c{i}" for i, (expression, _) in enumerate(EXPRESSIONS))
    found = dict(zip([e for e, _ in EXPRESSIONS], values(client, sql)[0], strict=True))
    assert found == dict(EXPRESSIONS)
    assert {e: type(value) for e, value in found.items()} == {e: type(value) for e, value in EXPRESSIONS}


REFUSED = [
    ("SELECT 1 / 0", exceptions.BadRequest, "division by zero"),
    ("SELECT CAST('1.5' AS INT64)", exceptions.BadRequest, "Bad int64 value: 1.5"),
    ("SELECT [1][OFFSET(1)]", exceptions.BadRequest, "out of bounds"),
    ("SELECT nothing FROM d.months", exceptions.BadRequest, "nothing"),
    ("SELEC 1", exceptions.BadRequest, "Syntax error"),
    ("SELECT 1 AS a, 2 AS a", exceptions.BadRequest, "Duplicate column names"),
    ("SELECT * FROM months", exceptions.BadRequest, "must be qualified with a dataset"),
    ("SELECT * FROM d.none", exceptions.NotFound, "Table test-project:d.none was not found"),
    ("SELECT * FROM none.months", exceptions.NotFound, "Dataset test-project:none was not found"),
    ("CREATE TABLE d.months (a INT64)", exceptions.Conflict, "Already Exists: Table test-project:d.months"),
    ("INSERT INTO d.months (id, amount) SELECT 'a', 0.5", exceptions.BadRequest, "has type FLOAT64 which cannot be"),
    ("SELECT CURRENT_DATETIME()", exceptions.MethodNotImplemented, "does not know"),
    ("SELECT CURRENT_DATE('Europe/Warsaw')", exceptions.MethodNotImplemented, "does not know"),
    ("SELECT 1; SELECT 2", exceptions.MethodNotImplemented, "one statement"),
]


@pytest.mark.parametrize(("sql", "error", "message"), REFUSED)
@pytest.mark.parametrize("method", ["query", "query_and_wait"])
def test_a_query_that_cannot_run_is_one_error(client: Any, sql: str, error: Any, message: str, method: str) -> None:
    with pytest.raises(error, match=message):
        client.query(sql).result() if method == "query" else client.query_and_wait(sql)


@pytest.mark.parametrize(
    "name",
    [
        "`test-project.d.months`",
        "`test-project`.`d`.`months`",
        "`test-project.d`.months",
        "test-project.d.months",
        "d.months",
    ],
)
def test_a_table_may_be_quoted_in_any_way(client: bigquery.Client, name: str) -> None:
    assert values(client, f"SELECT COUNT(*) AS n FROM {name} AS m") == [(0,)]
    assert values(client, "SELECT COUNT(*) FROM months", default_dataset=f"{PROJECT}.d") == [(0,)]


def test_parameters_are_bound_by_name_and_by_place(client: bigquery.Client) -> None:
    replace(client, rows(1), "d.months$202401")
    named = [
        bigquery.ScalarQueryParameter("day", "DATE", date(2024, 1, 2)),
        bigquery.ArrayQueryParameter("ids", "STRING", ["i1-1", "i1-2"]),
        bigquery.ScalarQueryParameter("least", "NUMERIC", Decimal("0.02")),
    ]
    sql = "SELECT id FROM d.months WHERE day >= @day AND id IN UNNEST(@ids) AND amount >= @least"
    assert values(client, sql, query_parameters=named) == [("i1-2",)]
    placed = [bigquery.ScalarQueryParameter(None, "STRING", v) for v in ("a'b", None)]
    assert values(client, "SELECT ?, ?", query_parameters=placed) == [("a'b", None)]


# Statements


def test_rows_are_read_page_by_page(client: bigquery.Client) -> None:
    replace(client, rows(1, 1200), "d.months$202401")
    assert [row["id"] for row in client.query("SELECT id FROM d.months ORDER BY amount").result()] == [
        f"i1-{i}" for i in range(1200)
    ]
    listed = list(client.list_rows("d.months", selected_fields=SCHEMA[:1], start_index=100, page_size=300))
    assert [row.values() for row in listed] == [(f"i1-{i}",) for i in range(100, 1200)]
    assert len(list(client.query_and_wait("SELECT * FROM d.months", max_results=7))) == 7


def test_a_query_writes_a_partition_of_its_destination(client: bigquery.Client) -> None:
    replace(client, rows(1), "d.arrivals$202401")
    settings = {"destination": f"{PROJECT}.d.months$202401", "write_disposition": "WRITE_TRUNCATE"}
    table = client.get_table("d.months")
    table.schema = [bigquery.SchemaField("id", "STRING"), *SCHEMA[1:]]
    client.update_table(table, ["schema"])
    for _again in range(2):
        values(client, "SELECT * FROM d.arrivals", **settings)
    assert {p: n for p, (n, _) in partitions(client).items()} == {"202401": 3}
    with pytest.raises(exceptions.BadRequest, match="different partitions"):
        values(client, "SELECT * REPLACE (DATE '2024-02-01' AS day) FROM d.arrivals", **settings)
    with pytest.raises(exceptions.Conflict, match="Already Exists"):
        values(client, "SELECT * FROM d.months", destination=f"{PROJECT}.d.months")


def test_a_merge_replaces_a_month_and_touches_no_other(client: bigquery.Client) -> None:
    for month in (1, 2):
        replace(client, rows(month), f"d.months$20240{month}")
    before = partitions(client)
    load(client, rows(2, 2, "new"), "d.staged")
    job = client.query(
        """MERGE d.months AS m USING d.staged AS s ON FALSE
           WHEN NOT MATCHED BY SOURCE AND m.day BETWEEN DATE '2024-02-01' AND DATE '2024-02-29' THEN DELETE
           WHEN NOT MATCHED THEN INSERT ROW"""
    )
    job.result()
    assert (job.num_dml_affected_rows, job.dml_stats.inserted_row_count, job.dml_stats.deleted_row_count) == (5, 2, 3)
    after = partitions(client)
    assert after["202401"] == before["202401"]
    assert after["202402"][0] == 2 and after["202402"][1] > before["202402"][1]
    assert values(client, "SELECT id FROM d.months WHERE day >= '2024-02-01' ORDER BY id") == [("new2-0",), ("new2-1",)]


def test_changes_count_rows_and_touch_their_partitions(client: bigquery.Client) -> None:
    for month in (1, 2, 3):
        replace(client, rows(month), f"d.months$20240{month}")
    before = partitions(client)
    changes = [
        ("UPDATE d.months SET amount = 12345678901234.56, keys = NULL WHERE id = 'i1-0'", 1, {"202401"}),
        ("INSERT INTO d.months (id, day, amount) VALUES ('n', DATE '2024-02-03', 12345678901234.56)", 1, {"202402"}),
        ("INSERT INTO d.months SELECT id || 'x', day, amount, keys FROM d.months WHERE id = 'i2-1'", 1, {"202402"}),
        ("DELETE FROM d.months WHERE day >= '2024-03-02'", 2, {"202403"}),
        ("UPDATE d.months m SET amount = -7 WHERE m.id IN (SELECT 'i1-1' AS i)", 1, {"202401"}),
        ("DELETE FROM d.months WHERE FALSE", 0, set()),
    ]
    for sql, count, touched in changes:
        job = client.query(sql)
        job.result()
        after = partitions(client)
        assert (sql, job.num_dml_affected_rows) == (sql, count)
        assert {p for p in after if after[p][1] != before[p][1]} == touched
        before = after
    exact = Decimal("12345678901234.56")
    sql = "SELECT id, amount, keys FROM d.months WHERE id IN ('i1-0', 'i1-1', 'n') ORDER BY id"
    assert values(client, sql) == [("i1-0", exact, []), ("i1-1", Decimal(-7), ["a", "ż"]), ("n", exact, [])]
    values(client, "DELETE FROM d.months WHERE day >= '2024-03-01'")
    assert list(partitions(client)) == ["202401", "202402"]


def test_rows_without_a_date_stand_in_a_partition_of_their_own(client: bigquery.Client) -> None:
    undated = rows(1).set_column(1, "day", pa.nulls(3, pa.date32()))
    load(client, undated, "d.months", schema=SCHEMA)
    replace(client, rows(1), "d.months$202401")
    assert {p: n for p, (n, _) in partitions(client).items()} == {"202401": 3, "__NULL__": 3}
    assert dry(client, "SELECT amount FROM d.months WHERE day < '2024-02-01'") == 3 * 24
    replace(client, undated.slice(1), "d.months$__NULL__")
    assert partitions(client)["__NULL__"][0] == 2


@pytest.mark.parametrize(
    ("insert", "amount"),
    [("ROW", "1.5"), ("VALUES (s.id, s.day, 0.25, s.keys)", "0.25"), ("(id, amount) VALUES (id, -s.amount)", "-1.5")],
)
def test_a_merge_inserts_a_row_as_it_says(client: bigquery.Client, insert: str, amount: str) -> None:
    source = "(SELECT 'n' AS id, DATE '2024-01-01' AS day, NUMERIC '1.5' AS amount, ['k'] AS keys)"
    values(client, f"MERGE d.months m USING {source} s ON m.id = s.id WHEN NOT MATCHED THEN INSERT {insert}")
    assert values(client, "SELECT id, amount FROM d.months") == [("n", Decimal(amount))]


def test_a_change_that_fails_halfway_changes_nothing(client: bigquery.Client) -> None:
    replace(client, rows(1), "d.months$202401")
    before = partitions(client), values(client, "SELECT * FROM d.months ORDER BY id")
    for sql in [
        "UPDATE d.months SET amount = 1 / amount WHERE TRUE",
        "INSERT INTO d.months (day) VALUES (DATE '2024-01-01')",
        "MERGE d.months m USING (SELECT 'i1-0' AS i UNION ALL SELECT 'i1-0') s ON m.id = s.i WHEN MATCHED THEN DELETE",
    ]:
        with pytest.raises(exceptions.BadRequest):
            values(client, sql)
        assert (partitions(client), values(client, "SELECT * FROM d.months ORDER BY id")) == before


def test_tables_are_made_and_dropped_by_statements(client: bigquery.Client) -> None:
    replace(client, rows(1), "d.months$202401")
    values(
        client,
        """CREATE TABLE d.copy PARTITION BY DATE_TRUNC(day, MONTH) CLUSTER BY id
           OPTIONS (expiration_timestamp = TIMESTAMP '2100-01-01', description = 'a copy', labels = [('a', 'b')])
           AS SELECT id, day, amount / 3 AS third FROM d.months""",
    )
    copy = client.get_table("d.copy")
    assert (copy.time_partitioning.type_, copy.time_partitioning.field, copy.num_rows) == ("MONTH", "day", 3)
    assert (copy.clustering_fields, copy.description, copy.labels, copy.expires.year) == (
        ["id"],
        "a copy",
        {"a": "b"},
        2100,
    )
    assert [(f.name, f.field_type) for f in copy.schema] == [("id", "STRING"), ("day", "DATE"), ("third", "NUMERIC")]
    values(client, "CREATE OR REPLACE TABLE d.copy (a INT64 NOT NULL, b ARRAY<STRING>) PARTITION BY _PARTITIONDATE")
    copy = client.get_table("d.copy")
    assert [(f.name, f.mode) for f in copy.schema] == [("a", "REQUIRED"), ("b", "REPEATED")]
    assert (copy.time_partitioning.type_, copy.time_partitioning.field, copy.num_rows) == ("DAY", None, 0)
    values(client, "CREATE TABLE IF NOT EXISTS d.copy (z INT64)")
    values(client, "DROP TABLE d.copy")
    values(client, "DROP TABLE IF EXISTS d.copy")
    assert {table.table_id for table in client.list_tables("d")} == {"months", "arrivals"}
    assert values(
        client, "SELECT column_name, data_type FROM d.INFORMATION_SCHEMA.COLUMNS WHERE table_name = 'months'"
    ) == [
        ("id", "STRING"),
        ("day", "DATE"),
        ("amount", "NUMERIC"),
        ("keys", "ARRAY<STRING>"),
    ]


def test_tables_and_datasets_are_changed_and_deleted(client: bigquery.Client, server: BigQueryServer) -> None:
    table = client.get_table("d.months")
    table.labels, table.expires = {"room": "ledger"}, datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    fresh = client.update_table(table, ["labels", "expires"])
    assert fresh.labels == {"room": "ledger"}
    with pytest.raises(exceptions.PreconditionFailed):
        client.update_table(table, ["labels"])
    fresh.expires = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    client.update_table(fresh, ["expires"])
    with pytest.raises(exceptions.NotFound):
        client.get_table("d.months")
    wanted = ["bigquery.tables.getData", "bigquery.tables.updateData"]
    server.deny("bigquery.tables.updateData")
    assert client.test_iam_permissions(client.get_table("d.arrivals"), wanted)["permissions"] == wanted[:1]
    with pytest.raises(exceptions.BadRequest, match="still in use"):
        client.delete_dataset("d")
    client.delete_dataset("d", delete_contents=True)
    assert list(client.list_datasets()) == []


# Cost


def test_a_dry_run_counts_the_columns_used_in_the_partitions_left(client: bigquery.Client) -> None:
    for month in (1, 2, 3):
        replace(client, rows(month, 100 * month), f"d.months$20240{month}")
        replace(client, rows(5, 100 * month), f"d.arrivals$20240{month}")
    ids = {m: sum(2 + len(f"i{m}-{i}") for i in range(100 * m)) for m in (1, 2, 3)}
    arrived = {m: sum(2 + len(f"i5-{i}") for i in range(100 * m)) for m in (1, 2, 3)}
    cases = [
        ("SELECT COUNT(*) FROM d.months", 0),
        ("SELECT id FROM d.months", sum(ids.values())),
        ("SELECT amount FROM d.months", 600 * 16),
        ("SELECT keys FROM d.months", 600 * (3 + 4)),
        ("SELECT amount FROM (SELECT * FROM d.months)", 600 * 16),
        ("SELECT amount FROM d.months WHERE day = DATE '2024-02-02'", 200 * 24),
        ("SELECT amount FROM d.months WHERE day >= '2024-02-01' AND day < DATE(2024, 3, 1)", 200 * 24),
        ("SELECT amount FROM d.months WHERE day BETWEEN DATE '2024-02-29' AND DATE '2024-03-01'", 500 * 24),
        ("SELECT amount FROM d.months WHERE day IN (DATE '2024-01-31', CAST('2024-03-01' AS DATE))", 400 * 24),
        ("SELECT amount FROM d.months WHERE DATE '2024-01-15' > day OR amount > 5", 600 * 24),
        ("SELECT amount FROM (SELECT * FROM d.months) AS q WHERE q.day < DATE '2024-02-01'", 100 * 24),
        ("SELECT amount FROM d.months WHERE day IN (SELECT day FROM d.months)", 600 * 24),
        ("SELECT id FROM d.arrivals WHERE _PARTITIONTIME = TIMESTAMP '2024-02-01'", arrived[2]),
        ("SELECT id FROM d.arrivals WHERE _PARTITIONDATE > DATE '2024-02-01'", arrived[3]),
        (
            "SELECT m.id FROM d.months m JOIN d.arrivals a ON m.id = a.id AND m.day > DATE '2024-02-29'",
            ids[3] + 300 * 8 + sum(arrived.values()),
        ),
        ("DELETE FROM d.months WHERE day < DATE '2024-02-01'", ids[1] + 100 * (8 + 16 + 7)),
        (
            """MERGE d.months AS m USING d.arrivals AS a ON FALSE WHEN NOT MATCHED THEN INSERT (id) VALUES (a.id)
               WHEN NOT MATCHED BY SOURCE AND m.day < DATE '2024-02-01' THEN DELETE""",
            ids[1] + 100 * (8 + 16 + 7) + sum(arrived.values()),
        ),
    ]
    assert [(sql, dry(client, sql)) for sql, _ in cases] == cases
    assert client.get_table("d.months").num_rows == 600


def test_a_table_may_demand_a_filter_of_its_partitions(client: bigquery.Client) -> None:
    table = client.get_table("d.months")
    table.require_partition_filter = True
    client.update_table(table, ["require_partition_filter"])
    assert values(client, "SELECT id FROM d.months WHERE day > '2024-01-01'") == []
    with pytest.raises(exceptions.BadRequest, match="without a filter over column"):
        values(client, "SELECT id FROM d.months")


def test_a_query_over_its_byte_limit_is_refused_before_it_runs(client: bigquery.Client, server: BigQueryServer) -> None:
    replace(client, rows(1), "d.months$202401")
    settings = {"labels": {"asset": "invoices"}, "maximum_bytes_billed": 20 * MIB}
    joined = "SELECT COUNT(*) FROM d.months JOIN d.arrivals USING (id)"
    job = client.query(joined, job_config=bigquery.QueryJobConfig(**settings))
    job.result()
    assert (job.total_bytes_billed, job.total_bytes_processed, job.cache_hit) == (20 * MIB, 3 * 6, False)
    assert server.jobs[-1]["configuration"]["labels"] == {"asset": "invoices"}
    settings["maximum_bytes_billed"] = 10 * MIB
    message = "Query exceeded limit for bytes billed: 10485760. 20971520 or higher required."
    with pytest.raises(exceptions.InternalServerError, match=message):
        client.query(joined, job_config=bigquery.QueryJobConfig(**settings)).result()
    sql = "DELETE FROM d.months WHERE id IN (SELECT id FROM d.arrivals) OR TRUE"
    with pytest.raises(exceptions.GoogleAPICallError, match=message):
        client.query_and_wait(sql, job_config=bigquery.QueryJobConfig(**settings))
    assert client.get_table("d.months").num_rows == 3


# The Storage Read API


def test_streams_together_give_every_row_once(client: bigquery.Client, storage: BigQueryReadClient) -> None:
    table = rows(1, 4 * BATCH_ROWS + 1)
    replace(client, table, "d.months$202401")
    result = client.query("SELECT * FROM d.months").result()
    batches = list(result.to_arrow_iterable(bqstorage_client=storage))
    assert len(batches) > 4
    assert pa.Table.from_batches(batches).sort_by("amount").to_pylist() == table.to_pylist()
    assert client.query("SELECT * FROM d.arrivals").result().to_arrow(bqstorage_client=storage).num_rows == 0


def session(storage: BigQueryReadClient, **options: Any) -> types.ReadSession:
    table = f"projects/{PROJECT}/datasets/d/tables/months"
    asked = types.ReadSession(table=table, data_format=types.DataFormat.ARROW, read_options=options)
    return storage.create_read_session(parent=f"projects/{PROJECT}", read_session=asked, max_stream_count=1)


def test_a_session_reads_chosen_fields_of_chosen_rows(client: bigquery.Client, storage: BigQueryReadClient) -> None:
    replace(client, rows(1, 30), "d.months$202401")
    opened = session(storage, selected_fields=["id"], row_restriction="day >= '2024-01-28' AND amount < 0.29")
    read = storage.read_rows(opened.streams[0].name).to_arrow(opened)
    assert read.to_pydict() == {"id": ["i1-27"]}
    with pytest.raises(exceptions.InvalidArgument, match="do not exist"):
        session(storage, selected_fields=["nothing"])


def test_a_broken_stream_goes_on_at_the_next_row(
    client: bigquery.Client, storage: BigQueryReadClient, server: BigQueryServer
) -> None:
    count = 5 * BATCH_ROWS
    replace(client, rows(1, count), "d.months$202401")
    server.fail("ReadRows", "drop", times=3)
    opened = session(storage, selected_fields=["id"])
    read = storage.read_rows(opened.streams[0].name).to_arrow(opened)
    assert read["id"].to_pylist() == [f"i1-{i}" for i in range(count)]
    server.fail("ReadRows", "drop", times=2)
    result = client.query("SELECT * FROM d.months").result()
    assert result.to_arrow(bqstorage_client=storage).sort_by("amount")["id"].to_pylist() == read["id"].to_pylist()
    server.fail("ReadRows", 403)
    with pytest.raises(exceptions.PermissionDenied):
        storage.read_rows(opened.streams[0].name).to_arrow(opened)


# Faults


@pytest.mark.parametrize("how", [500, 502, 503, 429, "drop"])
@pytest.mark.parametrize("call", ["jobs.insert", "jobs.getQueryResults"])
def test_a_passing_fault_is_retried_by_the_client(
    client: bigquery.Client, server: BigQueryServer, call: str, how: int | str
) -> None:
    server.fail(call, how)
    assert values(client, "SELECT 1") == [(1,)]
    assert len(server.jobs) == 1


@pytest.mark.parametrize("call", ["tables.get", "upload", "jobs.insert", "jobs.query"])
def test_a_lasting_refusal_is_one_error(client: bigquery.Client, server: BigQueryServer, call: str) -> None:
    server.fail(call, 403)
    actions = {
        "tables.get": lambda: client.get_table("d.months"),
        "upload": lambda: replace(client, rows(1), "d.months$202401"),
        "jobs.insert": lambda: client.query("SELECT 1"),
        "jobs.query": lambda: client.query_and_wait("SELECT 1"),
    }
    with pytest.raises(exceptions.Forbidden, match="failed with 403 as asked"):
        actions[call]()
    assert server.jobs == []


def test_a_load_whose_answer_was_lost_is_known_by_its_job(client: bigquery.Client, server: BigQueryServer) -> None:
    server.fail("upload", "drop")
    with pytest.raises(exceptions.Conflict, match="Already Exists: Job"):
        replace(client, rows(1), "d.months$202401", job_id="once")
    assert client.get_job("once").output_rows == 3
    assert client.get_table("d.months").num_rows == 3


@pytest.mark.parametrize("how", [503, "drop"])
def test_a_load_session_survives_broken_requests(
    client: bigquery.Client, server: BigQueryServer, monkeypatch: pytest.MonkeyPatch, how: int | str
) -> None:
    monkeypatch.setattr("google.cloud.bigquery.client._DEFAULT_CHUNKSIZE", MIB)
    monkeypatch.setattr("google.resumable_media._helpers.calculate_retry_wait", lambda *_: (0.01, 0.01))
    table = pa.table({"id": [f"{i:040d}" for i in range(60_000)]})
    server.fail("upload", how, times=2)
    load(client, table, "d.noise", resumable=True)
    assert values(client, "SELECT COUNT(*), COUNT(DISTINCT id) FROM d.noise") == [(60_000, 60_000)]
    assert [job["configuration"]["jobType"] for job in server.jobs] == ["LOAD", "QUERY"]


def test_a_page_that_breaks_off_is_read_again(client: bigquery.Client, server: BigQueryServer) -> None:
    replace(client, rows(1, 900), "d.months$202401")
    server.fail("tabledata.list", "drop")
    assert len(list(client.list_rows("d.months"))) == 900


def test_a_call_that_hangs_ends_in_the_clients_timeout(client: bigquery.Client, server: BigQueryServer) -> None:
    server.fail("tables.get", "hang")
    with pytest.raises(Exception, match="timed out"):
        client.get_table("d.months", timeout=0.2, retry=None)
    assert client.get_table("d.months").num_rows == 0
    with pytest.raises(ValueError, match=r"jobs\.nothing cannot fail"):
        server.fail("jobs.nothing", 500)


# Other clients


def test_dagsters_resource_works_with_the_credentials_of_a_file(
    server: BigQueryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials_file(server, tmp_path)))
    server.fail("token", 503)
    with BigQueryResource().get_client() as client:
        assert client.project == PROJECT
        assert values(client, "SELECT 'ż' AS c") == [("ż",)]
        client.close()


def test_ibis_asks_what_the_warehouse_asks(client: bigquery.Client, backend: Any) -> None:
    for month in (1, 2):
        replace(client, rows(month, 400, prefix=" i\t"), f"d.months$20240{month}")
    months = backend.table("months")
    small = months.filter(_.amount < Decimal("0.03")).select("id", "day")
    ranked = months.mutate(rank=ibis.row_number().over(group_by=_.day.month(), order_by=[_.amount.desc(), _.id]))
    pairs = months.select("id", key=months["keys"].unnest())
    asked = {
        "join": months.join(small, "id").count(),
        "semi": months.semi_join(small, "id").count(),
        "anti": months.anti_join(small, "id").count(),
        "left": months.left_join(small, "id").filter(_.day_right.isnull()).count(),
        "union": small.union(small, distinct=True).count(),
        "window": ranked.filter(_["rank"] == 0).id.strip().collect().length(),
        "dates": months.filter(_.day >= date(2024, 2, 1), _.day < date(2024, 2, 8)).count(),
        "between": months.filter(_.day.between(date(2024, 1, 31), date(2024, 2, 1))).count(),
        "groups": months.group_by(_.day.truncate("M").name("month")).agg(total=_.amount.sum()).total.max(),
        "unnested": pairs.filter(_.key == "ż").count(),
        "mean": months.amount.mean(),
    }
    assert {name: expression.execute() for name, expression in asked.items()} == {
        "join": 6,
        "semi": 6,
        "anti": 794,
        "left": 794,
        "union": 6,
        "window": 2,
        "dates": 7 * 15,
        "between": 15,
        "groups": Decimal("798"),
        "unnested": 800,
        "mean": Decimal("1.995"),
    }


def test_ibis_makes_fingerprints_and_keys(client: bigquery.Client, backend: Any) -> None:
    for month in (1, 2):
        replace(client, rows(month, 50, prefix=" i\t"), f"d.months$20240{month}")
    months = backend.table("months").drop("keys").mutate(month=_.day.strftime("%Y-%m")).drop("day")
    prints = expressions.fingerprints(months).order_by("month").to_pyarrow().to_pylist()
    assert [(row["month"], row["rows"]) for row in prints] == [("2024-01", 50), ("2024-02", 50)]
    assert prints == expressions.fingerprints(months).order_by("month").to_pyarrow().to_pylist()
    client.query("UPDATE d.months SET amount = amount + 0.01 WHERE id = ' i\\t2-7'").result()
    again = expressions.fingerprints(months).order_by("month").to_pyarrow().to_pylist()
    assert (again[0], again[1]["hash"] != prints[1]["hash"]) == (prints[0], True)
    found = expressions.keys(backend.table("months"), "id").to_pyarrow()["key"].to_pylist()
    assert sorted(found) == sorted(f"i\t{month}-{i}" for month in (1, 2) for i in range(50))


def test_ibis_joins_rows_from_memory(client: bigquery.Client, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # It would drop the table when the process ends, and look for the stopped server for ten minutes.
    monkeypatch.setattr(backend, "_make_memtable_finalizer", lambda name: None)
    replace(client, rows(1, 5), "d.months$202401")
    memory = ibis.memtable({"id": ["i1-1", "i1-3"], "weight": [0.5, None]})
    joined = backend.table("months").join(memory, "id").select("id", "weight").order_by("id")
    assert joined.to_pyarrow().to_pylist() == [{"id": "i1-1", "weight": 0.5}, {"id": "i1-3", "weight": None}]
    assert [dataset.dataset_id for dataset in client.list_datasets()] == ["d"]
