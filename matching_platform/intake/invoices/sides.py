"""Whose invoice it is: the company knows itself by the sides that people said it was on."""

import re
from collections.abc import Sequence
from typing import Final

import polars as pl

from matching_platform.intake.followed import Followed
from matching_platform.intake.incoming import Incoming, incoming
from matching_platform.intake.invoices.documents import Document, Party
from matching_platform.intake.rows import UntoldError, identified, without_country
from matching_platform.intake.sheets import folding
from matching_platform.store.versions import Store

RECORD: Final = "imports/ourselves"


class Ourselves:
    """The parties that are this company, by tax id or, without one, by name; what was said last of a party counts."""

    def __init__(self, store: Store) -> None:
        self._said = Followed(store, RECORD)

    def known(self) -> frozenset[str]:
        last = {without_country(entry.payload["party"]): entry.payload["ours"] for entry in self._said.entries()}
        return frozenset(party for party, ours in last.items() if ours)

    def learn(self, documents: Sequence[Document], direction: str, actor: str) -> None:
        """Of documents that tell nothing, or one that is alone: the sellers of sales are this company, and the buyers of
        purchases; the other side of each is not."""
        known = self.known()
        new = [one for one in documents if len(documents) == 1 or direction_of(one, known) is None]
        said = {key(one.seller): direction == "sale" for one in new}
        said |= {key(one.buyer): direction == "purchase" for one in new}
        for party, ours in sorted(said.items()):
            if ours != (party in known):
                self._said.record.append({"party": party, "ours": ours}, actor=actor)


def key(party: Party) -> str:
    if party.tax_id:
        return without_country(re.sub(r"[^A-Z0-9]", "", party.tax_id.upper()))
    return f"name {folding([party.name])[0]}"


def direction_of(document: Document, ours: frozenset[str]) -> str | None:
    """None where neither side is known to be this company, or both are."""
    sold, bought = key(document.seller) in ours, key(document.buyer) in ours
    return None if sold == bought else "sale" if sold else "purchase"


def read_invoices(
    source: str, documents: Sequence[Document], skipped: pl.DataFrame, ours: frozenset[str], given: str | None
) -> Incoming:
    """A row for each document with something to pay, of the direction `given`, else of what is known of both sides.

    UntoldError where that tells nothing.
    """
    directions = [_direction(one, ours, given, alone=len(documents) == 1) for one in documents]
    untold = [one for one, direction in zip(documents, directions, strict=True) if direction is None]
    if untold:
        one, more = untold[0], f", and {len(untold) - 1} more are like it" if len(untold) > 1 else ""
        problem = f"{one.seller} sells to {one.buyer}, and nothing tells which of them this company is{more}"
        raise UntoldError(source, ("direction",), problem, "say whether it is a sale or a purchase, once")
    rows = [_row(one, str(direction)) for one, direction in zip(documents, directions, strict=True)]
    paid = pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String), orient="row")
    settled = paid["amount"].cast(pl.Float64) == 0
    left_out = paid.filter(settled).select(where="file", text="number", reason=pl.lit("nothing of it is left to pay"))
    frame = identified(paid.filter(~settled).with_columns(pl.col("issued_on", "due_on").str.to_date(strict=False)))
    formats = " and ".join(sorted({one.format for one in documents}))
    places = pl.Series([one.source for one in documents], dtype=pl.String).filter(~settled)
    parties = sorted(
        {f"{_ours(one, str(side))} is this company" for one, side in zip(documents, directions, strict=True)}
    )
    negative = [one.number for one in documents if one.negative_credit]
    notes = [f"credit note {number} has a negative amount, and is read as a credit" for number in negative]
    return incoming(source, formats, "invoices", frame, (*parties, *notes), pl.concat([skipped, left_out]), places)


def _direction(document: Document, ours: frozenset[str], given: str | None, *, alone: bool) -> str | None:
    """What a person says holds for all documents that tell nothing, and corrects the one that is alone."""
    told = direction_of(document, ours)
    return given or told if alone else told or given


def _ours(document: Document, direction: str) -> Party:
    return document.seller if direction == "sale" else document.buyer


def _row(document: Document, direction: str) -> dict[str, str | None]:
    other = document.buyer if direction == "sale" else document.seller
    return {
        "file": document.source,
        "invoice_id": None,
        "number": document.number,
        "direction": direction,
        "counterparty_id": None,
        "counterparty_name": other.name,
        "counterparty_tax_id": other.tax_id,
        "counterparty_account": document.account if direction == "purchase" else None,
        "issued_on": document.issued_on,
        "due_on": document.due_on or document.issued_on,
        "amount": document.amount,
        "currency": document.currency,
        "reference": document.reference,
    }
