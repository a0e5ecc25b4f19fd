"""Small ledgers for tests of splits and train sets."""

from datetime import date

import polars as pl

from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import TABLES


def ledger(pairs: list[tuple[str, str | None]], months: dict[str, str]) -> Ledger:
    """A ledger of the matches `pairs` (transfer_id, invoice_id); `months` says when each id was booked or issued."""

    def table(name: str, rows: list[dict[str, object]]) -> pl.DataFrame:
        defaults = {
            column: {pl.Int64: 100, pl.Date: date(2024, 1, 1)}.get(t, "x") for column, t in schema(name).items()
        }
        return pl.DataFrame([defaults | row for row in rows], schema=schema(name))

    def schema(name: str) -> dict[str, type]:
        return {column: type(dtype) for column, dtype in TABLES[name].schema.items()}

    def day(key: str) -> date:
        return date.fromisoformat(f"{months[key]}-15")

    invoices = [{"invoice_id": key, "issued_on": day(key)} for key in sorted(months) if key.startswith("i")]
    transfers = [{"transfer_id": key, "booked_on": day(key)} for key in sorted(months) if key.startswith("t")]
    matches = [
        {"transfer_id": transfer, "invoice_id": invoice, "amount": 100 if invoice else None}
        for transfer, invoice in pairs
    ]
    return Ledger(table("invoices", invoices), table("transfers", transfers), table("matches", matches))


def chains(count: int, month: str, prefix: str = "") -> Ledger:
    """`count` components of two transfers and two invoices each, all of one month."""
    pairs = [
        (f"t{prefix}{i}{a}", f"i{prefix}{i}{b}") for i in range(count) for a, b in (("a", "a"), ("a", "b"), ("b", "b"))
    ]
    months = {key: month for pair in pairs for key in pair}
    return ledger(pairs, months)


def joined(*ledgers: Ledger) -> Ledger:
    return Ledger(
        *(pl.concat([getattr(one, name) for one in ledgers]) for name in ("invoices", "transfers", "matches"))
    )
