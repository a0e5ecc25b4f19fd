"""`proposals.parquet`: what matching hands to a finance system, and in the file's metadata what it cost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.reading import read_file

_COSTS: Final = "matching_platform.costs"


def write_proposals(proposals: pl.DataFrame, path: Path, costs: Mapping[str, float] | None = None) -> None:
    """Writes `proposals` (schema PROPOSALS, minor units) with decimal amounts; the file appears whole or not at all.

    `costs`, figures by name, go into the file's metadata.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    metadata = {_COSTS: json.dumps(dict(costs or {}))}
    proposals.with_columns(to_decimal("amount")).write_parquet(unfinished, metadata=metadata)
    unfinished.replace(path)


def read_proposals(path: Path) -> pl.DataFrame:
    """The proposals in `path` (schema PROPOSALS) in minor units; LedgerError where it cannot be read or is not valid."""
    return read_file(path, "proposals")


def read_costs(path: Path) -> dict[str, float]:
    """What matching cost that wrote the readable proposals in `path`; empty where they come from elsewhere."""
    if path.suffix == ".csv":
        return {}
    costs: dict[str, float] = json.loads(pl.read_parquet_metadata(path).get(_COSTS, "{}"))
    return costs
