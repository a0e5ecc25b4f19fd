"""Labelled pairs: what a month's transfers could have paid, as it was known then, and what people said they paid."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from matching_platform.ledger.reading import Ledger
from matching_platform.matching.arrays import Flags, Ints
from matching_platform.matching.balances import Settlements
from matching_platform.matching.candidates import Pairs
from matching_platform.matching.features import CONTEXT_FEATURES, PAIR_FEATURES, Lists, Reader, World
from matching_platform.matching.history import Month, credible, memory_before
from matching_platform.matching.memory import Memory

# Every so many transfers is read as if nothing were remembered, so that a model is of use at a new company.
_WITHOUT_MEMORY = 4


@dataclass(frozen=True)
class Examples:
    """Candidate lists with their truth: `label` bool[P] of pairs, `paying` bool[T], and `complete` bool[T], whether all
    invoices that the transfer settled are among its candidates."""

    lists: Lists
    transfer_id: pl.Series
    label: Flags
    paying: Flags
    complete: Flags


def label_month(ledger: Ledger, month: str) -> pl.DataFrame:
    """The labelled pairs of the tagged transfers booked in `month`, from what was known when each was booked.

    One row per transfer and candidate invoice, and one with a null invoice per transfer. `pair` holds PAIR_FEATURES and
    `context`, in the null row, CONTEXT_FEATURES; `label` is whether the tag names the pair, in the null row whether the
    transfer settled nothing; `missed` counts tagged invoices that are no candidates. Later rows of `ledger` are not seen.
    """
    known = Month.of(ledger, month)
    tags = credible_tags(ledger).join(known.transfers.select("transfer_id"), on="transfer_id", how="semi")
    memory = memory_before(ledger, month)
    moments = known.moments()
    settled = pl.concat([known.earlier.select(tags.columns), tags])
    settlements = known.settlements(settled, moments)
    tagged = known.transfers["transfer_id"].is_in(tags["transfer_id"].unique().implode()).to_numpy()
    forgetful = known.transfers["transfer_id"].hash(seed=1).to_numpy() % _WITHOUT_MEMORY == 0
    parts = [
        _frame(
            known,
            tags,
            Reader(World.of(known.transfers, known.invoices, seen)),
            settlements,
            np.flatnonzero(tagged & rows),
        )
        for seen, rows in ((memory, ~forgetful), (Memory.empty(), forgetful))
    ]
    return pl.concat(parts)


def credible_tags(ledger: Ledger) -> pl.DataFrame:
    """The matches of transfers none of whose tags is contradicted by the tables: half a truth teaches what is wrong."""
    held = credible(ledger)
    slips = ledger.matches.join(held, on=["transfer_id", "invoice_id"], how="anti", nulls_equal=True)
    return held.join(slips.select("transfer_id"), on="transfer_id", how="anti")


def _frame(known: Month, tags: pl.DataFrame, reader: Reader, settlements: Settlements, rows: Ints) -> pl.DataFrame:
    lists = reader.read(rows, rows, settlements)
    chosen = known.transfers[rows]
    ids = chosen["transfer_id"]
    pairs = pl.DataFrame(
        {
            "transfer_id": ids.gather(lists.pairs.transfer),
            "invoice_id": known.invoices["invoice_id"].gather(lists.pairs.invoice),
            "counterparty": lists.counterparty,
            "open": lists.open,
            "converted": lists.converted,
            "order": lists.order,
            "pair": pl.Series(lists.pair, dtype=pl.Array(pl.Float32, len(PAIR_FEATURES))),
            "found": pl.Series(lists.pairs.found, dtype=pl.Array(pl.Float32, lists.pairs.found.shape[1])),
        }
    )
    truth = tags.drop_nulls("invoice_id").select("transfer_id", "invoice_id").unique().with_columns(label=True)
    labelled = pairs.join(truth, on=["transfer_id", "invoice_id"], how="left", maintain_order="left").with_columns(
        pl.col("label").fill_null(False)
    )
    wanted = truth.group_by("transfer_id").len("wanted")
    caught = labelled.group_by("transfer_id").agg(caught=pl.col("label").sum())
    transfers = chosen.select("transfer_id", transfer_amount="amount").with_columns(
        context=pl.Series(lists.context, dtype=pl.Array(pl.Float32, len(CONTEXT_FEATURES)))
    )
    heads = (
        transfers.join(wanted, on="transfer_id", how="left", maintain_order="left")
        .join(caught, on="transfer_id", how="left", maintain_order="left")
        .with_columns(pl.col("wanted", "caught").fill_null(0).cast(pl.Int64))
        .select(
            "transfer_id",
            "transfer_amount",
            "context",
            label=pl.col("wanted") == 0,
            missed=pl.col("wanted") - pl.col("caught"),
        )
    )
    return pl.concat([heads, labelled], how="diagonal")


def examples_of(frames: list[pl.DataFrame]) -> Examples:
    """The labelled pairs of several months, at least one, as arrays, transfers in the order of their rows."""
    frame = pl.concat(frames)
    heads = frame.filter(pl.col("invoice_id").is_null())
    row_of = heads.select("transfer_id").with_row_index("row")
    pairs = (
        frame.filter(pl.col("invoice_id").is_not_null()).join(row_of, on="transfer_id").sort("row", maintain_order=True)
    )
    at = pairs["row"].to_numpy().astype(np.int64)
    lists = Lists(
        pairs=Pairs(at, np.arange(len(pairs)), pairs["found"].to_numpy()),
        open=pairs["open"].to_numpy(),
        converted=pairs["converted"].to_numpy(),
        amount=heads["transfer_amount"].to_numpy(),
        counterparty=pairs["counterparty"].to_numpy(),
        order=pairs["order"].to_numpy(),
        pair=pairs["pair"].to_numpy(),
        context=heads["context"].to_numpy(),
    )
    return Examples(
        lists,
        heads["transfer_id"],
        pairs["label"].to_numpy(),
        ~heads["label"].to_numpy(),
        (heads["missed"] == 0).to_numpy(),
    )
