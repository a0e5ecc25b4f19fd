"""A record that is read on from where it was read last: none of its entries ever changes."""

from matching_platform.store.record import Entry, Record
from matching_platform.store.versions import Store


class Followed:
    """The record `name` of a store with the entries that were read so far; threads may share it."""

    def __init__(self, store: Store, name: str) -> None:
        self.record = Record(store, name)
        self._read: tuple[Entry, ...] = ()

    def entries(self) -> tuple[Entry, ...]:
        """All entries, the first one first."""
        known = self._read
        self._read = known = (*known, *self.record.entries(after=len(known)))
        return known
