"""Carries decisions and bookings from the desk's database to the warehouse: each once, and in their order."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from threading import Event, Lock, Thread
from typing import Any, Final

import polars as pl

from matching_platform.review.bookings import Booking, Bookings, decimal
from matching_platform.review.decided import Decisions
from matching_platform.review.decisions import Allocation, Decision
from matching_platform.warehouse.tables import APPENDED, NUMBER
from matching_platform.warehouse.warehouse import Warehouse, WarehouseError

_AT_ONCE: Final = 5_000  # decisions or bookings
# Seconds until it is tried again, doubling.
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_NOTHING: Final = {"invoice_id": None, "amount": None}
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """What is carried to a table: entries above a number, and their rows."""

    table: str
    read: Callable[[int, int], Sequence[Any]]
    last: Callable[[], int]
    rows: Callable[[Sequence[Any]], pl.DataFrame]


class Outbox:
    """A thread. Where it was killed it goes on after the last number that the warehouse has, and asks that itself."""

    def __init__(self, warehouse: Warehouse, decisions: Decisions, bookings: Bookings) -> None:
        self._warehouse = warehouse
        self._sources = (
            _Source("decisions", decisions.read, decisions.last, decision_rows),
            _Source("bookings", bookings.read, bookings.last, booking_rows),
        )
        self._held: dict[str, int] = {}
        self._carrying = Lock()
        self._wake, self._ends = Event(), Event()
        self.problem = ""
        self._thread = Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends after what is under way."""
        self._ends.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """There is something to carry."""
        self._wake.set()

    def backlog(self) -> dict[str, int | None]:
        """How many numbers of each table the warehouse lacks; None before it has answered for the first time."""
        held = dict(self._held)
        return {one.table: one.last() - held[one.table] if one.table in held else None for one in self._sources}

    def carry(self) -> None:
        """Carries all that there is; WarehouseError where the warehouse is away."""
        with self._carrying:
            for source in self._sources:
                self._carry(source)

    def _carry(self, source: _Source) -> None:
        table = source.table
        # Whatever came of the last time, the warehouse knows best what it has.
        held = self._warehouse.last_appended(table)
        while entries := source.read(held, _AT_ONCE):
            before = held
            self._warehouse.append(table, source.rows(entries), before)
            held = self._warehouse.last_appended(table)
            if held == before:
                raise WarehouseError(
                    f"the table {table} did not take rows after number {before}; see what the desk logs"
                )
            self._held[table] = held
        self._held[table] = held

    def _run(self) -> None:
        wait = 0.0
        while not self._ends.is_set():
            self._wake.wait(wait or None)
            self._wake.clear()
            if self._ends.is_set():
                return
            try:
                self.carry()
                self.problem, wait = "", 0.0
            except WarehouseError as error:
                self.problem, wait = str(error), min(_LONGEST_WAIT, max(_FIRST_WAIT, 2 * wait))
                _LOG.warning("decisions wait for the warehouse: %s", error)
            except Exception as error:  # noqa: BLE001 - it is told, and tried again
                self.problem, wait = f"{type(error).__name__}: {error}", _LONGEST_WAIT
                _LOG.exception("decisions could not be carried to the warehouse")
            # One load for what is decided in a breath.
            self._ends.wait(self._warehouse.append_pause)


def decision_rows(decisions: Sequence[Decision]) -> pl.DataFrame:
    """Decisions as rows of the table `decisions`, amounts in minor units."""
    rows = []
    for one in decisions:
        proposed = one.proposed
        shared = {
            NUMBER: one.number,
            "transfer_id": one.transfer_id,
            "booked_on": one.booked_on,
            "decided_at": one.decided_at,
            "actor": one.actor,
            "action": one.action.value,
            "note": one.note,
            "model": proposed and proposed.model,
            "proposed_decision": proposed and proposed.decision,
            "confidence": proposed and proposed.confidence,
            "proposed": proposed and _json(proposed.allocations),
            "supersedes": one.supersedes,
        }
        parts = [{"invoice_id": part.invoice_id, "amount": part.amount} for part in one.allocations]
        rows += [shared | part for part in parts] or [shared | _NOTHING]
    return _frame("decisions", rows)


def booking_rows(bookings: Sequence[Booking]) -> pl.DataFrame:
    """Bookings as rows of the table `bookings`, amounts in minor units."""
    return _frame("bookings", [asdict(one) for one in bookings])


def _frame(table: str, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={**APPENDED[table].columns, "amount": pl.Int64()})


def _json(allocations: Sequence[Allocation]) -> str:
    return json.dumps([{"invoice_id": one.invoice_id, "amount": decimal(one.amount)} for one in allocations])
