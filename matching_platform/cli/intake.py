"""On a company's own files: look at statements and invoices, and take them into the warehouse."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import polars as pl
import typer
from rich.table import Table

from matching_platform.cli.shared import (
    Actor,
    UsageError,
    err,
    money,
    open_access,
    open_platform,
    out,
    progress,
    say,
    tell_beyond,
)

if TYPE_CHECKING:
    from matching_platform.access import Access
    from matching_platform.intake.mapping import ColumnMapping
    from matching_platform.intake.taking import Intake, Preview

_FIRST: Final = 5
_SHOWN: Final[dict[str, tuple[str, ...]]] = {
    "transfers": ("booked_on", "direction", "amount", "currency", "counterparty_name", "title"),
    "invoices": ("issued_on", "due_on", "direction", "number", "amount", "currency", "counterparty_name"),
}

commands = typer.Typer()


@commands.command("import")
def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Bank statements (MT940, MT942, camt), invoices (UBL, CII, Factur-X, an archive of them), CSV, Excel",
            show_default=False,
        ),
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="COLUMN=HEADER", help="Which header is which column; the same column twice joins"
        ),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="sale or purchase; in, out or signed: of all rows that do not tell it")
    ] = None,
    currency: Annotated[str | None, typer.Option(metavar="CODE", help="The currency of all rows")] = None,
    table: Annotated[
        str | None, typer.Option(metavar="transfers|invoices", help="What a CSV or Excel file holds")
    ] = None,
    dates: Annotated[
        str | None, typer.Option(metavar="DMY|MDY|YMD", help="How 03/04/2024 or 24-01-15 is to be read")
    ] = None,
    decimal: Annotated[str | None, typer.Option(metavar=",|.", help="How 1,234 is to be read")] = None,
    unbalanced: Annotated[
        bool, typer.Option("--unbalanced", help="Take statements although they do not add up to their own balances")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is in the files")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Take them without asking")] = False,
    actor: Actor = None,
) -> None:
    """Show what is in files, and take them: each as a whole, and once only."""
    from matching_platform.intake.taking import Intake
    from matching_platform.store.record import whoami

    told = {"columns": columns, "direction": direction, "currency": currency, "dates": dates, "decimal": decimal}
    _check(told, table)
    platform = open_platform()
    intake = Intake(platform.store, platform.warehouse)
    looked = []
    with _progress() as tell:
        for number, path in enumerate(files, 1):
            looked.append(_look(intake, path, table, told))
            tell("looking", number / len(files))
    for preview in looked:
        _show(preview)
    tell_beyond({month for preview in looked for month in preview.months}, platform.settings)
    problem = next((preview.problem for preview in looked if preview.problem and not preview.taken), None)
    if problem:
        raise UsageError(f"{problem}{_hint(problem)}")
    left = [preview for preview in looked if not preview.taken]
    if dry_run or not left:
        say("Nothing was taken." if dry_run else "There is nothing to take.")
        return
    if not unbalanced:
        _check_balances(left)
    if not (yes or _agreed(f"Take {len(left)} {'file' if len(left) == 1 else 'files'}?")):
        raise typer.Abort
    _take(intake, left, actor or whoami(), unbalanced, open_access(platform))


def _agreed(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError("nobody answered; with --yes files are taken without asking") from None


def _progress() -> AbstractContextManager[Callable[[str, float], None]]:
    """Shown to people only: elsewhere it would leave a blank line before the one that says what is wrong."""
    return progress() if err.is_terminal else nullcontext(lambda *_: None)


def _check(told: dict[str, Any], table: str | None) -> None:
    from matching_platform.intake.synonyms import SIGNED, SYNONYMS

    choices = {
        "dates": ("DMY", "MDY", "YMD"),
        "decimal": (",", "."),
        "direction": ("sale", "purchase", "in", "out", SIGNED),
    }
    for name, value in {**told, "table": table}.items():
        allowed = choices.get(name, tuple(SYNONYMS) if name == "table" else ())
        if allowed and value is not None and value not in allowed:
            raise UsageError(f"--{name} {value} is unknown; there are {', '.join(allowed)}")


def _check_balances(previews: Sequence["Preview"]) -> None:
    for preview in previews:
        for told in preview.contradictions:
            raise UsageError(f"{preview.name}: {told}; export it again, or take it knowingly with --unbalanced")


def _look(intake: "Intake", path: Path, table: str | None, told: dict[str, Any]) -> "Preview":
    if not path.is_file():
        what = f"is a folder; name the files in it, such as {path}/*" if path.is_dir() else "is not there; name a file"
        raise UsageError(f"{path} {what}")
    content = path.read_bytes()
    preview = intake.look(path.name, content)
    if not table and not any(told.values()):
        return preview
    return intake.look(path.name, content, _mapping(preview, table, told))


def _mapping(preview: "Preview", table: str | None, told: dict[str, Any]) -> "ColumnMapping | None":
    """The mapping in force or proposed, with what the options say."""
    from matching_platform.intake.mapping import ColumnMapping, propose
    from matching_platform.intake.sheets import read_sheet

    mapping = preview.mapping or ColumnMapping(preview.table)
    if table in ("transfers", "invoices") and table != mapping.table and preview.headers:
        mapping = propose(read_sheet(preview.name, preview.content), table)  # type: ignore[arg-type] # one of both
    columns: dict[str, tuple[str, ...]] = {}
    for pair in told["columns"] or []:
        name, equals, header = pair.partition("=")
        if not (name and equals and header):
            raise UsageError(f"--map {pair} names no header; write it as COLUMN=HEADER, for instance title=Reference")
        columns[name.strip()] = (*columns.get(name.strip(), ()), header.strip())
    constants = {name: told[name] for name in ("direction", "currency") if told[name]}
    changed = mapping.changed(columns if preview.headers else {}, constants, told["dates"] or "", told["decimal"] or "")
    return changed if preview.headers or preview.table == "invoices" else None


def _hint(problem: Exception) -> str:
    """How the options say what is wanting."""
    missing = getattr(problem, "columns", ())
    hints = {"direction": "--direction", "currency": "--currency"}
    named = [hints.get(name, f"--map {name}=HEADER") for name in missing]
    return f" ({', '.join(named)})" if named else ""


def _take(intake: "Intake", previews: Sequence["Preview"], actor: str, unbalanced: bool, access: "Access") -> None:
    from matching_platform.intake.audit import note_imported

    with _progress() as tell:
        for number, preview in enumerate(previews, 1):
            taken = intake.take(preview, actor, unbalanced=unbalanced)
            note_imported(access, preview, taken, actor)
            say(("ok  ", "green"), f"{taken.name}: {taken.new:,} of {taken.rows:,} {taken.table} are new.")
            tell("taking", number / len(previews))


def _show(preview: "Preview") -> None:
    say((preview.name, "bold"), f": {preview.format}, {preview.rows:,} {preview.table}")
    if preview.taken:
        say(f"  It was {preview.taken}.")
        return
    if preview.mapping and preview.headers and not preview.confirmed:
        said = [f"{name} ← {' + '.join(headers)}" for name, headers in preview.mapping.columns.items()]
        said += [f"{name} = {value}" for name, value in preview.mapping.constants.items()]
        say(("  proposed: ", "yellow"), ", ".join(said))
    for contradiction in preview.contradictions:
        say(("  warning: ", "yellow"), contradiction)
    for note in preview.notes:
        say(f"  {note}")
    if preview.rows:
        say(f"  {preview.new:,} new, {preview.known:,} there already; months {_span(preview.months)}")
        out.print(_sums(preview))
        out.print(_rows(preview))
    for place, text, reason in preview.skipped.head(_FIRST).rows():
        say(("  left out: ", "yellow"), f"{place}: {reason} ({text})" if text else f"{place}: {reason}")
    if preview.skipped.height > _FIRST:
        say(f"  … and {preview.skipped.height - _FIRST:,} more that were left out")


def _span(months: tuple[str, ...]) -> str:
    return "–" if not months else months[0] if len(months) == 1 else f"{months[0]} to {months[-1]}"


def _sums(preview: "Preview") -> Table:
    table = Table("direction", "currency", "rows", "sum", box=None, padding=(0, 2, 0, 2))
    sums = preview.frame.group_by("direction", "currency").agg(pl.len(), pl.sum("amount")).sort("direction", "currency")
    for direction, currency, rows, total in sums.rows():
        table.add_row(direction, currency, f"{rows:,}", money(total))
    return table


def _rows(preview: "Preview") -> Table:
    names = _SHOWN[preview.table]
    table = Table(*names, box=None, padding=(0, 2, 0, 2))
    for row in preview.frame.head(_FIRST).select(names).rows(named=True):
        table.add_row(*(money(row[name]) if name == "amount" else str(row[name]) for name in names))
    return table
