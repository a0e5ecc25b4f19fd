"""What every warehouse must do with a table that only grows."""

from datetime import UTC, date, datetime

import polars as pl

from matching_platform.warehouse.tables import APPENDED
from matching_platform.warehouse.warehouse import Warehouse


def bookings(*numbers: int, month: int = 3) -> pl.DataFrame:
    """Bookings with these numbers, minor units."""
    rows = [
        {
            "number": number,
            "booked_at": datetime(2024, 4, 1, 12, 30, 15, 123456, tzinfo=UTC),
            "transfer_id": f"T{number}",
            "booked_on": date(2024, month, 1 + number % 28),
            "invoice_id": f"I{number}",
            "amount": -1_00 * number,
            "currency": "EUR",
            "entry": "book",
            "by": "person",
            "actor": "Żaneta",
            "decision": None,
        }
        for number in numbers
    ]
    return pl.DataFrame(rows, schema={**APPENDED["bookings"].columns, "amount": pl.Int64()})


def grows(warehouse: Warehouse) -> None:
    """Rows come in their order, each once, however often they are appended."""
    assert warehouse.last_appended("bookings") == 0
    assert warehouse.appended("bookings") == {}
    assert warehouse.read_appended("bookings", "2024-03").is_empty()
    warehouse.append("bookings", bookings(1, 2), after=0)
    before = warehouse.appended("bookings")
    # The answer was lost; and another desk comes with more after the same number.
    warehouse.append("bookings", bookings(1, 2), after=0)
    warehouse.append("bookings", bookings(1, 2, 3), after=0)
    assert warehouse.last_appended("bookings") == 2
    assert warehouse.appended("bookings") == before
    warehouse.append("bookings", pl.concat([bookings(3), bookings(4, month=2)]), after=2)
    assert warehouse.last_appended("bookings") == 4
    after = warehouse.appended("bookings")
    assert sorted(after) == ["2024-02", "2024-03"]
    assert after["2024-03"] != before["2024-03"]
    rows = warehouse.read_appended("bookings", "2024-03")
    assert rows["number"].to_list() == [1, 2, 3]
    assert rows.schema == pl.Schema(APPENDED["bookings"].columns)
    assert [str(amount) for amount in rows["amount"]] == ["-1.00", "-2.00", "-3.00"]
    assert rows["booked_at"][0] == datetime(2024, 4, 1, 12, 30, 15, 123456, tzinfo=UTC)
    assert rows["actor"][0] == "Żaneta"


def takes_decisions(warehouse: Warehouse) -> None:
    """Columns that no row has filled yet take what comes later."""
    columns = APPENDED["decisions"].columns
    bare = dict.fromkeys(columns) | {
        "transfer_id": "T1",
        "booked_on": date(2024, 3, 1),
        "decided_at": datetime(2024, 4, 1, tzinfo=UTC),
        "actor": "anna",
        "action": "nothing",
    }
    schema = {**columns, "amount": pl.Int64()}
    warehouse.append("decisions", pl.DataFrame([bare | {"number": 1}], schema=schema), after=0)
    full = bare | {"number": 2, "invoice_id": "I1", "amount": 5, "supersedes": 1, "confidence": 0.5, "proposed": "[]"}
    warehouse.append("decisions", pl.DataFrame([full], schema=schema), after=1)
    rows = warehouse.read_appended("decisions", "2024-03")
    assert rows["invoice_id"].to_list() == [None, "I1"]
    assert rows["supersedes"].to_list() == [None, 1]
    assert rows["confidence"].to_list() == [None, 0.5]
