"""The simulation of growing months measures what it tells, and its bytes are those that BigQuery counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

import polars as pl
import pytest
from dagster_gcp import BigQueryResource

from benchmarks import scale
from benchmarks.scale import Clock, Place
from matching_platform.learning.examples import label_month
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import RAW_TABLES
from matching_platform.matching.candidates import Question
from matching_platform.store.versions import Store
from matching_platform.warehouse import candidates
from matching_platform.warehouse.bigquery import READ_EMULATOR, BigQueryWarehouse, reader
from matching_platform_tests.emulators.bigquery import BigQueryServer, credentials_file, serve

TRANSFERS = 40


@pytest.fixture(scope="module")
def figures(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], set[str]]:
    """The facts of a very small company, and what was timed."""
    place = Place(tmp_path_factory.mktemp("scale") / "company", small_model)
    facts, timed = scale.draw(place, TRANSFERS), set()
    for step in scale.STEPS:
        clock = Clock()
        facts |= step(place, clock)
        timed |= clock.taken.keys()
        assert all(figure > 0 for figures in clock.taken.values() for figure in figures.values())
    return facts, timed


def test_every_step_of_a_month_is_measured(figures: tuple[dict[str, float], set[str]]) -> None:
    facts, timed = figures
    assert {
        "validate and store",
        "open the ledger",
        "read",
        "pairs, arrays",
        "pairs, DuckDB",
        "label",
        "propose",
    } <= timed
    assert TRANSFERS / 2 < facts["transfers"] < TRANSFERS * 2
    assert facts["pairs of a transfer"] <= facts["answers of a transfer"]
    assert facts["questions, labelling"] == 2
    assert facts["questions, matching"] >= 2
    assert facts["scratch rows of invoice_keys"] == pytest.approx(
        facts["keys of an invoice"] * facts["invoices in mind"] * facts["transfers"]
    )
    assert 0.9 < facts["share of tagged pairs found"] <= 1


def test_the_report_has_a_line_for_every_figure_and_the_growth(figures: tuple[dict[str, float], set[str]]) -> None:
    facts, timed = figures
    steps = {what: {"seconds": 2.0, "cpu": 3.0, "peak": 2.0 * scale.GIB} for what in timed}
    twice = {what: {name: 4 * figure for name, figure in figures.items()} for what, figures in steps.items()}
    larger = {**facts, "transfers": 2 * facts["transfers"]}
    lines = scale.report([{"size": 1, "steps": steps, "facts": facts}, {"size": 2, "steps": twice, "facts": larger}])
    told = {line.split("  ")[0]: line.split()[-3:] for line in lines if line}
    assert told["propose"] == ["2.00", "8.00", "2.00"]
    assert timed | facts.keys() <= told.keys()
    assert any(line.startswith("proposals: joining candidates") for line in lines)


def test_a_step_that_was_ended_leaves_a_gap(figures: tuple[dict[str, float], set[str]]) -> None:
    facts, _ = figures
    times = {"seconds": 1.0, "cpu": 1.0, "peak": 1.0}
    larger = {**facts, "transfers": 2 * facts["transfers"]}
    lines = scale.report(
        [{"size": 1, "steps": {"label": times}, "facts": facts}, {"size": 2, "steps": {}, "facts": larger}]
    )
    assert next(line for line in lines if line.startswith("label ")).split() == ["label", "1.00", "-"]


def test_a_process_that_outgrows_the_limit_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> NoReturn:
        raise SystemExit(code)

    monkeypatch.setattr(scale.os, "_exit", end)
    with pytest.raises(SystemExit):
        scale.watch(limit=1)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["ab", "żó", None], pl.String, 4 + 6),
        ([1, None, 3], pl.Int64, 16),
        ([1.0], pl.Float64, 8),
        ([True, None], pl.Boolean, 1),
        ([date(2024, 1, 1)], pl.Date, 8),
        ([Decimal("1.00")], pl.Decimal(18, 2), 16),
        ([["ab", "c"], []], pl.List(pl.String), 4 + 3),
    ],
)
def test_bytes_are_counted_as_bigquery_counts_them(values: list[object], dtype: pl.DataType, expected: int) -> None:
    frame = pl.DataFrame({"column": pl.Series(values, dtype=dtype)})
    assert scale.billed(frame)["column"] * len(values) == pytest.approx(expected)


@pytest.mark.cloud
def test_the_formulas_agree_with_the_test_server(
    sample: dict[str, pl.DataFrame], small_ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matching_platform.warehouse.bigquery.SMALL_QUESTION", 0)
    for name in RAW_TABLES:
        sample[name].write_parquet(tmp_path / f"{name}.parquet")
    month = small_ledger.months()[-1]
    with served(tmp_path, monkeypatch) as server, BigQueryResource(project="test-project").get_client() as client:
        for name in ("finance", "matching"):
            client.create_dataset(name)
        warehouse = BigQueryWarehouse(
            client, reader(), Store(tmp_path / "store"), "finance", "matching", 2**40, 2**40, labels={}
        )
        warehouse.load_folder(tmp_path)
        raw = {name: warehouse.read_month(name, month) for name in RAW_TABLES}
        for name in ("invoices", "transfers"):
            warehouse.taken(name, month)
        warehouse.unknown_invoices(month)
        rows, held = ({name: frame.height for name, frame in side.items()} for side in (raw, sample))
        computed = scale.scans(rows, held, {name: scale.billed(frame) for name, frame in raw.items()})
        assert sorted(scan.bytes for scan in computed) == pytest.approx(sorted(scanned(server)), rel=0.001)

        asked: list[Question] = []
        label_month(small_ledger, month, lambda question: asked.append(question) or warehouse.candidates(question))
        tables = [candidates.tables(question) for question in asked]
        computed = [sum(scale.size(pl.DataFrame(table)) for table in made.values()) for made in tables]
        assert scanned(server)[-2:] == computed
        warehouse.reader.transport.close()


@contextmanager
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    with serve() as server:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.rest)
        monkeypatch.setenv(READ_EMULATOR, server.read)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials_file(server, folder)))
        yield server


def scanned(server: BigQueryServer) -> list[int]:
    """Bytes that each query read, dry runs left out."""
    return [
        int(job["statistics"]["totalBytesProcessed"])
        for job in server.jobs
        if "query" in job["configuration"] and not job["configuration"].get("dryRun")
    ]
