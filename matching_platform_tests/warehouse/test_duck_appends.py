"""Tables that only grow, in DuckDB."""

import signal
import subprocess
import sys
from pathlib import Path

from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform_tests.warehouse.appends import bookings, grows, takes_decisions

_KILLED_INSIDE = """
import os, signal, sys
from pathlib import Path
from matching_platform.warehouse import duck
from matching_platform_tests.warehouse.appends import bookings

inner = duck._last
def killed(backend, table):
    last = inner(backend, table)
    backend.con.execute(f"INSERT INTO {table} SELECT * FROM incoming")
    os.kill(os.getpid(), signal.SIGKILL)
duck._last = killed
duck.DuckWarehouse(Path(sys.argv[1])).append("bookings", bookings(3, 4), after=2)
"""


def test_rows_are_added_once(tmp_path: Path) -> None:
    grows(DuckWarehouse(tmp_path / "warehouse.duckdb"))


def test_columns_that_were_empty_take_values(tmp_path: Path) -> None:
    takes_decisions(DuckWarehouse(tmp_path / "warehouse.duckdb"))


def test_who_is_killed_within_has_added_nothing(tmp_path: Path) -> None:
    warehouse = DuckWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.append("bookings", bookings(1, 2), after=0)
    killed = subprocess.run([sys.executable, "-c", _KILLED_INSIDE, str(warehouse.path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert warehouse.last_appended("bookings") == 2
    warehouse.append("bookings", bookings(3, 4), after=2)
    assert warehouse.read_appended("bookings", "2024-03")["number"].to_list() == [1, 2, 3, 4]
