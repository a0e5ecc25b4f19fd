"""What all commands share: consoles, options, and how figures and months are read and shown."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from matching_platform.ledger.money import MINOR_UNITS
from matching_platform.ledger.months import beyond, parse_month
from matching_platform.ledger.reading import Ledger

if TYPE_CHECKING:
    from matching_platform.access import Access
    from matching_platform.environment import Platform, Settings

# Ids, numbers and titles may hold anything: no text is read as markup here, and styles are given by `Text`.
out = Console(markup=False, emoji=False, highlight=False)
err = Console(markup=False, emoji=False, highlight=False, stderr=True)

Data = Annotated[
    Path, typer.Argument(help="Folder with invoices, transfers and matches, as .parquet or .csv", show_default=False)
]
From = Annotated[str | None, typer.Option("--from", metavar="YYYY-MM", help="First month, by booking date")]
To = Annotated[str | None, typer.Option("--to", metavar="YYYY-MM", help="Last month, included")]
Reason = Annotated[str, typer.Option(help="Why; it stays in the record")]
Actor = Annotated[str | None, typer.Option(help="Who; the user logged in by default")]


class UsageError(ValueError):
    """A request that cannot be carried out as it stands."""


def open_platform() -> "Platform":
    """The platform as the environment describes it."""
    from matching_platform.environment import Platform, load

    return Platform(load())


def open_access(platform: "Platform") -> "Access":
    """Who may use the desk, and its audit log."""
    from matching_platform.access import Access

    return Access(platform.database, platform.settings.desk)


def month_given(text: str) -> str:
    try:
        return parse_month(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def months_between(ledger: Ledger, first: str | None, last: str | None) -> list[str]:
    known = ledger.months()
    if not known:
        raise UsageError("there are no transfers to match")
    begin, end = month_given(first or known[0]), month_given(last or known[-1])
    if first and last and begin > end:
        raise UsageError(f"--from {first} is later than --to {last}")
    found = [month for month in known if begin <= month <= end]
    if not found:
        span = f"{f' from {first}' if first else ''}{f' to {last}' if last else ''}"
        raise UsageError(f"no transfer was booked{span}; there are {known[0]} to {known[-1]}")
    return found


def check_can_hold(path: Path) -> None:
    """UsageError where `path` cannot be made, because what should be a folder above it is a file."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{path} cannot be written: {above} is a file, not a folder")


def say(*parts: str | tuple[str, str]) -> None:
    """Prints text, styled where a part is (text, style), in lines as long as they are."""
    out.print(Text.assemble(*parts), soft_wrap=True)


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(step: str, share: float) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=1.0)
            progress.update(tasks[step], completed=share)

        yield tell


def figures(title: str, figures: dict[str, float]) -> Table:
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, cell(value))
    return table


def tell_beyond(months: Iterable[str], settings: "Settings") -> None:
    """Says which months no asset will ever read."""
    found = beyond(months, settings.first_month, settings.last_month)
    if not found:
        return
    which = f"{found[0]} lies" if len(found) == 1 else f"{len(found)} months ({found[0]} to {found[-1]}) lie"
    say(
        f"{which} outside {settings.first_month or 'the first'} to {settings.last_month or 'now'} and will not be seen: "
        "set MATCHING_PLATFORM_FIRST_MONTH and MATCHING_PLATFORM_LAST_MONTH."
    )


def money(minor: int | None) -> str:
    return "–" if minor is None else f"{minor / MINOR_UNITS:,.2f}"


def cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value > 1 and value == int(value) else f"{value:,.4f}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
