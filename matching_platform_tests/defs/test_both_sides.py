"""The whole pipeline twice: on DuckDB and a disk, and on BigQuery and Cloud Storage; what it proposes is the same."""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import pytest
from google.cloud import bigquery
from polars.testing import assert_frame_equal

from matching_platform.defs.raw import raw_months
from matching_platform.sample import company
from matching_platform.warehouse.bigquery import READ_EMULATOR, BigQueryWarehouse
from matching_platform.warehouse.tables import PUBLISHED
from matching_platform_tests.defs.conftest import TABLES, World
from matching_platform_tests.defs.test_prediction_log_asset import YESTERDAY, write
from matching_platform_tests.emulators import bigquery as bigquery_server
from matching_platform_tests.emulators import cloud_storage
from matching_platform_tests.predictions.made import served

pytestmark = pytest.mark.cloud

MONTHS = ["2024-01", "2024-02", "2024-03"]


@pytest.fixture(scope="module")
def server() -> Iterator[bigquery_server.BigQueryServer]:
    with bigquery_server.serve() as server:
        yield server


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, server: bigquery_server.BigQueryServer, google: cloud_storage.Server
) -> Iterator[tuple[World, World]]:
    """A world on this machine and one on Google Cloud, after three months of the same company."""
    here, there = (tmp_path_factory.mktemp(name) for name in ("here", "there"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", server.rest)
        patch.setenv(READ_EMULATOR, server.read)
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(bigquery_server.credentials_file(server, there)))
        bucket = google.bucket("test-project-matching-staging")
        patch.setattr("matching_platform.warehouse.bigquery.SMALL_QUESTION", 0)
        patch.setattr("matching_platform.warehouse.queries.RETRY_SECONDS", 0.01)
        patch.setattr("tempfile.tempdir", str(there))  # The cache of the store is this pod's own.
        cloud = {"environment": "staging", "home": there / "home", "store": f"{bucket}/store", "location": "EU"}
        worlds = World(here), World(there, given=cloud)
        client = bigquery.Client()
        for name in ("finance", "matching_staging"):
            client.create_dataset(name)
        sample = here / "sample"
        company.write(sample, company.Settings(start=MONTHS[0], months=3, transfers_per_month=120))
        for world in worlds:
            world.platform.warehouse.load_folder(sample)
            run(world)
        yield worlds
        for world in worlds:
            world.instance.dispose()


def run(world: World) -> None:
    """What sensors and automation do, month by month, and then a person who proposes."""
    ticked = raw_months(
        dg.build_sensor_context(instance=world.instance, resources={"platform": world.platform}, cursor=None)
    )
    assert {(event.asset_key.to_user_string(), event.partition) for event in ticked.asset_events} == {
        (f"raw_{name}", month) for name in TABLES[:3] for month in MONTHS
    }
    for month in MONTHS:
        made = world.make(*TABLES, month=month)
        assert made.success, made.failure
    assert world.make("test_split").success
    for assets, month in ((("train_set", "model", "evaluation_report"), MONTHS[-1]), (("champion",), None)):
        made = world.make(*assets, month=month)
        assert made.success, made.failure
    for month in MONTHS:
        made = world.make("proposals", month=month)
        assert made.success, made.failure
    write(world.platform, 1, served("one", YESTERDAY), served("two", YESTERDAY))
    made = world.make("prediction_log")
    assert made.success, made.failure


def test_proposals_are_the_same_row_by_row(both: tuple[World, World]) -> None:
    for month in MONTHS:
        here, there = (world.platform.read("proposals", month) for world in both)
        assert here.height > 40
        assert_frame_equal(here, there)


@pytest.mark.parametrize("asset", [*TABLES, "train_set", "model", "proposals"])
def test_every_version_is_the_same(both: tuple[World, World], asset: str) -> None:
    here, there = ({month: world.platform.catalog.get(asset, month) for month in MONTHS} for world in both)
    assert {month: one and one.version for month, one in here.items()} == {
        month: one and one.version for month, one in there.items()
    }


@pytest.mark.parametrize("table", list(PUBLISHED))
def test_people_read_the_same_tables(both: tuple[World, World], table: str) -> None:
    import duckdb

    here, there = (world.platform for world in both)
    with duckdb.connect(str(here.settings.warehouse), read_only=True) as connection:
        embedded = connection.sql(f"SELECT * FROM {table}").pl()
    warehouse = there.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    asked = warehouse.client.query(f"SELECT * FROM `matching_staging.{table}`")
    rows = asked.result().to_arrow(create_bqstorage_client=False)
    found = pl.DataFrame(rows).select(pl.col(name).cast(dtype) for name, dtype in PUBLISHED[table].columns.items())
    order = [name for name, dtype in PUBLISHED[table].columns.items() if not isinstance(dtype, pl.List)]
    assert_frame_equal(
        embedded.cast(dict(found.schema)).select(found.columns).sort(order), found.sort(order), check_exact=True
    )
    resource = warehouse.client.get_table(f"matching_staging.{table}")
    assert resource.time_partitioning.type_ == "MONTH"
    assert resource.time_partitioning.field == PUBLISHED[table].partitioned_by


def test_costs_are_told_with_what_was_made(both: tuple[World, World]) -> None:
    _, there = both
    (event,) = there.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("transfers"), asset_partitions=[MONTHS[0]]), limit=1
    ).records
    told = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert told["bytes billed"] >= 20 * 2**20
    assert told["bytes billed in this run"] >= told["bytes billed"]
    assert 0 < told["estimated cost, USD"] < 0.01


FAULTS = {
    "BigQuery may not be asked": ("bigquery", "jobs.insert", 403),
    "BigQuery takes nothing": ("bigquery", "upload", 503),
    "BigQuery breaks off": ("bigquery", "upload", "drop"),
    "the answer never comes whole": ("bigquery", "tabledata.list", "drop"),
    "Cloud Storage takes nothing": ("storage", "upload", 403),
    "Cloud Storage gives nothing": ("storage", "any", 403),
    "somebody else was faster": ("storage", "upload", 412),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_one_clear_error_and_never_half_a_month(
    both: tuple[World, World],
    server: bigquery_server.BigQueryServer,
    google: cloud_storage.Server,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    """A month is corrected while a service fails: afterwards it is the old month or the new one, everywhere alike."""
    _, there = both
    monkeypatch.setattr("matching_platform.warehouse.loads.UPLOAD_RETRIES", 1)
    raw = there.platform.warehouse.read_month("transfers", MONTHS[1])
    late = raw.head(1).with_columns(transfer_id=pl.lit(f"late {fault}"))
    there.platform.warehouse.write_months("transfers", {MONTHS[1]: pl.concat([raw, late])})
    before, published = there.platform.current("transfers", MONTHS[1]), ids(there)
    which, call, how = FAULTS[fault]
    (server if which == "bigquery" else google).fail(call, how, times=1000)
    made = there.make("transfers", month=MONTHS[1])
    server.heal()
    google.heal()
    if not made.success:
        assert "\n" not in made.failure.strip().split("Stack Trace")[0].strip(), made.failure
        assert there.platform.current("transfers", MONTHS[1]) == before
    assert ids(there) in (published, published | set(late["transfer_id"]))
    made = there.make("transfers", month=MONTHS[1])
    assert made.success, made.failure
    assert (
        ids(there)
        == published | set(late["transfer_id"])
        == set(there.platform.read("transfers", MONTHS[1])["transfer_id"])
    )


def ids(world: World) -> set[str]:
    """The transfers of the second month that people read in BigQuery."""
    warehouse = world.platform.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    first, beyond = f"{MONTHS[1]}-01", f"{MONTHS[2]}-01"
    sql = (
        f"SELECT transfer_id FROM `matching_staging.transfers` WHERE booked_on >= '{first}' AND booked_on < '{beyond}'"
    )
    return {row.transfer_id for row in warehouse.client.query(sql).result()}


def test_a_late_tag_makes_exactly_its_month_anew(both: tuple[World, World]) -> None:
    _, there = both
    known = raw_months(dg.build_sensor_context(instance=there.instance, resources={"platform": there.platform}))
    raw = there.platform.warehouse.read_month("matches", MONTHS[0])
    there.platform.warehouse.write_months("matches", {MONTHS[0]: raw.head(-1)})
    ticked = raw_months(
        dg.build_sensor_context(instance=there.instance, resources={"platform": there.platform}, cursor=known.cursor)
    )
    assert [(event.asset_key.to_user_string(), event.partition) for event in ticked.asset_events] == [
        ("raw_matches", MONTHS[0])
    ]
