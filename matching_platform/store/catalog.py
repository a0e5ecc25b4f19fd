"""Which version of an asset is current for a month."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from matching_platform.ledger.months import parse_month
from matching_platform.store.files import side_by_side
from matching_platform.store.record import FOLDER, Entry, Record
from matching_platform.store.versions import Store, UnknownVersionError, Version

RECORD: Final = "current"
_JSON: Final = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class Current:
    """The version that an asset has for a month, what was said about it, and since when it has been so (UTC)."""

    version: Version
    metadata: dict[str, Any]
    since: datetime


class Catalog:
    """Current versions by asset and month. Each pair has a record of its own, so months never wait for each other."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(self, asset: str, month: str, version: Version, metadata: Mapping[str, Any]) -> Current:
        """Makes `version` current, with `metadata` that is JSON. Saying the same again adds nothing to the record.

        UnknownVersionError where the store does not hold the version.
        """
        if not self._store.holds(version):
            raise UnknownVersionError(f"there is no version {version} to become {asset} of {month}; store it first")
        record = self._record(asset, month)
        last = record.last()
        # As it will be read, so that it can be compared: a tuple comes back as a list.
        payload = _JSON.validate_json(_JSON.dump_json({"version": asdict(version), "metadata": dict(metadata)}))
        if last is None or last.payload != payload:
            last = record.append(payload)
        return _current(last)

    def get(self, asset: str, month: str) -> Current | None:
        """What is current; None where the asset was never made for that month."""
        last = self._record(asset, month).last()
        return _current(last) if last else None

    def history(self, asset: str, month: str) -> list[Current]:
        """All that was ever current, the first one first."""
        return [_current(entry) for entry in self._record(asset, month).entries()]

    def months(self, asset: str) -> list[str]:
        """The months for which the asset has a version, in order."""
        return sorted({name.split("/")[0] for name in self._store.files.walk(f"{FOLDER}/{RECORD}/{asset}")})

    def latest(self, asset: str) -> dict[str, Current]:
        """What is current for each month that has a version, in order; an object store is asked side by side."""
        months = self.months(asset)
        found = side_by_side(lambda month: self.get(asset, month), months)
        return {month: current for month, current in zip(months, found, strict=True) if current}

    def _record(self, asset: str, month: str) -> Record:
        return Record(self._store, f"{RECORD}/{asset}/{parse_month(month)}")


def _current(entry: Entry) -> Current:
    return Current(**entry.payload, since=entry.time)
