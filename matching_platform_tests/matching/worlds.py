"""Invoices and transfers written by hand, for tests of matching."""

from datetime import date
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st

from matching_platform.ledger.schema import TABLES
from matching_platform.matching.arrays import Flags, Ints
from matching_platform.matching.balances import Settlements
from matching_platform.matching.candidates import InvoiceSide, Keys, Question, TransferSide
from matching_platform.matching.features import Lists, Reader, World
from matching_platform.matching.memory import Memory
from matching_platform.matching.rules import RULES

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


def questions(sides: int = 6) -> st.SearchStrategy[Question]:
    """Small joins in which keys, currencies, days and amounts meet often, and balances change on the way."""

    def side(names: set[str], ascending: bool, rows: int) -> st.SearchStrategy[dict[str, Keys]]:
        row = st.tuples(st.integers(0, rows - 1), st.integers(-1, 3), st.sampled_from([-6, 1, 3, 6]))

        def keys(found: list[tuple[int, int, int]]) -> Keys:
            row, key, weight = np.array(found, np.int64).reshape(-1, 3).T.copy()
            made = Keys(row, key, weight.astype(np.float32))
            return made.ascending() if ascending else made

        return st.fixed_dictionaries({name: st.lists(row, max_size=8).map(keys) for name in sorted(names)})

    def numbers(rows: int, least: int, most: int) -> st.SearchStrategy[Ints]:
        return st.lists(st.integers(least, most), min_size=rows, max_size=rows).map(lambda of: np.array(of, np.int64))

    def flags(rows: int) -> st.SearchStrategy[Flags]:
        return numbers(rows, 0, 1).map(lambda of: of.astype(bool))

    @st.composite
    def question(draw: st.DrawFn) -> Question:
        many, others = draw(st.integers(1, sides)), draw(st.integers(1, sides))
        left, right = ({getattr(rule, name) for rule in RULES} for name in ("transfer_key", "invoice_key"))
        settled = draw(st.integers(0, 4))
        return Question(
            TransferSide(
                draw(side(left, ascending=False, rows=many)),
                booked=draw(numbers(many, 15, 30)),
                amount=draw(numbers(many, 1, 3)),
                currency=draw(numbers(many, 0, 1)),
                incoming=draw(flags(many)),
                moment=draw(numbers(many, 0, 3)),
                collects=draw(flags(many)),
                age=draw(numbers(many, 0, 40)) / 7,
                dated=draw(flags(many)),
                dates_from=draw(numbers(many, 0, 20)),
                dates_to=draw(numbers(many, 15, 40)),
            ),
            InvoiceSide(
                draw(side(right, ascending=True, rows=others)),
                issued=draw(numbers(others, 10, 40)),
                due=draw(numbers(others, 10, 60)),
                amount=draw(numbers(others, -3, 3)),
                currency=draw(numbers(others, 0, 1)),
                sale=draw(flags(others)),
                settlements=Settlements.of(
                    draw(numbers(settled, 0, others - 1)),
                    draw(numbers(settled, -1, 3)),
                    draw(numbers(settled, -2, 2)),
                ),
            ),
        )

    return question()
