"""What people decide at the desk becomes tags, judges what was booked, and teaches the next model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from matching_platform import demo
from matching_platform.definitions import defs
from matching_platform.defs import decisions as room
from matching_platform.defs.decisions import PATIENCE_SECONDS, Watch, new_decisions
from matching_platform.environment import Platform
from matching_platform.learning import train_set
from matching_platform.learning.examples import CORRECTION
from matching_platform.learning.gate import Thresholds
from matching_platform.ledger.money import MINOR_UNITS
from matching_platform.ledger.months import first_day
from matching_platform.matching.matcher import Matcher
from matching_platform.matching.text import account_key
from matching_platform.review.decisions import Action
from matching_platform.store.registry import MODELS
from matching_platform.warehouse.tables import APPENDED
from matching_platform_tests.defs.conftest import LENIENT, MONTHS, NEWEST, TABLES, World

EARLIER: Final = MONTHS[-2]
# After all tags of the finance system, and as seconds since 1970.
NOON: Final = datetime(2024, 12, 1, 12, tzinfo=UTC)
NOW: Final = NOON.timestamp()
QUIET: Final = 15 * 60

Parts = dict[str, int]  # minor units by invoice


@dataclass
class Desk:
    """People who decide, and what they write into the warehouse."""

    platform: Platform
    number: int = 0

    def decide(
        self,
        month: str,
        transfer: str,
        action: Action,
        parts: Parts | None = None,
        shown: Parts | None = None,
        **more: Any,
    ) -> None:
        """One decision on a transfer of `month`; `shown` is what was proposed."""
        self.number += 1
        shared = {
            "number": self.number,
            "transfer_id": transfer,
            "booked_on": datetime.strptime(f"{month}-15", "%Y-%m-%d").date(),
            "decided_at": NOON,
            "actor": "anna",
            "action": action.value,
            "note": "",
            "proposed": None
            if shown is None
            else json.dumps([{"invoice_id": i, "amount": _text(a)} for i, a in shown.items()]),
        }
        told = [{"invoice_id": i, "amount": Decimal(a) / MINOR_UNITS} for i, a in (parts or {}).items()] or [{}]
        frame = pl.DataFrame([{**shared, **part, **more} for part in told], schema=APPENDED["decisions"].columns)
        self.platform.warehouse.append("decisions", frame, self.number - 1)


def _text(amount: int) -> str:
    return f"{Decimal(amount) / MINOR_UNITS:.2f}"


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world.platform)


def tick(world: World, cursor: str | None, now: float, monkeypatch: pytest.MonkeyPatch) -> dg.SensorResult:
    monkeypatch.setattr(room, "time", lambda: now)
    context = dg.build_sensor_context(instance=world.instance, cursor=cursor, resources={"platform": world.platform})
    result = new_decisions(context)
    assert isinstance(result, dg.SensorResult)
    return result


def seen(result: dg.SensorResult) -> list[str | None]:
    return [event.partition for event in result.asset_events]


def a_transfer(world: World, month: str) -> str:
    return str(world.platform.read("transfers", month)["transfer_id"].sort()[0])


def test_a_month_is_reported_when_people_are_done_with_it(
    world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.platform.read("transfers", NEWEST)["transfer_id"].sort()[:2]
    desk.decide(NEWEST, first, Action.NOTHING)
    watched = tick(world, None, NOW, monkeypatch)
    assert seen(watched) == []
    assert NEWEST in str(watched.skip_reason)
    watched = tick(world, watched.cursor, NOW + QUIET - 1, monkeypatch)
    assert seen(watched) == []
    desk.decide(NEWEST, second, Action.NOTHING)
    watched = tick(world, watched.cursor, NOW + QUIET, monkeypatch)
    assert seen(watched) == []
    watched = tick(world, watched.cursor, NOW + 2 * QUIET, monkeypatch)
    assert seen(watched) == [NEWEST]
    (event,) = watched.asset_events
    assert event.asset_key == dg.AssetKey("raw_decisions")
    assert event.metadata["rows"].value == 2
    world.instance.report_runless_asset_event(event)
    # Neither the next look nor a lost cursor reports it again.
    for cursor in (watched.cursor, None):
        assert seen(tick(world, cursor, NOW + 9 * QUIET, monkeypatch)) == []


def test_who_decides_all_day_long_is_reported_after_a_day(
    world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the sensor looks, something was decided since it looked last."""
    cursor, reported = None, []
    for hours, transfer in enumerate(world.platform.read("transfers", NEWEST)["transfer_id"].sort()[:16]):
        desk.decide(NEWEST, transfer, Action.NOTHING)
        watched = tick(world, cursor, NOW + 2 * hours * 3600, monkeypatch)
        cursor = watched.cursor
        reported += [2 * hours] if seen(watched) else []
    assert reported == [24]


def test_a_company_without_a_desk_has_nothing_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = tick(world, None, NOW, monkeypatch)
    assert seen(watched) == []
    assert "nothing" in str(watched.skip_reason)
    before = {name: world.platform.current(name, NEWEST) for name in TABLES}
    made = world.make("decisions", *TABLES, month=NEWEST)
    assert made.success, made.failure
    assert made.metadata("decisions")["rows"] == 0
    assert {name: world.platform.current(name, NEWEST) for name in TABLES} == before


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.dictionaries(st.sampled_from(MONTHS), st.sampled_from("abc"))), max_size=30
    ),
    st.integers(0, 3000),
)
def test_a_watch_reports_what_was_quiet_or_waited_and_forgets_nothing(
    looks: list[tuple[int, dict[str, str]]], quiet: int
) -> None:
    watch, now, last = Watch({}, {}), 0.0, dict[str, str]()
    for seconds, found in looks:
        now += seconds
        watch = watch.looked(last | found, now)
        last |= found
        due = watch.due(now, quiet)
        for month, one in watch.waiting.items():
            assert (month in due) == (now - one.last >= quiet or now - one.first >= PATIENCE_SECONDS)
        watch = watch.without(due)
        assert {**watch.reported, **{month: one.fingerprint for month, one in watch.waiting.items()}} == last
    watch = watch.looked(last, now + PATIENCE_SECONDS)
    assert dict(watch.without(watch.due(now + PATIENCE_SECONDS, quiet)).reported) == last


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"actor": None}, "column actor: is missing"),
        ({"amount": None}, "column amount: is given with an invoice, and only then"),
        ({"proposed": "{}"}, "column proposed: is not a JSON list"),
    ],
)
def test_decisions_that_no_desk_writes_refuse_their_month(
    world: World, desk: Desk, columns: dict[str, Any], told: str
) -> None:
    before = world.platform.current("matches", NEWEST)
    invoice = str(world.platform.read("invoices", NEWEST)["invoice_id"][0])
    desk.decide(NEWEST, a_transfer(world, NEWEST), Action.CHANGE, {invoice: 100}, {}, **columns)
    desk.decide(EARLIER, a_transfer(world, EARLIER), Action.NOTHING)
    made = world.make("decisions", "matches", month=NEWEST)
    assert f"decisions of {NEWEST}: " in made.failure
    assert told in made.failure
    assert made.made() == set()
    assert world.platform.current("matches", NEWEST) == before
    quarantined = world.platform.catalog.get("quarantine_decisions", NEWEST)
    assert quarantined
    assert world.platform.store.read_frame(quarantined.version).height == 1
    assert world.make("decisions", "matches", month=EARLIER).success


def test_a_decision_stands_in_place_of_the_tags_until_it_is_withdrawn(world: World, desk: Desk) -> None:
    before = world.platform.read("matches", NEWEST)
    one, other = before["transfer_id"].unique().sort()[:2]
    desk.decide(NEWEST, one, Action.NOTHING)
    desk.decide(NEWEST, other, Action.LATER)
    desk.decide(NEWEST, "gone", Action.NOTHING)
    made = world.make("decisions", "matches", month=NEWEST)
    assert made.success, made.failure
    assert made.metadata("matches")["transfers decided on"] == 2
    tags = world.platform.read("matches", NEWEST)
    assert tags.filter(transfer_id=one).rows() == [(one, None, None, NOON.date())]
    rest = pl.col("transfer_id") != one
    assert_frame_equal(tags.filter(rest), before.filter(rest))
    assert world.platform.read("decisions", NEWEST)["transfer_id"].to_list() == [one, other, "gone"]
    desk.decide(NEWEST, one, Action.WITHDRAW)
    assert world.make("decisions", "matches", month=NEWEST).success
    assert_frame_equal(world.platform.read("matches", NEWEST), before)
    assert world.platform.read("decisions", NEWEST).height == 4


def test_a_decision_goes_with_its_transfer_to_another_month(world: World, desk: Desk) -> None:
    platform, warehouse = world.platform, world.platform.warehouse
    moved = a_transfer(world, EARLIER)
    invoice = str(platform.read("invoices", EARLIER).filter(direction="sale")["invoice_id"].sort()[0])
    # Nothing is decided on any other transfer of the newest month.
    desk.decide(EARLIER, moved, Action.CHANGE, {invoice: 100}, {})
    assert world.make("decisions", *TABLES, month=EARLIER).success
    tag = (moved, invoice, 100, NOON.date())
    assert platform.read("matches", EARLIER).filter(transfer_id=moved).rows() == [tag]

    held = warehouse.read_month("transfers", EARLIER)
    mine = pl.col("transfer_id") == moved
    new_day = pl.lit(first_day(NEWEST)).cast(held.schema["booked_on"])
    now = pl.concat([warehouse.read_month("transfers", NEWEST), held.filter(mine).with_columns(booked_on=new_day)])
    warehouse.write_months("transfers", {EARLIER: held.filter(~mine), NEWEST: now})
    warehouse.write_month("matches", EARLIER, warehouse.read_month("matches", EARLIER).filter(~mine))
    assert world.make(*TABLES, month=EARLIER).success
    made = world.make(*TABLES, month=NEWEST)
    assert made.success, made.failure
    assert platform.read("matches", EARLIER).filter(mine).is_empty()
    assert platform.read("matches", NEWEST).filter(mine).rows() == [tag]
    assert made.metadata("matches")["transfers decided on"] == 1
    assert made.metadata("labelled_pairs")["corrections"] == 1
    assert demo._stale_months(platform) == []

    before = {name: platform.catalog.get(name, NEWEST) for name in TABLES}
    assert world.make(*TABLES, month=NEWEST).success
    assert {name: platform.catalog.get(name, NEWEST) for name in TABLES} == before
    # Who decides once more does so in the new month; both are its history.
    desk.decide(NEWEST, moved, Action.WITHDRAW)
    assert demo._stale_months(platform) == [NEWEST]
    assert world.make("decisions", *TABLES, month=NEWEST).success
    assert platform.read("matches", NEWEST).filter(mine).is_empty()
    assert demo._stale_months(platform) == []


def test_what_names_an_invoice_that_is_gone_is_no_tag_and_told(world: World, desk: Desk) -> None:
    platform, warehouse = world.platform, world.platform.warehouse
    before = platform.read("matches", NEWEST)
    one, other = before["transfer_id"].unique().sort()[:2]
    tagged = pl.concat(platform.read("matches", month) for month in MONTHS)["invoice_id"].drop_nulls()
    sales = platform.read("invoices", EARLIER).filter(~pl.col("invoice_id").is_in(tagged.implode()), direction="sale")
    gone, stays = sales["invoice_id"].sort()[:2]
    desk.decide(NEWEST, one, Action.CHANGE, {stays: 50}, {})
    desk.decide(NEWEST, one, Action.CHANGE, {gone: 100, stays: 50}, {})
    desk.decide(NEWEST, other, Action.CHANGE, {stays: 200}, {})
    made = world.make("decisions", *TABLES, month=NEWEST)
    assert made.success, made.failure
    assert made.metadata("matches")["decisions on invoices that are gone"] == 0
    assert "first of them" not in made.metadata("matches")
    stood = platform.read("matches", NEWEST)

    raw = warehouse.read_month("invoices", EARLIER)
    warehouse.write_month("invoices", EARLIER, raw.filter(pl.col("invoice_id") != gone))
    assert world.make("invoices", month=EARLIER).success
    made = world.make(*TABLES, month=NEWEST)
    assert made.success, made.failure
    told = made.metadata("matches")
    assert (told["transfers decided on"], told["decisions on invoices that are gone"]) == (1, 1)
    assert told["first of them"].startswith(f"decision 2 on transfer {one} names invoice {gone}, ")
    tags = platform.read("matches", NEWEST)
    # The finance system's own tags are there instead, and not what was decided before.
    assert_frame_equal(tags.filter(transfer_id=one), before.filter(transfer_id=one))
    assert tags.filter(transfer_id=other).rows() == [(other, stays, 200, NOON.date())]

    # It is on its way to another month, which is not read yet; so it is not gone.
    elsewhere = pl.lit(first_day(MONTHS[0])).cast(raw.schema["issued_on"])
    back = raw.filter(pl.col("invoice_id") == gone).with_columns(issued_on=elsewhere)
    warehouse.write_month("invoices", MONTHS[0], pl.concat([warehouse.read_month("invoices", MONTHS[0]), back]))
    assert world.make(*TABLES, month=NEWEST).success
    assert_frame_equal(platform.read("matches", NEWEST), stood)


def test_the_demo_reads_a_month_anew_when_something_was_decided(world: World, desk: Desk) -> None:
    assert demo._stale_months(world.platform) == []
    desk.decide(NEWEST, a_transfer(world, NEWEST), Action.NOTHING)
    assert demo._stale_months(world.platform) == [NEWEST]
    assert world.make("decisions", *TABLES, month=NEWEST).success
    assert demo._stale_months(world.platform) == []


def test_what_finance_tags_later_counts(world: World, desk: Desk) -> None:
    before = world.platform.read("matches", NEWEST)
    paid = before.drop_nulls("invoice_id").sort("transfer_id").row(0, named=True)
    early = datetime.combine(paid["tagged_on"], datetime.min.time(), UTC)
    desk.decide(NEWEST, paid["transfer_id"], Action.NOTHING, decided_at=early.replace(day=1, month=1))
    assert world.make("decisions", "matches", month=NEWEST).success
    assert_frame_equal(world.platform.read("matches", NEWEST), before)
    # Nine in the evening of the day before is the same day already, somewhere.
    desk.decide(NEWEST, paid["transfer_id"], Action.NOTHING, decided_at=early - timedelta(hours=3))
    assert world.make("decisions", "matches", month=NEWEST).success
    assert world.platform.read("matches", NEWEST).filter(transfer_id=paid["transfer_id"])["invoice_id"].to_list() == [
        None
    ]


@pytest.fixture
def untagged(world: World, tmp_path: Path) -> Iterator[World]:
    """The same company with another store: nobody has ever tagged anything, and there is no table for it."""
    import duckdb

    with duckdb.connect(str(world.home / "data" / "warehouse.duckdb")) as connection:
        connection.execute("DROP TABLE raw_matches")
    fresh = World(
        tmp_path / "fresh",
        Thresholds(**LENIENT, tagged_share=0.1),
        given={
            "environment": "local",
            "warehouse": world.home / "data" / "warehouse.duckdb",
            "store": str(tmp_path / "fresh" / "store"),
        },
    )
    yield fresh
    fresh.instance.dispose()


def test_where_nobody_tagged_anything_there_is_nothing_to_learn_and_no_failure(untagged: World) -> None:
    for month in MONTHS[:2]:
        made = untagged.make(*TABLES, month=month)
        assert made.success, made.failure
        assert made.metadata("matches")["rows"] == made.metadata("labelled_pairs")["rows"] == 0
    assert "tag some transfers" in untagged.make("test_split").failure


def test_where_people_tag_at_the_desk_alone_there_is_something_to_learn(untagged: World) -> None:
    platform = untagged.platform
    for month in MONTHS[:2]:
        assert untagged.make("transfers", "invoices", month=month).success
    desk = Desk(platform)
    decided_on = platform.read("transfers", MONTHS[1])["transfer_id"].sort()[:30]
    for transfer in decided_on:
        desk.decide(MONTHS[1], transfer, Action.NOTHING, shown={})
    made = untagged.make("decisions", *TABLES, month=MONTHS[1])
    assert made.success, made.failure
    assert set(platform.read("labelled_pairs", MONTHS[1])["transfer_id"]) == set(decided_on)
    assert made.metadata("labelled_pairs")["confirmations"] == 30
    assert untagged.make(*TABLES, month=MONTHS[0]).success
    assert untagged.make("test_split").success
    assert "nobody has tagged a transfer of 2024-01" in untagged.make("train_set", month=MONTHS[0]).failure
    made = untagged.make("train_set", month=MONTHS[1])
    assert made.success, made.failure


def test_tags_and_decisions_each_ask_for_matches_and_neither_does_not(untagged: World) -> None:
    """Otherwise a company without a desk, or with nothing but a desk, would wait for ever."""

    def asked(
        before: dg.EvaluateAutomationConditionsResult | None = None,
    ) -> tuple[dg.EvaluateAutomationConditionsResult, set[str]]:
        result = dg.evaluate_automation_conditions(
            defs,
            untagged.instance,
            asset_selection=dg.AssetSelection.assets("matches"),
            cursor=before.cursor if before else None,
        )
        return result, set(result.get_requested_partitions(dg.AssetKey("matches")))

    def comes(asset: str, month: str) -> None:
        untagged.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=month))

    result, found = asked()
    assert found == set()
    for month in MONTHS[:3]:
        comes("invoices", month)
        comes("transfers", month)
    result, found = asked(result)
    assert found == set()
    comes("raw_matches", MONTHS[0])
    comes("decisions", MONTHS[1])
    result, found = asked(result)
    assert found == {MONTHS[0], MONTHS[1]}


def propose(world: World, folder: Path) -> pl.DataFrame:
    """What a model that has not learned from the newest month proposes for it, booking what it is rather sure of."""
    made = world.make("train_set", "model", month=EARLIER)
    assert made.success, made.failure
    matcher = Matcher.load(world.platform.store.fetch(world.platform.current("model", EARLIER)))
    matcher.auto_from = 0.5
    matcher.save(folder)
    model = world.platform.store.put(MODELS, folder)
    world.platform.registry.promote(model, world.platform.current("evaluation_report", NEWEST), "test", "for the test")
    made = world.make("proposals", month=NEWEST)
    assert made.success, made.failure
    return world.platform.read("proposals", NEWEST).with_columns((pl.col("amount") * MINOR_UNITS).cast(pl.Int64))


def figures(world: World) -> dict[str, Any]:
    made = world.make("realised_quality", month=NEWEST)
    assert made.success, made.failure
    return made.metadata("realised_quality")


def test_decisions_judge_what_was_booked_and_teach_the_next_model(world: World, desk: Desk, tmp_path: Path) -> None:
    platform = world.platform
    proposed = propose(world, tmp_path / "model")
    before = figures(world)
    ledger = platform.ledger(NEWEST)
    booked = proposed.filter(pl.col("decision") == "auto").sort("transfer_id")
    shown = {
        str(transfer): dict(rows.select("invoice_id", "amount").iter_rows())
        for (transfer,), rows in booked.group_by("transfer_id", maintain_order=True)
    }
    untagged = sorted(set(shown) - set(ledger.matches["transfer_id"]))
    others = _other_invoices(world)
    assert untagged
    assert others.height > 3

    for transfer in untagged:
        desk.decide(NEWEST, transfer, Action.ACCEPT, shown[transfer], shown[transfer])
    for transfer, invoice, worth in others.select("transfer_id", "invoice_id", "worth").iter_rows():
        desk.decide(NEWEST, transfer, Action.CHANGE, {invoice: worth}, shown[transfer])
    made = world.make("decisions", *TABLES, month=NEWEST)
    assert made.success, made.failure
    assert made.metadata("labelled_pairs")["corrections"] == others.height
    assert made.metadata("labelled_pairs")["confirmations"] == len(untagged)

    after = figures(world)
    assert after["bookings_tagged"] == before["bookings_tagged"] + len(untagged)
    assert after["wrong"] == before["wrong"] + others.height
    assert after["judged"] == before["judged"] + len(untagged)
    # What people acted on stays proposed, whoever asks again.
    assert world.make("proposals", month=NEWEST).success
    assert_frame_equal(
        platform.read("proposals", NEWEST).select("transfer_id", "invoice_id", "decision").sort(pl.all()),
        proposed.select("transfer_id", "invoice_id", "decision").sort(pl.all()),
    )

    pairs = platform.read("labelled_pairs", NEWEST)
    heavy = pairs.filter(pl.col("weight") == CORRECTION)
    assert set(heavy["transfer_id"]) == set(others["transfer_id"])
    assert pairs.filter(pl.col("weight") != 1.0).equals(heavy)
    taught = heavy.filter("label").select("transfer_id", "invoice_id")
    assert set(taught.iter_rows()) <= set(others.select("transfer_id", "invoice_id").iter_rows())

    old = Matcher.load(platform.store.fetch(platform.current("model", NEWEST)))
    made = world.make("train_set", "model", month=NEWEST)
    assert made.success, made.failure
    new = Matcher.load(platform.store.fetch(platform.current("model", NEWEST)))
    withheld = platform.store.read_frame(train_set.read(platform.store, platform.current("train_set", NEWEST)).withheld)
    lessons = others.filter(~pl.col("transfer_id").is_in(withheld["id"].implode()))
    assert not lessons.is_empty()
    links = set(lessons.select("account", "counterparty_id").iter_rows())
    assert links <= _links(new)
    assert not links & _links(old)
    weights = zip(old.sets.state_dict().values(), new.sets.state_dict().values(), strict=True)
    assert not all(one.equal(other) for one, other in weights)


def test_corrections_alone_do_not_tell_that_every_booking_is_wrong(world: World, desk: Desk, tmp_path: Path) -> None:
    """People who decide what they are shown, and correct three bookings, have judged three. Nobody minded the others."""
    platform = world.platform
    proposed = propose(world, tmp_path / "model")
    booked = proposed.filter(pl.col("decision") == "auto")["transfer_id"].unique().sort()
    tags = platform.read("matches", NEWEST)
    shown = tags.filter(~pl.col("transfer_id").is_in(booked.implode()))
    platform.catalog.set("matches", NEWEST, platform.store.put_frame("matches", shown), {"rows": 0})
    platform.warehouse.write_months("matches", {NEWEST: platform.warehouse.read_month("matches", NEWEST).head(0)})
    for transfer in booked[:3]:
        desk.decide(NEWEST, transfer, Action.NOTHING, shown={"an invoice": 100})
    for transfer in shown["transfer_id"].unique().sort():
        desk.decide(NEWEST, transfer, Action.NOTHING)
    assert world.make("decisions", "matches", month=NEWEST).success
    made = world.make("realised_quality", month=NEWEST)
    assert made.success, made.failure
    assert (made.metadata("realised_quality")["wrong"], made.metadata("realised_quality")["bookings_tagged"]) == (3, 3)
    checks = {check.check_name: check for check in made.result.get_asset_check_evaluations()}
    assert f"3 of {len(booked)} unattended bookings" in str(checks["promise_kept"].description)
    assert not checks["bookings_tagged"].passed
    assert "let them confirm some by chance" in str(checks["bookings_tagged"].description)


def _other_invoices(world: World) -> pl.DataFrame:
    """transfer_id, account, invoice_id, worth, counterparty_id: for some bookings that hold an invoice that nobody has paid,
    of a counterparty for whom the payer's account never paid."""
    platform = world.platform
    ledger = platform.ledger(NEWEST)
    figures = platform.store.fetch(platform.current("realised_quality", NEWEST))
    right = pl.read_parquet(figures / "bookings.parquet").filter("exact").select("transfer_id")
    accounts = ledger.transfers.filter(direction="in").select(
        "transfer_id", account=account_key(pl.col("counterparty_account"))
    )
    invoices = ledger.invoices.filter(pl.col("amount") > 0, pl.col("issued_on") < first_day(NEWEST), direction="sale")
    invoices = invoices.select("invoice_id", "counterparty_id", worth="amount")
    paid = ledger.matches.join(accounts, on="transfer_id").join(invoices, on="invoice_id")
    booked = accounts.drop_nulls().join(right, on="transfer_id", how="semi").sort("transfer_id").head(8)
    unpaid = invoices.join(ledger.matches, on="invoice_id", how="anti").sort("invoice_id").head(8)
    assert len(booked) == len(unpaid) == 8
    return pl.concat([booked, unpaid], how="horizontal").join(paid, on=["account", "counterparty_id"], how="anti")


def _links(matcher: Matcher) -> set[tuple[str, str]]:
    """Which account paid for which counterparty, as a model remembers it."""
    return set(matcher.memory.space("account").select("key", "value").iter_rows())
