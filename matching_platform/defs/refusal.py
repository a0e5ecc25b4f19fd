"""What becomes of a month that is refused: its rows are quarantined, and it stays as it was."""

from typing import Final

import dagster as dg
import polars as pl

from matching_platform.defs.common import table
from matching_platform.environment import Platform
from matching_platform.ledger.validation import LedgerError

QUARANTINE: Final = "quarantine"


def refused(
    platform: Platform, name: str, table_name: str, month: str, raw: pl.DataFrame, error: LedgerError
) -> dg.Failure:
    """The offending rows of a table, all where no single one is at fault, go to quarantine; `name` of the month stays as it
    was."""
    rows = raw.cast(pl.String) if error.rows.is_empty() else error.rows
    version = platform.store.put_frame(QUARANTINE, rows)
    platform.catalog.set(f"{QUARANTINE}_{name}", month, version, {"problem": str(error), "rows": rows.height})
    place = platform.store.files.path(version.folder)
    return dg.Failure(
        f"{error}. The month is refused as a whole; correct {table_name} and materialize {name} of {month} again.",
        metadata={
            "table": table_name,
            "row": error.row or 0,
            "column": error.column or "",
            "quarantine": dg.MetadataValue.path(place),
            "refused rows": table(rows),
        },
        allow_retries=False,
    )
