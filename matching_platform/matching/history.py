"""What a ledger tells about a month: who paid what before it, and what its own transfers settled."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final

import numpy as np
import polars as pl

from matching_platform.ledger.months import first_day, next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.balances import Settlements
from matching_platform.matching.keys import keyed_invoices, keyed_transfers
from matching_platform.matching.memory import Memory
from matching_platform.matching.rules import DAYS_BEFORE_ISSUE
from matching_platform.matching.text import folded

# Some 20 candidates each, and half a kilobyte for a candidate.
TRANSFERS_AT_ONCE: Final = 100_000
REPEATED_WITHIN: Final = 10  # days between a payment and the same one made by mistake
_IN_MIND: Final = 200  # days after which nobody names a settled invoice, not even by mistake
BEFORE: Final = -1  # the moment of all that was settled before the batch


@dataclass(frozen=True)
class History:
    """A ledger by time: keyed `transfers` in order of booking and `invoices` in order of issue, and `earlier`, its credible
    matches with the `booked_on` of their transfers."""

    transfers: pl.DataFrame
    invoices: pl.DataFrame
    earlier: pl.DataFrame

    @classmethod
    def of(cls, ledger: Ledger) -> "History":
        booked = ledger.transfers.select("transfer_id", "booked_on")
        return cls(
            keyed_transfers(ledger.transfers).sort("booked_on", "transfer_id"),
            keyed_invoices(ledger.invoices).sort("issued_on", "invoice_id"),
            credible(ledger).join(booked, on="transfer_id", maintain_order="left"),
        )

    def and_also(self, matches: pl.DataFrame) -> "History":
        """This with more matches: transfer_id, invoice_id and amount."""
        booked = self.transfers.select("transfer_id", "booked_on")
        rows = matches.join(booked, on="transfer_id", maintain_order="left").select(
            pl.col(name) if name in (*matches.columns, "booked_on") else pl.lit(None, dtype).alias(name)
            for name, dtype in self.earlier.schema.items()
        )
        return History(self.transfers, self.invoices, pl.concat([self.earlier, rows]))

    def between(self, first: str | None, month: str) -> pl.DataFrame:
        """The matches of transfers booked in the months from `first`, or ever, up to but without `month`."""
        known = self.earlier.filter(pl.col("booked_on") < first_day(month))
        return known if first is None else known.filter(pl.col("booked_on") >= first_day(first))

    def is_tagged(self, month: str) -> bool:
        """Whether people tagged anything of `month`."""
        inside = pl.col("booked_on").is_between(first_day(month), first_day(next_month(month)), closed="left")
        return not self.earlier.filter(inside).is_empty()

    def month(self, month: str) -> "Month":
        end, start = first_day(next_month(month)), first_day(month)
        booked, earlier = self.transfers["booked_on"], self.between(None, month)
        return Month(
            self.transfers.filter((booked >= start) & (booked < end)),
            self.transfers.filter((booked >= start - timedelta(days=REPEATED_WITHIN)) & (booked < start)),
            self._in_mind(start, end, earlier),
            earlier,
        )

    def _in_mind(self, start: date, end: date, earlier: pl.DataFrame) -> pl.DataFrame:
        """The invoices issued by `end`, without those that were settled whole long before `start`."""
        paid = earlier.group_by("invoice_id").agg(paid=pl.col("amount").sum(), last=pl.col("booked_on").max())
        gone = paid.filter(pl.col("last") < start - timedelta(days=_IN_MIND)).join(
            self.invoices.select("invoice_id", "amount"), on="invoice_id"
        )
        closed = gone.filter(pl.col("paid").abs() >= pl.col("amount").abs())
        issued = self.invoices.filter(pl.col("issued_on") < end)
        return issued.join(closed, on="invoice_id", how="anti", maintain_order="left")


@dataclass(frozen=True)
class Month:
    """A month's keyed transfers in order of booking, those of the days before it, the invoices that one may have in mind by
    its end, and the matches of earlier transfers."""

    transfers: pl.DataFrame
    lately: pl.DataFrame
    invoices: pl.DataFrame
    earlier: pl.DataFrame

    @classmethod
    def of(cls, ledger: Ledger, month: str) -> "Month":
        return History.of(ledger).month(month)

    def portions(self, transfers: int) -> Iterator["Month"]:
        """The month in portions of so many transfers at most, in order of booking."""
        for start in range(0, max(1, len(self.transfers)), transfers):
            portion = self.transfers.slice(start, transfers)
            since = portion["booked_on"].min()
            before = pl.concat([self.lately, self.transfers.head(start)])
            if isinstance(since, date):
                before = before.filter(pl.col("booked_on") >= since - timedelta(days=REPEATED_WITHIN))
            yield replace(self, transfers=portion, lately=before)

    def settlements(self, matches: pl.DataFrame, moments: dict[str, int] | None = None) -> Settlements:
        """`matches` as parts of this month's invoices, at the moment of their transfer (BEFORE where it has none)."""
        rows = self.invoices.select("invoice_id").with_row_index("invoice")
        found = matches.drop_nulls("invoice_id").join(rows, on="invoice_id", maintain_order="left")
        moment = found["transfer_id"].replace_strict(moments or {}, default=BEFORE, return_dtype=pl.Int64)
        return Settlements.of(
            found["invoice"].to_numpy().astype(np.int64), moment.to_numpy(), found["amount"].to_numpy()
        )

    def moments(self) -> dict[str, int]:
        """The moment of each of the month's transfers: its place in the order of booking."""
        return {transfer: moment for moment, transfer in enumerate(self.transfers["transfer_id"])}


def credible(ledger: Ledger) -> pl.DataFrame:
    """The matches that the tables themselves do not contradict.

    A tag is somebody's slip where an incoming transfer settles a purchase or an outgoing one a sale, where the invoice was
    issued well after the transfer, or where more is settled than the invoice was ever worth, or of the other sign.
    """
    transfers = ledger.transfers.select("transfer_id", "booked_on", way=pl.col("direction") == "in")
    invoices = ledger.invoices.select("invoice_id", "issued_on", sale=pl.col("direction") == "sale", worth="amount")
    rows = ledger.matches.join(transfers, on="transfer_id", how="left", maintain_order="left").join(
        invoices, on="invoice_id", how="left", maintain_order="left"
    )
    known_then = pl.col("issued_on") <= pl.col("booked_on").dt.offset_by(f"{DAYS_BEFORE_ISSUE}d")
    fits = (pl.col("amount") * pl.col("worth").sign()).is_between(0, pl.col("worth").abs())
    holds = (pl.col("way") == pl.col("sale")) & known_then & fits
    return rows.filter(pl.col("invoice_id").is_null() | holds).select(ledger.matches.columns)


def settled(ledger: Ledger, matches: pl.DataFrame) -> pl.DataFrame:
    """`matches` in the form that `Memory.of` learns from."""
    transfers = ledger.transfers.select(
        "transfer_id",
        "booked_on",
        "title",
        transfer_amount="amount",
        transfer_currency="currency",
        payer="counterparty_name",
        payer_account="counterparty_account",
    )
    invoices = ledger.invoices.select(
        "invoice_id",
        "counterparty_id",
        "counterparty_name",
        "issued_on",
        "due_on",
        "number",
        "reference",
        invoice_amount="amount",
        invoice_currency="currency",
    )
    rows = matches.select("transfer_id", "invoice_id", "amount").join(transfers, on="transfer_id")
    return rows.join(invoices, on="invoice_id", how="left").with_columns(folded(pl.col("number", "reference")))


def memory_before(ledger: Ledger, month: str) -> Memory:
    """Memory of all matches of transfers booked before `month`."""
    return Memory.of(settled(ledger, Month.of(ledger, month).earlier))
