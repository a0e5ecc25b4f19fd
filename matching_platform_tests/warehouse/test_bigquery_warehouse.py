"""BigQuery through its real clients: months come and go whole, amounts stay exact, nothing costs more than was allowed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
from dagster_gcp import BigQueryResource
from google.api_core.exceptions import BadRequest
from google.cloud import bigquery
from polars.testing import assert_frame_equal

from matching_platform.intake.taking import Intake
from matching_platform.learning.examples import label_month
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.ledger.validation import validate
from matching_platform.store.record import Record
from matching_platform.store.versions import Store
from matching_platform.warehouse.bigquery import READ_EMULATOR, BigQueryWarehouse, reader
from matching_platform.warehouse.queries import BudgetError
from matching_platform.warehouse.warehouse import HeldError, WarehouseError
from matching_platform_tests.emulators.bigquery import BigQueryServer, credentials_file, serve
from matching_platform_tests.warehouse.appends import bookings, grows, takes_decisions

pytestmark = pytest.mark.cloud

AMOUNTS = ["0.01", "-150.00", "12345678901234.56"]


@pytest.fixture(scope="module")
def server() -> Iterator[BigQueryServer]:
    with serve() as server:
        yield server


@pytest.fixture
def warehouse(server: BigQueryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryWarehouse]:
    """A warehouse with datasets of its own."""
    monkeypatch.setattr("matching_platform.warehouse.bigquery.SMALL_QUESTION", 0)
    monkeypatch.setattr("matching_platform.warehouse.queries.RETRY_SECONDS", 0.01)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.rest)
    monkeypatch.setenv(READ_EMULATOR, server.read)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials_file(server, tmp_path)))
    with BigQueryResource(project="test-project", location="EU").get_client() as client:
        names = {name: f"{name}_{tmp_path.name}".replace("-", "_") for name in ("raw", "made")}
        for name in names.values():
            client.create_dataset(name)
        warehouse = BigQueryWarehouse(
            client,
            reader(),
            Store(tmp_path / "store"),
            raw_dataset=names["raw"],
            dataset=names["made"],
            query_limit=2**30,
            run_budget=2**30,
            labels={"environment": "staging"},
        )
        yield warehouse
        server.heal()
        client.close()
        warehouse.reader.transport.close()


def transfers(month: str, amounts: list[str] = AMOUNTS) -> pl.DataFrame:
    day = date(int(month[:4]), int(month[5:]), 3)
    rows = [
        {
            "transfer_id": f"T{month}-{number}",
            "booked_on": day,
            "amount": Decimal(amount),
            "currency": "EUR",
            "direction": "in",
            "counterparty_name": "Żółć — 商事",
            "counterparty_account": None,
            "title": "",
        }
        for number, amount in enumerate(amounts)
    ]
    schema = {column.name: column.external_dtype for column in TABLES["transfers"].columns}
    return pl.DataFrame(rows, schema=schema)


def test_a_month_comes_back_as_it_was_written(warehouse: BigQueryWarehouse) -> None:
    warehouse.write_months("transfers", {"2024-01": transfers("2024-01"), "2024-02": transfers("2024-02")})
    back = warehouse.read_month("transfers", "2024-02")
    assert_frame_equal(back.cast(transfers("2024-02").schema), transfers("2024-02"), check_row_order=False)
    assert sorted(back["amount"]) == sorted(Decimal(amount) for amount in AMOUNTS)
    assert warehouse.read_month("transfers", "2030-01").is_empty()


def test_fingerprints_come_by_one_query_and_change_for_the_months_that_were_touched(
    warehouse: BigQueryWarehouse, server: BigQueryServer
) -> None:
    for name in RAW_TABLES:
        warehouse.write_months(name, {})
    warehouse.write_months("transfers", {month: transfers(month) for month in ("2024-01", "2024-02", "2024-03")})
    queries = len(server.jobs)
    before = warehouse.months()
    assert len(server.jobs) == queries + 2, "one query, and its dry run"
    assert {name: list(months) for name, months in before.items()} == {
        "invoices": [],
        "transfers": ["2024-01", "2024-02", "2024-03"],
        "matches": [],
    }
    warehouse.write_months("transfers", {"2024-02": transfers("2024-02", ["5.00"])})
    after = warehouse.months()["transfers"]
    assert {month for month in after if after[month] != before["transfers"][month]} == {"2024-02"}
    assert after["2024-02"].startswith("1-")


def test_an_empty_month_takes_away_what_was_there(warehouse: BigQueryWarehouse) -> None:
    warehouse.publish("transfers", "2024-01", transfers("2024-01"))
    warehouse.publish("transfers", "2024-02", transfers("2024-02"))
    warehouse.publish("transfers", "2024-01", transfers("2024-01").clear())
    assert count(warehouse, "transfers") == {date(2024, 2, 3): 3}


def test_publishing_again_changes_nothing(warehouse: BigQueryWarehouse) -> None:
    for _ in range(2):
        warehouse.publish("transfers", "2024-01", transfers("2024-01"))
    assert count(warehouse, "transfers") == {date(2024, 1, 3): 3}
    made = warehouse.client.get_table(f"{warehouse.dataset}.transfers")
    assert (made.time_partitioning.type_, made.time_partitioning.field) == ("MONTH", "booked_on")
    assert made.clustering_fields == ["transfer_id"]
    assert {field.name: field.field_type for field in made.schema}["amount"] == "NUMERIC"


def test_rows_of_another_month_are_refused_and_the_month_stays(warehouse: BigQueryWarehouse) -> None:
    warehouse.publish("transfers", "2024-01", transfers("2024-01"))
    with pytest.raises(WarehouseError, match=r"writing .*transfers of 2024-01 failed"):
        warehouse.publish("transfers", "2024-01", transfers("2024-02"))
    assert count(warehouse, "transfers") == {date(2024, 1, 3): 3}


def test_a_column_that_came_later_is_added(warehouse: BigQueryWarehouse) -> None:
    older = [bigquery.SchemaField("transfer_id", "STRING"), bigquery.SchemaField("booked_on", "DATE")]
    table = bigquery.Table(f"test-project.{warehouse.dataset}.transfers", older)
    table.time_partitioning = bigquery.TimePartitioning("MONTH", "booked_on")
    warehouse.client.create_table(table)
    warehouse.publish("transfers", "2024-01", transfers("2024-01"))
    assert count(warehouse, "transfers") == {date(2024, 1, 3): 3}


def test_a_companys_own_table_is_never_overwritten(warehouse: BigQueryWarehouse) -> None:
    fields = [bigquery.SchemaField("transfer_id", "STRING"), bigquery.SchemaField("booked_on", "DATE")]
    table = bigquery.Table(f"test-project.{warehouse.raw_dataset}.raw_transfers", fields)
    table.time_partitioning = bigquery.TimePartitioning("MONTH", "booked_on")
    warehouse.client.create_table(table)
    with pytest.raises(WarehouseError, match="raw_transfers was made by somebody else, and is not overwritten"):
        warehouse.write_months("transfers", {"2024-01": transfers("2024-01")})
    assert [field.name for field in warehouse.client.get_table(table).schema] == ["transfer_id", "booked_on"]


@pytest.mark.parametrize("kind", ["MONTH", "DAY"])
@pytest.mark.parametrize("field", ["booked_on", None])
def test_the_companys_own_partitions_are_read(warehouse: BigQueryWarehouse, kind: str, field: str | None) -> None:
    """By a date of the contract, by day, or by the time of loading."""
    table = bigquery.Table(
        f"test-project.{warehouse.raw_dataset}.raw_transfers",
        [
            bigquery.SchemaField(column.name, {"date": "DATE", "amount": "NUMERIC"}.get(column.kind, "STRING"))
            for column in TABLES["transfers"].columns
        ],
    )
    table.time_partitioning = bigquery.TimePartitioning(kind, field)
    warehouse.client.create_table(table)
    for month in ("2024-01", "2024-02"):
        load(warehouse, f"raw_transfers${month.replace('-', '')}{'03' * (kind == 'DAY')}", transfers(month))
    assert list(warehouse.months()["transfers"]) == ["2024-01", "2024-02"]
    assert warehouse.read_month("transfers", "2024-02")["transfer_id"].to_list() == [f"T2024-02-{n}" for n in range(3)]
    load(
        warehouse,
        f"raw_transfers$202402{'03' * (kind == 'DAY')}",
        transfers("2024-01").with_columns(booked_on=pl.lit(date(2024, 2, 3))),
    )
    assert warehouse.taken("transfers", "2024-02").sort().to_list() == [f"T2024-01-{n}" for n in range(3)]


def test_a_table_without_partitions_is_refused(warehouse: BigQueryWarehouse) -> None:
    warehouse.client.create_table(
        bigquery.Table(
            f"test-project.{warehouse.raw_dataset}.raw_invoices", [bigquery.SchemaField("invoice_id", "STRING")]
        )
    )
    with pytest.raises(
        WarehouseError, match="raw_invoices is not partitioned by month or day; partition it by month of"
    ):
        warehouse.read_month("invoices", "2024-01")


def test_a_value_that_does_not_fit_is_named(warehouse: BigQueryWarehouse) -> None:
    odd = transfers("2024-01").with_columns(amount=pl.lit("12.345"))
    with pytest.raises(
        WarehouseError, match="raw_transfers of 2024-01, column amount: holds a value that does not fit its type"
    ):
        warehouse.write_months("transfers", {"2024-01": odd})
    assert warehouse.months()["transfers"] == {}


def test_a_folder_becomes_months(warehouse: BigQueryWarehouse, sample: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    for name in RAW_TABLES:
        sample[name].write_parquet(tmp_path / f"{name}.parquet")
    warehouse.load_folder(tmp_path)
    months = warehouse.months()
    newest = max(months["transfers"])
    back = [validate(name, warehouse.read_month(name, month)) for name in RAW_TABLES for month in months[name]]
    assert sum(map(len, back)) == sum(len(sample[name]) for name in RAW_TABLES)
    assert warehouse.unknown_invoices(newest).is_empty()
    assert warehouse.taken("invoices", newest).is_empty()


def test_candidates_joined_in_the_warehouse_are_those_of_the_arrays(
    warehouse: BigQueryWarehouse, small_ledger: Ledger, server: BigQueryServer
) -> None:
    month = small_ledger.months()[-1]
    charged = warehouse.charged_to("run", "labelled_pairs")
    assert label_month(small_ledger, month, charged.candidates).equals(label_month(small_ledger, month))
    loads = len([job for job in server.jobs if "load" in job["configuration"]])
    label_month(small_ledger, month, charged.candidates)
    assert len([job for job in server.jobs if "load" in job["configuration"]]) == loads, "keys are loaded once a day"
    assert charged.costs()["bytes billed"] > 0


def test_every_query_has_a_limit_and_labels(warehouse: BigQueryWarehouse, server: BigQueryServer) -> None:
    warehouse.write_months("transfers", {"2024-01": transfers("2024-01")})
    since = len(server.jobs)
    warehouse.charged_to("3F2A-Run", "transfers").read_month("transfers", "2024-01")
    jobs = [job["configuration"] for job in server.jobs[since:]]
    assert jobs[-1]["labels"] == {"environment": "staging", "run": "3f2a-run", "step": "transfers"}
    for job in jobs:
        assert job["labels"]["environment"] == "staging"
        assert job.get("dryRun") or int(job["query"]["maximumBytesBilled"]) == 2**30


def test_what_a_lost_answer_may_have_cost_stays_counted(warehouse: BigQueryWarehouse, server: BigQueryServer) -> None:
    warehouse.write_months("transfers", {"2024-01": transfers("2024-01")})
    charged = warehouse.charged_to("run", "transfers")
    server.fail("jobs.getQueryResults", 403, times=3)
    with pytest.raises(WarehouseError, match="reading"):
        charged.read_month("transfers", "2024-01")
    assert charged.costs()["bytes billed in this run"] == 10 * 2**20


def test_what_was_billed_is_summed_for_the_run(warehouse: BigQueryWarehouse) -> None:
    warehouse.write_months("transfers", {"2024-01": transfers("2024-01")})
    first, second = (warehouse.charged_to("run", step) for step in ("transfers", "invoices"))
    first.read_month("transfers", "2024-01")
    second.read_month("transfers", "2024-01")
    second.months()
    costs = second.costs()
    assert costs["bytes billed"] == 20 * 2**20
    assert costs["bytes billed in this run"] == 30 * 2**20
    assert costs["estimated cost, USD"] == pytest.approx(20 / 2**20 * 6.25)
    assert warehouse.charged_to("another", "transfers").costs()["bytes billed in this run"] == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"query_limit": 2**20}, "would read 10 MiB, more than the 1 MiB that one query may; nothing was read"),
        ({"run_budget": 15 * 2**20}, "of the run's budget of 15 MiB 5 MiB are left; nothing was read"),
    ],
)
def test_a_budget_fails_before_it_is_spent(
    warehouse: BigQueryWarehouse, server: BigQueryServer, limits: dict[str, int], message: str
) -> None:
    from dataclasses import replace

    warehouse.write_months("transfers", {"2024-01": transfers("2024-01")})
    charged = replace(warehouse, **limits).charged_to("run", "transfers")
    with pytest.raises(BudgetError, match=message):
        for _ in range(2):
            charged.read_month("transfers", "2024-01")
    assert server.jobs[-1]["configuration"]["dryRun"], "the last query was only asked for its price"


@pytest.mark.parametrize(
    ("call", "how"),
    [
        ("jobs.insert", 503),
        ("jobs.insert", 500),
        ("jobs.getQueryResults", 503),
        ("jobs.get", "drop"),
        ("upload", 503),
        ("upload", "drop"),
        ("tables.get", 429),
        ("ReadRows", "drop"),
        ("tabledata.list", "drop"),
        ("token", 503),
        ("jobs.insert", "hang"),
    ],
)
def test_a_fault_on_the_way_is_overcome(
    warehouse: BigQueryWarehouse, server: BigQueryServer, monkeypatch: pytest.MonkeyPatch, call: str, how: int | str
) -> None:
    monkeypatch.setattr("matching_platform.warehouse.queries.SECONDS", 2)
    many = transfers("2024-01", [f"{n}.00" for n in range(1, 3000)])
    server.fail(call, how)
    warehouse.write_months("transfers", {"2024-01": many})
    back = warehouse.read_month("transfers", "2024-01")
    assert back["transfer_id"].sort().equals(many["transfer_id"].sort())


@pytest.mark.parametrize(
    ("call", "how", "message"),
    [
        ("upload", 403, r"writing .*raw_transfers of 2024-01 failed: .*; give the account of this process the roles"),
        ("upload", 503, r"writing .*raw_transfers of 2024-01 failed: .*; BigQuery could not be reached"),
        ("tables.insert", 404, r"making .*raw_transfers failed: .*; make it, or name another"),
    ],
)
def test_a_fault_that_stays_is_one_clear_error_and_half_a_month_never(
    warehouse: BigQueryWarehouse,
    server: BigQueryServer,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    how: int,
    message: str,
) -> None:
    monkeypatch.setattr("matching_platform.warehouse.loads.UPLOAD_RETRIES", 1)
    warehouse.write_months("transfers", {"2024-01": transfers("2024-01", ["1.00"])})
    server.fail(call, how, times=100)
    with pytest.raises(WarehouseError, match=message) as raised:
        warehouse.write_months("transfers", {"2024-01": transfers("2024-01")})
    server.heal()
    assert "\n" not in str(raised.value)
    assert warehouse.read_month("transfers", "2024-01").height == 1


def count(warehouse: BigQueryWarehouse, table: str) -> dict[date, int]:
    sql = f"SELECT booked_on, COUNT(*) AS rows_ FROM `{warehouse.dataset}.{table}` GROUP BY booked_on"
    return {row.booked_on: row.rows_ for row in warehouse.client.query(sql).result()}


def load(warehouse: BigQueryWarehouse, name: str, rows: pl.DataFrame) -> None:
    from io import BytesIO

    file = BytesIO()
    rows.write_parquet(file)
    config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
    warehouse.client.load_table_from_file(
        file, f"{warehouse.raw_dataset}.{name}", rewind=True, job_config=config
    ).result()


@pytest.mark.parametrize("written", ["GHOST\u00a0", "\u2003GHOST", "\u0085 GHOST\t"])
def test_ids_are_trimmed_as_validation_trims_them(warehouse: BigQueryWarehouse, written: str) -> None:
    row = {"transfer_id": ["T1"], "invoice_id": [written], "amount": [Decimal(1)], "tagged_on": [date(2024, 1, 9)]}
    warehouse.write_months("matches", {"2024-01": pl.DataFrame(row)})
    warehouse.write_months("invoices", {})
    assert warehouse.unknown_invoices("2024-01").to_list() == ["GHOST"]


def test_a_table_that_only_grows_takes_each_row_once(warehouse: BigQueryWarehouse) -> None:
    grows(warehouse)
    takes_decisions(warehouse)


def test_a_table_that_was_dropped_is_filled_again(warehouse: BigQueryWarehouse) -> None:
    warehouse.append("bookings", bookings(1, 2), after=0)
    warehouse.client.delete_table(f"{warehouse.dataset}.bookings")
    warehouse.append("bookings", bookings(1, 2), after=0)
    assert warehouse.last_appended("bookings") == 2


def test_rows_whose_answer_was_lost_are_added_once(warehouse: BigQueryWarehouse, server: BigQueryServer) -> None:
    warehouse.append("bookings", bookings(1), after=0)
    server.fail("upload", "drop")
    warehouse.append("bookings", bookings(2), after=1)
    assert warehouse.read_appended("bookings", "2024-03")["number"].to_list() == [1, 2]


def test_rows_whose_load_job_failed_are_added_by_the_next(warehouse: BigQueryWarehouse) -> None:
    warehouse.append("bookings", bookings(1), after=0)
    table = warehouse.client.get_table(f"{warehouse.dataset}.bookings")
    name = f"{table.dataset_id}-bookings-{table.created:%Y%m%d%H%M%S%f}-after-1-0"
    config = bigquery.LoadJobConfig(source_format="PARQUET")
    failed = warehouse.client.load_table_from_file(BytesIO(b"no rows"), table, job_id=name, job_config=config)
    with pytest.raises(BadRequest):
        failed.result()
    warehouse.append("bookings", bookings(2), after=1)
    assert warehouse.last_appended("bookings") == 2


def added(month: str, numbers: list[int]) -> pl.DataFrame:
    rows = transfers(month, ["1.00"] * len(numbers))
    return rows.with_columns(transfer_id=pl.Series([f"A{number}" for number in numbers]))


def test_added_rows_come_beside_those_that_are_there(warehouse: BigQueryWarehouse) -> None:
    assert warehouse.rows_with("transfers", pl.Series(["A1"])).is_empty()
    both = pl.concat([added("2024-01", [1, 2]), added("2024-02", [3])])
    warehouse.add_rows("transfers", both)
    warehouse.add_rows("transfers", added("2024-01", [4]))
    months = warehouse.months()
    assert {month: mark.split("-")[0] for month, mark in months["transfers"].items()} == {
        "2024-01": "3",
        "2024-02": "1",
    }
    assert months["matches"] == months["invoices"] == {}
    assert warehouse.read_month("matches", "2024-01").is_empty(), "all raw tables are there"
    assert_frame_equal(
        warehouse.read_month("transfers", "2024-02").cast(both.schema), added("2024-02", [3]), check_row_order=False
    )
    found = warehouse.rows_with("transfers", pl.Series(["A3", "A4", "A9"]))
    assert sorted(found["transfer_id"]) == ["A3", "A4"]


def test_rows_are_added_all_or_none(warehouse: BigQueryWarehouse) -> None:
    warehouse.add_rows("transfers", added("2024-01", [1]))
    before = warehouse.months()
    with pytest.raises(HeldError, match="raw_transfers holds transfer_id 'A1' already; nothing was added"):
        warehouse.add_rows("transfers", pl.concat([added("2024-02", [1]), added("2024-03", [2])]))
    assert warehouse.months() == before


def test_no_rows_are_added_to_a_companys_own_table(warehouse: BigQueryWarehouse) -> None:
    table = bigquery.Table(f"test-project.{warehouse.raw_dataset}.raw_transfers")
    types = {"booked_on": "DATE", "amount": "NUMERIC"}
    table.schema = [bigquery.SchemaField(name, types.get(name, "STRING")) for name in TABLES["transfers"].schema]
    table.time_partitioning = bigquery.TimePartitioning("MONTH", "booked_on")
    warehouse.client.create_table(table)
    with pytest.raises(WarehouseError, match="was made by somebody else, and no rows are added"):
        warehouse.add_rows("transfers", added("2024-01", [1]))


def test_two_who_add_at_once_take_turns(warehouse: BigQueryWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matching_platform.warehouse.turns._LOOK_SECONDS", 0.05)
    for name in RAW_TABLES:
        warehouse.write_months(name, {})

    def add(numbers: list[int]) -> bool:
        try:
            warehouse.add_rows("transfers", added("2024-01", numbers))
        except HeldError:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(add, [[1, 2], [2, 3], [4, 5]]))
    assert sorted(outcomes[:2]) == [False, True], "they share a row"
    assert outcomes[2]
    there = warehouse.read_month("transfers", "2024-01")["transfer_id"]
    assert there.n_unique() == len(there) == 4


def test_a_turn_whose_holder_was_killed_passes_on(
    warehouse: BigQueryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    Record(warehouse.store, "turns/raw_transfers").append({"state": "begun", "what": "adding"})
    monkeypatch.setattr("matching_platform.warehouse.turns.LOST_SECONDS", 0.0)
    warehouse.add_rows("transfers", added("2024-01", [1]))
    monkeypatch.setattr("matching_platform.warehouse.turns.LOST_SECONDS", 0.2)
    monkeypatch.setattr("matching_platform.warehouse.turns._age", lambda _: 0.0)
    monkeypatch.setattr("matching_platform.warehouse.turns._LOOK_SECONDS", 0.01)
    Record(warehouse.store, "turns/raw_transfers").append({"state": "begun", "what": "adding"})
    with pytest.raises(WarehouseError, match="waits for others"):
        warehouse.add_rows("transfers", added("2024-01", [2]))


def test_an_import_goes_into_bigquery(warehouse: BigQueryWarehouse) -> None:
    intake = Intake(warehouse.store, warehouse)
    text = "Booking date;Title;Amount;Currency\n2024-01-05;INV 1;-10,50;EUR\n2024-02-06;INV 2;3,00;EUR\n"
    preview = intake.look("a.csv", text.encode())
    assert intake.take(preview, "Ada").new == 2
    again = intake.look("b.csv", (text + "\n").encode())
    assert (again.new, again.known, again.problem) == (0, 2, None)
    assert list(warehouse.months()["transfers"]) == ["2024-01", "2024-02"]
