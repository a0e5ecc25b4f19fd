"""What earlier matches taught: whose account and name it is, what each word of a title promises, how a payer pays.

Memory is counts, so it grows by adding months, merges without looking at rows again, and travels as one Parquet file.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from matching_platform.ledger.months import month_of
from matching_platform.matching.arrays import Flags
from matching_platform.matching.keys import mark
from matching_platform.matching.text import account_key, folded, name_key, words

# A value that no counterparty id can be: the transfer settled nothing.
NOTHING: Final = ""
_SOMETHING: Final = "+"
_HALF_LIFE: Final = 4  # months after which a habit counts half
MOST_SHORT: Final = 12  # percent of an invoice that a discount, a commission or a withheld tax may take
_CLOSED_TIMES: Final = 3  # more often than left open; one tag may be a slip
_SHARE_STEP: Final = 100  # shares of an invoice are remembered to the hundredth
_RATES_KEPT: Final = 40  # per currency pair; enough for a median that follows the market

_COUNTS: Final = pl.Schema({"space": pl.String, "key": pl.String, "value": pl.String, "count": pl.Float64})
_RATES: Final = pl.Schema({"pair": pl.String, "booked_on": pl.Date, "rate": pl.Float64})


@dataclass(frozen=True)
class Memory:
    """`counts`: how often `key` of `space` went with `value`; `rates`: recent exchange rates, transfer over invoice.

    Spaces: `account` and `name` (of the payer) → counterparty id or NOTHING; `word` (of the title) → NOTHING or `+`;
    of the counterparty and each month, since habits change: `share` → hundredths of an open invoice paid, `habit` → sums
    of payments, of days after the due date, of their squares and of invoices paid at once; `identity` → its name.
    `short` of so many percent → how often a lone payment that much short of an invoice settled it `whole`, less a discount
    or a tax withheld, or in `part`. `payout` of a payer (`a ` and his account, `n ` and his name) who pays for several
    counterparties at once, each month →
    sums of such transfers, of their invoices' age in days, of the cut he keeps in hundredths of a percent, of the squares
    of both, and how many invoices bore a mark.
    """

    counts: pl.DataFrame
    rates: pl.DataFrame

    @classmethod
    def empty(cls) -> "Memory":
        return cls(pl.DataFrame(schema=_COUNTS), pl.DataFrame(schema=_RATES))

    @classmethod
    def checked(cls, counts: pl.DataFrame, rates: pl.DataFrame) -> "Memory":
        """Memory as it was written; PolarsError where a column is missing or of another type."""
        return cls(counts.select(list(_COUNTS)).cast(_COUNTS), rates.select(list(_RATES)).cast(_RATES))

    @classmethod
    def of(cls, settled: pl.DataFrame) -> "Memory":
        """Memory of settled transfers.

        `settled` has one row per transfer and invoice (null: it settled nothing) with `transfer_id`, `booked_on`,
        `transfer_amount`, `transfer_currency`, `payer`, `payer_account`, `title`, `counterparty_id`, `counterparty_name`,
        folded `number` and `reference`, `invoice_amount`, `invoice_currency`, `issued_on`, `due_on` and `amount`, the part
        settled; amounts in minor units.
        """
        if settled.is_empty():
            return cls.empty()
        keyed = settled.with_columns(
            account=account_key(pl.col("payer_account")),
            name=name_key(folded(pl.col("payer"))),
            whom=pl.col("counterparty_id").fill_null(NOTHING),
        )
        payers = keyed.unique(["transfer_id", "whom"])
        titles = keyed.unique("transfer_id").with_columns(
            word=words(folded(pl.col("title"))),
            whom=pl.when(pl.col("whom") == NOTHING).then(pl.lit(NOTHING)).otherwise(pl.lit(_SOMETHING)),
        )
        paid = keyed.filter(pl.col("counterparty_id").is_not_null())
        identities = paid.group_by("counterparty_id").agg(pl.col("counterparty_name").max())
        counts = pl.concat(
            [
                _count(payers, "account", "account", "whom"),
                _count(payers, "name", "name", "whom"),
                _count(titles.explode("word", empty_as_null=True, keep_nulls=True), "word", "word", "whom"),
                _count(identities, "identity", "counterparty_id", "counterparty_name"),
                *_habits(paid),
                *_payouts(paid),
                _shortfalls(paid),
            ]
        )
        return cls(_added(counts), _recent(_rates(paid)))

    def and_also(self, other: "Memory") -> "Memory":
        """Both memories added; what they learned from must not overlap."""
        return Memory(_added(pl.concat([self.counts, other.counts])), _recent(pl.concat([self.rates, other.rates])))

    def space(self, name: str) -> pl.DataFrame:
        """The counts of one space: key, value, count."""
        return self.counts.filter(pl.col("space") == name).drop("space")

    def habits(self, space: str, now: str) -> pl.DataFrame:
        """key, value, count of a space of habits; a count of the month `now`, or a later one, is whole, an older one has
        faded."""
        index = pl.col("month").str.slice(0, 4).cast(pl.Int32) * 12 + pl.col("month").str.slice(5, 2).cast(pl.Int32)
        months = (int(now[:4]) * 12 + int(now[5:]) - index).clip(0)
        return (
            self.space(space)
            .with_columns(month=pl.col("value").str.slice(0, 7), value=pl.col("value").str.slice(8))
            .select("key", "value", count=pl.col("count") * 2.0 ** (-months / _HALF_LIFE))
        )

    def closes(self) -> Flags:
        """bool[MOST_SHORT + 1]: whether this company's people close an invoice that is paid so many percent short, rather
        than leave the rest open."""
        seen = self.space("short").with_columns(pl.col("key").cast(pl.Int64))
        balance = pl.when(pl.col("value") == "whole").then(pl.col("count")).otherwise(-pl.col("count"))
        sums = seen.group_by("key").agg(balance=balance.sum()).sort("key")
        out = np.zeros(MOST_SHORT + 1)
        out[sums["key"].to_numpy()] = sums["balance"].to_numpy()
        return out >= _CLOSED_TIMES

    def is_of(self, invoices: pl.DataFrame) -> bool:
        """Whether this memory was learned at the company whose `invoices` these are: it knows its counterparties by id
        and name. Companies that merely number theirs alike do not agree in the names."""
        known = self.space("identity").select(counterparty_id="key", counterparty_name="value")
        theirs = invoices.select("counterparty_id", "counterparty_name").unique()
        return 2 * len(known.join(theirs, on=["counterparty_id", "counterparty_name"])) > len(known)

    def rate_of(self) -> pl.DataFrame:
        """pair, rate: the median of the recent rates of each `INVOICE/TRANSFER` currency pair."""
        return self.rates.group_by("pair").agg(pl.col("rate").median())


def _count(frame: pl.DataFrame, space: str, key: str, value: str) -> pl.DataFrame:
    found = frame.drop_nulls(key).group_by(key, value).len("count")
    return _shaped(space, found, key, pl.col(value), pl.col("count"))


def _habits(paid: pl.DataFrame) -> list[pl.DataFrame]:
    month = month_of("booked_on")
    days = (pl.col("booked_on").first() - pl.col("due_on").max()).dt.total_days().clip(-90, 180)
    by_payment = (
        paid.group_by("counterparty_id", "transfer_id")
        .agg(month=month.first(), days=days, invoices=pl.len())
        .with_columns(payments=pl.lit(1), **{"days squared": pl.col("days") ** 2})
    )
    habits = ("payments", "days", "days squared", "invoices")
    sums = by_payment.group_by("counterparty_id", "month").agg(pl.col(name).sum() for name in habits)
    share = (pl.col("amount") / pl.col("invoice_amount") * _SHARE_STEP).round().cast(pl.Int64)
    alone = paid.filter((pl.len().over("transfer_id") == 1) & (pl.col("invoice_amount") != 0))
    shares = alone.group_by("counterparty_id", month.alias("month"), share.alias("share")).len("count")

    def when(value: pl.Expr) -> pl.Expr:
        return pl.format("{} {}", pl.col("month"), value)

    return [
        _shaped("share", shares, "counterparty_id", when(pl.col("share")), pl.col("count")),
        *(_shaped("habit", sums, "counterparty_id", when(pl.lit(name)), pl.col(name)) for name in habits),
    ]


def _shortfalls(paid: pl.DataFrame) -> pl.DataFrame:
    same_currency = pl.col("invoice_currency") == pl.col("transfer_currency")
    percent = (100 * (1 - pl.col("transfer_amount") / pl.col("invoice_amount"))).round().cast(pl.Int64)
    alone = (pl.len().over("transfer_id") == 1) & same_currency & (pl.col("transfer_amount") < pl.col("invoice_amount"))
    whole = pl.when(pl.col("amount") == pl.col("invoice_amount")).then(pl.lit("whole")).otherwise(pl.lit("part"))
    short = paid.filter(alone).with_columns(percent=percent, how=whole).filter(pl.col("percent") <= MOST_SHORT)
    counts = short.group_by("percent", "how").len("count")
    return _shaped("short", counts, "percent", pl.col("how"), pl.col("count"))


def _payouts(paid: pl.DataFrame) -> list[pl.DataFrame]:
    together = paid.filter(pl.col("counterparty_id").n_unique().over("transfer_id") > 1).with_columns(
        month=month_of("booked_on"), mark=mark()
    )
    age = (pl.col("booked_on") - pl.col("issued_on")).dt.total_days().mean().round()
    gross, net = pl.col("amount").sum(), pl.col("transfer_amount").first()
    same_currency = (pl.col("invoice_currency") == pl.col("transfer_currency")).all() & (gross > 0)
    cut = pl.when(same_currency).then((10_000 * (gross - net) / gross).round()).otherwise(0).clip(-1000, 3000)
    payouts = together.group_by("transfer_id", "month", "account", "name").agg(age=age, cut=cut)
    payouts = payouts.with_columns(
        **{"payouts": pl.lit(1.0), "age squared": pl.col("age") ** 2, "cut squared": pl.col("cut") ** 2}
    )
    habits = ("payouts", "age", "age squared", "cut", "cut squared")
    parts = []
    for space in ("account", "name"):
        key = pl.concat_str(pl.lit(space[0] + " "), pl.col(space))
        sums = payouts.drop_nulls(space).group_by(key.alias("key"), "month").agg(pl.col(name).sum() for name in habits)
        marks = together.drop_nulls(space).group_by(key.alias("key"), "month", "mark").len("count")
        parts += [
            _shaped("payout", sums, "key", pl.format("{} {}", "month", pl.lit(name)), pl.col(name)) for name in habits
        ]
        parts.append(_shaped("payout", marks, "key", pl.format("{} mark {}", "month", "mark"), pl.col("count")))
    return parts


def _shaped(space: str, frame: pl.DataFrame, key: str, value: pl.Expr, count: pl.Expr) -> pl.DataFrame:
    return frame.select(space=pl.lit(space), key=pl.col(key).cast(pl.String), value=value, count=count.cast(pl.Float64))


def _rates(paid: pl.DataFrame) -> pl.DataFrame:
    foreign = paid.filter(
        (pl.col("invoice_currency") != pl.col("transfer_currency"))
        & (pl.len().over("transfer_id") == 1)
        & (pl.col("amount") > 0)
    )
    return foreign.select(
        pair=pl.col("invoice_currency") + "/" + pl.col("transfer_currency"),
        booked_on="booked_on",
        rate=pl.col("transfer_amount") / pl.col("amount"),
    )


def _added(counts: pl.DataFrame) -> pl.DataFrame:
    return counts.group_by("space", "key", "value").agg(pl.col("count").sum()).sort("space", "key", "value")


def _recent(rates: pl.DataFrame) -> pl.DataFrame:
    return rates.sort("pair", "booked_on", "rate").group_by("pair", maintain_order=True).tail(_RATES_KEPT)
