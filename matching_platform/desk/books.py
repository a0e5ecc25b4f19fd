"""Reads the platform's data for the desk: what changed is read anew, and the rest stays in memory."""

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl

from matching_platform.environment import Platform
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import PROPOSALS, RAW_TABLES, TABLES
from matching_platform.matching.arrays import Flags
from matching_platform.matching.matcher import RUNNERS_UP
from matching_platform.review import proposed
from matching_platform.review.books import AUTO, PROPOSED, Books, frames
from matching_platform.store.catalog import Current
from matching_platform.store.unattended import Permission
from matching_platform.store.versions import Version


@dataclass(frozen=True)
class _Month:
    """What is proposed of a month (schema PROPOSED), the runners-up (schema RUNNERS_UP), and from which confidence each
    model books as it was trained."""

    rows: pl.DataFrame
    others: pl.DataFrame
    own: dict[str, float]


@dataclass
class Shelf:
    """The current versions of transfers, invoices, tags and proposals of all months, as far as they were read, and `since`
    when a month's proposals are as they are (UTC). What was read is to be shown; who has done that sets `is_shown`."""

    platform: Platform
    versions: dict[str, dict[str, Version]] = field(default_factory=dict)
    since: dict[str, datetime] = field(default_factory=dict)
    is_shown: bool = True
    _tables: dict[str, dict[str, pl.DataFrame]] = field(default_factory=dict)
    _proposed: dict[str, _Month] = field(default_factory=dict)

    def look(self) -> bool:
        """Whether any version changed since what is shown; what did is read."""
        catalog = self.platform.catalog
        current = {name: catalog.latest(name) for name in (*RAW_TABLES, proposed.ASSET)}
        versions = {name: {month: one.version for month, one in months.items()} for name, months in current.items()}
        if versions == self.versions:
            return not self.is_shown
        self.is_shown = False
        for name in RAW_TABLES:
            held, known = self._tables.get(name, {}), self.versions.get(name, {})
            self._tables[name] = {
                month: held[month] if known.get(month) == version else self.platform.store.read_frame(version)
                for month, version in versions[name].items()
            }
        known = self.versions.get(proposed.ASSET, {})
        self._proposed = {
            month: self._proposed[month] if known.get(month) == one.version else self._read_proposed(month, one)
            for month, one in current[proposed.ASSET].items()
        }
        self.versions = versions
        self.since = {month: one.since for month, one in current[proposed.ASSET].items()}
        return True

    def books(self) -> Books:
        """All of it as arrays."""
        rows = frames([one.rows for one in self._proposed.values()], PROPOSED)
        return Books.of(self._table("transfers"), self._table("invoices"), self._table("matches"), rows)

    def ledger(self) -> Ledger:
        """Invoices and transfers of all months, and no tags."""
        invoices, transfers = self._table("invoices"), self._table("transfers")
        return Ledger(invoices, transfers, pl.DataFrame(schema=TABLES["matches"].schema))

    def others(self, transfer_id: str) -> pl.DataFrame:
        """The runners-up (schema RUNNERS_UP) that were kept with the proposal for a transfer."""
        named = (one.others.filter(pl.col("transfer_id") == transfer_id) for one in self._proposed.values())
        return next((rows for rows in named if not rows.is_empty()), pl.DataFrame(schema=RUNNERS_UP))

    def own_thresholds(self) -> dict[str, float]:
        """From which confidence each model books as it was trained, where that is known."""
        return {model: own for one in self._proposed.values() for model, own in one.own.items()}

    def _table(self, name: str) -> pl.DataFrame:
        return frames([*self._tables[name].values()], TABLES[name].schema)

    def _read_proposed(self, month: str, current: Current) -> _Month:
        """Of a month that the model has learned from, only what was kept of earlier proposals was made in advance."""
        store = self.platform.store
        rows = proposed.minor(store.read_frame(current.version)).select(list(PROPOSALS))
        model, own = _told(current)
        others = proposed.others(store, current)
        if proposed.in_advance(current, month):
            return _Month(rows.with_columns(model=pl.lit(model), advance=pl.lit(value=True)), others, own)
        earlier = proposed.made_in_advance(self.platform.catalog, month)
        kept = pl.DataFrame(schema={"transfer_id": pl.String})
        first = model
        if earlier is not None:
            kept = store.read_frame(earlier.version).select("transfer_id").unique()
            first, more = _told(earlier)
            own = own | more
        advance = pl.col("transfer_id").is_in(kept["transfer_id"].implode())
        by = pl.when(advance).then(pl.lit(first)).otherwise(pl.lit(model))
        return _Month(rows.with_columns(model=by, advance=advance), others, own)


def may_book(books: Books, permission: Permission, own: dict[str, float]) -> Flags:
    """bool[T]: what was decided to be booked unattended, in advance, and by the record may still be."""
    proposals = books.proposals
    names = proposals.model.unique().to_list()
    # Where nobody kept a model's own threshold, what it decided to book tells.
    least = {name: permission.auto_from(name, own.get(name, 0.0)) for name in names}
    needed = proposals.model.replace_strict(least, return_dtype=pl.Float64).to_numpy() if names else np.zeros(0)
    return proposals.listed & proposals.advance & (proposals.decision == AUTO) & (proposals.confidence >= needed)


def _told(current: Current) -> tuple[str, dict[str, float]]:
    """The model that proposed, and its own threshold where that is known."""
    model = str(current.metadata.get(proposed.MODEL, ""))
    own = current.metadata.get(proposed.OWN_THRESHOLD)
    return model, {} if own is None else {model: float(own)}
