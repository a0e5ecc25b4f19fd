"""What comes in: the rows of one file, whatever wrote it, as a table of the contract."""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

import polars as pl

from matching_platform.ledger.validation import LedgerError, validate

Incomings = Literal["transfers", "invoices"]

# What a file holds that is no row of its table, such as a pending entry: where it stands, and why it was left out.
SKIPPED: Final = pl.Schema({"where": pl.String(), "text": pl.String(), "reason": pl.String()})


class IntakeError(ValueError):
    """A file that cannot be taken.

    `str()` is one line: the file, where in it ('line 12', 'row 3', 'entry 2'), the field, the problem and what to do.
    """

    def __init__(
        self, source: str, problem: str, advice: str = "", *, where: str | None = None, field: str | None = None
    ) -> None:
        place = ", ".join(part for part in (where, field and f"field {field}") if part)
        told = f"{problem}; {advice}" if advice else problem
        super().__init__(" ".join(f"{source}: {place + ': ' if place else ''}{told}".split()))
        self.source, self.problem, self.advice, self.where, self.field = source, problem, advice, where, field


@dataclass(frozen=True)
class Incoming:
    """The rows of one file in the schema of `table`, amounts in minor units.

    `source` is the file's name, `format` what people call it ('MT940', 'camt.053', 'CSV', 'UBL', …), `notes` what they
    should know of the whole file, `contradictions` where it does not add up to its own balances and totals, `skipped`
    (schema SKIPPED) what it holds that is no row, and `places` where in the file each row stands, in words.
    """

    source: str
    format: str
    table: Incomings
    frame: pl.DataFrame
    notes: tuple[str, ...] = ()
    skipped: pl.DataFrame = field(default_factory=SKIPPED.to_frame)
    places: pl.Series | None = None
    contradictions: tuple[str, ...] = ()

    def place(self, at: int) -> str:
        """Where the row `at` (from 0) stands."""
        return f"row {at + 1}" if self.places is None else str(self.places[at])


def incoming(
    source: str,
    named: str,
    table: Incomings,
    frame: pl.DataFrame,
    notes: tuple[str, ...] = (),
    skipped: pl.DataFrame | None = None,
    places: pl.Series | None = None,
) -> Incoming:
    """What a file of the format that people call `named` holds: the rows of `frame`, amounts in major units (text, decimals
    or exact floats), made valid in the contract's `table`; IntakeError where one is not."""
    left = SKIPPED.to_frame() if skipped is None else skipped
    raw = Incoming(source, named, table, frame, notes, left, places)
    try:
        return replace(raw, frame=validate(table, frame, source=source))
    except LedgerError as error:
        where = raw.place(error.row - 1) if error.row else None
        raise IntakeError(source, error.problem, where=where, field=error.column) from error
