"""What of each invoice is still open at a moment, in int64 minor units."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from matching_platform.matching.arrays import Ints

_EVER: Final = np.iinfo(np.int64).min
_FOREVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Settlements:
    """Parts of invoices settled: `invoice` int64[N] rows, `moment` int64[N], `amount` int64[N]; sorted by both."""

    invoice: Ints
    moment: Ints
    amount: Ints

    @classmethod
    def of(cls, invoice: Ints, moment: Ints, amount: Ints) -> "Settlements":
        order = np.lexsort((moment, invoice))
        return cls(invoice[order], moment[order], amount[order])

    @classmethod
    def none(cls) -> "Settlements":
        empty = np.zeros(0, np.int64)
        return cls(empty, empty, empty)

    def and_also(self, invoice: Ints, moment: Ints, amount: Ints) -> "Settlements":
        """These and more."""
        return Settlements.of(np.r_[self.invoice, invoice], np.r_[self.moment, moment], np.r_[self.amount, amount])

    def before(self, invoice: Ints, moment: Ints) -> Ints:
        """How much of each `invoice` had been settled strictly before `moment`."""
        if not len(self.invoice):
            return np.zeros(len(invoice), np.int64)
        low, span = int(self.moment.min()), int(np.ptp(self.moment)) + 2
        total = np.r_[0, np.cumsum(self.amount)]
        mine = self.invoice * span + (self.moment - low)
        until = np.searchsorted(mine, invoice * span + np.clip(moment - low, 0, span - 1), "left")
        since = np.searchsorted(self.invoice, invoice, "left")
        return total[until] - total[since]

    def spans(self, invoices: int, first: int, last: int) -> tuple[Ints, Ints, Ints, Ints]:
        """(invoice int64[S], after int64[S], until int64[S], settled int64[S]): how much of each of so many `invoices` had
        been settled at the moments above `after` and up to `until`; all spans that meet the moments `first` to `last`."""
        invoice = np.r_[np.arange(invoices), self.invoice]
        after = np.r_[np.full(invoices, _EVER), self.moment]
        order = np.lexsort((after, invoice))
        invoice, after = invoice[order], after[order]
        total = np.cumsum(np.r_[np.zeros(invoices, np.int64), self.amount][order])
        settled = total - total[np.searchsorted(invoice, invoice, "left")]
        until = np.where(np.diff(invoice, append=-1) == 0, np.append(after[1:], _FOREVER), _FOREVER)
        keep = (after < until) & (after < last) & (until >= first)
        return invoice[keep], after[keep], until[keep], settled[keep]


def open_amounts(amount: Ints, settled: Ints) -> Ints:
    """What remains of `amount`; never of the other sign, so that a balance overpaid by a wrong tag is closed."""
    remaining = amount - settled
    return np.where(np.sign(remaining) == np.sign(amount), remaining, 0)
