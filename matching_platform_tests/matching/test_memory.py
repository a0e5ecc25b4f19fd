"""Memory is counts: months add up, and it knows its own company."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from matching_platform.ledger.months import next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.history import memory_before, settled
from matching_platform.matching.memory import NOTHING, Memory


@pytest.fixture(scope="module")
def rows(small_ledger: Ledger) -> pl.DataFrame:
    return settled(small_ledger, small_ledger.matches)


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_memories_of_parts_add_up_to_the_memory_of_all(small_ledger: Ledger, random: object) -> None:
    rows = settled(small_ledger, small_ledger.matches)
    ids = rows["transfer_id"].unique().sort().to_list()
    first = set(random.sample(ids, random.randint(0, len(ids))))  # type: ignore[attr-defined]
    mine = pl.col("transfer_id").is_in(list(first))
    whole = Memory.of(rows)
    parts = Memory.of(rows.filter(~mine)).and_also(Memory.of(rows.filter(mine)))
    # A counterparty's name counts once a part.
    assert_frame_equal(
        parts.counts.filter(pl.col("space") != "identity"), whole.counts.filter(pl.col("space") != "identity")
    )
    assert set(parts.space("identity")["key"]) == set(whole.space("identity")["key"])
    assert_frame_equal(parts.rates, whole.rates)


def test_the_order_of_rows_is_of_no_matter(rows: pl.DataFrame) -> None:
    shuffled = Memory.of(rows.sample(fraction=1, shuffle=True, seed=3))
    assert_frame_equal(shuffled.counts, Memory.of(rows).counts)
    assert_frame_equal(shuffled.rates, Memory.of(rows).rates)


def test_nothing_is_remembered_of_nothing(rows: pl.DataFrame) -> None:
    memory, empty = Memory.of(rows), Memory.empty()
    assert_frame_equal(Memory.of(rows.head(0)).counts, empty.counts)
    assert_frame_equal(empty.and_also(memory).counts, memory.counts)
    assert_frame_equal(memory.and_also(empty).rates, memory.rates)


def test_what_is_counted(rows: pl.DataFrame) -> None:
    one = rows.filter(pl.col("invoice_id").is_not_null()).head(1)
    nothing = rows.filter(pl.col("invoice_id").is_null()).head(1)
    memory = Memory.of(pl.concat([one, nothing]))
    whose = memory.space("name").sort("value")
    assert whose["value"].to_list() == [NOTHING, one["counterparty_id"][0]]
    assert whose["count"].to_list() == [1.0, 1.0]
    assert set(memory.space("identity")["value"]) == {one["counterparty_name"][0]}
    habit = dict(memory.space("habit").select("value", "count").iter_rows())
    late = (one["booked_on"][0] - one["due_on"][0]).days
    month = one["booked_on"][0].strftime("%Y-%m")
    expected = {"payments": 1.0, "invoices": 1.0, "days": late, "days squared": late**2}
    assert habit == {f"{month} {name}": count for name, count in expected.items()}


def test_habits_fade(rows: pl.DataFrame) -> None:
    one = rows.filter(pl.col("invoice_id").is_not_null()).head(1)
    memory, month = Memory.of(one), one["booked_on"][0].strftime("%Y-%m")
    weights = [
        memory.habits("habit", next_month(month, later)).filter(pl.col("value") == "payments")["count"].to_list()
        for later in (0, 4, 8)
    ]
    assert weights == [[1.0], [0.5], [0.25]]


def test_it_knows_its_own_company_only(small_ledger: Ledger, rows: pl.DataFrame) -> None:
    memory, invoices = Memory.of(rows), small_ledger.invoices
    assert memory.is_of(invoices)
    other = invoices.with_columns(counterparty_name=pl.col("counterparty_name").reverse())
    assert not memory.is_of(other), "companies that number their counterparties alike are not the same"
    assert not memory.is_of(invoices.with_columns(counterparty_id="x" + pl.col("counterparty_id")))
    assert not memory.is_of(invoices.head(0))
    assert not Memory.empty().is_of(invoices)


def test_rates_are_medians_of_what_was_paid(rows: pl.DataFrame) -> None:
    foreign = rows.filter(
        (pl.col("invoice_currency") != pl.col("transfer_currency")) & (pl.len().over("transfer_id") == 1)
    )
    rates = dict(Memory.of(rows).rate_of().iter_rows())
    assert rates, "the sample has foreign payments"
    for pair, rate in rates.items():
        bought, paid = pair.split("/")
        seen = foreign.filter((pl.col("invoice_currency") == bought) & (pl.col("transfer_currency") == paid))
        assert rate == pytest.approx((seen["transfer_amount"] / seen["amount"]).median(), rel=0.05)


def test_memory_before_a_month_holds_no_later_match(small_ledger: Ledger) -> None:
    months = small_ledger.months()
    assert memory_before(small_ledger, months[0]).counts.is_empty()
    seen = [memory_before(small_ledger, month).space("name")["count"].sum() for month in months]
    assert seen == sorted(seen)
    assert len(set(seen)) == len(months)
