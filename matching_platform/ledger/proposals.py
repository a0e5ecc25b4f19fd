"""`proposals.parquet`: what matching hands to a finance system."""

from pathlib import Path

import polars as pl

from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.reading import read_file


def write_proposals(proposals: pl.DataFrame, path: Path) -> None:
    """Writes `proposals` (schema PROPOSALS, minor units) with decimal amounts; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    proposals.with_columns(to_decimal("amount")).write_parquet(unfinished)
    unfinished.replace(path)


def read_proposals(path: Path) -> pl.DataFrame:
    """The proposals in `path` (schema PROPOSALS) in minor units; LedgerError where it cannot be read or is not valid."""
    return read_file(path, "proposals")
