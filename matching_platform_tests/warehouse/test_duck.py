import signal
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest

from matching_platform.ledger.validation import LedgerError, validate
from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform.warehouse.warehouse import WarehouseError


def transfers(month: str, count: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "transfer_id": [f"T{month}-{i}" for i in range(count)],
            "booked_on": [date.fromisoformat(f"{month}-1{i}") for i in range(count)],
            "amount": [Decimal(f"{i + 1}.50") for i in range(count)],
            "currency": "EUR",
            "direction": "in",
            "counterparty_name": "ACME",
            "counterparty_account": pl.Series([None] * count, dtype=pl.String),
            "title": "INV 1",
        }
    )


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckWarehouse:
    warehouse = DuckWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.write_months("transfers", {month: transfers(month) for month in ("2024-01", "2024-02")})
    return warehouse


def test_a_month_comes_back_as_it_was_written(warehouse: DuckWarehouse) -> None:
    assert warehouse.read_month("transfers", "2024-02").equals(transfers("2024-02"))
    assert warehouse.read_month("transfers", "2030-01").is_empty()


def test_raw_tables_have_the_types_of_the_contract(warehouse: DuckWarehouse) -> None:
    with duckdb.connect(str(warehouse.path)) as connection:
        types = {name: kind for name, kind, *_ in connection.execute("DESCRIBE raw_transfers").fetchall()}
    assert types["amount"] == "DECIMAL(18,2)"
    assert types["booked_on"] == "DATE"


def test_fingerprints_change_with_values_and_not_with_order(warehouse: DuckWarehouse) -> None:
    before = warehouse.months()["transfers"]
    assert list(before) == ["2024-01", "2024-02"]
    warehouse.write_month("transfers", "2024-01", transfers("2024-01").reverse())
    assert warehouse.months()["transfers"] == before
    corrected = transfers("2024-01").with_columns(pl.lit("INV 2").alias("title"))
    warehouse.write_month("transfers", "2024-01", corrected)
    after = warehouse.months()["transfers"]
    assert after["2024-01"] != before["2024-01"]
    assert after["2024-02"] == before["2024-02"]


@pytest.mark.parametrize(
    ("changes", "column", "problem"),
    [
        pytest.param({"amount": pl.lit("12,x")}, "amount", "is not an amount", id="unparsable amount"),
        pytest.param({"amount": pl.lit("12.345")}, "amount", "is not an amount", id="three decimals as text"),
        pytest.param({"amount": pl.lit(12.345)}, "amount", "is not an amount|is missing", id="three decimals as float"),
        pytest.param({"booked_on": pl.lit("yesterday")}, "booked_on", "is not a date", id="unparsable date"),
        pytest.param({"transfer_id": pl.lit(None, pl.String)}, "transfer_id", "missing", id="null key in all rows"),
    ],
)
def test_a_bad_month_is_kept_as_it_came_and_harms_no_other(
    warehouse: DuckWarehouse, changes: dict[str, pl.Expr], column: str, problem: str
) -> None:
    before = warehouse.months()["transfers"]
    warehouse.write_month("transfers", "2024-02", transfers("2024-02").with_columns(**changes))
    with pytest.raises(LedgerError, match=problem) as refused:
        validate("transfers", warehouse.read_month("transfers", "2024-02"))
    assert refused.value.column == column
    assert warehouse.months()["transfers"]["2024-01"] == before["2024-01"]
    assert validate("transfers", warehouse.read_month("transfers", "2024-01"))["amount"].to_list() == [150, 250, 350]
    warehouse.write_month("transfers", "2024-02", transfers("2024-02"))
    assert warehouse.months()["transfers"] == before
    assert validate("transfers", warehouse.read_month("transfers", "2024-02")).height == 3


def test_a_column_that_was_not_delivered_is_missed(warehouse: DuckWarehouse) -> None:
    warehouse.write_month("transfers", "2024-02", transfers("2024-02").drop("title"))
    with pytest.raises(LedgerError, match="column title: the column is missing"):
        validate("transfers", warehouse.read_month("transfers", "2024-02"))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_folder_is_split_into_its_months(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    tables = {
        "transfers": pl.concat([transfers("2024-01"), transfers("2024-02")]),
        "invoices": pl.DataFrame({"invoice_id": ["I1"], "issued_on": [date(2023, 12, 5)], "amount": ["9.99"]}),
        "matches": pl.DataFrame(
            {
                "transfer_id": ["T2024-01-0", "T2024-02-1", "nobody"],
                "invoice_id": ["I1", None, "I1"],
                "amount": [1.5, None, 2.0],
                "tagged_on": [date(2024, 2, 9), date(2024, 3, 1), date(2024, 5, 1)],
            }
        ),
    }
    for name, frame in tables.items():
        frame.write_parquet(folder / f"{name}.parquet") if suffix == "parquet" else frame.write_csv(
            folder / f"{name}.csv"
        )
    warehouse = DuckWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.load_folder(folder)
    months = {name: list(found) for name, found in warehouse.months().items()}
    assert months == {
        "transfers": ["2024-01", "2024-02"],
        "invoices": ["2023-12"],
        "matches": ["2024-01", "2024-02"],
    }
    assert warehouse.read_month("matches", "2024-02")["transfer_id"].to_list() == ["T2024-02-1", "nobody"]


def test_a_folder_with_a_row_of_no_month_is_refused(tmp_path: Path) -> None:
    for name in ("invoices", "matches"):
        pl.DataFrame({"transfer_id": ["T"], "issued_on": ["2024-01-01"], "tagged_on": ["2024-01-01"]}).write_csv(
            tmp_path / f"{name}.csv"
        )
    transfers("2024-01").with_columns(pl.lit("soon").alias("booked_on")).write_csv(tmp_path / "transfers.csv")
    with pytest.raises(WarehouseError, match="transfers: row 1, column booked_on"):
        DuckWarehouse(tmp_path / "warehouse.duckdb").load_folder(tmp_path)


def test_without_a_file_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="load a folder"):
        DuckWarehouse(tmp_path / "none.duckdb").months()


def test_reading_waits_for_a_writer_in_another_process(warehouse: DuckWarehouse) -> None:
    script = (
        f"import duckdb, time; c = duckdb.connect({str(warehouse.path)!r}); print('held', flush=True); time.sleep(1)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "held\n"
        assert len(warehouse.months()["transfers"]) == 2


def test_a_writer_killed_halfway_leaves_the_month_as_it_was(warehouse: DuckWarehouse) -> None:
    before = warehouse.months()["transfers"]
    script = (
        f"import duckdb, time; c = duckdb.connect({str(warehouse.path)!r}); c.begin();"
        "c.execute(\"DELETE FROM raw_transfers WHERE month = '2024-01'\"); print('half', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        writer.send_signal(signal.SIGKILL)
    assert warehouse.months()["transfers"] == before


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_company_that_has_tagged_nothing_yet_can_be_loaded(tmp_path: Path, suffix: str) -> None:
    invoices = pl.DataFrame({"invoice_id": ["I1"], "issued_on": [date(2023, 12, 5)], "amount": ["9.99"]})
    untagged = pl.DataFrame(schema=dict.fromkeys(("transfer_id", "invoice_id", "amount", "tagged_on"), pl.String))
    for name, frame in {"transfers": transfers("2024-01"), "invoices": invoices, "matches": untagged}.items():
        path = tmp_path / f"{name}.{suffix}"
        frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    warehouse = DuckWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.load_folder(tmp_path)
    assert warehouse.months()["matches"] == {}
    assert warehouse.read_month("matches", "2024-01").is_empty()


@pytest.mark.parametrize(
    ("text", "is_date"),
    [
        ("2024-06-30", True),
        (" 2024-06-30 ", True),
        ("2024-06-30T10:15:00Z", True),
        ("2024-06-30 10:15", True),
        ("2024-06-301 junk", False),
        ("2024-06-30x", False),
        ("2024-06-31", False),
    ],
)
def test_what_a_date_is(tmp_path: Path, text: str, is_date: bool) -> None:
    warehouse = DuckWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.write_month("transfers", "2024-06", transfers("2024-06", 1).with_columns(booked_on=pl.lit(text)))
    kept = warehouse.read_month("transfers", "2024-06")["booked_on"][0]
    assert kept == (date(2024, 6, 30) if is_date else text)


BLANKS = ["GHOST\u00a0", "\u2003GHOST", "GHOST\u2028", "\u0085GHOST", "\tGHOST\r\n", "\x0b GHOST \x0c"]


@pytest.mark.parametrize("written", BLANKS)
def test_ids_are_trimmed_as_validation_trims_them(warehouse: DuckWarehouse, written: str) -> None:
    """Else a number that nobody has would pass for known, or one that is taken for new."""
    matches = pl.DataFrame({"transfer_id": ["T1"], "invoice_id": [written], "amount": [1], "tagged_on": ["2024-01-09"]})
    warehouse.write_month("matches", "2024-01", matches)
    warehouse.write_months("invoices", {})
    assert warehouse.unknown_invoices("2024-01").to_list() == ["GHOST"]
    assert validate("matches", warehouse.read_month("matches", "2024-01"))["invoice_id"].to_list() == ["GHOST"]
    for month, number in (("2024-03", "GHOST"), ("2024-04", written)):
        warehouse.write_month("transfers", month, transfers(month).head(1).with_columns(transfer_id=pl.lit(number)))
    assert warehouse.taken("transfers", "2024-04").to_list() == ["GHOST"]


def test_a_table_of_results_gets_the_columns_that_came_later(warehouse: DuckWarehouse) -> None:
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("CREATE TABLE transfers (transfer_id VARCHAR, booked_on DATE)")
        connection.execute("INSERT INTO transfers VALUES ('old', '2024-01-05'), ('kept', '2024-02-05')")
    warehouse.publish("transfers", "2024-01", transfers("2024-01"))
    with duckdb.connect(str(warehouse.path), read_only=True) as connection:
        found = connection.sql("SELECT transfer_id, amount FROM transfers ORDER BY 1").fetchall()
    assert [number for number, _ in found] == ["T2024-01-0", "T2024-01-1", "T2024-01-2", "kept"]


def test_a_file_that_another_program_holds_is_named(warehouse: DuckWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matching_platform.warehouse.duck._WAIT_FOR_OTHERS", 0.2)
    script = (
        f"import duckdb, time; c = duckdb.connect({str(warehouse.path)!r}); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WarehouseError, match="is held open by another program; close it"):
            warehouse.publish("transfers", "2024-01", transfers("2024-01"))
        holder.kill()
