"""Carries decisions and bookings from the desk's database to the warehouse: each once, and in their order."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from threading import Event, Lock, Thread
from typing import Any, Final

import polars as pl

from matching_platform.ledger.money import decimal
from matching_platform.review.bookings import Booking, Bookings
from matching_platform.review.decisions import Allocation, Decision
from matching_platform.review.records import Decisions
from matching_platform.warehouse.tables import APPENDED, NUMBER
from matching_platform.warehouse.warehouse import Warehouse, WarehouseError

_AT_ONCE: Final = 5_000  # decisions or bookings
# Seconds until it is tried again, doubling.
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_SAME: Final = (NUMBER, "transfer_id", "actor")
_NOTHING: Final = {"invoice_id": None, "amount": None}
# Until that is settled, nobody can decide.
OTHER_DATABASE: Final = (
    "the warehouse holds decisions or bookings that the desk's database lacks, or has otherwise; restore the newer "
    "database, or name another warehouse, and start the desk again"
)
_LOG: Final = logging.getLogger(__name__)


class OtherDatabaseError(WarehouseError):
    """What the warehouse has was not carried from this database; nothing more is."""


@dataclass(frozen=True)
class _Source:
    """What is carried to a table: entries above a number, and their rows. By `same`, an entry there is known to be ours."""

    table: str
    same: tuple[str, ...]
    read: Callable[[int, int], Sequence[Any]]
    last: Callable[[], int]
    rows: Callable[[Sequence[Any]], pl.DataFrame]


class Outbox:
    """A thread. Where it was killed it goes on after the last number that the warehouse has, and asks that itself."""

    def __init__(self, warehouse: Warehouse, decisions: Decisions, bookings: Bookings) -> None:
        self._warehouse = warehouse
        self._sources = (
            _Source("decisions", (*_SAME, "decided_at"), decisions.read, decisions.last, decision_rows),
            _Source("bookings", (*_SAME, "booked_at"), bookings.read, bookings.last, booking_rows),
        )
        # By table, the last number there, as long as it is of the same entry here.
        self._held: dict[str, int] = {}
        self._carrying = Lock()
        self._wake, self._ends = Event(), Event()
        self.problem = ""
        # Why nobody can decide now.
        self.refusal = ""
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
        """How many numbers of each table the warehouse lacks; None before it has answered for the first time, and where
        it holds what another database decided."""
        held = dict(self._held)
        return {one.table: one.last() - held[one.table] if one.table in held else None for one in self._sources}

    def carry(self) -> None:
        """Carries all that there is; WarehouseError where the warehouse is away, OtherDatabaseError where it has what this
        database has not."""
        with self._carrying:
            try:
                for source in self._sources:
                    self._carry(source)
            except OtherDatabaseError:
                self.refusal = OTHER_DATABASE
                self._held.clear()
                raise
            self.refusal = ""

    def _carry(self, source: _Source) -> None:
        held = self._last(source)
        while entries := source.read(held, _AT_ONCE):
            before = held
            self._warehouse.append(source.table, source.rows(entries), before)
            held = self._last(source)
            if held == before:
                raise WarehouseError(
                    f"the table {source.table} did not take rows after number {before}; see what the desk logs"
                )

    def _last(self, source: _Source) -> int:
        """The last number in the warehouse, which knows best what it has; OtherDatabaseError where it is of another entry.

        As others may carry to the same table, this is looked at again whenever that number changed.
        """
        held = self._warehouse.last_appended(source.table)
        if held and held != self._held.get(source.table):
            self._compare(source, held)
        self._held[source.table] = held
        return held

    def _compare(self, source: _Source, number: int) -> None:
        ours = source.read(number - 1, 1)
        if ours and ours[0].number == number:
            there = self._warehouse.read_appended(source.table, f"{ours[0].booked_on:%Y-%m}")
            rows = there.filter(pl.col(NUMBER) == number).select(source.same).unique()
            if rows.equals(source.rows(ours).select(source.same).unique()):
                return
        raise OtherDatabaseError(f"{OTHER_DATABASE} (the table {source.table} ends with number {number})")

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
            except OtherDatabaseError as error:
                if self.problem != str(error):
                    _LOG.error("nothing is carried to the warehouse: %s", error)
                self.problem, wait = str(error), _LONGEST_WAIT
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
