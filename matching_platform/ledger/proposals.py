"""`proposals.parquet`: what matching hands to a finance system."""

from pathlib import Path

import polars as pl

from matching_platform.ledger.money import to_decimal, to_minor
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.ledger.validation import LedgerError


def write_proposals(proposals: pl.DataFrame, path: Path) -> None:
    """Writes `proposals` (schema PROPOSALS, minor units) with decimal amounts; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    proposals.with_columns(to_decimal("amount")).write_parquet(unfinished)
    unfinished.replace(path)


def read_proposals(path: Path) -> pl.DataFrame:
    """The proposals in `path` in minor units; LedgerError where the file or a column is missing or unreadable."""
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise LedgerError(str(path), f"cannot be read ({reason})", rows=pl.DataFrame()) from error
    missing = [name for name in PROPOSALS if name not in frame.columns]
    if missing:
        raise LedgerError(str(path), "the column is missing", column=missing[0], rows=pl.DataFrame())
    return frame.with_columns(to_minor("amount").alias("amount")).select(list(PROPOSALS)).cast(PROPOSALS)
