"""The artefact on a small company: what it answers is whole, conserved, repeatable, and knows no future."""

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numba.core import config
from polars.testing import assert_frame_equal

from matching_platform.learning.yardstick import evaluate
from matching_platform.ledger.months import first_day, month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.matching.compiled import ByContent
from matching_platform.matching.features import World
from matching_platform.matching.history import credible
from matching_platform.matching.matcher import Matcher, ModelError, oldest_first, own_threshold
from matching_platform.matching.memory import Memory
from matching_platform.matching.sets import LARGEST_DISCOUNT, ROUNDING
from matching_platform_tests.matching.worlds import invoices, transfers

WEIGHTS = "weights.safetensors"


@pytest.fixture(scope="module")
def matcher(small_model: Path) -> Matcher:
    return Matcher.load(small_model)


@pytest.fixture(scope="module")
def last(small_ledger: Ledger) -> str:
    """The month that the model has not learned from."""
    return small_ledger.months()[-1]


@pytest.fixture(scope="module")
def proposals(matcher: Matcher, small_ledger: Ledger, last: str) -> pl.DataFrame:
    return matcher.match(small_ledger, [last])


@pytest.fixture(scope="module")
def everything(matcher: Matcher, small_ledger: Ledger) -> pl.DataFrame:
    return matcher.match(small_ledger)


def by_row(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort("transfer_id", "invoice_id")


# What it answers


def test_every_transfer_of_the_months_is_answered(
    proposals: pl.DataFrame, everything: pl.DataFrame, small_ledger: Ledger, last: str
) -> None:
    ids = small_ledger.transfers.filter(month_of("booked_on") == last)["transfer_id"]
    assert set(proposals["transfer_id"]) == set(ids)
    assert set(everything["transfer_id"]) == set(small_ledger.transfers["transfer_id"])
    assert proposals.schema == PROPOSALS


def test_the_rows_of_one_transfer_agree(everything: pl.DataFrame, matcher: Matcher) -> None:
    shared = everything.group_by("transfer_id").agg(
        pl.col("confidence", "decision", "evidence").n_unique(),
        nothing=pl.col("invoice_id").is_null().any(),
        rows=pl.len(),
    )
    assert shared.filter(pl.max_horizontal("confidence", "decision", "evidence") != 1).is_empty()
    assert shared.filter(pl.col("nothing") & (pl.col("rows") > 1)).is_empty()
    assert not everything.select("transfer_id", "invoice_id").is_duplicated().any()
    assert everything["confidence"].is_between(0, 1).all()


def test_decisions_follow_confidence_and_set(everything: pl.DataFrame, matcher: Matcher) -> None:
    expected = (
        pl.when(pl.col("invoice_id").is_null())
        .then(pl.lit("none"))
        .when(pl.col("confidence") >= matcher.auto_from)
        .then(pl.lit("auto"))
        .otherwise(pl.lit("review"))
    )
    assert everything.filter(pl.col("decision") != expected).is_empty()
    assert set(everything["decision"]) >= {"auto", "none"}


def test_below_the_threshold_a_person_decides(matcher: Matcher, small_ledger: Ledger) -> None:
    careful = Matcher(matcher.pairs, matcher.sets, matcher.memory, matcher.calibration, 1.1, matcher.card)
    assert set(careful.match(small_ledger, small_ledger.months()[-1:])["decision"]) == {"review", "none"}


def test_every_answer_has_its_reasons(everything: pl.DataFrame) -> None:
    assert everything.filter(pl.col("evidence").list.len() == 0).is_empty()
    assert everything.filter(pl.col("evidence").list.contains("") | pl.col("evidence").is_null()).is_empty()


def test_it_is_far_better_than_nothing(proposals: pl.DataFrame, sample: dict[str, pl.DataFrame]) -> None:
    truth = sample["audit"].join(proposals, on="transfer_id", how="semi")
    figures = evaluate(proposals, truth).figures
    assert figures["exact_paying"] > 0.6
    assert figures["auto_precision"] > 0.85


# Money


def open_before(ledger: Ledger, month: str) -> pl.DataFrame:
    """invoice_id, open: what the matches of earlier transfers leave of each invoice."""
    earlier = ledger.transfers.filter(pl.col("booked_on") < first_day(month)).select("transfer_id")
    paid = credible(ledger).join(earlier, on="transfer_id").group_by("invoice_id").agg(paid=pl.col("amount").sum())
    remaining = pl.col("amount") - pl.col("paid").fill_null(0)
    kept = pl.when(remaining.sign() == pl.col("amount").sign()).then(remaining).otherwise(0)
    return ledger.invoices.join(paid, on="invoice_id", how="left").select("invoice_id", kept.alias("open"))


def test_no_invoice_is_settled_for_more_than_it_has_open(everything: pl.DataFrame, small_ledger: Ledger) -> None:
    months = small_ledger.transfers.select("transfer_id", month_of("booked_on").alias("month"))
    for (month,), part in everything.drop_nulls("invoice_id").join(months, on="transfer_id").group_by("month"):
        taken = part.group_by("invoice_id").agg(pl.col("amount").sum(), signs=pl.col("amount").sign().n_unique())
        assert (taken["signs"] == 1).all()
        held = taken.join(open_before(small_ledger, str(month)), on="invoice_id")
        assert len(held) == len(taken)
        assert held.filter(pl.col("amount").abs() > pl.col("open").abs()).is_empty(), month


def test_no_transfer_gives_more_than_it_brought(everything: pl.DataFrame, small_ledger: Ledger) -> None:
    brought = small_ledger.transfers.select("transfer_id", "currency", brought="amount")
    currency = small_ledger.invoices.select("invoice_id", invoice_currency="currency")
    given = (
        everything.drop_nulls("invoice_id")
        .join(brought, on="transfer_id")
        .join(currency, on="invoice_id")
        .filter((pl.col("currency") == pl.col("invoice_currency")).all().over("transfer_id"))
        .group_by("transfer_id")
        .agg(pl.col("amount").sum(), pl.col("brought").first())
    )
    tolerated = pl.max_horizontal(pl.col("brought") * LARGEST_DISCOUNT, pl.lit(ROUNDING))
    assert len(given) > 100
    assert given.filter(pl.col("amount") > pl.col("brought") + tolerated).is_empty()


# The same again


def test_a_saved_model_gives_the_same_proposals(
    matcher: Matcher, small_ledger: Ledger, last: str, proposals: pl.DataFrame, tmp_path: Path
) -> None:
    matcher.save(tmp_path / "again")
    again = Matcher.load(tmp_path / "again")
    assert again.card["version"] == matcher.card["version"]
    assert_frame_equal(again.match(small_ledger, [last]), proposals, check_exact=True)


def test_the_order_of_rows_is_of_no_matter(
    matcher: Matcher, small_ledger: Ledger, last: str, proposals: pl.DataFrame
) -> None:
    tables = (small_ledger.invoices, small_ledger.transfers, small_ledger.matches)
    for seed in range(2):
        shuffled = Ledger(*(table.sample(fraction=1, shuffle=True, seed=seed) for table in tables))
        assert_frame_equal(by_row(matcher.match(shuffled, [last])), by_row(proposals), check_exact=True)


@pytest.mark.parametrize("month", [2, 4])
def test_the_future_is_not_seen(matcher: Matcher, small_ledger: Ledger, everything: pl.DataFrame, month: int) -> None:
    now, after = small_ledger.months()[month], first_day(small_ledger.months()[month + 1])
    known = small_ledger.transfers.filter(pl.col("booked_on") < after)
    earlier = known.filter(pl.col("booked_on") < first_day(now))
    past = Ledger(
        small_ledger.invoices.filter(pl.col("issued_on") < after),
        known,
        small_ledger.matches.join(earlier.select("transfer_id"), on="transfer_id", how="semi"),
    )
    with_future = everything.join(known.filter(pl.col("booked_on") >= first_day(now)), on="transfer_id", how="semi")
    assert_frame_equal(by_row(matcher.match(past, [now])), by_row(with_future), check_exact=True)


def test_months_are_reported_as_they_are_done(matcher: Matcher, small_ledger: Ledger) -> None:
    told: list[tuple[str, float]] = []
    months = small_ledger.months()[:2]
    matcher.match(small_ledger, months, lambda month, share: told.append((month, share)))
    assert told == [(months[0], 0.5), (months[1], 1.0)]


# One batch


def test_a_batch_is_answered_in_the_order_it_came(matcher: Matcher, small_ledger: Ledger) -> None:
    batch = small_ledger.transfers.tail(30).sample(fraction=1, shuffle=True, seed=5)
    answered = matcher.propose(batch, small_ledger.invoices)
    assert answered["transfer_id"].unique(maintain_order=True).to_list() == batch["transfer_id"].to_list()
    assert answered.schema == PROPOSALS


def test_open_amounts_bound_what_is_settled(matcher: Matcher) -> None:
    owed = invoices({"number": "FV/24/0101"}, {"number": "FV/24/0102"}, {"number": "FV/24/0103"}).with_columns(
        open_amount=pl.Series([0, 40_00, None], dtype=pl.Int64)
    )
    paid = transfers(*({"title": f"FV/24/010{n}"} for n in (1, 2, 3)))
    settled = matcher.propose(paid, owed).drop_nulls("invoice_id").group_by("invoice_id").agg(pl.col("amount").sum())
    amounts = dict(settled.iter_rows())
    assert "i1" not in amounts
    assert amounts.get("i2", 0) <= 40_00
    assert amounts["i3"] == 100_00


@pytest.mark.parametrize(
    ("paid", "owed"),
    [
        pytest.param([], [], id="nothing at all"),
        pytest.param([], [{}], id="no transfers"),
        pytest.param([{}, {"title": "FV 1 2 3"}], [], id="no invoices"),
        pytest.param(
            [{"title": "zażółć 株式会社 🧾 ١٢٣ \u202e\u0000"}], [{"number": "Ü/١٢٣/🧾", "amount": 3}], id="any unicode"
        ),
        pytest.param([{"title": "9" * 140}], [{"number": "9" * 60}], id="digits only"),
        pytest.param(
            [{"counterparty_account": None, "counterparty_name": ""}], [{"counterparty_name": ""}], id="no names"
        ),
        pytest.param([{"amount": 1}], [{"amount": 0}], id="an invoice of nothing"),
        pytest.param([{"amount": 10**15}], [{"amount": 10**15}, {"amount": -(10**15)}], id="very large"),
        pytest.param([{"currency": "EUR"}], [{"currency": "PLN"}], id="a currency never seen together"),
        pytest.param([{"direction": "out"}], [{"direction": "sale"}], id="the wrong way"),
    ],
)
def test_any_valid_batch_is_answered(matcher: Matcher, paid: list[dict[str, Any]], owed: list[dict[str, Any]]) -> None:
    answered = matcher.propose(transfers(*paid), invoices(*owed))
    assert answered["transfer_id"].n_unique() == len(paid)
    assert answered.schema == PROPOSALS
    assert answered["confidence"].is_finite().all()


def test_a_ledger_without_transfers_has_no_proposals(matcher: Matcher, small_ledger: Ledger) -> None:
    empty = Ledger(small_ledger.invoices, small_ledger.transfers.head(0), small_ledger.matches.head(0))
    assert_frame_equal(matcher.match(empty), pl.DataFrame(schema=PROPOSALS))


def test_a_ledger_without_invoices_and_matches_settles_nothing(matcher: Matcher, small_ledger: Ledger) -> None:
    bare = Ledger(small_ledger.invoices.head(0), small_ledger.transfers, small_ledger.matches.head(0))
    assert set(matcher.match(bare, small_ledger.months()[:1])["decision"]) == {"none"}


# The folder


def copied(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder / "model"))


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return edit


FILES = ("card.json", "calibration.json", WEIGHTS, "memory.parquet", "rates.parquet")


@pytest.mark.parametrize(
    "break_it",
    [
        *(pytest.param(lambda m, f=name: (m / f).unlink(), id=f"no {name}") for name in FILES),
        *(pytest.param(lambda m, f=name: (m / f).write_bytes(b""), id=f"{name} empty") for name in FILES),
        *(
            pytest.param(lambda m, f=name: (m / f).write_bytes((m / f).read_bytes()[:-20]), id=f"{name} cut")
            for name in FILES
        ),
        *(pytest.param(lambda m, f=name: (m / f).write_bytes(b"\xff\x00" * 99), id=f"{name} noise") for name in FILES),
        pytest.param(shutil.rmtree, id="no folder"),
        pytest.param(edited("card.json", lambda card: card | {"format": 0}), id="another format"),
        pytest.param(edited("card.json", lambda card: card | {"features": "x"}), id="other features"),
        pytest.param(edited("card.json", lambda card: card | {"folds": 5}), id="more folds than weights"),
        pytest.param(edited("card.json", lambda card: card | {"settings": {"hidden": 7}}), id="another width"),
        pytest.param(edited("card.json", lambda card: card | {"settings": None}), id="no settings"),
        pytest.param(edited("card.json", lambda card: [card]), id="card is a list"),
        pytest.param(edited("card.json", lambda card: {k: v for k, v in card.items() if k != "folds"}), id="no folds"),
        pytest.param(edited("calibration.json", lambda _: {"bias": 0.0, "weights": {}}), id="no threshold"),
        pytest.param(
            edited("calibration.json", lambda c: c | {"weights": {"stars": 1}}), id="calibration of another kind"
        ),
        pytest.param(
            lambda m: pl.DataFrame({"x": [1]}).write_parquet(m / "memory.parquet"), id="memory of another kind"
        ),
    ],
)
def test_a_broken_folder_is_a_model_error(
    small_model: Path, tmp_path: Path, break_it: Callable[[Path], object]
) -> None:
    folder = copied(small_model, tmp_path)
    break_it(folder)
    with pytest.raises(ModelError, match=str(folder)):
        Matcher.load(folder)


def test_a_threshold_is_read_without_the_model(small_model: Path, tmp_path: Path) -> None:
    folder = copied(small_model, tmp_path)
    assert own_threshold(folder) == Matcher.load(folder).auto_from
    for broken in ("{}", "[]", "", '{"auto_from": null}'):
        (folder / "calibration.json").write_text(broken)
        with pytest.raises(ModelError, match=str(folder)):
            own_threshold(folder)


def test_a_killed_save_leaves_nothing_and_the_next_one_succeeds(
    matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    with monkeypatch.context() as patched:
        patched.setattr(json, "dumps", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            matcher.save(folder)
    assert not folder.exists()
    matcher.save(folder)
    Matcher.load(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_is_never_overwritten(matcher: Matcher, tmp_path: Path) -> None:
    matcher.save(tmp_path / "model")
    before = (tmp_path / "model" / "card.json").read_bytes()
    with pytest.raises(OSError, match="model"):
        matcher.save(tmp_path / "model")
    assert (tmp_path / "model" / "card.json").read_bytes() == before


def test_the_version_names_the_content(matcher: Matcher, small_model: Path, tmp_path: Path) -> None:
    other = Matcher(
        matcher.pairs,
        matcher.sets,
        matcher.memory,
        matcher.calibration,
        float(np.nextafter(matcher.auto_from, 2)),
        matcher.card,
    )
    other.save(tmp_path / "other")
    assert Matcher.load(tmp_path / "other").card["version"] != matcher.card["version"]


def test_of_twins_the_earlier_payment_settles_the_older() -> None:
    owed = invoices(
        {"due_on": date(2024, 5, 20)}, {"due_on": date(2024, 5, 10)}, {"amount": 7_00}, {"due_on": date(2024, 5, 15)}
    )
    world = World.of(transfers(*({"booked_on": date(2024, 5, day)} for day in (17, 18, 19, 20))), owed, Memory.empty())
    rows = [
        (0, 0, 100_00, True, True),
        (1, 1, 100_00, True, True),
        (2, 2, 7_00, True, True),
        (3, 3, 100_00, False, True),
    ]
    parts = pl.DataFrame(rows, schema=["row", "invoice", "amount", "told_by_age", "sure"], orient="row")
    assert oldest_first(parts, world)["invoice"].to_list() == [1, 0, 2, 3]


def test_no_twin_is_settled_before_it_was_issued() -> None:
    late = {"issued_on": date(2024, 5, 28), "due_on": date(2024, 5, 29)}
    owed = invoices({"issued_on": date(2024, 5, 1), "due_on": date(2024, 5, 30)}, late)
    world = World.of(transfers(*({"booked_on": date(2024, 5, day)} for day in (3, 30))), owed, Memory.empty())
    rows = [(0, 0, 100_00, True, True), (1, 1, 100_00, True, True)]
    parts = pl.DataFrame(rows, schema=["row", "invoice", "amount", "told_by_age", "sure"], orient="row")
    assert oldest_first(parts, world)["invoice"].to_list() == [0, 1]


def test_machine_code_is_kept_by_what_the_source_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    places = []
    for folder, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(text)
        places.append(ByContent(by_row, str(tmp_path / folder / "same.py")).get_cache_path())
    assert places[0] == places[1] != places[2]
    assert all(place.startswith(str(tmp_path / "cache")) for place in places)


def test_the_sure_and_the_doubtful_keep_their_places() -> None:
    owed = invoices({"due_on": date(2024, 5, 20)}, {"due_on": date(2024, 5, 10)})
    world = World.of(transfers(*({"booked_on": date(2024, 5, day)} for day in (17, 18))), owed, Memory.empty())
    rows = [(0, 0, 100_00, True, True), (1, 1, 100_00, True, False)]
    parts = pl.DataFrame(rows, schema=["row", "invoice", "amount", "told_by_age", "sure"], orient="row")
    assert oldest_first(parts, world)["invoice"].to_list() == [0, 1]


def test_a_month_is_answered_once(matcher: Matcher, small_ledger: Ledger, last: str, proposals: pl.DataFrame) -> None:
    assert_frame_equal(by_row(matcher.match(small_ledger, [last, last])), by_row(proposals))


@pytest.mark.parametrize("odd", [date(1000, 1, 1), date(2004, 8, 1), date(2999, 1, 1)])
def test_one_odd_date_changes_nothing_for_the_others(matcher: Matcher, small_ledger: Ledger, odd: date) -> None:
    batch = small_ledger.transfers.tail(60)
    stranger = batch.head(1).with_columns(transfer_id=pl.lit("odd"), booked_on=pl.lit(odd), title=pl.lit("x"))
    both = matcher.propose(pl.concat([batch, stranger]), small_ledger.invoices).filter(pl.col("transfer_id") != "odd")
    alone = matcher.propose(batch, small_ledger.invoices)
    assert both["decision"].to_list() == alone["decision"].to_list()


def test_a_month_in_portions_settles_nothing_twice(
    small_ledger: Ledger, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one portion has settled is settled for the next; most proposals are those of the whole month."""
    month = small_ledger.months()[-1]
    whole = Matcher.load(small_model).match(small_ledger, [month])
    monkeypatch.setattr("matching_platform.matching.matcher.TRANSFERS_AT_ONCE", 30)
    parts = Matcher.load(small_model).match(small_ledger, [month])
    assert parts["transfer_id"].unique(maintain_order=True).len() == whole["transfer_id"].n_unique()
    same = whole.join(parts, on=["transfer_id", "invoice_id"], nulls_equal=True)
    assert same.height > 0.9 * whole.height
    settled = parts.group_by("invoice_id").agg(pl.col("amount").sum()).join(small_ledger.invoices, on="invoice_id")
    assert (settled["amount"].abs() <= settled["amount_right"].abs()).all()
