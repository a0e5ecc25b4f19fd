from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from matching_platform.learning import split, train_set
from matching_platform.ledger.reading import Ledger
from matching_platform.store.versions import Store, Version
from matching_platform_tests.learning.ledgers import chains, joined, ledger

WHOLE = joined(chains(60, "2024-01"), chains(60, "2024-02", "x"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def frozen(store: Store) -> split.FrozenTest:
    return split.freeze(store, chains(60, "2024-01"), ["2024-01"])


def pairs_of(whole: Ledger) -> pl.DataFrame:
    return whole.matches.select("transfer_id", "invoice_id", label=pl.lit(1))


def test_what_is_withheld_leaks_nothing(frozen: split.FrozenTest) -> None:
    withheld = train_set.withhold(WHOLE, frozen, "2024-02")
    assert set(withheld["why"]) == {"test", "newest"}
    pairs, seen = train_set.lessons(pairs_of(WHOLE), withheld), train_set.without(WHOLE, withheld)
    assert pairs.height > 100
    assert train_set.leaks(pairs, seen, WHOLE, frozen) == []
    assert train_set.from_the_future(pairs, seen, "2024-02") == []
    exam = train_set.newest_transfers(withheld, WHOLE, "2024-02")
    assert 5 < exam.height < 60
    assert exam.join(pairs, on="transfer_id", how="semi").is_empty()


def test_what_has_grown_onto_the_test_is_withheld_too(frozen: split.FrozenTest) -> None:
    invoice = frozen.invoices["invoice_id"][0]
    later = ledger([("tz", invoice), ("tz", "iz"), ("ty", "iz")], dict.fromkeys(("tz", "ty", "iz"), "2024-02"))
    whole = joined(WHOLE, later)
    withheld = train_set.withhold(whole, frozen, "2024-02")
    assert {"tz", "ty", "iz"} <= set(withheld.filter(why="test")["id"])


def test_last_months_newest_are_lessons_now(frozen: split.FrozenTest) -> None:
    before = train_set.withhold(WHOLE, frozen, "2024-02")
    after = train_set.withhold(joined(WHOLE, chains(60, "2024-03", "y")), frozen, "2024-03")
    newest = set(before.filter(why="newest")["id"])
    assert newest
    assert not newest & set(after["id"])


@pytest.mark.parametrize("what", ["transfers", "invoices", "components"])
def test_each_leak_is_told(frozen: split.FrozenTest, what: str) -> None:
    withheld = train_set.withhold(WHOLE, frozen, "2024-02")
    pairs, seen = train_set.lessons(pairs_of(WHOLE), withheld), train_set.without(WHOLE, withheld)
    whole = WHOLE
    free = pairs["transfer_id"][0]
    extra = {
        "transfers": (frozen.transfers["transfer_id"][0], "new"),
        "invoices": (free, frozen.invoices["invoice_id"][0]),
        "components": (free, "new"),
    }[what]
    if what == "components":
        bridge = ledger([(free, "i-bridge"), (frozen.transfers["transfer_id"][0], "i-bridge")], {"i-bridge": "2024-01"})
        whole = joined(WHOLE, bridge)
    pairs = pl.concat([pairs, pl.DataFrame([(*extra, 1)], schema=pairs.schema, orient="row")])
    told = train_set.leaks(pairs, seen, whole, frozen)
    assert any(f" {what} are shared with the test" in sentence for sentence in told), told


def test_rows_of_the_future_are_told(frozen: split.FrozenTest) -> None:
    told = train_set.from_the_future(pairs_of(WHOLE), WHOLE, "2024-01")
    assert [sentence.split(", for")[0] for sentence in told] == [
        "120 transfers are later than 2024-01",
        "120 invoices are later than 2024-01",
        "180 labelled pairs are later than 2024-01",
    ]


def manifest(store: Store) -> train_set.TrainSet:
    versions = {asset: store.put_bytes(asset, "x", asset.encode()) for asset in train_set.ASSETS}
    some = store.put_bytes("any", "x", b"x")
    return train_set.TrainSet("2024-01", {"2024-01": versions}, some, some)


def test_a_manifest_comes_back_and_equal_ones_are_one_version(store: Store) -> None:
    made = manifest(store)
    version = train_set.write(store, made)
    assert train_set.read(store, version) == made
    assert train_set.write(store, replace(made)) == version


def test_gaps_are_told(store: Store) -> None:
    made = manifest(store)
    whole = made.months["2024-01"]
    other = Version("matches", "0" * 64)
    lacking = {asset: version for asset, version in whole.items() if asset != "transfers"}
    assert train_set.gaps(made, made.months, store) == []
    cases = {
        "invoices of 2024-02 is missing": (made, made.months | {"2024-02": {"invoices": whole["invoices"]}}),
        "which is not in force": (made, {"2024-01": whole | {"matches": other}}),
        "transfers of 2024-01 is missing": (replace(made, months={"2024-01": lacking}), {"2024-01": lacking}),
        "there is no version": (
            replace(made, months={"2024-01": whole | {"matches": other}}),
            {"2024-01": whole | {"matches": other}},
        ),
    }
    for sentence, (case, in_force) in cases.items():
        assert any(sentence in told for told in train_set.gaps(case, in_force, store)), sentence


def test_a_tag_on_an_invoice_that_is_not_accepted_yet_does_not_count(store: Store) -> None:
    months = {
        month: {name: store.put_frame(name, getattr(part, name)) for name in ("invoices", "transfers", "matches")}
        for month, part in {"2024-01": chains(3, "2024-01"), "2024-02": chains(3, "2024-02", "x")}.items()
    }
    assert train_set.ledger_of(store, months).matches.height == 18
    del months["2024-01"]["invoices"]
    assert train_set.ledger_of(store, months).matches.height == 9
