"""A served request as a row of the log: what was asked, what was answered, by which model and how fast."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import polars as pl

from matching_platform.ledger.money import DECIMAL, to_decimal
from matching_platform.ledger.schema import OPEN_INVOICES, PROPOSED, TRANSFERS, Table
from matching_platform.predictions.masking import Masking

# Tables within a row, as lists of rows, with amounts as decimals.
NESTED: Final[dict[str, Table]] = {"transfers": TRANSFERS, "invoices": OPEN_INVOICES, "proposals": PROPOSED}
_TABLES: Final = {
    name: pl.Schema({column.name: column.external_dtype for column in table.columns}) for name, table in NESTED.items()
}
_SCALARS: Final = pl.Schema(
    {
        "request_id": pl.String(),
        "received_at": pl.Datetime("us", "UTC"),
        "server": pl.String(),
        "purpose": pl.String(),
        "model": pl.String(),
        "milliseconds": pl.Float64(),
        "booked_from": pl.Float64(),
    }
)
SCHEMA: Final = pl.Schema({**_SCALARS, **{name: pl.List(pl.Struct(columns)) for name, columns in _TABLES.items()}})
# What a request that waits takes in memory besides its bytes, about.
_OVERHEAD_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Served:
    """A request and its answer. The frames are those that the service had made anyway, with amounts in minor units."""

    request_id: str
    received_at: datetime
    purpose: str
    model: str
    milliseconds: float
    booked_from: float
    transfers: pl.DataFrame
    invoices: pl.DataFrame
    proposals: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Packed:
    """A request as it waits, as bytes: a frame of few rows takes thirty times the memory of what is in it."""

    received_on: date
    data: bytes

    @classmethod
    def of(cls, request: Served) -> "Packed":
        """Packs an ordinary request in less than a tenth of a millisecond."""
        return cls(request.received_at.date(), pickle.dumps(request, pickle.HIGHEST_PROTOCOL))

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return _OVERHEAD_BYTES + len(self.data)

    def unpacked(self) -> Served:
        # Our own bytes, which never left this process.
        request: Served = pickle.loads(self.data)
        return request


def rows(requests: Sequence[Served], server: str, masking: Masking) -> pl.DataFrame:
    """A row of SCHEMA for each request, masked."""
    values = {name: [getattr(one, name) for one in requests] for name in _SCALARS if name != "server"}
    frame = pl.DataFrame(values, schema_overrides=_SCALARS).with_columns(server=pl.lit(server)).with_row_index("row")
    for name in NESTED:
        nested = _nested(name, [getattr(one, name) for one in requests], masking)
        empty = pl.lit([], SCHEMA[name])
        joined = frame.join(nested, on="row", how="left", maintain_order="left")
        frame = joined.with_columns(pl.col(name).fill_null(empty))
    return frame.select(SCHEMA.names())


def _nested(name: str, tables: Sequence[pl.DataFrame], masking: Masking) -> pl.DataFrame:
    """The rows of each table as one list, by the table's place among them."""
    columns = _TABLES[name]
    numbered = pl.concat(
        table.select(pl.lit(number, pl.UInt32).alias("row"), *columns.names()) for number, table in enumerate(tables)
    )
    decimal = masking(numbered).with_columns(
        to_decimal(column) for column, dtype in columns.items() if dtype == DECIMAL
    )
    return decimal.group_by("row", maintain_order=True).agg(pl.struct(columns.names()).alias(name))
