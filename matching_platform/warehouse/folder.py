"""A folder of the three tables as months of raw rows, for a warehouse to take."""

from pathlib import Path
from typing import Final

import polars as pl

from matching_platform.ledger.money import DECIMAL
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import read_raw, table_path
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.warehouse.tables import MONTH
from matching_platform.warehouse.warehouse import WarehouseError

# An ISO date, and perhaps a time of day.
_DATE: Final = r"^(\d{4}-\d\d-\d\d)(?:[T ].*)?$"

_FINER: Final = pl.Decimal(38, 6)  # tells 12.345 from 12.34


def months_of(folder: Path) -> dict[str, dict[str, pl.DataFrame]]:
    """The rows of a folder of the three tables, `.parquet` or `.csv`, by table and month; a table may have no rows.

    A match belongs to the month in which its transfer was booked; where there is no such transfer, to the month of
    its tag, and it is refused there. Raises WarehouseError where a table is absent or a row's month cannot be told.
    """
    tables = {name: _read_raw(folder, name) for name in RAW_TABLES}
    booked = _with_month(tables["transfers"], "booked_on").select("transfer_id", MONTH)
    last = booked[MONTH].max()
    tagged = _with_month(tables["matches"], "tagged_on").rename({MONTH: "_tagged"})
    months = {
        "invoices": _with_month(tables["invoices"], "issued_on"),
        "transfers": _with_month(tables["transfers"], "booked_on"),
        "matches": tagged.join(booked.unique("transfer_id"), on="transfer_id", how="left", maintain_order="left")
        .with_columns(pl.coalesce(MONTH, pl.min_horizontal("_tagged", pl.lit(last))).alias(MONTH))
        .drop("_tagged"),
    }
    for name, frame in months.items():
        if frame[MONTH].has_nulls():
            row = frame[MONTH].is_null().arg_true()[0] + 1
            column = "tagged_on" if name == "matches" else TABLES[name].partitioned_by
            raise WarehouseError(f"{folder}/{name}: row {row}, column {column}: is not a date (YYYY-MM-DD)")
    return {
        name: {
            str(month): part for (month,), part in frame.partition_by(MONTH, as_dict=True, include_key=False).items()
        }
        for name, frame in months.items()
    }


def storable(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The contract's columns of `frame` in the contract's types, or as text where a value does not fit."""
    columns = [column for column in TABLES[table].columns if column.name in frame.columns]
    return frame.select(_fitted(frame[column.name], column.external_dtype) for column in columns)


def _fitted(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    fitted = _as_date(values) if dtype == pl.Date else values.cast(dtype, strict=False)
    lossless = fitted.null_count() == values.null_count()
    if dtype == DECIMAL:
        lossless = lossless and (values.cast(_FINER, strict=False) == fitted.cast(_FINER)).all()
    return fitted if lossless else values.cast(pl.String, strict=False)


def _read_raw(folder: Path, name: str) -> pl.DataFrame:
    path = table_path(folder, name)
    if path is None:
        raise WarehouseError(f"{folder} holds neither {name}.parquet nor {name}.csv")
    return read_raw(path)


def _with_month(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    days = _as_date(frame[column]).alias("_day")
    return frame.with_columns(days).with_columns(month_of("_day").alias(MONTH)).drop("_day")


def _as_date(values: pl.Series) -> pl.Series:
    """Null where a value is not a date."""
    if values.dtype == pl.String:
        return values.str.strip_chars().str.extract(_DATE).str.to_date("%Y-%m-%d", strict=False)
    return values.cast(pl.Date, strict=False)
