"""Which parts of which invoices transfers settle, as arrays."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from matching_platform.matching.arrays import Flags, Ints


@dataclass(frozen=True)
class Parts:
    """What T transfers settle: `starts` int64[T + 1] into `invoice` int64[N], rows of invoices, and `amount` int64[N]."""

    starts: Ints
    invoice: Ints
    amount: Ints

    @classmethod
    def of(cls, transfers: int, rows: pl.DataFrame) -> "Parts":
        """`rows`: transfer, invoice (rows of both tables) and amount."""
        rows = rows.select("transfer", "invoice", "amount").cast(pl.Int64).sort("transfer", maintain_order=True)
        transfer, invoice, amount = (rows[name].to_numpy() for name in rows.columns)
        return cls(np.searchsorted(transfer, np.arange(transfers + 1)), invoice, amount)

    @cached_property
    def transfer(self) -> Ints:
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def size(self) -> Ints:
        return np.diff(self.starts)

    @cached_property
    def first(self) -> Ints:
        """int64[T]: the first invoice of each, -1 without any."""
        first = np.full(len(self.size), -1, np.int64)
        some = self.size > 0
        first[some] = self.invoice[self.starts[:-1][some]]
        return first

    def at(self, transfer: int) -> dict[int, int]:
        """Amounts by row of the invoice."""
        inside = slice(self.starts[transfer], self.starts[transfer + 1])
        return dict(zip(self.invoice[inside].tolist(), self.amount[inside].tolist(), strict=True))

    def signature(self) -> Ints:
        """int64[T]: equal for equal sets of invoices and amounts, and else, but for an improbable chance, different."""
        # The multipliers are odd, and known to mix well: those of SplitMix64, and one of xxHash64.
        mixed = (self.invoice + 1) * np.int64(-7046029254386353131) ^ (self.amount * np.int64(-4417276706812531889))
        mixed = (mixed ^ (mixed >> 29)) * np.int64(-4658895280553007687)
        total = np.r_[0, np.cumsum(mixed ^ (mixed >> 32))]
        return total[self.starts[1:]] - total[self.starts[:-1]]

    def chosen(self, transfers: Flags) -> "Parts":
        """Those of some transfers alone."""
        keep = transfers[self.transfer]
        return Parts(np.r_[0, np.cumsum(np.where(transfers, self.size, 0))], self.invoice[keep], self.amount[keep])

    def sums(self, invoices: int) -> Ints:
        """int64[N]: what of each of so many invoices is settled."""
        sums = np.zeros(invoices, np.int64)
        np.add.at(sums, self.invoice, self.amount)
        return sums


def either(first: Flags, one: Parts, other: Parts) -> Parts:
    """`one` where `first` bool[T] holds, and else the `other`."""
    one, other = one.chosen(first), other.chosen(~first)
    order = np.argsort(np.r_[one.transfer, other.transfer], kind="stable")
    return Parts(
        one.starts + other.starts, np.r_[one.invoice, other.invoice][order], np.r_[one.amount, other.amount][order]
    )
