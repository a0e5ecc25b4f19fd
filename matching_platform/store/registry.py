"""Which model is champion: models are versions, and an append-only record of promotions says which one serves."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

from pydantic.dataclasses import dataclass

from matching_platform.store.files import StoreError
from matching_platform.store.record import Entry, Record
from matching_platform.store.versions import Manifest, Store, Version, only

MODELS: Final = "models"
PROMOTIONS: Final = "promotions"

Status = Literal["champion", "former champion", "never promoted"]


class RegistryError(StoreError):
    """The registry refuses a promotion or a rollback."""


@dataclass(frozen=True)
class Promotion:
    """A change of champion: the model that serves from then on (UTC) and the evaluation on which that rests."""

    number: int
    time: datetime
    actor: str
    reason: str
    action: Literal["promote", "rollback"]
    model: Version
    evaluation: Version


@dataclass(frozen=True)
class Model:
    """A stored model, with the changes that made it champion, the first one first."""

    manifest: Manifest
    status: Status
    promotions: list[Promotion]


class Registry:
    """The models of a store. The last entry of the record decides, never a file's age."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._record = Record(store, PROMOTIONS)

    def champion(self) -> Promotion | None:
        """The promotion in force; None before the first."""
        last = self._record.last()
        return _promotion(last) if last else None

    def history(self) -> list[Promotion]:
        """All promotions and rollbacks, the first one first."""
        return [_promotion(entry) for entry in self._record.entries()]

    def models(self) -> list[Model]:
        """All stored models, the oldest first."""
        history = self.history()
        return [self._model(version, history) for version in self._store.versions(MODELS)]

    def show(self, name: str) -> Model:
        """The one model whose name begins with `name`; UnknownVersionError unless there is exactly one."""
        return self._model(self._store.find(MODELS, name), self.history())

    def promote(
        self, model: Version, evaluation: Version, actor: str, reason: str, expected_last: int | None = None
    ) -> Promotion:
        """Makes `model` champion; where it is champion already, nothing happens.

        Both versions are read and verified first. `expected_last` is the number of the promotion that was in force when
        the evaluation compared (0: none); without it, the one in force now. Raises LostRaceError where another came
        after it, UnknownVersionError, CorruptError, and RegistryError where actor, reason or kind are wrong.
        """
        _check_signed(actor, reason)
        if model.kind != MODELS:
            raise RegistryError(f"{model} is no model; a champion is a version of kind '{MODELS}'")
        champion = self.champion()
        if champion and champion.model == model:
            return champion
        for version in (model, evaluation):
            self._store.verify(version)
        last = expected_last if expected_last is not None else _number(champion)
        return self._append("promote", model, evaluation, actor, reason, last)

    def earlier(self, to: str | None = None) -> Promotion:
        """What `rollback` would go back to; RegistryError where there is nothing."""
        history = self.history()
        return _earlier(history) if to is None else _chosen(history, to)

    def withdrawn(self, model: Version) -> Promotion | None:
        """The rollback that took `model` out of service, where nobody has made it champion again since."""
        found = None
        for before, after in pairwise(self.history()):
            if before.model == model and after.model != model:
                found = after if after.action == "rollback" else None
            elif after.model == model:
                found = None
        return found

    def rollback(
        self,
        *,
        actor: str,
        reason: str,
        check: Callable[[Path], object],
        to: str | None = None,
        expected_last: int | None = None,
    ) -> Promotion:
        """Makes an earlier champion champion again: the one before, or the one whose name begins with `to`.

        `check` gets the verified folder of the model and must load it, let it answer, and raise where it does not: then
        the champion stays, and the error is the caller's. Rolling back twice goes back two champions, not to and fro.
        `expected_last` is the number of the promotion that is to be taken back; without it, the one in force now. Raises
        RegistryError where there is nothing to go back to, LostRaceError where another promotion came in between.
        """
        _check_signed(actor, reason)
        target, history = self.earlier(to), self.history()
        self._store.verify(target.model)  # Where it lies, and not only the copy in this machine's cache.
        check(self._store.fetch(target.model))
        last = expected_last if expected_last is not None else history[-1].number
        return self._append("rollback", target.model, target.evaluation, actor, reason, last)

    def _append(
        self, action: str, model: Version, evaluation: Version, actor: str, reason: str, expected_last: int
    ) -> Promotion:
        payload = {"action": action, "model": asdict(model), "evaluation": asdict(evaluation)}
        return _promotion(self._record.append(payload, expected_last, actor=actor, reason=reason))

    def _model(self, version: Version, history: Sequence[Promotion]) -> Model:
        promotions = [promotion for promotion in history if promotion.model == version]
        status: Status = "former champion" if promotions else "never promoted"
        if history and history[-1].model == version:
            status = "champion"
        return Model(self._store.manifest(version), status, promotions)


def _promotion(entry: Entry) -> Promotion:
    signed: dict[str, Any] = {name: getattr(entry, name) for name in ("number", "time", "actor", "reason")}
    return Promotion(**signed, **entry.payload)


def _number(promotion: Promotion | None) -> int:
    return promotion.number if promotion else 0


def _check_signed(actor: str, reason: str) -> None:
    for name, text in (("actor", actor), ("reason", reason)):
        if not text.strip():
            raise RegistryError(f"the {name} is empty; a change of champion says who made it and why")


def _earlier(history: Sequence[Promotion]) -> Promotion:
    """The champion before the present one, not counting champions that were rolled back."""
    line: list[Promotion] = []
    for promotion in history:
        models = [earlier.model for earlier in line]
        if promotion.action == "rollback" and promotion.model in models:
            line = line[: len(models) - models[::-1].index(promotion.model)]
        else:
            line.append(promotion)
    if len(line) < 2:
        raise RegistryError("there is no earlier champion to go back to; name one of `models history` with --to")
    return line[-2]


def _chosen(history: Sequence[Promotion], name: str) -> Promotion:
    """The latest promotion of the model whose name begins with `name`: its evaluation is the one that counts."""
    model = only(name, (promotion.model for promotion in history), "model that was champion")
    if model == history[-1].model:
        raise RegistryError(f"{model} is the champion already; see `models history` for earlier ones")
    return next(promotion for promotion in reversed(history) if promotion.model == model)
