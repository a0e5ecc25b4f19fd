"""Append-only records: numbered entries, none of which ever changes. The last one decides.

Entry 7 of the record `promotions` is the file `<root>/records/promotions/00000007.json`. It is created exclusively, so
of two writers that want the same number one wins and the other learns that it lost.
"""

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from matching_platform.store.files import CorruptError, StoreError, side_by_side
from matching_platform.store.versions import Digest, Store

FOLDER: Final = "records"
_NAME: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_FILE: Final = re.compile(r"\d{8}\.json")
# Lies beside the entries.
_MARK: Final = "opened"


class LostRaceError(StoreError):
    """Somebody else appended in the meantime: read the record again and decide anew."""


@dataclass(frozen=True)
class Entry:
    """One line of a record: when (UTC), who, why, and what (`payload`, JSON)."""

    number: int
    time: datetime
    actor: str
    reason: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class _Sealed:
    """An entry as its file holds it; the id tells two writers of equal entries apart."""

    sha256: Digest
    id: str
    entry: Entry


_ENTRY: Final = TypeAdapter(Entry)
_SEALED: Final = TypeAdapter(_Sealed)


def whoami() -> str:
    """Who makes an entry where nobody is named: the user of this process, whom a container may not know by name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()} on {socket.gethostname()}"


class Record:
    """The record `name` ("promotions", "current/transfers/2024-03") of a store."""

    def __init__(self, store: Store, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"'{name}' is no name of a record; use letters, digits, '_', '.', '-', with '/' between parts"
            )
        self.name = name
        self._files = store.files
        self._folder = f"{FOLDER}/{name}"

    def open(self) -> None:
        """Leaves a mark, once: by it, a record without entries is told from one that cannot be seen."""
        if not self.is_open():
            with suppress(FileExistsError):
                self._files.create(self._mark, f"the record {self.name} is kept here\n".encode())

    def is_open(self) -> bool:
        return self._files.exists(self._mark)

    @property
    def path(self) -> str:
        """Where it lies, for people."""
        return self._files.path(self._folder)

    @property
    def _mark(self) -> str:
        return f"{self._folder}/{_MARK}"

    def append(
        self,
        payload: Mapping[str, Any],
        expected_last: int | None = None,
        *,
        actor: str = "platform",
        reason: str = "",
    ) -> Entry:
        """Adds an entry after the last one and returns it as it will be read.

        With `expected_last`, the number of the last entry on which the caller's decision rests (0: none), it raises
        LostRaceError where another entry came after it. Without, it takes the next number that is free.
        """
        while True:
            last = self.count()
            if expected_last not in (None, last):
                raise self._lost(f"ends with entry {last}, not with {expected_last}")
            entry = Entry(last + 1, datetime.now(UTC), actor, reason, dict(payload))
            data = _seal(entry)
            try:
                self._files.create(self._file(entry.number), data)
            except FileExistsError as error:
                if expected_last is not None:
                    raise self._lost(f"has got an entry {entry.number} from somebody else") from error
            else:
                return _SEALED.validate_json(data).entry

    def last(self) -> Entry | None:
        """The entry that decides; None where there is none yet."""
        count = self.count()
        return self._read(count) if count else None

    def entries(self, after: int = 0) -> list[Entry]:
        """All entries, or those that came after one number, the first one first."""
        return side_by_side(self._read, range(after + 1, self.count() + 1))

    def count(self) -> int:
        """How many entries there are, which is the number of the last; CorruptError where one is missing."""
        numbers = {int(name[:8]) for name in self._files.names(self._folder) if _FILE.fullmatch(name)}
        last = max(numbers, default=0)
        for number in set(range(1, last + 1)) - numbers:
            # A listing may overlook one of two entries that are written while it is made.
            if not self._files.exists(self._file(number)):
                raise self._corrupt(number, "is missing")
        return last

    def _read(self, number: int) -> Entry:
        data = self._files.read(self._file(number))
        try:
            sealed = _SEALED.validate_json(data)
        except ValidationError as error:
            raise self._corrupt(number, "cannot be read") from error
        if sealed.sha256 != _digest(sealed.entry) or sealed.entry.number != number:
            raise self._corrupt(number, "is not what was written")
        return sealed.entry

    def _file(self, number: int) -> str:
        return f"{self._folder}/{number:08d}.json"

    def _corrupt(self, number: int, problem: str) -> CorruptError:
        return CorruptError(self._files.path(self._file(number)), f"{problem}; bring it back from a backup")

    def _lost(self, what: str) -> LostRaceError:
        return LostRaceError(f"the record {self.name} {what}; look at it again and decide anew")


def _seal(entry: Entry) -> bytes:
    return _SEALED.dump_json(_Sealed(_digest(entry), uuid4().hex, entry), indent=2)


def _digest(entry: Entry) -> str:
    return hashlib.sha256(_ENTRY.dump_json(entry)).hexdigest()
