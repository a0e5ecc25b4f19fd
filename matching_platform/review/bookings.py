"""The journal that a finance system reads: what was booked, unattended or by a person, and what was taken back."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, Literal

import polars as pl
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Date,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    func,
    select,
)

from matching_platform.database import append_only, writing
from matching_platform.ledger.money import MINOR_UNITS
from matching_platform.review.decisions import Allocation

UNATTENDED: Final = "unattended"
PERSON: Final = "person"

_UNATTENDED: Final = pl.Schema(
    {
        "number": pl.Int64(),
        "transfer_id": pl.String(),
        "invoice_id": pl.String(),
        "amount": pl.Int64(),
        "actor": pl.String(),
    }
)
_METADATA: Final = MetaData()
_TABLE: Final = append_only(
    Table(
        "bookings",
        _METADATA,
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("booked_at", DateTime, nullable=False),
        Column("transfer_id", String, nullable=False, index=True),
        Column("booked_on", Date, nullable=False),
        Column("invoice_id", String, nullable=False),
        Column("amount", BigInteger, nullable=False),
        Column("currency", String, nullable=False),
        Column("entry", String, nullable=False),
        Column("by", String, nullable=False),
        Column("actor", String, nullable=False),
        Column("decision", Integer),
    )
)


@dataclass(frozen=True)
class Booking:
    """An entry: a part of an invoice that a transfer settles was booked, or an earlier booking of it is reversed.

    `number` counts from 1 without a gap. `amount` is minor units of the invoice's `currency`, and of the same sign in both
    entries. `actor` is the person, or the model that booked unattended; `decision` the number of the person's decision.
    """

    number: int
    booked_at: datetime
    transfer_id: str
    booked_on: date
    invoice_id: str
    amount: int
    currency: str
    entry: Literal["book", "reverse"]
    by: Literal["unattended", "person"]
    actor: str
    decision: int | None = None


class Bookings:
    """The journal in the database of `engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with writing(engine) as connection:
            _METADATA.create_all(connection)

    def read(self, after: int = 0, limit: int | None = None) -> list[Booking]:
        """The entries above a number, the first one first."""
        with self._engine.connect() as connection:
            return read(connection, after, limit)

    def last(self) -> int:
        """The number of the last entry, 0 without any."""
        with self._engine.connect() as connection:
            return last(connection)


def unattended(connection: Connection, after: int) -> pl.DataFrame:
    """number, transfer_id, invoice_id, amount, actor of what was booked unattended above a number, whatever came of it."""
    columns = [_TABLE.c[name] for name in _UNATTENDED]
    query = select(*columns).where(_TABLE.c.number > after, _TABLE.c.by == UNATTENDED).order_by(_TABLE.c.number)
    return pl.DataFrame([tuple(row) for row in connection.execute(query)], schema=_UNATTENDED, orient="row")


def read(connection: Connection, after: int, limit: int | None = None) -> list[Booking]:
    """The entries above a number, the first one first, as a transaction sees them."""
    rows = connection.execute(select(_TABLE).where(_TABLE.c.number > after).order_by(_TABLE.c.number).limit(limit))
    return [_booking(row) for row in rows]


def last(connection: Connection) -> int:
    """The number of the last entry, 0 without any."""
    return int(connection.execute(select(func.coalesce(func.max(_TABLE.c.number), 0))).scalar_one())


def outstanding(connection: Connection, transfer_id: str) -> dict[str, int]:
    """What the journal holds as booked of a transfer, minor units by invoice."""
    query = select(_TABLE.c.invoice_id, _TABLE.c.amount, _TABLE.c.entry).where(_TABLE.c.transfer_id == transfer_id)
    held: defaultdict[str, int] = defaultdict(int)
    for invoice_id, amount, entry in connection.execute(query):
        held[invoice_id] += amount if entry == "book" else -amount
    return {invoice_id: amount for invoice_id, amount in held.items() if amount}


def append(connection: Connection, entries: Sequence[Booking]) -> None:
    """Adds entries whose numbers follow the last one, in a transaction of `database.writing`."""
    if entries:
        connection.execute(_TABLE.insert(), [_row(entry) for entry in entries])


def changes(
    held: dict[str, int], wanted: Iterable[Allocation]
) -> Iterator[tuple[str, int, Literal["book", "reverse"]]]:
    """What turns the bookings `held` into those `wanted`: invoice, amount, entry; what stays the same is left alone."""
    parts = {one.invoice_id: one.amount for one in wanted}
    for invoice_id, amount in held.items():
        if parts.get(invoice_id) != amount:
            yield invoice_id, amount, "reverse"
    for invoice_id, amount in parts.items():
        if held.get(invoice_id) != amount:
            yield invoice_id, amount, "book"


def decimal(amount: int) -> str:
    """Minor units as text with two places."""
    sign, whole = "-" if amount < 0 else "", abs(amount)
    return f"{sign}{whole // MINOR_UNITS}.{whole % MINOR_UNITS:02d}"


def _row(entry: Booking) -> dict[str, Any]:
    return asdict(entry) | {"booked_at": entry.booked_at.astimezone(UTC).replace(tzinfo=None)}


def _booking(row: Any) -> Booking:
    return Booking(**dict(row._mapping) | {"booked_at": row.booked_at.replace(tzinfo=UTC)})
