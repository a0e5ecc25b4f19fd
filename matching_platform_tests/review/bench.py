"""A few transfers and invoices, and a desk that decides about them."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import polars as pl

from matching_platform.database import connect
from matching_platform.ledger.schema import TABLES
from matching_platform.review.books import PROPOSED, Books
from matching_platform.review.decider import Decider
from matching_platform.review.decisions import Action, Allocation, Decision, Wanted

DAY = date(2024, 3, 10)


def transfer(
    name: str, amount: int, direction: str = "in", currency: str = "EUR", payer: str = "ACME"
) -> dict[str, object]:
    return {
        "transfer_id": name,
        "booked_on": DAY,
        "amount": amount,
        "currency": currency,
        "direction": direction,
        "counterparty_name": payer,
        "counterparty_account": None,
        "title": f"invoice for {name}",
    }


def invoice(
    name: str, amount: int, direction: str = "sale", currency: str = "EUR", party: str = "acme"
) -> dict[str, object]:
    return {
        "invoice_id": name,
        "number": f"FV/{name}",
        "direction": direction,
        "counterparty_id": party,
        "counterparty_name": party.upper(),
        "counterparty_tax_id": None,
        "counterparty_account": None,
        "issued_on": date(2024, 2, 1),
        "due_on": date(2024, 3, 1),
        "amount": amount,
        "currency": currency,
        "reference": None,
    }


def proposal(
    name: str, *parts: tuple[str, int], confidence: float = 0.5, decision: str = "review", advance: bool = True
) -> list[dict[str, object]]:
    shared = {
        "transfer_id": name,
        "confidence": confidence,
        "decision": decision if parts else "none",
        "evidence": ["amount equals what is open on the invoice", f"title names {len(parts)} invoices"],
        "model": "m1",
        "advance": advance,
    }
    return [shared | {"invoice_id": one, "amount": amount} for one, amount in parts or [(None, None)]]


def books(
    transfers: Iterable[dict[str, object]],
    invoices: Iterable[dict[str, object]],
    proposals: Iterable[list[dict[str, object]]] = (),
    tags: Iterable[tuple[str, str | None, int | None, date]] = (),
) -> Books:
    return Books.of(
        pl.DataFrame([*transfers], schema=TABLES["transfers"].schema),
        pl.DataFrame([*invoices], schema=TABLES["invoices"].schema),
        pl.DataFrame([*tags], schema=TABLES["matches"].schema, orient="row"),
        pl.DataFrame([row for rows in proposals for row in rows], schema=PROPOSED),
    )


def decider(folder: Path, held: Books) -> Decider:
    made = Decider(connect(f"sqlite:///{folder / 'desk.sqlite'}"))
    made.replace(held)
    return made


def accept(name: str, *parts: tuple[str, int], expected: int = 0) -> Wanted:
    return Wanted(name, Action.ACCEPT, tuple(Allocation(*part) for part in parts), expected)


def change(name: str, *parts: tuple[str, int], expected: int = 0, note: str = "") -> Wanted:
    return Wanted(name, Action.CHANGE, tuple(Allocation(*part) for part in parts), expected, note)


def undo(desk: Decider, number: int, actor: str) -> Decision:
    (made,) = desk.undo_all([number], actor)
    return made
