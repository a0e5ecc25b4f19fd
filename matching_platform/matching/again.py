"""Proposing anew for a handful of transfers with what is known now, without reading the month again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from threading import Lock
from typing import Final, TypeVar

import numpy as np
import polars as pl

from matching_platform.ledger.months import first_day, month_of, next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.balances import Settlements
from matching_platform.matching.columns import Habits
from matching_platform.matching.features import Owed, Reader, World
from matching_platform.matching.history import REPEATED_WITHIN, History, Month, credible, settled
from matching_platform.matching.matcher import RUNNERS_UP_KEPT, Matched, Matcher
from matching_platform.matching.memory import Memory
from matching_platform.matching.scorer import one_thread_each
from matching_platform.matching.text import folded, words

_COLUMNS: Final = ("transfer_id", "invoice_id", "amount")
MONTHS_KEPT: Final = 3  # some 100 MB each for 100,000 invoices
_OF_PAYERS: Final = ("account", "name", "word", "payout")  # spaces of memory whose keys a transfer itself has
_OF_PARTIES: Final = ("habit", "share")
_Kept = TypeVar("_Kept")


class Again:
    """A model beside a ledger, prepared once a month, so that every question is answered in a moment. Safe for threads.

    `ledger` has the invoices and transfers that may be asked about; its matches are not looked at: what is in force is
    said with each question.
    """

    def __init__(self, matcher: Matcher, ledger: Ledger) -> None:
        self._matcher = matcher
        self._ledger = Ledger(ledger.invoices, ledger.transfers, ledger.matches.clear())
        self._history = History.of(self._ledger)
        known = matcher.memory.is_of(ledger.invoices)
        self._since = first_day(next_month(matcher.card["trained_until"])) if known else date.min
        self._lock = Lock()
        self._books: dict[str, _Book] = {}
        self._recalls: dict[str, _Recall] = {}

    def propose(
        self, transfer_ids: Sequence[str], in_force: pl.DataFrame, learned: pl.DataFrame | None = None
    ) -> Matched:
        """Proposals for `transfer_ids`, month by month, and their runners-up.

        `in_force`: transfer_id, invoice_id (null: settles nothing) and amount, minor units, of all that is in force: tags,
        decisions, unattended bookings; it closes balances. `learned`: the same of what people said, tags and decisions; it
        teaches who pays for whom and how, as far as it is of transfers booked after the months that the model has learned
        from. What is said of `transfer_ids` themselves is left out of both; what is said of others in the same month counts.
        LookupError names a transfer that the ledger does not have.
        """
        asked = self._history.transfers.filter(pl.col("transfer_id").is_in(list(transfer_ids)))
        unknown = sorted(set(transfer_ids) - set(asked["transfer_id"]))
        if unknown:
            raise LookupError(f"the ledger has no transfer '{unknown[0]}'; make the tables of its month first")
        said = self._said(in_force, learned, asked)
        made = Matched.joined([])
        with self._lock, one_thread_each():
            for (month,), transfers in asked.group_by(month_of("booked_on"), maintain_order=True):
                world, reader = self._world(str(month), transfers, said, made)
                made = Matched.joined([made, self._matcher.settle(world, reader, RUNNERS_UP_KEPT)])
        return made

    def prepare(self, month: str, in_force: pl.DataFrame, learned: pl.DataFrame | None = None) -> None:
        """Does now what the first question about the `month` would wait for."""
        none = self._history.transfers.clear()
        with self._lock:
            self._world(month, none, self._said(in_force, learned, none), Matched.joined([]))

    def _world(self, month: str, transfers: pl.DataFrame, said: "_Said", made: Matched) -> tuple[World, Reader]:
        """What is known when `transfers` of a month are asked about, and others were `made`: of what was said, only the
        newest is read now."""
        before, since = (pl.col("booked_on") < first_day(month)), (pl.col("booked_on") >= first_day(month))
        book = self._book(month, said.force.filter(before))
        # As in `match`, old tags that cannot be are slips; what is said of this month closes balances whatever it says.
        closed = pl.concat([said.force.filter(since).select(_COLUMNS), made.proposals.select(_COLUMNS)])
        lately = book.known.settlements(closed)
        settlements = book.settlements.and_also(lately.invoice, lately.moment, lately.amount)
        recall = self._recall(month, said.taught.filter(before), book.owed.columns.codes)
        memory, habits = recall.about(transfers, self._memory_of(said.taught.filter(since)))
        world = World(transfers, self._lately(transfers, said.asked), book.known.invoices, memory, settlements)
        return world, Reader(world, book.owed, habits)

    def _lately(self, transfers: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
        """The transfers of the days before and between `transfers`, without those that are `asked` about."""
        first, last = transfers["booked_on"].min(), transfers["booked_on"].max()
        since = pl.lit(first, pl.Date).dt.offset_by(f"-{REPEATED_WITHIN}d")
        near = self._history.transfers.filter(pl.col("booked_on").is_between(since, pl.lit(last, pl.Date)))
        return near.join(asked, on="transfer_id", how="anti", maintain_order="left")

    def _book(self, month: str, force: pl.DataFrame) -> "_Book":
        """The invoices of a month with what was in `force` before it; made anew where that has changed."""
        last = self._books.get(month)
        if last is not None and last.force.equals(force):
            return _keep(self._books, month, last)
        earlier = credible(replace(self._ledger, matches=force))
        known = replace(self._history, earlier=earlier).month(month)
        same = last is not None and last.known.invoices["invoice_id"].equals(known.invoices["invoice_id"])
        owed = last.owed if last is not None and same else Owed.of(known.invoices)
        return _keep(self._books, month, _Book(force, known, owed, known.settlements(earlier)))

    def _recall(self, month: str, taught: pl.DataFrame, codes: dict[str, int]) -> "_Recall":
        """What the model knows with what was `taught`; made anew where that has changed."""
        last = self._recalls.get(month)
        if last is None or last.codes is not codes or not last.taught.equals(taught):
            last = _Recall.of(taught, self._matcher.memory.and_also(self._memory_of(taught)), month, codes)
        return _keep(self._recalls, month, last)

    def _said(self, in_force: pl.DataFrame, learned: pl.DataFrame | None, asked: pl.DataFrame) -> "_Said":
        asked = asked.select("transfer_id")
        booked = self._history.transfers.select("transfer_id", "booked_on")
        force, taught = (
            rows.select(_COLUMNS)
            .join(asked, on="transfer_id", how="anti", maintain_order="left")
            .join(booked, on="transfer_id", maintain_order="left")
            for rows in (in_force, self._ledger.matches if learned is None else learned)
        )
        return _Said(force, taught, asked)

    def _memory_of(self, rows: pl.DataFrame) -> Memory:
        """What `rows` teach beside what the model has learned from."""
        rows = rows.filter(pl.col("booked_on") >= self._since)
        named = Ledger(
            self._ledger.invoices.filter(pl.col("invoice_id").is_in(rows["invoice_id"].implode())),
            self._ledger.transfers.filter(pl.col("transfer_id").is_in(rows["transfer_id"].implode())),
            rows,
        )
        return Memory.of(settled(named, credible(named)))


def _keep(cache: dict[str, _Kept], month: str, value: _Kept) -> _Kept:
    """Puts `value` last, and drops the month that was asked for the longest ago where there are too many."""
    cache.pop(month, None)
    cache[month] = value
    if len(cache) > MONTHS_KEPT:
        del cache[next(iter(cache))]
    return value


@dataclass(frozen=True)
class _Said:
    """What is in `force` and what people `taught`, with the day of each transfer, beside the `asked` ones."""

    force: pl.DataFrame
    taught: pl.DataFrame
    asked: pl.DataFrame


@dataclass(frozen=True)
class _Book:
    """The invoices of a month, read, and what of them was settled by what was in `force` before it."""

    force: pl.DataFrame
    known: Month
    owed: Owed
    settlements: Settlements


@dataclass(frozen=True)
class _Recall:
    """`memory`, of the model and of what people `taught`, by what is asked of it: its counts by space, and the `habits` of
    counterparties, by their `codes`, as of a `month`."""

    taught: pl.DataFrame
    memory: Memory
    spaces: dict[str, pl.DataFrame]
    habits: Habits
    month: str
    codes: dict[str, int]

    @classmethod
    def of(cls, taught: pl.DataFrame, memory: Memory, month: str, codes: dict[str, int]) -> "_Recall":
        spaces = {str(space): rows for (space,), rows in memory.counts.group_by("space", maintain_order=True)}
        none = memory.counts.clear()
        spaces = {name: spaces.get(name, none) for name in (*_OF_PAYERS, *_OF_PARTIES, "short")}
        return cls(taught, memory, spaces, Habits.of(memory, month, codes), month, codes)

    def about(self, transfers: pl.DataFrame, new: Memory) -> tuple[Memory, Habits]:
        """What this and `new` memory, added, say of keyed `transfers`, and of all counterparties."""
        account, name = transfers["account"], transfers["name"]
        keys = {
            "account": account,
            "name": name,
            "word": transfers.select(words(folded(pl.col("title"))).explode()).to_series(),
            "payout": pl.concat(["a " + account, "n " + name]),
        }
        parts = [self._rows(space, keys[space]) for space in _OF_PAYERS]
        memory = Memory(pl.concat([*parts, self.spaces["short"]]), self.memory.rates).and_also(new)
        told = new.counts.filter(pl.col("space").is_in(_OF_PARTIES) & pl.col("key").is_in(list(self.codes)))
        parties = told["key"].unique().sort()
        merged = Memory(pl.concat([self._rows(space, parties) for space in _OF_PARTIES]), self.memory.rates).and_also(
            new
        )
        changed = Habits.of(merged, self.month, {party: code for code, party in enumerate(parties)})
        codes = np.array([self.codes[party] for party in parties], np.int64)
        return memory, self.habits.but(codes, changed)

    def _rows(self, space: str, keys: pl.Series) -> pl.DataFrame:
        return self.spaces[space].filter(pl.col("key").is_in(keys.drop_nulls().unique().implode()))
