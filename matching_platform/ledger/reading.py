"""A folder of the three tables, as Parquet or CSV."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from matching_platform.ledger.months import month_of
from matching_platform.ledger.validation import LedgerError, check_references, validate


@dataclass(frozen=True)
class Ledger:
    """The three tables, validated: amounts in minor units, dates as dates."""

    invoices: pl.DataFrame
    transfers: pl.DataFrame
    matches: pl.DataFrame

    def months(self) -> list[str]:
        """The months in which transfers were booked, in order."""
        return sorted(self.transfers.select(month_of("booked_on").unique()).to_series().to_list())


def read_file(path: Path, name: str) -> pl.DataFrame:
    """Table `name` from one `.parquet` or `.csv` file; LedgerError where it cannot be read or is not valid."""
    return validate(name, read_raw(path), source=str(path))


def read_raw(path: Path) -> pl.DataFrame:
    """The rows of a `.csv` file, as text, or of any other as Parquet; LedgerError where it cannot be read."""
    try:
        if path.suffix == ".csv":
            return pl.read_csv(path, infer_schema=False, glob=False)
        return pl.read_parquet(path, glob=False)
    # Damaged Parquet can make Polars panic, which is no Exception.
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LedgerError(str(path), f"cannot be read ({reason})", rows=pl.DataFrame()) from error


def table_path(folder: Path, name: str) -> Path | None:
    """The file that holds table `name` in `folder`, Parquet before CSV; None where there is none."""
    paths = (folder / f"{name}{suffix}" for suffix in (".parquet", ".csv"))
    return next((path for path in paths if path.is_file()), None)


def read_ledger(folder: Path) -> Ledger:
    """The ledger in `folder`: `invoices`, `transfers` and, where tags exist, `matches`.

    LedgerError where a table is absent, unreadable or invalid, or where a match names what does not exist.
    """
    if not folder.is_dir():
        raise LedgerError(str(folder), "is not a folder", rows=pl.DataFrame())
    tables = {}
    for name in ("invoices", "transfers", "matches"):
        path = table_path(folder, name)
        if path is None:
            raise LedgerError(str(folder), f"holds neither {name}.parquet nor {name}.csv", rows=pl.DataFrame())
        tables[name] = read_file(path, name)
    ledger = Ledger(**tables)
    check_references(
        ledger.matches,
        ledger.transfers["transfer_id"],
        ledger.invoices["invoice_id"],
        source=str(table_path(folder, "matches")),
    )
    return ledger
