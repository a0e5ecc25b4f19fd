"""The journal that a finance system reads: what was booked, unattended or by a person, and what was taken back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Final, Literal

import polars as pl
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Date,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    case,
    func,
    select,
)

from matching_platform.database import Moment, append_only, create
from matching_platform.review.decisions import Decision

UNATTENDED: Final = "unattended"
PERSON: Final = "person"
# Who takes back what newer books, or a tag of finance, leave no place for.
CORRECTED: Final = "corrected data"

JOURNAL: Final = pl.Schema(
    {
        "number": pl.Int64(),
        "transfer_id": pl.String(),
        "invoice_id": pl.String(),
        "amount": pl.Int64(),
        "unattended": pl.Boolean(),
    }
)
_METADATA: Final = MetaData()
_TABLE: Final = append_only(
    Table(
        "bookings",
        _METADATA,
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("booked_at", Moment, nullable=False),
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
    entries. `actor` is the person, the model that booked unattended, or CORRECTED; `decision` the number of the person's
    decision, of the one whose booking is reversed where nobody decided on that.
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
        create(engine, _METADATA)

    def read(self, after: int = 0, limit: int | None = None) -> list[Booking]:
        """The entries above a number, the first one first."""
        with self._engine.connect() as connection:
            return read(connection, after, limit)

    def last(self) -> int:
        """The number of the last entry, 0 without any."""
        with self._engine.connect() as connection:
            return last(connection)


def journal(connection: Connection, after: int) -> pl.DataFrame:
    """The entries above a number, schema JOURNAL: a reversed `amount` has the other sign, and `unattended` is what no
    decision was the reason for."""
    amount = case((_TABLE.c.entry == "book", _TABLE.c.amount), else_=-_TABLE.c.amount)
    alone = and_(_TABLE.c.by == UNATTENDED, _TABLE.c.decision.is_(None))
    query = select(_TABLE.c.number, _TABLE.c.transfer_id, _TABLE.c.invoice_id, amount, alone)
    rows = connection.execute(query.where(_TABLE.c.number > after).order_by(_TABLE.c.number))
    return pl.DataFrame([tuple(row) for row in rows], schema=JOURNAL, orient="row")


def net(entries: pl.DataFrame) -> pl.DataFrame:
    """transfer_id, invoice_id, amount of what entries (schema JOURNAL) leave booked."""
    sums = entries.group_by("transfer_id", "invoice_id", maintain_order=True).agg(pl.col("amount").sum())
    return sums.filter(pl.col("amount") != 0)


def read(connection: Connection, after: int, limit: int | None = None) -> list[Booking]:
    """The entries above a number, the first one first, as a transaction sees them."""
    rows = connection.execute(select(_TABLE).where(_TABLE.c.number > after).order_by(_TABLE.c.number).limit(limit))
    return [Booking(**row._mapping) for row in rows]


def last(connection: Connection) -> int:
    """The number of the last entry, 0 without any."""
    return int(connection.execute(select(func.coalesce(func.max(_TABLE.c.number), 0))).scalar_one())


def outstanding(connection: Connection, transfer_id: str) -> dict[str, Booking]:
    """The entries of a transfer that nobody has reversed, by invoice."""
    query = select(_TABLE).where(_TABLE.c.transfer_id == transfer_id).order_by(_TABLE.c.number)
    held: dict[str, Booking] = {}
    for row in connection.execute(query):
        entry = Booking(**row._mapping)
        if entry.entry == "book":
            held[entry.invoice_id] = entry
        else:
            held.pop(entry.invoice_id, None)
    return held


def append(connection: Connection, entries: Sequence[Booking]) -> None:
    """Adds entries whose numbers follow the last one, in a transaction of `database.writing`."""
    if entries:
        connection.execute(_TABLE.insert(), [asdict(entry) for entry in entries])


def changes(
    held: Mapping[str, Booking], wanted: Mapping[str, tuple[int, str]], decision: Decision, last: int
) -> list[Booking]:
    """The entries that turn the bookings `held` into those `wanted`, minor units and currency by invoice, numbered from
    `last`; what stays the same is left alone."""
    at, who = decision.decided_at, decision.actor
    made = [
        replace(entry, entry="reverse")
        for invoice_id, entry in held.items()
        if invoice_id not in wanted or wanted[invoice_id][0] != entry.amount
    ]
    made += [
        Booking(0, at, decision.transfer_id, decision.booked_on, invoice_id, amount, currency, "book", PERSON, who)
        for invoice_id, (amount, currency) in wanted.items()
        if invoice_id not in held or held[invoice_id].amount != amount
    ]
    return [
        replace(entry, number=number, booked_at=at, by=PERSON, actor=who, decision=decision.number)
        for number, entry in enumerate(made, last + 1)
    ]


def reversals(held: Mapping[str, Booking], now: datetime, last: int) -> list[Booking]:
    """The entries that take back the bookings `held` since there is no place for them any more."""
    return [
        replace(entry, number=number, booked_at=now, entry="reverse", by=UNATTENDED, actor=CORRECTED)
        for number, entry in enumerate(held.values(), last + 1)
    ]
