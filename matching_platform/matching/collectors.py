"""Who pays many counterparties' invoices at once: card acquirers, payment providers, factors, insurers.

What such a collector pays next is told by habits: the mark of the references that he gives, how old the invoices are by
then, and the commission that he keeps.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from matching_platform.matching.arrays import Doubles, Floats, Ints
from matching_platform.matching.memory import NOTHING, Memory
from matching_platform.matching.payers import COUNTERPARTIES_PER_PAYER

_PAYOUTS_SEEN: Final = 1.0  # faded, before habits are heeded
_COMMON_MARK: Final = 0.05  # of a collector's invoices; a rarer mark is chance
_AGE_UNKNOWN: Final = 5.0  # days, spread of ages where few were seen
_CUT_UNKNOWN: Final = 100.0  # hundredths of a percent, the same of the commission


@dataclass(frozen=True)
class Collectors:
    """Habits of the payers of T transfers: `payouts` float32[T] seen (log1p, 0: collects nothing), `age` and `age_spread`
    float32[T] days, `commission` and `commission_spread` float32[T] shares; `row` int64[M], `mark` str[M] the marks of what
    they pay."""

    payouts: Floats
    age: Floats
    age_spread: Floats
    commission: Floats
    commission_spread: Floats
    row: Ints
    mark: pl.Series

    @classmethod
    def of(cls, transfers: pl.DataFrame, memory: Memory, now: str) -> "Collectors":
        """Of keyed `transfers`, as of the month `now`; an account is heeded before a name."""
        habits = memory.habits("payout", now).group_by("key", "value", maintain_order=True).agg(pl.col("count").sum())
        sums = habits.filter(~pl.col("value").str.starts_with("mark ")).pivot("value", index="key", values="count")
        missing = [name for name in ("payouts", "age", "age squared", "cut", "cut squared") if name not in sums.columns]
        sums = sums.with_columns(pl.lit(0.0).alias(name) for name in missing)
        sums = sums.filter(pl.col("payouts") >= _PAYOUTS_SEEN).join(_of_many(memory), on="key", how="semi")
        rows = transfers.with_row_index("row").select(pl.col("row").cast(pl.Int64), "account", "name")
        by_account = rows.with_columns(key="a " + pl.col("account")).join(sums, on="key")
        by_name = rows.with_columns(key="n " + pl.col("name")).join(sums, on="key")
        known = pl.concat([by_account, by_name.join(by_account, on="row", how="anti")]).sort("row")
        marks = habits.filter(pl.col("value").str.starts_with("mark "))
        marks = marks.filter(pl.col("count") >= _COMMON_MARK * pl.col("count").sum().over("key"))
        told = known.select("row", "key").join(marks, on="key").sort("row", "value")
        count = known["payouts"].to_numpy()
        age, age_spread = _moments(known, "age", _AGE_UNKNOWN)
        cut, cut_spread = _moments(known, "cut", _CUT_UNKNOWN)

        def spread_out(values: Floats | Doubles) -> Floats:
            out = np.zeros(len(transfers), np.float32)
            out[known["row"].to_numpy()] = values
            return out

        return cls(
            spread_out(np.log1p(count).astype(np.float32)),
            spread_out(age),
            spread_out(age_spread),
            spread_out(cut / 10_000),
            spread_out(cut_spread / 10_000),
            told["row"].to_numpy(),
            told["value"].str.strip_prefix("mark "),
        )


def _of_many(memory: Memory) -> pl.DataFrame:
    """key: the payers who pay for more counterparties than each payer is compared with."""
    seen = [
        memory.space(space).filter(pl.col("value") != NOTHING).select(key=space[0] + " " + pl.col("key"))
        for space in ("account", "name")
    ]
    return pl.concat(seen).group_by("key").len().filter(pl.col("len") > COUNTERPARTIES_PER_PAYER)


def _moments(known: pl.DataFrame, name: str, unknown: float) -> tuple[Floats, Floats]:
    """Mean and spread of a habit over each collector's payouts; `unknown` is the spread of one more."""
    count, total, squares = (known[column].fill_null(0).to_numpy() for column in ("payouts", name, f"{name} squared"))
    mean = total / np.maximum(count, 1e-9)
    spread = np.sqrt((np.maximum(squares - count * mean**2, 0) + unknown**2) / (count + 1))
    return mean.astype(np.float32), spread.astype(np.float32)
