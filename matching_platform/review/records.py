"""The table of decisions, in which a row is added and none is ever changed."""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, Connection, Date, Engine, Float, Integer, MetaData, String, Table, func, select

from matching_platform.database import Moment, append_only, create
from matching_platform.review.decisions import Action, Allocation, Decision, Proposed

_METADATA: Final = MetaData()
# Allocations are JSON lists of [invoice, minor units].
_TABLE: Final = append_only(
    Table(
        "decisions",
        _METADATA,
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("transfer_id", String, nullable=False, index=True),
        Column("booked_on", Date, nullable=False),
        Column("at", Moment, nullable=False),
        Column("actor", String, nullable=False),
        Column("action", String, nullable=False),
        Column("allocations", String, nullable=False),
        Column("note", String, nullable=False),
        Column("model", String),
        Column("proposed_decision", String),
        Column("confidence", Float),
        Column("proposed", String),
        Column("supersedes", Integer),
    )
)


class Decisions:
    """All that was decided at the desk, numbered from 1 without a gap, in the database of `engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        create(engine, _METADATA)

    def read(self, after: int = 0, limit: int | None = None) -> list[Decision]:
        """The decisions above a number, the first one first."""
        with self._engine.connect() as connection:
            return read(connection, after, limit)

    def last(self) -> int:
        """The number of the last decision, 0 without any."""
        with self._engine.connect() as connection:
            return int(connection.execute(select(func.coalesce(func.max(_TABLE.c.number), 0))).scalar_one())


def read(connection: Connection, after: int, limit: int | None = None) -> list[Decision]:
    """The decisions above a number, the first one first, as a transaction sees them."""
    rows = connection.execute(select(_TABLE).where(_TABLE.c.number > after).order_by(_TABLE.c.number).limit(limit))
    return [_decision(row) for row in rows]


def append(connection: Connection, made: Sequence[Decision]) -> None:
    """Adds decisions whose numbers follow the last one, in a transaction of `database.writing`."""
    if made:
        connection.execute(_TABLE.insert(), [_row(decision) for decision in made])


def _row(decision: Decision) -> dict[str, Any]:
    proposed = decision.proposed
    return {
        "number": decision.number,
        "transfer_id": decision.transfer_id,
        "booked_on": decision.booked_on,
        "at": decision.decided_at,
        "actor": decision.actor,
        "action": decision.action.value,
        "allocations": _json(decision.allocations),
        "note": decision.note,
        "model": proposed and proposed.model,
        "proposed_decision": proposed and proposed.decision,
        "confidence": proposed and proposed.confidence,
        "proposed": proposed and _json(proposed.allocations),
        "supersedes": decision.supersedes,
    }


def _decision(row: Any) -> Decision:
    proposed = None
    if row.proposed is not None:
        proposed = Proposed(row.model, row.proposed_decision, row.confidence, _allocations(row.proposed))
    return Decision(
        number=row.number,
        transfer_id=row.transfer_id,
        booked_on=row.booked_on,
        decided_at=row.at,
        actor=row.actor,
        action=Action(row.action),
        allocations=_allocations(row.allocations),
        proposed=proposed,
        supersedes=row.supersedes,
        note=row.note,
    )


def _json(allocations: Sequence[Allocation]) -> str:
    return json.dumps([[one.invoice_id, one.amount] for one in allocations])


def _allocations(text: str) -> tuple[Allocation, ...]:
    return tuple(Allocation(invoice_id, amount) for invoice_id, amount in json.loads(text))
