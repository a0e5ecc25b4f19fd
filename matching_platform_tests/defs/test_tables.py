"""A bad month is refused as a whole, quarantined, harms no other, and heals."""

from collections.abc import Callable

import polars as pl
import pytest

from matching_platform_tests.defs.conftest import MONTHS, TABLES, World

BAD, OTHER = MONTHS[1], MONTHS[2]


def first(column: str, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The first row's value is another one, the column as text where it has to be."""

    def spoil(frame: pl.DataFrame) -> pl.DataFrame:
        text = frame[column].cast(pl.String)
        return frame.with_columns(pl.Series(column, [value, *text[1:]], dtype=pl.String))

    return spoil


def twice(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.head(1)])


FAULTS = [
    ("transfers", lambda frame: frame.drop("title"), "column title: the column is missing"),
    ("invoices", lambda frame: frame.drop("amount"), "column amount: the column is missing"),
    ("transfers", first("transfer_id", None), "row 1, column transfer_id: is missing"),
    ("invoices", first("counterparty_id", None), "row 1, column counterparty_id: is missing"),
    ("transfers", twice, "column transfer_id: .* appears more than once"),
    ("invoices", twice, "column invoice_id: .* appears more than once"),
    ("transfers", first("amount", "12,x"), "row 1, column amount: '12,x' is not an amount"),
    ("invoices", first("currency", "ZZZ"), "row 1, column currency: 'ZZZ' is not an ISO 4217 currency"),
    ("transfers", first("booked_on", "2024-07-01"), "row 1, column booked_on: '2024-07-01' is not in 2024-02"),
    ("matches", first("transfer_id", "nobody"), "row 1, column transfer_id: 'nobody' there is no such transfer"),
    ("matches", first("invoice_id", "nothing"), "column invoice_id: 'nothing' there is no such invoice"),
    ("transfers", lambda frame: frame.clear(), "has no rows"),
]


@pytest.mark.parametrize(("table", "spoil", "told"), FAULTS)
def test_a_bad_month_is_refused_and_heals(
    world: World, table: str, spoil: Callable[[pl.DataFrame], pl.DataFrame], told: str
) -> None:
    platform, warehouse = world.platform, world.platform.warehouse
    good = warehouse.read_month(table, BAD)
    if table == "matches":
        good = good.filter(pl.col("invoice_id").is_not_null())
    before = {name: platform.catalog.get(name, BAD) for name in TABLES}
    warehouse.write_month(table, BAD, spoil(good))
    made = world.make(*TABLES, month=BAD)
    assert not made.success
    assert made.failure.startswith(f"raw_{table} of {BAD}")
    assert pl.Series([made.failure]).str.contains(told).item(), made.failure
    assert "labelled_pairs" not in made.made()
    assert table not in made.made()
    assert platform.catalog.get(table, BAD) == before[table]
    quarantined = platform.catalog.get(f"quarantine_{table}", BAD)
    assert quarantined is not None
    if "no rows" not in told:
        assert platform.store.read_frame(quarantined.version).height > 0
    warehouse.write_month(table, BAD, good)
    assert world.make(*TABLES, month=BAD).success


def test_other_months_go_on(world: World) -> None:
    warehouse = world.platform.warehouse
    warehouse.write_month("transfers", BAD, first("amount", "12,x")(warehouse.read_month("transfers", BAD)))
    assert not world.make(*TABLES, month=BAD).success
    assert world.make(*TABLES, month=OTHER).success


def test_an_id_of_an_earlier_month_is_refused(world: World) -> None:
    warehouse = world.platform.warehouse
    taken = warehouse.read_month("transfers", MONTHS[0])["transfer_id"][0]
    warehouse.write_month("transfers", BAD, first("transfer_id", taken)(warehouse.read_month("transfers", BAD)))
    assert f"'{taken}' is in an earlier month already" in world.make("transfers", month=BAD).failure
    assert world.make("transfers", month=MONTHS[0]).success


def test_matches_do_not_wait_for_invoices_of_a_refused_month(world: World) -> None:
    """A tag on an invoice of a refused month is in order; until then its transfer counts as not tagged."""
    warehouse = world.platform.warehouse
    warehouse.write_month("invoices", MONTHS[0], first("currency", "ZZZ")(warehouse.read_month("invoices", MONTHS[0])))
    assert not world.make("invoices", month=MONTHS[0]).success
    assert world.make("matches", "labelled_pairs", month=BAD).success
