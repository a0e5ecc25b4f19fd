"""On the models of the store: which there are, which is champion, promote and roll back."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from matching_platform.cli.shared import Actor, Reason, UsageError, open_platform, out, say

if TYPE_CHECKING:
    from matching_platform.store.registry import Registry
    from matching_platform.store.versions import Version

commands = typer.Typer(no_args_is_help=True)


@commands.command("list")
def list_models() -> None:
    """All models of the store, the champion marked."""
    table = Table("model", "status", "trained until", "promotions")
    for model in _registry().models():
        table.add_row(
            model.manifest.version.name,
            Text(model.status, "green" if model.status == "champion" else ""),
            str(_card(model.manifest.version)["trained_until"]),
            str(len(model.promotions)),
        )
    out.print(table)
    if frozen := open_platform().unattended.permission().told:
        say((f"Nothing is promoted: {frozen}.", "red"))


@commands.command("show")
def show_model(
    version: Annotated[str, typer.Argument(help="Version, or the beginning of its name", show_default=False)],
) -> None:
    """A model's card and what became of it."""
    model = _registry().show(version)
    say((model.manifest.version.name, "bold"), f", {model.status}")
    out.print_json(data=_card(model.manifest.version))
    for promotion in model.promotions:
        out.print(f"{promotion.time:%Y-%m-%d %H:%M} {promotion.action} by {promotion.actor}: {promotion.reason}")


@commands.command("history")
def history() -> None:
    """Every promotion and rollback, the first one first; the last one is in force."""
    for entry in _registry().history():
        when = f"  {entry.time:%Y-%m-%d %H:%M} UTC  {entry.action}  "
        say((str(entry.number), "bold"), when, (entry.model.name, "bold"), f"  by {entry.actor}")
        for reason in entry.reason.split("; "):
            out.print(f"     {reason}")


@commands.command("rollback")
def rollback(
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="The model to go back to; the last good one by default")] = None,
    actor: Actor = None,
) -> None:
    """Make an earlier champion champion again, after it has loaded and answered, and serve it; nothing is built."""
    from matching_platform.defs.releasing import roll_back
    from matching_platform.store.record import whoami

    rolled = roll_back(open_platform(), actor=actor or whoami(), reason=reason, to=to)
    assert rolled is not None
    say(f"{rolled.champion.model.name} is champion again (promotion {rolled.champion.number}).")
    if rolled.deployment:
        say(f"Model {rolled.deployment.model} answers at {rolled.deployment.url}.")
    else:
        say("Nothing answers requests: no model was ever rolled out.")


@commands.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="Version, or the beginning of its name", show_default=False)],
    reason: Reason,
    actor: Actor = None,
) -> None:
    """Make the newest evaluated model champion, if every blocking check of its own evaluation passed."""
    from matching_platform.defs import gate, local
    from matching_platform.store.record import whoami

    platform = open_platform()
    model = platform.registry.show(version).manifest.version
    asked = gate.newest(platform)
    with local.instance(local.home()) as instance:
        found = gate.hurdles(platform, instance, asked.candidate if asked else None, by_hand=True)
    if asked and asked.examined.model != model:
        found.insert(0, f"the newest evaluation is of model {asked.examined.model.name}, not of {model.name}")
    if found or asked is None:
        raise UsageError(f"the gate is closed for {model.name}: {'; '.join(found)}")
    promotion = platform.registry.promote(
        model, asked.version, actor or whoami(), reason, expected_last=asked.examined.promotion
    )
    say(f"{promotion.model.name} is champion (promotion {promotion.number}).")


def _registry() -> "Registry":
    return open_platform().registry


def _card(version: "Version") -> dict[str, Any]:
    card: dict[str, Any] = json.loads((open_platform().store.fetch(version) / "card.json").read_text())
    return card
