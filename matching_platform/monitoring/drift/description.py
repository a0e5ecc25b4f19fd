"""A month described before anybody tags it: how often each property of its rows has each value.

Counts add up over months, hold nobody's name or account, and are a few kilobytes for a month of any size. A property has
so few values that its counts are its distribution.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from matching_platform.ledger.months import first_day, next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.arrays import Flags
from matching_platform.matching.features import C, Lists, P, Reader, World
from matching_platform.matching.history import History, settled
from matching_platform.matching.memory import Memory
from matching_platform.matching.rules import RULE_INDEX

INVOICES: Final = "invoices"
TRANSFERS: Final = "transfers"
CANDIDATES: Final = "candidates"
CONFIDENCES: Final = "confidences"
TABLES: Final = (INVOICES, TRANSFERS, CANDIDATES, CONFIDENCES)

COUNTS: Final = pl.Schema({"table": pl.String, "property": pl.String, "value": pl.String, "count": pl.Int64})

# Properties that are true of what is new, or harder to match. What is new fades as a company becomes known.
COUNTERPARTY: Final = "counterparty never seen"
NUMBERING: Final = "number format never seen"
PAYER: Final = "payer never seen"
ACCOUNT: Final = "account never seen of a known payer"
FORMAT: Final = "number format never seen in a title"
WAY: Final = "number format new to a known payer"
NO_REFERENCE: Final = "no reference in the title"
FIGURES: Final[Mapping[str, str]] = {
    COUNTERPARTY: INVOICES,
    NUMBERING: INVOICES,
    PAYER: TRANSFERS,
    ACCOUNT: TRANSFERS,
    FORMAT: TRANSFERS,
    WAY: TRANSFERS,
    NO_REFERENCE: TRANSFERS,
}

_LOOK_BACK: Final = 12  # months; what was not there in them is new
# Earlier transfers of a payer whose habits are known: after fewer, his second account is still to be expected.
_KNOWN: Final = 10
# Transfers whose candidates are read, chosen by their ids: shares of so many are right to a point.
_READ: Final = 10_000
_NONE: Final = "none"
_NAMED: Final = ("number", "reference")
_NUMBER: Final = r"[^\s,;+]*\d[^\s,;+]*"  # a word with a digit in it
_REFERENCE: Final = r"\d{3}"  # fewer digits tell a day or an instalment, and no invoice


@dataclass(frozen=True)
class Describer:
    """Describes months of a ledger, each by what was known before it."""

    ledger: Ledger
    history: History

    @classmethod
    def of(cls, ledger: Ledger) -> "Describer":
        return cls(ledger, History.of(ledger))

    def describe(self, month: str) -> pl.DataFrame:
        """The counts (schema COUNTS) of the month's invoices, transfers and candidates."""
        return pl.concat([self._invoices(month), self._transfers(month), self._candidates(month)])

    def _invoices(self, month: str) -> pl.DataFrame:
        before, now = _parted(self.history.invoices, "issued_on", month)
        formats = before.select(_format(pl.col("number"))).to_series()
        properties: dict[str, pl.Expr] = {
            "direction": pl.col("direction"),
            "currency": pl.col("currency"),
            "power of ten": _power(),
            "days to pay": (pl.col("due_on") - pl.col("issued_on")).dt.total_days().clip(0, 90) // 5 * 5,
            "credit note": pl.col("amount") < 0,
            "account given": pl.col("counterparty_account").is_not_null(),
            "tax number given": pl.col("counterparty_tax_id").is_not_null(),
            "reference given": pl.col("reference").is_not_null(),
            NUMBERING: ~_format(pl.col("number")).is_in(formats.unique().implode()),
        }
        # Each counts once: a new customer with many invoices is one event.
        met = now.select("counterparty_id").unique()
        new = met.select((~pl.col("counterparty_id").is_in(before["counterparty_id"].implode())).alias(COUNTERPARTY))
        return pl.concat([counted(INVOICES, now.select(**properties)), counted(INVOICES, new)])

    def _transfers(self, month: str) -> pl.DataFrame:
        before, now = _parted(self.history.transfers, "booked_on", month)
        known = before.drop_nulls("account").group_by("name").len("paid").filter(pl.col("paid") >= _KNOWN)
        is_known = pl.col("name").is_in(known["name"].implode())
        new_account = ~pl.col("account").is_in(before["account"].drop_nulls().unique().implode())
        new_name = ~pl.col("name").is_in(before["name"].unique().implode())
        properties: dict[str, pl.Expr] = {
            "direction": pl.col("direction"),
            "currency": pl.col("currency"),
            "power of ten": _power(),
            "third of the month": ((pl.col("booked_on").dt.day() - 1) // 10 + 1).clip(1, 3),
            "title length": pl.col("title").str.len_chars().clip(0, 150) // 10 * 10,
            "numbers in the title": pl.col("written").str.count_matches(_NUMBER).clip(0, 8),
            "range in the title": pl.col("is_range").fill_null(False),
            "account given": pl.col("account").is_not_null(),
            ACCOUNT: pl.when(is_known).then(new_account),
            FORMAT: pl.col("new"),
            WAY: pl.when(is_known).then("new to the payer"),
            NO_REFERENCE: ~pl.col("written").str.contains(_REFERENCE),
        }
        titled = now.join(_new_formats(before, now), on="transfer_id", how="left", maintain_order="left")
        payers = now.group_by("name").agg((new_name & new_account.fill_null(True)).all().alias(PAYER))
        return pl.concat([counted(TRANSFERS, titled.select(**properties)), counted(TRANSFERS, payers.select(PAYER))])

    def _candidates(self, month: str) -> pl.DataFrame:
        """What speaks for the candidates of some of the transfers, as if none of the month had been settled yet."""
        known = self.history.month(month)
        chosen = known.transfers.filter(_drawn(known.transfers["transfer_id"]))
        memory = Memory.of(settled(self.ledger, known.earlier))
        earlier = known.settlements(known.earlier)
        world = World(chosen, known.lately, known.invoices, memory, earlier)
        every = np.arange(chosen.height)
        return counted(CANDIDATES, _summaries(Reader(world).read(every, every, earlier)))


def described_confidences(proposals: pl.DataFrame) -> pl.DataFrame:
    """The counts of proposals: confidence, decision and number of invoices of each transfer."""
    described = proposals.group_by("transfer_id").agg(
        pl.col("decision").first(),
        (pl.col("confidence").first() * 100 // 5 * 5).cast(pl.Int64).clip(0, 95).alias("confidence, percent"),
        pl.col("invoice_id").count().clip(0, 10).alias("invoices"),
    )
    return counted(CONFIDENCES, described.drop("transfer_id"))


def counted(table: str, described: pl.DataFrame) -> pl.DataFrame:
    """The counts of each column's values; nulls are values that the property does not have, and do not count."""
    parts = [
        described.select(value=pl.col(name).cast(pl.String))
        .drop_nulls()
        .group_by("value")
        .len("count")
        .sort("value")
        .select(pl.lit(table).alias("table"), pl.lit(name).alias("property"), "value", pl.col("count").cast(pl.Int64))
        for name in described.columns
    ]
    return pl.concat([pl.DataFrame(schema=COUNTS), *parts])


def _parted(rows: pl.DataFrame, column: str, month: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of the months before, as far as one looks back, and of the month."""
    since, start, end = (first_day(next_month(month, count)) for count in (-_LOOK_BACK, 0, 1))
    day = pl.col(column)
    return rows.filter((day >= since) & (day < start)), rows.filter((day >= start) & (day < end))


def _power() -> pl.Expr:
    """The amount as a power of ten in halves: 2.5 is 316.23."""
    return ((pl.col("amount").abs().clip(1).log10() - 2) * 2).round().clip(-4, 14) / 2


def _format(number: pl.Expr) -> pl.Expr:
    """How a number is written, with its letters and digits as one of each: FV/2024/03/0123 is A/9/9/9."""
    return number.str.replace_all(r"\p{L}+", "A").str.replace_all(r"\d+", "9")


def _new_formats(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """transfer_id, and of its title's numbers: whether any has a `new` format, or one `new to the payer`."""
    seen, met = (
        rows.select("transfer_id", "name", format=pl.col("written").str.extract_all(_NUMBER))
        .explode("format", empty_as_null=True, keep_nulls=True)
        .drop_nulls("format")
        .with_columns(_format(pl.col("format")))
        for rows in (before, now)
    )
    his = seen.select("name", "format", his=True).unique()
    new = ~pl.col("format").is_in(seen["format"].unique().implode())
    return (
        met.join(his, on=["name", "format"], how="left")
        .group_by("transfer_id")
        .agg(new.any().alias("new"), pl.col("his").is_null().any().alias("new to the payer"))
    )


def _drawn(ids: pl.Series) -> pl.Series:
    """Which of the transfers are read: always the same ones."""
    return ids.hash(seed=5).rank("ordinal") <= _READ


def _summaries(lists: Lists) -> pl.DataFrame:
    """A row a transfer: how many candidates it has, and whether this or that speaks for any of them."""
    pair, at, count = lists.pair, lists.pairs.transfer, len(lists.amount)
    named = (lists.pairs.found[:, [RULE_INDEX[rule] for rule in _NAMED]] > 0).any(axis=1)
    by_account = (pair[:, [P["account"], P["account_seen"]]] > 0).any(axis=1)
    by_name = (pair[:, [P["name"], P["name_seen"]]] > 0).any(axis=1)
    equal = pair[:, P["amount equal"]] > 0
    summed = (pair[:, [P["in a run that sums"], P["an agreed share"]]] > 0).any(axis=1)

    def some(flags: npt.NDArray[np.bool_] | np.bool_) -> Flags:
        return np.bincount(at[flags], minlength=count) > 0

    candidates = np.bincount(at, minlength=count)
    return pl.DataFrame(
        {
            "candidates": np.exp2(np.ceil(np.log2(candidates + 1))).astype(np.int64) - 1,
            "an invoice named": some(named),
            "payer known by": _first_of({"account": some(by_account), "name": some(by_name)}),
            "amount is that of": _first_of({"an invoice": some(equal), "several or a part": some(summed)}),
            "words of no invoice": np.rint(lists.context[:, C["words: nothing, mean"]]).astype(np.int64),
        }
    )


def _first_of(flags: Mapping[str, Flags]) -> pl.Series:
    """The first of the names whose flag is set."""
    frame = pl.DataFrame(dict(flags))
    return frame.select(pl.coalesce(*(pl.when(name).then(pl.lit(name)) for name in flags), pl.lit(_NONE))).to_series()
