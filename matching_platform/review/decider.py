"""Decides: checks, adds to the tables in one transaction, and keeps in memory where everything stands."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Lock, RLock

import numpy as np
import polars as pl
from sqlalchemy import Connection, Engine

from matching_platform.database import reading, writing
from matching_platform.matching.arrays import Flags
from matching_platform.review import bookings, records
from matching_platform.review.bookings import UNATTENDED, Booking, Bookings
from matching_platform.review.books import Books
from matching_platform.review.cases import Status
from matching_platform.review.decisions import Decision, Wanted
from matching_platform.review.force import fits
from matching_platform.review.records import Decisions
from matching_platform.review.rules import Draft
from matching_platform.review.standing import Standing

# What is written with new decisions, in their transaction.
Also = Callable[[Connection, Sequence[Decision]], None]


class Decider:
    """Safe for many threads, and for other processes at the same database. `standing` is read while `lock` is held."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.decisions, self.bookings = Decisions(engine), Bookings(engine)
        self.lock = RLock()
        self._deciding = Lock()
        with reading(engine) as connection:
            self._journal = bookings.journal(connection, 0)
            self.standing = Standing(Books.empty(), self._journal, records.read(connection, 0))

    def decide(self, wanted: Sequence[Wanted], actor: str, also: Also | None = None) -> list[Decision]:
        """Makes all of the decisions or, with an error, none; see `Review.decide`."""
        return self._make(lambda draft: [draft.decide(one) for one in wanted], actor, also)

    def undo_all(self, numbers: Sequence[int], actor: str, also: Also | None = None) -> list[Decision]:
        """Withdraws all of the decisions or, with an error, none; see `Review.undo_all`."""
        return self._make(lambda draft: [draft.withdraw(number) for number in numbers], actor, also)

    def catch_up(self) -> list[Decision]:
        """Takes in what others decided at the same database; returns that."""
        with self._deciding, reading(self._engine) as connection:
            return self._catch_up(connection)

    def replace(self, books: Books, may_book: Flags | None = None) -> list[Booking]:
        """Goes on with newer books: the new entries of the journal.

        What they have no place for any more is reversed, unless they are empty, and those transfers wait again. Of the
        transfers that wait and `may_book` (bool[T]), on which nobody has ever decided, those whose proposal fits what is
        open are booked unattended.
        """
        with self._deciding:
            self._renew(books)
            if not len(books.transfers) or not (self.standing.outdated() or _may(self.standing, may_book).any()):
                return []
            with writing(self._engine) as connection:
                self._catch_up(connection)
                standing, made = self.standing, list[Booking]()
                journal = self._journal
                while entries := _reversed(connection, standing, datetime.now(UTC)):
                    bookings.append(connection, entries)
                    journal = pl.concat([journal, bookings.journal(connection, entries[0].number - 1)])
                    standing = Standing(books, journal, standing.numbered.values())
                    made += entries
                entries = _unattended(standing, _may(standing, may_book), bookings.last(connection))
                bookings.append(connection, entries)
            with reading(self._engine) as connection:
                self._catch_up(connection)
        return made + entries

    def _make(self, drafted: Callable[[Draft], list[Decision]], actor: str, also: Also | None) -> list[Decision]:
        with self._deciding:
            with writing(self._engine) as connection:
                self._catch_up(connection)
                now = datetime.now(UTC)
                made = drafted(Draft(self.standing, actor, now))
                fresh = [one for one in made if one.number > self.standing.last]
                records.append(connection, fresh)
                entries = self._entries(connection, fresh)
                bookings.append(connection, entries)
                after = bookings.journal(connection, self._last_booked)
                if also and fresh:
                    also(connection, fresh)
            with self.lock:
                self._journal = pl.concat([self._journal, after])
                self.standing.add(fresh, entries)
        return made

    def _catch_up(self, connection: Connection) -> list[Decision]:
        """Takes in what others added, in a transaction of `database.reading` or `writing`: nothing is added between."""
        entries = bookings.read(connection, self._last_booked)
        theirs = records.read(connection, self.standing.last)
        if entries:
            self._journal = pl.concat([self._journal, bookings.journal(connection, self._last_booked)])
        if any(entry.by == UNATTENDED for entry in entries):
            self._renew(self.standing.books, theirs)
        else:
            with self.lock:
                self.standing.add(theirs, entries)
        return theirs

    @property
    def _last_booked(self) -> int:
        last = self._journal["number"].max()
        return last if isinstance(last, int) else 0

    def _renew(self, books: Books, theirs: Sequence[Decision] = ()) -> None:
        """Builds anew where everything stands; of the same books, what was proposed anew stays."""
        before = self.standing
        standing = Standing(books, self._journal, [*before.numbered.values(), *theirs])
        if books is before.books:
            standing.take_over(before)
        with self.lock:
            self.standing = standing

    def _entries(self, connection: Connection, made: Sequence[Decision]) -> list[Booking]:
        """What decisions book and take back."""
        standing, last, entries = self.standing, bookings.last(connection), list[Booking]()
        for decision in made:
            history = [*standing.history.get(decision.transfer_id, ()), decision]
            wanted = {
                invoice_id: (amount, str(standing.books.invoice_currency[standing.books.invoice_at[invoice_id]]))
                for invoice_id, amount in standing.wanted(decision.transfer_id, history).items()
            }
            held = bookings.outstanding(connection, decision.transfer_id)
            entries += bookings.changes(held, wanted, decision, last + len(entries))
        return entries


def _reversed(connection: Connection, standing: Standing, now: datetime) -> list[Booking]:
    """The entries that take back what there is no place for any more."""
    last, entries = bookings.last(connection), list[Booking]()
    for transfer_id in standing.outdated():
        entries += bookings.reversals(bookings.outstanding(connection, transfer_id), now, last + len(entries))
    return entries


def _may(standing: Standing, may_book: Flags | None) -> Flags:
    """bool[T]: of `may_book`, what waits, and nobody has booked or decided on before."""
    if may_book is None:
        return np.zeros(len(standing.books.transfers), bool)
    free = standing.is_in(Status.WAITING) & may_book
    places = (standing.books.transfer_at.get(name) for name in {*standing.history, *standing.held})
    free[[place for place in places if place is not None]] = False
    return free


def _unattended(standing: Standing, may_book: Flags, number: int) -> list[Booking]:
    """The entries for what `may_book`, as far as it fits what is open, in order of booking."""
    books, now, entries = standing.books, datetime.now(UTC), []
    left = standing.left()
    for transfer in (may_book & (books.proposals.parts.size > 0)).nonzero()[0].tolist():
        parts = books.proposals.parts.at(transfer)
        if any(abs(amount) > abs(int(left[one])) or amount * int(left[one]) <= 0 for one, amount in parts.items()):
            continue
        if not fits(books, transfer, parts):
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
