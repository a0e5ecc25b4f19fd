"""Decisions and bookings reach the warehouse: each once and in their order, whatever is killed or held."""

import json
import logging
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from matching_platform.database import connect
from matching_platform.desk.outbox import OTHER_DATABASE, OtherDatabaseError, Outbox
from matching_platform.review.decider import Decider
from matching_platform.review.decisions import Action, Wanted
from matching_platform.review.tags import in_force, validated
from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform.warehouse.warehouse import WarehouseError
from matching_platform_tests.review.bench import accept, books, change, decider, invoice, proposal, transfer, undo
from matching_platform_tests.waiting import until

MONTH = "2024-03"
HELD = books(
    [transfer(f"T{number}", 100_00) for number in range(6)],
    [invoice(f"I{number}", 100_00) for number in range(6)],
    [proposal(f"T{number}", (f"I{number}", 100_00)) for number in range(6)],
)

# Carries, and is killed at the `n`-th call of a method of the warehouse, before or after it.
_CARRY = """
import os, signal, sys
from pathlib import Path
from matching_platform.database import connect
from matching_platform.desk.outbox import Outbox
from matching_platform.desk import outbox
from matching_platform.review.decider import Decider
from matching_platform.warehouse.duck import DuckWarehouse

folder, name, when, calls = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
outbox._AT_ONCE = 2
inner = getattr(DuckWarehouse, name)

def counted(*given):
    global calls
    calls -= 1
    if calls == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = inner(*given)
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

setattr(DuckWarehouse, name, counted)
desk = Decider(connect(f"sqlite:///{folder / 'desk.sqlite'}"))
Outbox(DuckWarehouse(folder / "warehouse.duckdb"), desk.decisions, desk.bookings).carry()
"""


@pytest.fixture
def desk(tmp_path: Path) -> Decider:
    """Five decisions, one of them undone."""
    desk = decider(tmp_path, HELD)
    desk.decide([accept(f"T{number}", (f"I{number}", 100_00)) for number in range(3)], "anna")
    desk.decide([Wanted("T3", Action.NOTHING), change("T4", ("I4", 60_00), ("I5", 40_00), note="both")], "ben")
    undo(desk, 2, "anna")
    return desk


def outbox(desk: Decider, folder: Path) -> Outbox:
    return Outbox(DuckWarehouse(folder / "warehouse.duckdb"), desk.decisions, desk.bookings)


def test_all_of_it_arrives_as_it_was_decided(desk: Decider, tmp_path: Path) -> None:
    box = outbox(desk, tmp_path)
    assert box.backlog() == {"decisions": None, "bookings": None}
    box.carry()
    assert box.backlog() == {"decisions": 0, "bookings": 0}
    warehouse = DuckWarehouse(tmp_path / "warehouse.duckdb")
    raw = warehouse.read_appended("decisions", MONTH)
    assert raw["number"].to_list() == [1, 2, 3, 4, 5, 5, 6]
    assert raw["action"].unique().sort().to_list() == ["accept", "change", "nothing", "withdraw"]
    assert json.loads(raw["proposed"][0]) == [{"invoice_id": "I0", "amount": "100.00"}]
    read = validated(raw, source="decisions")
    assert sorted(in_force(read)["transfer_id"].unique()) == ["T0", "T2", "T3", "T4"]
    booked = warehouse.read_appended("bookings", MONTH)
    assert booked["number"].to_list() == list(range(1, len(desk.bookings.read()) + 1))
    assert booked["entry"].to_list()[-1] == "reverse"
    desk.decide([accept("T1", ("I1", 100_00), expected=6)], "anna")
    assert box.backlog() == {"decisions": 1, "bookings": 1}
    box.carry()
    assert warehouse.last_appended("decisions") == 7


@pytest.mark.parametrize(
    ("name", "when", "call"), [("append", "before", 1), ("append", "after", 2), ("last_appended", "after", 3)]
)
def test_whenever_it_is_killed_nothing_is_lost_and_nothing_comes_twice(
    desk: Decider, tmp_path: Path, name: str, when: str, call: int
) -> None:
    killed = subprocess.run([sys.executable, "-c", _CARRY, str(tmp_path), name, when, str(call)], check=False)
    assert killed.returncode == -signal.SIGKILL
    outbox(desk, tmp_path).carry()
    warehouse = DuckWarehouse(tmp_path / "warehouse.duckdb")
    assert warehouse.read_appended("decisions", MONTH)["number"].to_list() == [1, 2, 3, 4, 5, 5, 6]
    entries = len(desk.bookings.read())
    assert warehouse.read_appended("bookings", MONTH)["number"].to_list() == list(range(1, entries + 1))


def test_it_waits_while_another_program_holds_the_warehouse(
    desk: Decider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matching_platform.warehouse.duck._WAIT_FOR_OTHERS", 0.1)
    path = tmp_path / "warehouse.duckdb"
    box = outbox(desk, tmp_path)
    hold = f"import duckdb, time; held = duckdb.connect({str(path)!r}); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            box.start()
            box.wake()
            until(lambda: "held open by another program" in box.problem)
            (made,) = desk.decide([Wanted("T5", Action.LATER)], "anna")
            box.wake()
        finally:
            other.kill()
    until(lambda: box.backlog() == {"decisions": 0, "bookings": 0}, lambda: box.problem)
    box.close()
    assert box.problem == ""
    assert DuckWarehouse(path).last_appended("decisions") == made.number


def test_a_table_that_takes_nothing_is_told(desk: Decider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DuckWarehouse, "append", lambda *_: None)
    with pytest.raises(WarehouseError, match="did not take rows after number 0"):
        outbox(desk, tmp_path).carry()


def test_the_warehouse_that_was_put_back_gets_what_it_lacks(desk: Decider, tmp_path: Path) -> None:
    box = outbox(desk, tmp_path)
    box.carry()
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("DELETE FROM decisions WHERE number > 3")
    box.carry()
    assert DuckWarehouse(tmp_path / "warehouse.duckdb").last_appended("decisions") == 6


def test_two_desks_carry_each_decision_once(desk: Decider, tmp_path: Path) -> None:
    there = Decider(connect(f"sqlite:///{tmp_path / 'desk.sqlite'}"))
    boxes = [outbox(one, tmp_path) for one in (desk, there)]
    for box in boxes:
        box.start()
        box.wake()
    until(lambda: all(box.backlog() == {"decisions": 0, "bookings": 0} for box in boxes))
    for box in boxes:
        box.close()
    assert DuckWarehouse(tmp_path / "warehouse.duckdb").read_appended("decisions", MONTH).height == 7


def older(desk: Decider, tmp_path: Path) -> Decider:
    """The desk at a copy of its database that lacks what is decided from now on."""
    restored = tmp_path / "restored"
    restored.mkdir()
    with closing(sqlite3.connect(tmp_path / "desk.sqlite")) as connection:
        connection.execute("VACUUM INTO ?", (str(restored / "desk.sqlite"),))
    desk.decide([Wanted("T5", Action.LATER)], "anna")
    desk.decide([accept("T1", ("I1", 100_00), expected=6)], "anna")
    return decider(restored, HELD)


@pytest.mark.parametrize("decided", [0, 2, 3])
def test_nothing_is_carried_from_an_older_database(
    desk: Decider, tmp_path: Path, decided: int, caplog: pytest.LogCaptureFixture
) -> None:
    restored = older(desk, tmp_path)
    outbox(desk, tmp_path).carry()
    warehouse = DuckWarehouse(tmp_path / "warehouse.duckdb")
    held = [warehouse.read_appended(table, MONTH) for table in ("decisions", "bookings")]
    for expected in [0, 7, 8][:decided]:
        restored.decide([Wanted("T5", Action.LATER, (), expected, f"after {expected}")], "ben")
    box = outbox(restored, tmp_path)
    with pytest.raises(OtherDatabaseError, match="the table decisions ends with number 8"):
        box.carry()
    assert box.refusal == OTHER_DATABASE
    assert box.backlog() == {"decisions": None, "bookings": None}
    box.start()
    with closing(box), caplog.at_level(logging.ERROR):
        for _ in range(2):
            box.wake()
            until(lambda: OTHER_DATABASE in box.problem and not box._wake.is_set())
    assert len([line for line in caplog.messages if OTHER_DATABASE in line]) == 1, "it is told once"
    for table, rows in zip(("decisions", "bookings"), held, strict=True):
        assert warehouse.read_appended(table, MONTH).equals(rows)
    # The newer database, or another warehouse, settles it.
    outbox(desk, tmp_path).carry()
    other = Outbox(DuckWarehouse(tmp_path / "other.duckdb"), restored.decisions, restored.bookings)
    other.carry()
    assert other.refusal == ""


def test_what_another_database_brought_meanwhile_is_seen(desk: Decider, tmp_path: Path) -> None:
    restored = older(desk, tmp_path)
    box, theirs = outbox(desk, tmp_path), outbox(restored, tmp_path)
    theirs.carry()
    restored.decide([Wanted("T5", Action.NOTHING)], "ben")
    restored.decide([accept("T1", ("I1", 100_00), expected=6)], "ben")
    theirs.carry()
    with pytest.raises(OtherDatabaseError):
        box.carry()
    assert DuckWarehouse(tmp_path / "warehouse.duckdb").read_appended("decisions", MONTH)["actor"].to_list()[-2:] == [
        "ben",
        "ben",
    ]


def test_bookings_of_another_database_are_seen_too(desk: Decider, tmp_path: Path) -> None:
    box = outbox(desk, tmp_path)
    box.carry()
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("UPDATE bookings SET actor = 'model' WHERE number = (SELECT max(number) FROM bookings)")
    with pytest.raises(OtherDatabaseError, match="the table bookings"):
        outbox(desk, tmp_path).carry()
