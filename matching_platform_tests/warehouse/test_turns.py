"""Turns: one at a time, whoever is slow."""

from pathlib import Path

import pytest

from matching_platform.store.record import Record
from matching_platform.store.versions import Store
from matching_platform.warehouse.turns import turn
from matching_platform.warehouse.warehouse import WarehouseError


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(Store(tmp_path), "turns/test")


def states(record: Record) -> list[str]:
    return [entry.payload["state"] for entry in record.entries()]


def test_a_turn_ends_and_the_next_begins(record: Record) -> None:
    for _ in range(2):
        with turn(record, "adding"):
            assert states(record)[-1] == "begun"
    assert states(record) == ["begun", "over"] * 2


def test_whoever_lost_the_turn_does_not_end_that_of_another(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, other = turn(record, "slow"), turn(record, "other")
    with slow:
        monkeypatch.setattr("matching_platform.warehouse.turns.LOST_SECONDS", -1.0)
        other.__enter__()
        monkeypatch.setattr("matching_platform.warehouse.turns.LOST_SECONDS", 300.0)
    assert states(record) == ["begun", "begun"], "the other one's turn goes on"
    monkeypatch.setattr("matching_platform.warehouse.turns.LOST_SECONDS", 0.0)
    monkeypatch.setattr("matching_platform.warehouse.turns._age", lambda _: 0.0)
    with pytest.raises(WarehouseError, match="third waits for others"), turn(record, "third"):
        pass
    other.__exit__(None, None, None)
    assert states(record) == ["begun", "begun", "over"]
