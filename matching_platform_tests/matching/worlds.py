"""Invoices and transfers written by hand, for tests of matching."""

from datetime import date
from typing import Any

import numpy as np
import polars as pl

from matching_platform.ledger.schema import TABLES
from matching_platform.matching.balances import Settlements
from matching_platform.matching.features import Lists, Reader, World
from matching_platform.matching.memory import Memory

INVOICE: dict[str, Any] = {
    "number": "",
    "direction": "sale",
    "counterparty_id": "c1",
    "counterparty_name": "Kowalski Meble Sp. z o.o.",
    "counterparty_account": "PL61109010140000071219812874",
    "issued_on": date(2024, 5, 2),
    "due_on": date(2024, 5, 16),
    "amount": 100_00,
    "currency": "PLN",
}
TRANSFER: dict[str, Any] = {
    "booked_on": date(2024, 5, 17),
    "amount": 100_00,
    "currency": "PLN",
    "direction": "in",
    "counterparty_name": "KOWALSKI MEBLE SP Z O O",
    "counterparty_account": "PL61109010140000071219812874",
    "title": "",
}


def _table(name: str, defaults: dict[str, Any], rows: tuple[dict[str, Any], ...]) -> pl.DataFrame:
    schema = TABLES[name].schema
    key = str(TABLES[name].key)
    numbered = [{key: f"{key[0]}{n}", **defaults, **row} for n, row in enumerate(rows, start=1)]
    return pl.DataFrame([dict.fromkeys(schema) | row for row in numbered], schema=schema)


def invoices(*rows: dict[str, Any]) -> pl.DataFrame:
    """Invoices i1, i2, … of one customer, with what `rows` change; amounts in minor units."""
    return _table("invoices", INVOICE, rows)


def transfers(*rows: dict[str, Any]) -> pl.DataFrame:
    """Transfers t1, t2, … of that customer, with what `rows` change; amounts in minor units."""
    return _table("transfers", TRANSFER, rows)


def read(
    transfers: pl.DataFrame,
    invoices: pl.DataFrame,
    memory: Memory | None = None,
    settlements: Settlements | None = None,
) -> Lists:
    """The candidate lists of one batch; `settlements` were made before it where their moment is negative."""
    world = World.of(transfers, invoices, memory or Memory.empty(), settlements)
    every = np.arange(len(transfers))
    return Reader(world).read(every, every, world.settlements)
