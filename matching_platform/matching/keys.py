"""The keys that are stored with a month's rows: everything after this joins keys and reads no text twice."""

import polars as pl

from matching_platform.matching.text import (
    account_key,
    dates_named,
    folded,
    name_key,
    names_range,
    remittance,
    tax_id_of,
)

_MARK = 2  # letters; what follows may be chance


def keyed_transfers(transfers: pl.DataFrame) -> pl.DataFrame:
    """`transfers` with account, name and tax_id (keys of the payer), payer (folded name), written (the folded
    remittance text), is_range (whether it names a range), and dates_from and dates_to (the days it speaks of, or null)."""
    title = folded(pl.col("title"))
    return transfers.with_columns(
        account=account_key(pl.col("counterparty_account")),
        payer=folded(pl.col("counterparty_name")),
        written=remittance(title),
        tax_id=account_key(tax_id_of(title)),
    ).with_columns(
        name=name_key(pl.col("payer")), is_range=names_range(pl.col("written")), **dates_named(pl.col("written"))
    )


def keyed_invoices(invoices: pl.DataFrame) -> pl.DataFrame:
    """`invoices` with the counterparty's keys and the mark of its reference or number; its tax id, the number and the
    reference are folded as titles are."""
    return invoices.with_columns(
        number=folded(pl.col("number")),
        reference=folded(pl.col("reference")),
        counterparty_folded=folded(pl.col("counterparty_name")),
        counterparty_account_key=account_key(pl.col("counterparty_account")),
        counterparty_tax_id=account_key(pl.col("counterparty_tax_id")),
    ).with_columns(counterparty_name_key=name_key(pl.col("counterparty_folded")), mark=mark())


def mark() -> pl.Expr:
    """How the folded `reference` of an invoice begins, or its `number` where it has none: whoever gives references gives
    them alike."""
    reference, number = pl.col("reference").str.strip_chars(), pl.col("number").str.strip_chars()
    return pl.when(reference != "").then(reference.str.slice(0, _MARK)).otherwise("#" + number.str.slice(0, _MARK))
