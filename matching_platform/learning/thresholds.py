"""What if we had booked from another confidence on: share, precision and money at risk, counted over past months.

Proposals carry the confidence of a whole set whether it was booked or shown to a person, so that every threshold can be
tried on them afterwards. A set counts as booked from a threshold on where its confidence reaches it, whatever was decided
then: equal confidences are booked together, and what settles nothing is never booked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Final

import numpy as np
import polars as pl
from scipy.stats import beta

from matching_platform.learning import promise
from matching_platform.learning.yardstick import curve, evaluate
from matching_platform.ledger.months import month_of
from matching_platform.matching.arrays import Doubles, Ints

CERTAINTY: Final = 0.95  # of intervals, and of what is said to keep a promise

_COUNTS: Final = {
    "booked": pl.col("booked").sum().cast(pl.Int64),
    "right": (pl.col("booked") & pl.col("exact")).sum().cast(pl.Int64),
    "paid": (pl.col("booked") & pl.col("paying")).sum().cast(pl.Int64),
    "paid_money": pl.col("true_amount").filter("booked").sum(),
}
_OF: Final = {"paying": pl.col("paying").sum().cast(pl.Int64), "paying_money": pl.col("true_amount").sum()}
_MONEY: Final = {name: pl.col(name).sum() for name in ("booked", "wrong", "expected")}


@dataclass(frozen=True)
class Past:
    """Proposals made in advance, beside what came true.

    `transfers` has a row per transfer that was proposed for and is tagged: the outcomes of the yardstick, with `month`.
    `money` has a row per invoice proposed for one of them: month, confidence, currency (the invoice's), and in minor
    units `booked` (the amount proposed), `wrong` (how far it lies from the true amount, which is nothing where the
    invoice is not paid) and `expected` (the amount times 1 − confidence, float). `months` has a row per month: month,
    proposed, tagged (counts of transfers). Month and currency are null where no table tells them.
    """

    transfers: pl.DataFrame
    money: pl.DataFrame
    months: pl.DataFrame

    @property
    def currencies(self) -> list[str | None]:
        """Those of the invoices proposed, the one of most invoices first."""
        counted = self.money.group_by("currency").len().sort(["len", "currency"], descending=[True, False])
        return counted["currency"].to_list()

    def at(self, thresholds: Sequence[float]) -> pl.DataFrame:
        """A row per threshold, ascending, over all months.

        Columns threshold, booked (transfers), share (of the paying transfers), money_share (of what these paid, amounts
        of different currencies added as they stand), errors, precision (share of the booked ones exactly right), and
        low and high, its 95 % interval (Clopper and Pearson, 1934). A share of nothing is null.
        """
        return _rated(self._counted(thresholds).drop("month").group_by("threshold").sum().sort("threshold"))

    def by_month(self, thresholds: Sequence[float]) -> pl.DataFrame:
        """The same with a row per month and threshold, and `month` before the other columns."""
        return _rated(self._counted(thresholds), "month")

    def at_risk(self, thresholds: Sequence[float], *by: str) -> pl.DataFrame:
        """A row per threshold and currency, and per month where `by` names it: threshold, currency and, in minor units,
        booked, wrong and expected, see `money`: what was booked, what of it wrongly, and what the confidences foretold."""
        found = _from(self.money, thresholds, [*by, "currency"], _MONEY)
        return found.with_columns(pl.col("expected").round().cast(pl.Int64))

    def keeps(self, promised: float) -> "Kept":
        """From where on the promise would have been kept."""
        booked = self.transfers.filter("booked")
        cut = promise.threshold(
            booked["confidence"].to_numpy(), booked["exact"].to_numpy(), promised, risk=1 - CERTAINTY
        )
        seen = curve(self.transfers).filter(pl.col("precision") >= promised)["threshold"].min()
        return Kept(promised, cut if cut <= 1 else None, seen)  # type: ignore[arg-type]

    def _counted(self, thresholds: Sequence[float]) -> pl.DataFrame:
        counted = _from(self.transfers, thresholds, ["month"], _COUNTS)
        return counted.join(self.transfers.group_by("month").agg(**_OF), on="month", how="left", nulls_equal=True)


@dataclass(frozen=True)
class Kept:
    """The lowest thresholds from which on a promised precision would have been kept; None where it would from nowhere.

    `threshold` keeps it with 95 % certainty, by the rule by which models choose their own (`learning/promise`), so that
    the interval of its precision lies above the promise; `seen` is where the figures alone, by luck or not, keep it.
    """

    promised: float
    threshold: float | None
    seen: float | None


def judge(
    proposals: pl.DataFrame,
    truth: pl.DataFrame,
    transfers: pl.DataFrame | None = None,
    invoices: pl.DataFrame | None = None,
) -> Past:
    """Judges `proposals` (schema PROPOSALS) by `truth` (columns of `audit`), both in minor units.

    What is not tagged is not judged, and neither are tags of what was not proposed for. `transfers`, validated, tell the
    months, and `invoices` the currencies. Raises ValueError where nothing that was proposed is tagged.
    """
    proposed = proposals.select("transfer_id").unique(maintain_order=True)
    tags = truth.join(proposed, on="transfer_id", how="semi", maintain_order="left")
    if tags.is_empty():
        raise ValueError("no transfer that was proposed for is tagged")
    dated = _told(proposed, transfers, "transfer_id", month=month_of("booked_on"))
    outcomes = evaluate(proposals, tags).outcomes.join(dated, on="transfer_id", maintain_order="left")
    tagged = pl.col("transfer_id").is_in(outcomes["transfer_id"].implode())
    months = dated.group_by("month").agg(proposed=pl.len().cast(pl.Int64), tagged=tagged.sum().cast(pl.Int64))
    return Past(outcomes, _money(proposals, tags, outcomes, invoices), months.sort("month"))


def interval(right: Ints, count: Ints) -> tuple[Doubles, Doubles]:
    """The 95 % interval float64[N] of shares right / count, int64[N] (Clopper and Pearson, 1934); 0 to 1 of nothing."""
    tail, wrong = (1 - CERTAINTY) / 2, count - right
    low = np.where(right > 0, beta.ppf(tail, np.maximum(right, 1), wrong + 1), 0.0)
    high = np.where(wrong > 0, beta.ppf(1 - tail, right + 1, np.maximum(wrong, 1)), 1.0)
    return low, high


def one_more_nine(promised: float) -> float:
    """A promise with a tenth of the errors: 0.9995 after 0.995."""
    return round(1 - (1 - promised) / 10, 12)


def least_bookings(promised: float) -> int:
    """How many bookings without a single error show that a promise is kept."""
    return ceil(log((1 - CERTAINTY) / 2) / log(promised))


def _money(
    proposals: pl.DataFrame, tags: pl.DataFrame, outcomes: pl.DataFrame, invoices: pl.DataFrame | None
) -> pl.DataFrame:
    keys = ["transfer_id", "invoice_id"]
    booked, true = (
        frame.drop_nulls("invoice_id").group_by(keys).agg(pl.col("amount").sum()) for frame in (proposals, tags)
    )
    pairs = (
        booked.join(outcomes.select("transfer_id", "month", "confidence"), on="transfer_id")
        .join(true, on=keys, how="left", suffix="_true")
        .join(_told(booked.select("invoice_id").unique(), invoices, "invoice_id", currency="currency"), on="invoice_id")
    )
    amount = pl.col("amount").abs()
    return pairs.select(
        "month",
        "confidence",
        "currency",
        booked=amount,
        wrong=(pl.col("amount") - pl.col("amount_true").fill_null(0)).abs(),
        expected=amount * (1 - pl.col("confidence")),
    )


def _told(ids: pl.DataFrame, table: pl.DataFrame | None, key: str, **told: pl.Expr | str) -> pl.DataFrame:
    """`ids` with what `table` tells of them; null where there is none."""
    if table is None:
        return ids.with_columns(pl.lit(None, pl.String).alias(name) for name in told)
    return ids.join(table.select(key, **told), on=key, how="left", maintain_order="left")


def _from(frame: pl.DataFrame, thresholds: Sequence[float], keys: list[str], sums: dict[str, pl.Expr]) -> pl.DataFrame:
    """keys, threshold and `sums` over the rows whose confidence reaches it, of every threshold, ascending."""
    levels = np.unique(np.asarray(thresholds, float))
    reached = np.searchsorted(levels, frame["confidence"].to_numpy(), "right")
    steps = frame.with_columns(step=pl.Series(reached, dtype=pl.Int64)).group_by(*keys, "step").agg(**sums)
    every = pl.DataFrame({"step": np.arange(len(levels)) + 1, "threshold": levels}, schema_overrides={"step": pl.Int64})
    return (
        frame.select(keys)
        .unique()
        .join(every, how="cross")
        .join(steps, on=[*keys, "step"], how="left", nulls_equal=True)
        .sort(*keys, "step", descending=[*[False] * len(keys), True])
        .with_columns(pl.col(*sums).fill_null(0).cum_sum().over(keys))
        .sort(*keys, "threshold")
        .drop("step")
    )


def _rated(counted: pl.DataFrame, *by: str) -> pl.DataFrame:
    low, high = interval(counted["right"].to_numpy(), counted["booked"].to_numpy())
    some = pl.col("booked") > 0
    return counted.select(
        *by,
        "threshold",
        "booked",
        share=pl.when(pl.col("paying") > 0).then(pl.col("paid") / pl.col("paying")),
        money_share=pl.when(pl.col("paying_money") > 0).then(pl.col("paid_money") / pl.col("paying_money")),
        errors=pl.col("booked") - pl.col("right"),
        precision=pl.when(some).then(pl.col("right") / pl.col("booked")),
        low=pl.when(some).then(pl.lit(pl.Series(low))),
        high=pl.when(some).then(pl.lit(pl.Series(high))),
    )
