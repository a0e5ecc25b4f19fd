"""Labelled pairs: what a month's transfers could have paid, as it was known then, and what people said they paid."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from matching_platform.ledger.reading import Ledger
from matching_platform.matching.arrays import Flags, Floats, Ints
from matching_platform.matching.balances import Settlements
from matching_platform.matching.candidates import Finder, Pairs, find
from matching_platform.matching.features import CONTEXT_FEATURES, PAIR_FEATURES, Lists, Reader, World
from matching_platform.matching.history import TRANSFERS_AT_ONCE, Month, credible, memory_before
from matching_platform.matching.memory import Memory
from matching_platform.matching.rules import RULES

# Every so many transfers is read again as if nothing were remembered, so that a model is of use at a new company.
_WITHOUT_MEMORY = 4
_LEAST_SHARE = 0.05
_MOST_DEDUCTED = 0.1  # commission, discount or tax of a third of those
# What a person's correction counts beside any other tag. Twice gained a little or did no harm wherever it was measured; from
# four times on some models grew worse, since what was proposed wrongly is often odd. See benchmarks/corrections.py.
CORRECTION: Final = 2.0


@dataclass(frozen=True)
class Examples:
    """Candidate lists with their ids and their truth: `month` int64[T], the place of the frame that a transfer comes from,
    `label` bool[P] of pairs, `paying` bool[T], `complete` bool[T], whether all
    invoices that the transfer settled are among its candidates, `elsewhere` bool[T], whether it is a copy made to
    resemble another company's, and `weight` float32[T], what it counts in training."""

    lists: Lists
    transfer_id: pl.Series
    invoice_id: pl.Series
    month: Ints
    label: Flags
    paying: Flags
    complete: Flags
    elsewhere: Flags
    weight: Floats


def label_month(
    ledger: Ledger, month: str, candidates: Finder = find, corrected: pl.Series | None = None
) -> pl.DataFrame:
    """The labelled pairs of the tagged transfers booked in `month`, from what was known when each was booked.

    One row per transfer and candidate invoice, and one with a null invoice per transfer. `pair` holds PAIR_FEATURES and
    `context`, in the null row, CONTEXT_FEATURES; `label` is whether the tag names the pair, in the null row whether the
    transfer settled nothing; `missed` counts tagged invoices that are no candidates; `weight` is CORRECTION where a person
    corrected what had been proposed for the transfer, those `corrected`, else 1. Later rows of `ledger` are not seen.
    A quarter of the transfers is read once more, `elsewhere`, as a new company's: with no memory, and some paid in part.
    """
    known = Month.of(ledger, month)
    tags = credible_tags(ledger).join(known.transfers.select("transfer_id"), on="transfer_id", how="semi")
    memory = memory_before(ledger, month)
    moments = known.moments()
    settled = pl.concat([known.earlier.select(tags.columns), tags])
    settlements = known.settlements(settled, moments)
    tagged = known.transfers["transfer_id"].is_in(tags["transfer_id"].unique().implode()).to_numpy()
    forgetful = known.transfers["transfer_id"].hash(seed=1).to_numpy() % _WITHOUT_MEMORY == 0
    rows, again = np.flatnonzero(tagged), np.flatnonzero(tagged & forgetful)
    elsewhere = replace(known, transfers=_paid_in_part(known, tags, again))
    pairs = pl.concat(
        [
            _frame(known, tags, memory, settlements, rows, candidates).with_columns(elsewhere=False),
            _frame(elsewhere, tags, Memory.empty(), settlements, again, candidates).with_columns(elsewhere=True),
        ]
    )
    return weighted(pairs, corrected if corrected is not None else pl.Series([], dtype=pl.String), CORRECTION)


def weighted(pairs: pl.DataFrame, transfers: pl.Series, weight: float) -> pl.DataFrame:
    """Labelled pairs in which these transfers count `weight`, and all others 1."""
    chosen = pl.when(pl.col("transfer_id").is_in(transfers.implode())).then(weight).otherwise(1.0)
    return pairs.with_columns(chosen.cast(pl.Float32).alias("weight"))


def _paid_in_part(known: Month, tags: pl.DataFrame, rows: Ints) -> pl.DataFrame:
    """The month's transfers, but every other one of `rows` that pays one invoice alone, and spells out its number, brings
    only some share of its money.

    Another company's payers have other habits of paying in part; what its titles spell out counts there as well.
    """
    lists = Reader(World.of(known.transfers, known.invoices, Memory.empty())).read(rows, rows, Settlements.none())
    spelled = lists.pairs.take(lists.pairs.spelled_out())
    ids = known.transfers["transfer_id"]
    named = pl.DataFrame(
        {
            "transfer_id": ids.gather(rows[spelled.transfer]),
            "invoice_id": known.invoices["invoice_id"].gather(spelled.invoice),
        }
    )
    single = tags.filter(pl.len().over("transfer_id") == 1).join(named, on=["transfer_id", "invoice_id"], how="semi")
    chosen = pl.col("transfer_id").is_in(single["transfer_id"].implode()) & (
        pl.col("transfer_id").hash(seed=2) % 2 == 0
    )
    drawn = (pl.col("transfer_id").hash(seed=3) % 1000) / 1000
    deducted = pl.col("transfer_id").hash(seed=4) % 3 == 0
    share = (
        pl.when(deducted)
        .then(1 - _MOST_DEDUCTED * (1 - drawn))
        .otherwise(_LEAST_SHARE + (1 - 2 * _LEAST_SHARE) * drawn)
    )
    part = (pl.col("amount") * share).round().cast(pl.Int64).clip(1)
    return known.transfers.with_columns(pl.when(chosen).then(part).otherwise(pl.col("amount")).alias("amount"))


def credible_tags(ledger: Ledger) -> pl.DataFrame:
    """The matches of transfers none of whose tags is contradicted by the tables: half a truth teaches what is wrong."""
    held = credible(ledger)
    slips = ledger.matches.join(held, on=["transfer_id", "invoice_id"], how="anti", nulls_equal=True)
    return held.join(slips.select("transfer_id"), on="transfer_id", how="anti")


def _frame(
    known: Month, tags: pl.DataFrame, memory: Memory, settlements: Settlements, rows: Ints, candidates: Finder
) -> pl.DataFrame:
    """The labelled pairs of the month's transfers `rows` int64[N], ascending, portion by portion as matching does."""
    frames, start = [], 0
    for portion in known.portions(TRANSFERS_AT_ONCE):
        stop = start + len(portion.transfers)
        world = World(portion.transfers, portion.lately, portion.invoices, memory, settlements, candidates)
        inside = rows[(rows >= start) & (rows < stop)]
        frames.append(_pairs(world, tags, inside - start, inside))
        start = stop
    return pl.concat(frames)


def _pairs(world: World, tags: pl.DataFrame, rows: Ints, moments: Ints) -> pl.DataFrame:
    lists = Reader(world).read(rows, moments, world.settlements)
    chosen = world.transfers[rows]
    ids = chosen["transfer_id"]
    pairs = pl.DataFrame(
        {
            "transfer_id": ids.gather(lists.pairs.transfer),
            "invoice_id": world.invoices["invoice_id"].gather(lists.pairs.invoice),
            "counterparty": lists.counterparty,
            "open": lists.open,
            "converted": lists.converted,
            "order": lists.order,
            "number_order": lists.number_order,
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


def shown_pairs(pairs: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    """What people read of labelled pairs: transfer_id, booked_on, invoice_id, open_amount (minor units), the names of the
    rules that found the pair, and the label."""
    named = [pl.when(pl.col("found").arr.get(place) != 0).then(pl.lit(rule.name)) for place, rule in enumerate(RULES)]
    return (
        pairs.filter(pl.col("invoice_id").is_not_null() & ~pl.col("elsewhere"))
        .join(ledger.transfers.select("transfer_id", "booked_on"), on="transfer_id", maintain_order="left")
        .select(
            "transfer_id",
            "booked_on",
            "invoice_id",
            "label",
            open_amount="open",
            rules=pl.concat_list(named).list.drop_nulls(),
        )
    )


def examples_of(frames: list[pl.DataFrame]) -> Examples:
    """The labelled pairs of several months, at least one, as arrays, transfers in the order of their rows."""
    frame = pl.concat(_placed(part, place) for place, part in enumerate(frames))
    heads = frame.filter(pl.col("invoice_id").is_null())
    key = ["transfer_id", "elsewhere"]
    row_of = heads.select(key).with_row_index("row")
    pairs = frame.filter(pl.col("invoice_id").is_not_null()).join(row_of, on=key).sort("row", maintain_order=True)
    at = pairs["row"].to_numpy().astype(np.int64)
    lists = Lists(
        pairs=Pairs(at, np.arange(len(pairs)), pairs["found"].to_numpy()),
        open=pairs["open"].to_numpy(),
        converted=pairs["converted"].to_numpy(),
        amount=heads["transfer_amount"].to_numpy(),
        counterparty=pairs["counterparty"].to_numpy(),
        order=pairs["order"].to_numpy(),
        number_order=pairs["number_order"].to_numpy(),
        pair=pairs["pair"].to_numpy(),
        context=heads["context"].to_numpy(),
    )
    return Examples(
        lists,
        heads["transfer_id"],
        pairs["invoice_id"],
        heads["frame"].to_numpy(),
        pairs["label"].to_numpy(),
        ~heads["label"].to_numpy(),
        (heads["missed"] == 0).to_numpy(),
        heads["elsewhere"].to_numpy(),
        heads["weight"].to_numpy(),
    )


def _placed(pairs: pl.DataFrame, place: int) -> pl.DataFrame:
    """The labelled pairs of a month with its place; those of before there were corrections weigh all the same."""
    known = pairs if "weight" in pairs.columns else pairs.with_columns(weight=pl.lit(1.0, pl.Float32))
    return known.with_columns(frame=pl.lit(place, pl.Int64))
