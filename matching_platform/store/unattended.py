"""What may be booked unattended: an append-only record in which people freeze it, and the platform grows more careful.

The record can only make a model more careful than it was trained to be: nothing in it goes below a model's own threshold.
The last entry decides. Whoever lifts a freeze lifts those that he has read of, and no threshold is lowered by accident.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from matching_platform.store.files import StoreError
from matching_platform.store.record import Entry, LostRaceError, Record
from matching_platform.store.versions import Store

RECORD: Final = "unattended"
# A confidence that nothing reaches: all that is proposed goes to people.
NEVER: Final = 1.1
LIFT: Final = "lift it with `matching-platform unfreeze --reason …`"

Action = Literal["freeze", "unfreeze", "threshold"]


class UnattendedError(StoreError):
    """The record refuses an entry, or holds one that this version of the platform does not know."""


@dataclass(frozen=True)
class Change:
    """One line of the record (UTC): a freeze, its end, or from which confidence a model books from then on.

    A threshold of None is the model's own again.
    """

    number: int
    time: datetime
    actor: str
    reason: str
    action: Action
    model: str | None = None
    auto_from: float | None = None

    @property
    def signed(self) -> str:
        """When, by whom and why, for people."""
        return f"{self.time:%Y-%m-%d %H:%M} UTC by {self.actor} ({self.reason})"


@dataclass(frozen=True)
class Permission:
    """What is in force: the freeze, of which there may be `more`, and the thresholds that were raised, by model."""

    frozen: Change | None
    thresholds: dict[str, float]
    more: tuple[Change, ...] = ()

    def auto_from(self, model: str, own: float) -> float:
        """From which confidence `model`, a version's name, may book unattended; `own` is its threshold as it was trained."""
        return NEVER if self.frozen else max(own, self.thresholds.get(model, own))

    @property
    def freezes(self) -> list[Change]:
        """All that one `unfreeze` lifts, the first one first."""
        return [self.frozen, *self.more] if self.frozen else []

    @property
    def told(self) -> str:
        """The freeze in words: since when, by whom, why, and how to lift it; empty where there is none."""
        signed = " and ".join(freeze.signed for freeze in self.freezes)
        return f"automation is frozen since {signed}: {LIFT}" if signed else ""


_CHANGE: Final = TypeAdapter(Change)


class Unattended:
    """The record of a store."""

    def __init__(self, store: Store) -> None:
        self._record = Record(store, RECORD)

    def open(self) -> None:
        """Makes the record, where there is none yet, before a server looks into it."""
        self._record.open()

    def check(self) -> None:
        """UnattendedError where the record is not to be seen, which is not the same as one in which nothing is frozen."""
        if not self._record.is_open():
            raise UnattendedError(
                f"there is no record at {self._record.path}; see that this is the store in use and that it is mounted, "
                "and roll the model out again, which makes it"
            )

    def permission(self) -> Permission:
        """What is in force now."""
        return permission(self.history())

    def history(self, known: Sequence[Change] = ()) -> list[Change]:
        """All changes, the first one first; what is `known` of them is not read again.

        UnattendedError where the record has lost entries that are known: a freeze may be among them.
        """
        count = self._record.count()
        if count < len(known):
            raise UnattendedError(
                f"the record '{RECORD}' ends with entry {count}, and went on to {len(known)}; bring it back from a backup"
            )
        return [*known, *map(_change, self._record.entries(len(known)))] if count > len(known) else list(known)

    def freeze(self, *, actor: str, reason: str) -> Change:
        """Nothing is promoted or booked unattended until `unfreeze`. Freezing twice keeps both reasons."""
        return self._append("freeze", actor, reason)

    def unfreeze(self, known: Permission | None = None, *, actor: str, reason: str) -> Change:
        """Lifts exactly the freezes of what is `known`, by default of what is in force.

        UnattendedError where nothing is frozen, or where another freeze came since.
        """
        freezes = (known or self.permission()).freezes
        while True:
            history = self.history()
            now = permission(history).freezes
            if not now:
                raise UnattendedError("nothing is frozen; see `matching-platform unattended`")
            if now != freezes:
                raise UnattendedError(f"it was frozen again on {now[-1].signed}; see that this may be lifted, too")
            try:
                return self._append("unfreeze", actor, reason, expected_last=len(history))
            except LostRaceError:
                continue

    def book_from(self, model: str, auto_from: float, *, actor: str, reason: str) -> Change:
        """From now on `model` books unattended from this confidence on, or from its own where that is higher.

        Where as high a one is in force, nothing happens: that change is returned. UnattendedError where `auto_from` is
        neither a confidence nor NEVER.
        """
        if not (0 < auto_from <= 1 or auto_from == NEVER):
            raise UnattendedError(f"{auto_from} is no confidence; give one above 0, and at most 1")
        while True:
            history = self.history()
            before = _threshold(history, model)
            if before and (before.auto_from or -math.inf) >= auto_from:
                return before
            try:
                return self._append("threshold", actor, reason, model, auto_from, expected_last=len(history))
            except LostRaceError:
                continue

    def book_from_own(self, model: str, *, actor: str, reason: str) -> Change:
        """From now on `model` books from its own threshold again; UnattendedError where it does.

        LostRaceError where anything came meanwhile: it may be a higher threshold that nobody has seen.
        """
        history = self.history()
        if model not in permission(history).thresholds:
            raise UnattendedError(f"no threshold of {model} was raised; see `matching-platform unattended`")
        return self._append("threshold", actor, reason, model, expected_last=len(history))

    def _append(
        self,
        action: Action,
        actor: str,
        reason: str,
        model: str | None = None,
        auto_from: float | None = None,
        expected_last: int | None = None,
    ) -> Change:
        for name, text in (("actor", actor), ("reason", reason)):
            if not text.strip():
                raise UnattendedError(f"the {name} is empty; a change says who made it and why")
        self.open()
        payload = {"action": action, "model": model, "auto_from": auto_from}
        return _change(self._record.append(payload, expected_last, actor=actor, reason=reason))


def permission(history: Sequence[Change]) -> Permission:
    """What the changes, the first one first, leave in force."""
    freezes: list[Change] = []
    thresholds: dict[str, float] = {}
    for change in history:
        match change.action:
            case "freeze":
                freezes.append(change)
            case "unfreeze":
                freezes.clear()
            case "threshold" if change.model:
                thresholds.pop(change.model, None)
                thresholds |= {change.model: change.auto_from} if change.auto_from is not None else {}
    return Permission(freezes[0] if freezes else None, thresholds, tuple(freezes[1:]))


def _threshold(history: Sequence[Change], model: str) -> Change | None:
    """The last change of the threshold of `model`."""
    return next((change for change in reversed(history) if change.model == model), None)


def _change(entry: Entry) -> Change:
    signed = {name: value for name, value in asdict(entry).items() if name != "payload"}
    try:
        return _CHANGE.validate_python(signed | entry.payload)
    except ValidationError as error:
        raise UnattendedError(
            f"entry {entry.number} of the record '{RECORD}' is of another version of the platform: use that, or a later one"
        ) from error
