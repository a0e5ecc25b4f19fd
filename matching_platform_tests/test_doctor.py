"""What doctor says of an environment that is well, and of each thing that may be missing, with what to do about it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient, SubscriberClient

from matching_platform import cli
from matching_platform.access import Access, Role
from matching_platform.environment import Platform, load
from matching_platform.sample import company
from matching_platform.store.versions import Version
from matching_platform.warehouse.bigquery import READ_EMULATOR
from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform_tests.emulators import bigquery as bigquery_server
from matching_platform_tests.emulators import cloud_storage, pubsub

Doctor = Callable[[], tuple[int, str]]

SUBSCRIPTION = "projects/test-project/subscriptions/trainings"
REQUESTS = "projects/test-project/topics/trainings"
LETTERS = "projects/test-project/topics/dead-letters"


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Runs the command; its exit code, and what it said."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(sys, "argv", ["matching-platform", "doctor"])

    def run() -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    company.write(folder, company.Settings(start="2024-01", months=2, transfers_per_month=30))
    return folder


def test_a_laptop_that_is_well(doctor: Doctor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    monkeypatch.setenv("MATCHING_PLATFORM_STORE", str(tmp_path / "store"))
    code, said = doctor()
    assert (code, said.count("no  ")) == (1, 1)
    assert "→ run `matching-platform load DATA`" in said
    DuckWarehouse(tmp_path / "w.duckdb").load_folder(folder)
    code, said = doctor()
    assert (code, said.count("no  ")) == (0, 0)
    assert "raw_transfers: 2 months, 2024-01 to 2024-02" in said
    assert "look 2" in said
    assert "desk: has no database yet" in said
    access = Access(Platform(load()).database, load().desk)
    assert "desk: nobody was invited yet" in doctor()[1]
    access.invite("anna", Role.ADMIN, "test")
    assert "desk: 1 person may use it, at http://127.0.0.1:3457" in doctor()[1]
    (tmp_path / "page.html").write_text("no database " * 1000)
    monkeypatch.setenv("MATCHING_PLATFORM_DESK__DATABASE", f"sqlite:///{tmp_path}/page.html")
    code, said = doctor()
    assert code == 1
    assert "desk: its database cannot be used: file is not a database" in said
    assert "→ see MATCHING_PLATFORM_DESK__DATABASE" in said


def test_what_serves_and_where_images_lie_is_looked_at(
    doctor: Doctor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    monkeypatch.setenv("MATCHING_PLATFORM_STORE", str(tmp_path / "store"))
    DuckWarehouse(tmp_path / "w.duckdb").load_folder(folder)
    monkeypatch.setenv("MATCHING_PLATFORM_PORT", "1")
    assert "nothing was rolled out yet" in doctor()[1]
    platform = Platform(load())
    platform.releases("production").append("deploy", "some-model", Version("bentos", "0" * 64))
    monkeypatch.setenv("MATCHING_PLATFORM_IMAGE_BUILDER", "podman")
    monkeypatch.setenv("MATCHING_PLATFORM_IMAGE_REPOSITORY", "127.0.0.1:1/matching-service")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    code, said = doctor()
    assert (code, said.count("no  ")) == (1, 2)
    assert "nothing answers at http://127.0.0.1:1, and some-model should" in said
    assert "no  images: failed" in said


def test_without_credentials_nothing_else_is_tried(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_ENVIRONMENT", "production")
    monkeypatch.setenv("MATCHING_PLATFORM_FIRST_MONTH", "2024-01")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    code, said = doctor()
    assert code == 1
    assert "gcloud auth application-default login" in said
    assert "dataset" not in said


@dataclass(frozen=True)
class Cloud:
    """A Google Cloud on which all is well until something is taken away."""

    bigquery: bigquery.Client
    server: bigquery_server.BigQueryServer
    google: cloud_storage.Server
    letters: pubsub.Server

    def load(self, folder: Path) -> None:
        Platform(load()).warehouse.load_folder(folder)

    def retype(self, table: str, **types: str | None) -> None:
        """Another table in place of a raw one, with columns of other types, or without them."""
        name = f"finance.{table}"
        held = self.bigquery.get_table(name)
        fields = [
            bigquery.SchemaField(field.name, types.get(field.name, field.field_type))
            for field in held.schema
            if types.get(field.name, "kept") is not None
        ]
        self.bigquery.delete_table(name)
        other = bigquery.Table(f"test-project.{name}", fields)
        other.time_partitioning = held.time_partitioning
        self.bigquery.create_table(other)

    def flatten(self, table: str) -> None:
        """The same table without partitions."""
        name = f"finance.{table}"
        held = self.bigquery.get_table(name)
        self.bigquery.delete_table(name)
        self.bigquery.create_table(bigquery.Table(f"test-project.{name}", held.schema))


@pytest.fixture
def cloud(
    google: cloud_storage.Server, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    google.reset()
    google.bucket("test-project-matching-staging")
    with bigquery_server.serve() as server, pubsub.serve() as letters:
        for name, value in {
            "BIGQUERY_EMULATOR_HOST": server.rest,
            READ_EMULATOR: server.read,
            "PUBSUB_EMULATOR_HOST": letters.endpoint,
            "GOOGLE_APPLICATION_CREDENTIALS": str(bigquery_server.credentials_file(server, tmp_path)),
            "MATCHING_PLATFORM_ENVIRONMENT": "staging",
            "MATCHING_PLATFORM_FIRST_MONTH": "2024-01",
            "MATCHING_PLATFORM_TRAINING_REQUESTS": SUBSCRIPTION,
            "MATCHING_PLATFORM_DEAD_LETTERS": LETTERS,
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with PublisherClient() as publisher, SubscriberClient() as subscriber, bigquery.Client() as client:
            for topic in (REQUESTS, LETTERS):
                publisher.create_topic(name=topic)
            subscriber.create_subscription(name=SUBSCRIPTION, topic=REQUESTS)
            for name in ("finance", "matching_staging"):
                client.create_dataset(name)
            cloud = Cloud(client, server, google, letters)
            cloud.load(folder)
            yield cloud


@pytest.mark.cloud
def test_a_google_cloud_that_is_well(doctor: Doctor, cloud: Cloud) -> None:
    code, said = doctor()
    assert (code, said.count("no  ")) == (0, 0), said
    for told in (
        "credentials: are there, and the project is test-project",
        "dataset test-project.finance: is there",
        "table test-project.finance.raw_matches: has the columns of the contract",
        "months of raw_transfers: 2 months, 2024-01 to 2024-02",
        "Storage Read API: answers",
        "dataset test-project.matching_staging: can be written",
        "dataset test-project.matching_staging_scratch: takes keys, and joins them",
        "store gs://test-project-matching-staging/store: can be written and read",
        "registry: has no champion yet",
        f"training requests: from {SUBSCRIPTION}",
    ):
        assert told in said
    for dataset in ("matching_staging", "matching_staging_scratch"):
        assert not list(cloud.bigquery.list_tables(dataset)), "what was tried is gone again"


BROKEN: dict[str, tuple[Callable[[Cloud], object], str, str]] = {
    "no raw dataset": (
        lambda cloud: cloud.bigquery.delete_dataset("finance", delete_contents=True),
        "dataset test-project.finance: does not exist",
        "bq mk --dataset test-project:finance",
    ),
    "no dataset": (
        lambda cloud: cloud.bigquery.delete_dataset("matching_staging"),
        "dataset test-project.matching_staging: does not exist",
        "or set MATCHING_PLATFORM_DATASET",
    ),
    "no table": (
        lambda cloud: cloud.bigquery.delete_table("finance.raw_matches"),
        "table test-project.finance.raw_matches: cannot be used",
        "raw_matches failed: Not found",
    ),
    "a table without partitions": (
        lambda cloud: cloud.flatten("raw_transfers"),
        "table test-project.finance.raw_transfers: cannot be used",
        "partition it by month of booked_on",
    ),
    "a column missing": (
        lambda cloud: cloud.retype("raw_transfers", title=None),
        "raw_transfers: lacks title",
        "as ledger/schema.py lists them",
    ),
    "floats": (
        lambda cloud: cloud.retype("raw_invoices", amount="FLOAT"),
        "raw_invoices: holds amounts as floats",
        "make the column amount NUMERIC",
    ),
    "a type that is not read": (
        lambda cloud: cloud.retype("raw_transfers", title="BYTES"),
        "raw_transfers: has title of type BYTES",
        "give the columns one of the types STRING",
    ),
    "no month": (
        lambda cloud: cloud.retype("raw_invoices"),
        "months of raw_invoices: no months yet",
        "let the company's own job fill the table",
    ),
    "nothing may be asked": (
        lambda cloud: cloud.server.fail("jobs.insert", 403, times=9),
        "raw tables: failed",
        "give the account of this process the roles",
    ),
    "the Storage Read API is closed": (
        lambda cloud: cloud.server.fail("CreateReadSession", 403, times=9),
        "reading: failed",
        "give the account of this process the roles",
    ),
    "nothing may be written": (
        lambda cloud: cloud.server.fail("upload", 403),
        "writing: failed",
        "give the account of this process the roles",
    ),
    "no bucket": (
        lambda cloud: cloud.google.reset(),
        "store: failed",
        "test-project-matching-staging",
    ),
    "no subscription": (
        lambda cloud: SubscriberClient().delete_subscription(subscription=SUBSCRIPTION),
        "training requests: cannot be listened to",
        SUBSCRIPTION,
    ),
}


@pytest.mark.cloud
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_missing_is_named_with_what_to_do(doctor: Doctor, cloud: Cloud, case: str) -> None:
    break_it, problem, advice = BROKEN[case]
    break_it(cloud)
    code, said = doctor()
    lines = said.splitlines()
    (place,) = [number for number, line in enumerate(lines) if problem in line]
    assert code == 1
    assert lines[place].startswith("no  ")
    assert advice in lines[place + 1]
    assert lines[-1].endswith("need something done.")
