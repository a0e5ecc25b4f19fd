"""Backfills through a real instance, in a process of their own: killed, and with a bad month among good ones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from matching_platform.defs import local
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.sample import company

MONTHS = ["2024-01", "2024-02", "2024-03"]
SCRIPT = """
from pathlib import Path
from matching_platform.defs import local
with local.instance(Path("dagster")) as instance:
    print("closed", local.clear(instance), flush=True)
    months = ["2024-01", "2024-02", "2024-03"]
    assets = ("invoices", "transfers", "matches", "labelled_pairs")
    finished = local.backfill(instance, {asset: months for asset in assets}, "tables")
    for (asset, month), reason in finished.failures.items():
        print("failed", asset, month, reason, flush=True)
print("done", flush=True)
"""


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    settings = Settings(**{**DEFAULTS["local"], "warehouse": tmp_path / "w.duckdb", "store": str(tmp_path / "store")})
    company.write(tmp_path / "sample", company.Settings(start=MONTHS[0], months=3, transfers_per_month=40))
    Platform(settings).warehouse.load_folder(tmp_path / "sample")
    return Platform(settings)


def start(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        "MATCHING_PLATFORM_WAREHOUSE": str(folder / "w.duckdb"),
        "MATCHING_PLATFORM_STORE": str(folder / "store"),
        "MATCHING_PLATFORM_LAST_MONTH": MONTHS[-1],
    }
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def test_killed_at_any_moment_it_heals(platform: Platform, tmp_path: Path) -> None:
    for seconds in (0.3, 1.1, 2.3):
        with start(tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("closed")
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        for asset in ("invoices", "transfers", "matches", "labelled_pairs"):
            for version in platform.store.versions(asset):
                platform.store.verify(version)
            for month in platform.catalog.months(asset):
                platform.read(asset, month)
    with start(tmp_path) as process:
        told, _ = process.communicate(timeout=120)
    assert told.splitlines()[-1] == "done"
    assert "failed" not in told
    assert platform.catalog.months("labelled_pairs") == MONTHS
    assert len(platform.store.versions("transfers")) == len(MONTHS)


def test_a_bad_month_stops_no_other(platform: Platform, tmp_path: Path) -> None:
    rows = platform.warehouse.read_month("transfers", MONTHS[1])
    platform.warehouse.write_month("transfers", MONTHS[1], rows.with_columns(currency=pl.lit("ZZZ")))
    with start(tmp_path) as process:
        told, _ = process.communicate(timeout=120)
    (failed,) = (line for line in told.splitlines() if line.startswith("failed"))
    assert failed.startswith("failed transfers 2024-02 raw_transfers of 2024-02: row 1, column currency: 'ZZZ'")
    assert platform.catalog.months("invoices") == MONTHS
    assert platform.catalog.months("labelled_pairs") == [MONTHS[0], MONTHS[2]]
    platform.warehouse.write_month("transfers", MONTHS[1], rows)
    with start(tmp_path) as process:
        told, _ = process.communicate(timeout=120)
    assert "failed" not in told
    assert platform.catalog.months("labelled_pairs") == MONTHS


def test_only_what_was_started_here_is_closed(tmp_path: Path) -> None:
    with local.instance(tmp_path / "dagster") as instance:
        for run_id, tags in (("ours", local.OURS), ("a daemon's", {})):
            instance.add_run(
                dg.DagsterRun(job_name="month", run_id=run_id, tags=tags, status=dg.DagsterRunStatus.STARTED)
            )
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("gpu")
        assert storage.claim_concurrency_slot("gpu", "ours", "model").is_claimed
        assert not storage.claim_concurrency_slot("gpu", "another", "model").is_claimed
        assert local.clear(instance) == 1
        assert {run.run_id: run.is_finished for run in instance.get_runs()} == {"ours": True, "a daemon's": False}
        assert storage.claim_concurrency_slot("gpu", "another", "model").is_claimed


def test_the_instance_lies_where_dagster_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/elsewhere")
    assert local.home() == Path("/elsewhere")
    monkeypatch.delenv("DAGSTER_HOME")
    assert local.home() == Path(".dagster")
