from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.learning import split
from matching_platform.ledger.reading import Ledger
from matching_platform.store.files import CorruptError
from matching_platform.store.record import LostRaceError, Record
from matching_platform.store.versions import Store
from matching_platform_tests.learning.ledgers import chains, joined, ledger

PAIRS = st.lists(
    st.tuples(st.sampled_from([f"t{i}" for i in range(8)]), st.sampled_from([None, *(f"i{i}" for i in range(8))])),
    min_size=1,
    max_size=20,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def matches_of(pairs: list[tuple[str, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"transfer_id": pl.String, "invoice_id": pl.String}, orient="row")


@given(PAIRS)
def test_pairs_that_share_an_id_are_one_component_and_no_others_are(pairs: list[tuple[str, str | None]]) -> None:
    labelled = split.components(matches_of(pairs)).rows()
    expected = {transfer: transfer for transfer, _ in pairs}
    for _ in range(len(pairs)):
        for transfer, invoice in pairs:
            neighbours = [
                expected[other] for other, theirs in pairs if other == transfer or (invoice and theirs == invoice)
            ]
            expected[transfer] = min([expected[transfer], *neighbours])
    assert {transfer: component for transfer, _, component in labelled} == expected


@given(PAIRS, st.randoms(use_true_random=False))
def test_components_do_not_depend_on_the_order_of_rows(pairs: list[tuple[str, str | None]], random) -> None:
    shuffled = random.sample(pairs, len(pairs))
    assert split.components(matches_of(pairs)).equals(split.components(matches_of(shuffled)))


def test_a_fifth_of_the_components_is_drawn_whole() -> None:
    whole = chains(400, "2024-01")
    transfers, invoices = split.make(whole)
    assert 0.14 < transfers["component"].n_unique() / 400 < 0.26
    assert transfers.height == 2 * transfers["component"].n_unique() == invoices.height


def test_the_first_split_stays_whatever_comes_later(store: Store) -> None:
    first = split.freeze(store, chains(50, "2024-01"), ["2024-01"])
    later = split.freeze(store, joined(chains(50, "2024-01"), chains(50, "2024-02", "x")), ["2024-01", "2024-02"])
    assert later.version == first.version
    assert later.transfers.equals(first.transfers)
    assert Record(store, split.RECORD).count() == 1


def test_remaking_is_explicit_and_leaves_a_record(store: Store) -> None:
    first = split.freeze(store, chains(50, "2024-01"), ["2024-01"])
    second = split.freeze(store, chains(80, "2024-01"), ["2024-01"], actor="ada", remake_because="more months")
    assert second.version != first.version
    assert split.current(store).version == second.version
    assert [(entry.actor, entry.reason) for entry in Record(store, split.RECORD).entries()][1] == ("ada", "more months")


def test_a_damaged_split_is_noticed(store: Store) -> None:
    made = split.freeze(store, chains(50, "2024-01"), ["2024-01"])
    (store.fetch(made.version) / "test_transfers.parquet").write_bytes(b"other")
    with pytest.raises(CorruptError):
        split.freeze(store, chains(50, "2024-01"), ["2024-01"])


def test_the_same_matches_give_the_same_version_in_any_store(tmp_path: Path) -> None:
    versions = {
        split.freeze(Store(str(tmp_path / name)), chains(50, "2024-01"), ["2024-01"]).version for name in ("a", "b")
    }
    assert len(versions) == 1


def test_untagged_months_cannot_be_split(store: Store) -> None:
    untagged = ledger([], {"t1": "2024-01"})
    empty = Ledger(untagged.invoices, untagged.transfers, untagged.matches)
    with pytest.raises(split.SplitError, match="too little is tagged in 2024-01"):
        split.freeze(store, empty, ["2024-01"])


@pytest.mark.parametrize("because", [None, "more months"])
def test_of_two_that_freeze_at_once_both_get_the_winners_split(
    store: Store, monkeypatch: pytest.MonkeyPatch, because: str | None
) -> None:
    append, won = Record.append, []

    def beaten(record: Record, *args: object, **named: object) -> object:
        monkeypatch.setattr(Record, "append", append)
        won.append(split.freeze(store, chains(80, "2024-01"), ["2024-01"]))
        return append(record, *args, **named)

    monkeypatch.setattr(Record, "append", beaten)
    if because:
        with pytest.raises(LostRaceError):
            split.freeze(store, chains(50, "2024-01"), ["2024-01"], remake_because=because)
    else:
        assert split.freeze(store, chains(50, "2024-01"), ["2024-01"]).version == won[0].version
    assert Record(store, split.RECORD).count() == 1
