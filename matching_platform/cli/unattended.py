"""On what may happen unattended: freeze it, lift the freeze, book from a higher confidence, and see what is in force."""

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from matching_platform.cli.shared import Actor, Reason, UsageError, open_platform, out, say

if TYPE_CHECKING:
    from matching_platform.environment import Platform
    from matching_platform.store.unattended import Change
    from matching_platform.store.versions import Version

_OWN: Final = "own"

commands = typer.Typer()


@commands.command()
def freeze(reason: Reason, actor: Actor = None) -> None:
    """Nothing is promoted, rolled out or booked unattended until it is lifted; rollbacks stay possible."""
    from matching_platform.store.record import whoami

    change = open_platform().unattended.freeze(actor=actor or whoami(), reason=reason)
    say(f"Automation is frozen (change {change.number}); `matching-platform unfreeze --reason …` lifts it.")


@commands.command()
def unfreeze(reason: Reason, actor: Actor = None) -> None:
    """Lift the freezes in force, and name them; what waited is asked again where Dagster runs."""
    from matching_platform.store.record import whoami

    record = open_platform().unattended
    before = record.permission()
    change = record.unfreeze(before, actor=actor or whoami(), reason=reason)
    for one in before.freezes:
        say(f"Lifted: frozen since {one.signed}.")
    say(f"Automation runs again (change {change.number}).")


@commands.command()
def unattended(
    book_from: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIDENCE|own", help="From which confidence the champion books, or 'own' for its own threshold"
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; it stays in the record")] = None,
    actor: Actor = None,
) -> None:
    """What may be booked unattended now, and how that came; with --book-from, the champion books less, or as before."""
    platform = open_platform()
    if book_from is not None:
        _book_from(platform, book_from, actor, reason)
    elif reason or actor:
        raise UsageError("--reason and --actor go with --book-from; to freeze, run `matching-platform freeze`")
    permission, history = platform.unattended.permission(), platform.unattended.history()
    say(_sentence(permission.told) if permission.told else "Automation is not frozen.")
    champion = platform.registry.champion()
    name = champion.model.name if champion else None
    if champion and name:
        own = _own_threshold(platform, champion.model)
        booked = permission.auto_from(name, own)
        raised = "" if booked == own else f" (its own threshold: {_confidence(own)})"
        say(f"The champion {name} books {_limit(booked)}{raised}.")
    for model, threshold in permission.thresholds.items():
        # While frozen, the champion's own line says nothing of it.
        if model != name or permission.frozen:
            say(f"Raised for {model}: it books {_limit(threshold)}{' at the earliest' if threshold <= 1 else ''}.")
    if history:
        table = Table("", "UTC", "change", "by", "reason", box=None, padding=(0, 1, 0, 0))
        for change in history:
            when = f"{change.time:%Y-%m-%d %H:%M}"
            table.add_row(str(change.number), when, _change(change), change.actor, change.reason)
        out.print(table)


def _book_from(platform: "Platform", given: str, actor: str | None, reason: str | None) -> None:
    from matching_platform.store.record import whoami

    champion = platform.registry.champion()
    if champion is None:
        raise UsageError("there is no champion whose threshold could be set; materialize champion first")
    if reason is None:
        raise UsageError("a threshold needs a --reason")
    name, record = champion.model.name, platform.unattended
    signed = {"actor": actor or whoami(), "reason": reason}
    if given == _OWN:
        record.book_from_own(name, **signed)
        return
    wanted, own = _given(given), _own_threshold(platform, champion.model)
    if wanted <= own:
        raise UsageError(f"{name} books {_limit(own)} by itself; give a higher confidence, or '{_OWN}'")
    known = record.history()
    change = record.book_from(name, wanted, **signed)
    if change.auto_from is not None and change.auto_from != wanted:
        raise UsageError(
            f"{name} books {_limit(change.auto_from)} since {change.signed}; go back to '{_OWN}' before you book more"
        )
    if change in known:
        say(f"That is already in force since {change.signed}; nothing was recorded.")


def _given(text: str) -> float:
    try:
        confidence = float(text)
    except ValueError:
        confidence = float("nan")
    if not 0 < confidence <= 1:
        raise UsageError(
            f"'{text}' is no confidence to book from; give a number up to 1, or '{_OWN}'. To book nothing, freeze"
        )
    return confidence


def _own_threshold(platform: "Platform", model: "Version") -> float:
    from matching_platform.matching.matcher import own_threshold

    return own_threshold(platform.store.fetch(model))


def _change(change: "Change") -> str:
    if change.action != "threshold":
        return change.action
    limit = change.auto_from
    return f"{change.model} books {'from its own threshold on' if limit is None else _limit(limit)}"


def _limit(auto_from: float) -> str:
    return "nothing" if auto_from > 1 else f"from {_confidence(auto_from)} on"


def _confidence(threshold: float) -> str:
    from matching_platform.learning.threshold_text import confidence

    return confidence(threshold)


def _sentence(told: str) -> str:
    return f"{told[0].upper()}{told[1:]}."
