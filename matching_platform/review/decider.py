"""Decides: checks, adds to the tables in one transaction, and keeps in memory where everything stands."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Lock, RLock

import polars as pl
from sqlalchemy import Connection, Engine

from matching_platform.database import writing
from matching_platform.matching.arrays import Flags
from matching_platform.review import bookings, decided
from matching_platform.review.bookings import PERSON, UNATTENDED, Booking, Bookings
from matching_platform.review.books import Books
from matching_platform.review.cases import Status
from matching_platform.review.decided import Decisions
from matching_platform.review.decisions import Action, Allocation, Decision, Wanted, in_force
from matching_platform.review.rules import Draft
from matching_platform.review.standing import Standing


class Decider:
    """Safe for many threads, and for other processes at the same database. `standing` is read while `lock` is held."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.decisions, self.bookings = Decisions(engine), Bookings(engine)
        self.lock = RLock()
        self._deciding = Lock()
        with engine.connect() as connection:
            self._booked = bookings.unattended(connection, 0)
        self.standing = Standing(Books.empty(), self._booked, self.decisions.read())

    def decide(self, wanted: Sequence[Wanted], actor: str) -> list[Decision]:
        """Makes all of the decisions or, with an error, none; see `Review.decide`."""
        return self._make(lambda draft: [draft.decide(one) for one in wanted], actor)

    def undo(self, number: int, actor: str) -> Decision:
        """Withdraws a decision; see `Review.undo`."""
        (made,) = self._make(lambda draft: [draft.withdraw(number)], actor)
        return made

    def catch_up(self) -> list[Decision]:
        """Takes in what others decided at the same database; returns that."""
        with self._deciding, self._engine.connect() as connection:
            return self._catch_up(connection)

    def replace(self, books: Books, may_book: Flags | None = None) -> list[Booking]:
        """Goes on with newer books. Of the transfers that wait and `may_book` (bool[T]), those whose proposal still fits
        what is open are booked unattended: the new entries of the journal."""
        with self._deciding:
            self._renew(books)
            if may_book is None or not (self.standing.is_in(Status.WAITING) & may_book).any():
                return []
            with writing(self._engine) as connection:
                self._catch_up(connection)
                entries = _unattended(self.standing, may_book, bookings.last(connection))
                bookings.append(connection, entries)
            with self._engine.connect() as connection:
                self._catch_up(connection)
        return entries

    def _make(self, drafted: Callable[[Draft], list[Decision]], actor: str) -> list[Decision]:
        with self._deciding:
            with writing(self._engine) as connection:
                self._catch_up(connection)
                now = datetime.now(UTC)
                made = drafted(Draft(self.standing, actor, now))
                fresh = [one for one in made if one.number > self.standing.last]
                decided.append(connection, fresh)
                bookings.append(connection, self._entries(connection, fresh))
            with self.lock:
                self.standing.add(fresh)
        return made

    def _catch_up(self, connection: Connection) -> list[Decision]:
        fresh = bookings.unattended(connection, self._last_booked)
        if not fresh.is_empty():
            self._booked = pl.concat([self._booked, fresh])
            self._renew(self.standing.books)
        theirs = decided.read(connection, self.standing.last)
        with self.lock:
            self.standing.add(theirs)
        return theirs

    @property
    def _last_booked(self) -> int:
        last = self._booked["number"].max()
        return last if isinstance(last, int) else 0

    def _renew(self, books: Books) -> None:
        """Builds anew where everything stands; of the same books, what was proposed anew stays."""
        before = self.standing
        standing = Standing(books, self._booked, before.numbered.values())
        if books is before.books:
            standing.take_over(before)
        with self.lock:
            self.standing = standing

    def _entries(self, connection: Connection, made: Sequence[Decision]) -> list[Booking]:
        """What decisions book and take back."""
        number, entries = bookings.last(connection), []
        for decision in made:
            held = bookings.outstanding(connection, decision.transfer_id)
            for invoice_id, amount, entry in bookings.changes(held, self._booked_after(decision)):
                number += 1
                entries.append(
                    Booking(
                        number,
                        decision.decided_at,
                        decision.transfer_id,
                        decision.booked_on,
                        invoice_id,
                        amount,
                        self._currency(invoice_id),
                        entry,
                        PERSON,
                        decision.actor,
                        decision.number,
                    )
                )
        return entries

    def _booked_after(self, decision: Decision) -> Sequence[Allocation]:
        """What the desk has booked of a transfer once `decision` is made: what finance tagged is booked already."""
        standing, transfer = self.standing, self.standing.at(decision.transfer_id)
        history = [*standing.past(transfer), decision]
        counts = in_force(history)
        if counts is None:
            tagged = standing.books.tagged[transfer] and not standing.booked.at(transfer)
            return () if tagged else standing.allocations(standing.booked.at(transfer))
        if standing.status_of(transfer) is Status.TAGGED:
            tags = standing.allocations(standing.books.tags.at(transfer))
            return () if set(tags) == set(counts.allocations) else counts.allocations
        return counts.allocations if counts.action is not Action.LATER else ()

    def _currency(self, invoice_id: str) -> str:
        books = self.standing.books
        return str(books.invoice_currency[books.invoice_at[invoice_id]]) if invoice_id in books.invoice_at else ""


def _unattended(standing: Standing, may_book: Flags, number: int) -> list[Booking]:
    """The entries for what waits and `may_book`, as far as it fits what is open, in order of booking."""
    books, now, entries = standing.books, datetime.now(UTC), []
    left = standing.left()
    waiting = standing.is_in(Status.WAITING) & may_book & (books.proposals.parts.size > 0)
    for transfer in waiting.nonzero()[0].tolist():
        parts = books.proposals.parts.at(transfer)
        if any(abs(amount) > abs(int(left[one])) or amount * int(left[one]) <= 0 for one, amount in parts.items()):
            continue
        for invoice, amount in parts.items():
            left[invoice] -= amount
            number += 1
            entries.append(
                Booking(
                    number,
                    now,
                    books.transfers["transfer_id"][transfer],
                    books.transfers["booked_on"][transfer],
                    books.invoices["invoice_id"][invoice],
                    amount,
                    str(books.invoice_currency[invoice]),
                    "book",
                    UNATTENDED,
                    books.proposals.model[transfer],
                )
            )
    return entries
