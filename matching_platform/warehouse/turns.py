"""Whose turn it is to change what only one may change at a time, wherever they run: kept by a record of the store."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Final

from matching_platform.store.record import LostRaceError, Record
from matching_platform.warehouse.warehouse import WarehouseError

# A turn that began so long ago has lost its holder; who holds one has done before.
LOST_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 1.0
_OVER: Final = "over"


@contextmanager
def turn(record: Record, what: str) -> Iterator[None]:
    """Waits until nobody has the turn, and has it until the end; WarehouseError where others have it for too long."""
    deadline = time.monotonic() + 2 * LOST_SECONDS
    while True:
        last = record.last()
        if last is None or last.payload["state"] == _OVER or _age(last.time) > LOST_SECONDS:
            try:
                mine = record.append({"state": "begun", "what": what}, expected_last=last.number if last else 0)
                break
            except LostRaceError:
                continue
        if time.monotonic() > deadline:
            raise WarehouseError(f"{what} waits for others ({record.name}); run it again when they are done")
        time.sleep(_LOOK_SECONDS)
    try:
        yield
    finally:
        # Whoever took too long has lost the turn to another, who ends it.
        with suppress(LostRaceError):
            record.append({"state": _OVER}, expected_last=mine.number)


def _age(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
