"""What served where: for each place an append-only record of releases, the last of which is in force."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Literal

from pydantic.dataclasses import dataclass

from matching_platform.delivery.images.image import Image
from matching_platform.store.files import StoreError
from matching_platform.store.record import Entry, Record
from matching_platform.store.versions import Store, Version

RECORD: Final = "serving"

Action = Literal["deploy", "rollback"]


class ReleaseError(StoreError):
    """The record of releases refuses an entry."""


@dataclass(frozen=True)
class Served:
    """A release that got a place's traffic (UTC), and whether it was seen to serve well."""

    number: int
    time: datetime
    actor: str
    reason: str
    action: Action
    model: str
    bento: Version
    image: Image | None
    good: bool


class Releases:
    """The releases of one place, `staging` or `production`."""

    def __init__(self, store: Store, place: str) -> None:
        self._record = Record(store, f"{RECORD}/{place}")

    def append(
        self,
        action: Action,
        model: str,
        bento: Version,
        image: Image | None = None,
        *,
        good: bool = True,
        actor: str = "platform",
        reason: str = "",
        expected_last: int | None = None,
    ) -> Served:
        """Notes that a release serves. A rollback without actor or reason is a ReleaseError.

        `expected_last` is the number of the entry on which the decision rests (0: none); LostRaceError where another
        came after it.
        """
        if action == "rollback" and not (actor.strip() and reason.strip()):
            raise ReleaseError("a rollback says who made it and why; give an actor and a reason")
        payload = {
            "action": action,
            "model": model,
            "bento": asdict(bento),
            "image": asdict(image) if image else None,
            "good": good,
        }
        return _served(self._record.append(payload, expected_last, actor=actor, reason=reason))

    def current(self) -> Served | None:
        """The release in force; None before the first."""
        last = self._record.last()
        return _served(last) if last else None

    def last_good(self) -> Served | None:
        """Where a rollback leads: the release before the one in force that serves well and was not withdrawn.

        Rolling back twice goes back two releases, not to and fro.
        """
        history = self.history()
        line = _line(history)
        earlier = (served for served in reversed(line[:-1]) if _made(served) != _made(line[-1]))
        return next((served for served in earlier if _serves_well(served, history)), None)

    def good(self, name: str) -> Served | None:
        """The newest release that serves well of the one model whose name begins with `name`; None where there is none.

        ReleaseError where more than one model begins so.
        """
        history = self.history()
        found = [served for served in history if served.model.startswith(name) and _serves_well(served, history)]
        models = sorted({served.model for served in found})
        if len(models) > 1:
            raise ReleaseError(f"'{name}' is the beginning of {', '.join(models)}; give more of it")
        return found[-1] if found else None

    def history(self) -> list[Served]:
        """All releases, the first one first."""
        return [_served(entry) for entry in self._record.entries()]


def _serves_well(served: Served, history: Sequence[Served]) -> bool:
    """What was seen last of a release counts."""
    return next(other.good for other in reversed(history) if _made(other) == _made(served))


def _line(history: Sequence[Served]) -> list[Served]:
    """The releases that lead to the one in force, without those that a rollback withdrew."""
    line: list[Served] = []
    for served in history:
        made = [_made(earlier) for earlier in line]
        if served.action == "rollback" and _made(served) in made:
            line = line[: len(made) - made[::-1].index(_made(served))]
        elif line and made[-1] == _made(served):
            line[-1] = served  # Started again: there is nothing between to go back to.
        else:
            line.append(served)
    return line


def _made(served: Served) -> tuple[str, Version, str | None]:
    """What tells releases apart: an image may have got another tag."""
    return served.model, served.bento, served.image.reference if served.image else None


def _served(entry: Entry) -> Served:
    signed: dict[str, Any] = {name: getattr(entry, name) for name in ("number", "time", "actor", "reason")}
    return Served(**signed, **entry.payload)
