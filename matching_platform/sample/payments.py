"""From invoices to what arrives at the bank: who pays what together, when, in how many parts and how exactly."""

from typing import Final

import numpy as np
import polars as pl

from matching_platform.sample.draws import chance, weighted
from matching_platform.sample.words import COUNTRIES

UNPAID_SHARE: Final = 0.025
CREDIT_SHARE: Final = 0.045
BATCH_LIMIT: Final = 12
PAYOUT_LIMIT: Final = 40
COMMISSION: Final = 0.014
FEES: Final = (5_00, 10_00, 15_00, 30_00)
# A fee is taken only from payments of so many times the fee or more.
FEE_BEARING: Final = 20

# The cumulative part of an invoice that is paid with each instalment, and the days after the first.
INSTALMENTS: Final = pl.DataFrame(
    [
        ("whole", 0, 0.0, 1.0, 0),
        ("halves", 1, 0.0, 0.5, 0),
        ("halves", 2, 0.5, 1.0, 21),
        ("thirds", 1, 0.0, 1 / 3, 0),
        ("thirds", 2, 1 / 3, 2 / 3, 30),
        ("thirds", 3, 2 / 3, 1.0, 60),
        ("30/70", 1, 0.0, 0.3, 0),
        ("30/70", 2, 0.3, 1.0, 30),
        ("half only", 1, 0.0, 0.5, 0),
    ],
    schema={"parts": pl.String, "part": pl.Int64, "from": pl.Float64, "to": pl.Float64, "after": pl.Int64},
    orient="row",
)
CARD: Final = -1  # The acquirer's number in place of a partner's.


def plan(rng: np.random.Generator, invoices: pl.DataFrame) -> pl.DataFrame:
    """`invoices` that will be paid, with `paid_on`, and `pool`: those of one payment.

    Wants the partner's habits beside each invoice.
    """
    count = len(invoices)
    drawn = invoices.with_columns(
        scatter=pl.Series(rng.normal(0, 3, count)).round().cast(pl.Int64),
        soon=rng.integers(3, 10, count),
        alone=chance(rng, count, 0.1) | (pl.col("run") == "each"),
        run=pl.when("by_card").then(pl.lit("weekly")).otherwise("run"),
        run_day=pl.when("by_card").then(1).otherwise("run_day"),
        payer_id=pl.when("by_card").then(CARD).otherwise("partner"),
    ).filter(chance(rng, count, 1 - UNPAID_SHARE))
    days = pl.col("days") + pl.col("lateness").round().cast(pl.Int64) + pl.col("scatter")
    early = (pl.col("terms") != "gross") | pl.col("by_card")
    days = pl.when(early).then("soon").otherwise(pl.max_horizontal(days, 1))
    alone = pl.col("alone") & ~pl.col("by_card")
    wished = _working_day(pl.col("issued_on") + pl.duration(days=days))
    pooled = ("payer_id", "currency", "shifted", "paid_on", "single")
    return (
        drawn.with_columns(wished=wished, single=pl.when(alone).then("row").otherwise(-1))
        .with_columns(paid_on=pl.when(alone).then("wished").otherwise(_run_date()))
        .sort(*pooled, "row")
        .with_columns(pool=pl.struct(pooled).rle_id().cast(pl.Int64))
        .with_columns(
            slice=pl.int_range(pl.len()).over("pool") // pl.when("by_card").then(PAYOUT_LIMIT).otherwise(BATCH_LIMIT)
        )
        .with_columns(pool=pl.struct("pool", "slice").rle_id().cast(pl.Int64))
    )


def credit_notes(rng: np.random.Generator, planned: pl.DataFrame) -> pl.DataFrame:
    """Credit notes to some planned invoices, issued before these are paid; a few are never netted (null pool)."""
    chosen = planned.filter(chance(rng, len(planned), CREDIT_SHARE) & ~pl.col("by_card"))
    count = len(chosen)
    credited = pl.col("amount") * pl.lit(rng.uniform(0.05, 0.4, count))
    wait = (pl.col("paid_on") - pl.col("issued_on")).dt.total_days() * pl.lit(rng.random(count))
    return chosen.with_columns(
        amount=-credited.round().cast(pl.Int64),
        issued_on=pl.col("issued_on") + pl.duration(days=wait.cast(pl.Int64)),
        pool=pl.when(chance(rng, count, 0.88)).then("pool"),
    )


def settle(rng: np.random.Generator, lines: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The payments, and the lines (a row a payment and invoice) that say how much of which invoice each settles.

    `lines`: a row a planned invoice or netted credit note, in the order of its number. Both frames carry `key`, count
    from zero in the order of the payments, and are sorted by it. Instalments add up to the invoice, or stay below it.
    """
    whole = (pl.len().over("pool") > 1) | pl.col("by_card")
    parted = lines.with_columns(parts=pl.when(whole).then(pl.lit("whole")).otherwise("parts")).join(
        INSTALMENTS, on="parts", how="left", maintain_order="left_right"
    )
    until = (pl.col("amount") * pl.col("to")).round().cast(pl.Int64)
    since = (pl.col("amount") * pl.col("from")).round().cast(pl.Int64)
    settled = (
        parted.with_columns(
            settled=until - since,
            booked_on=_working_day(pl.col("paid_on") + pl.duration(days="after")),
        )
        .sort("pool", "part", "partner", "nth")
        .with_columns(key=pl.struct("pool", "part").rle_id().cast(pl.Int64))
    )
    first, last = pl.col("nth").min(), pl.col("nth").max()
    payments = settled.group_by("key", maintain_order=True).agg(
        pl.col("settled").sum(),
        pl.len().alias("invoices"),
        ((pl.len() >= 3) & (last - first + 1 == pl.len()) & ~pl.col("by_card").any()).alias("unbroken"),
        pl.col("issued_on").min().alias("first_issued_on"),
        pl.all().exclude("key", "settled", "issued_on").first(),
    )
    return _brought(rng, payments), settled


def _brought(rng: np.random.Generator, payments: pl.DataFrame) -> pl.DataFrame:
    """`payments` with `amount` and `currency` as they arrive: less a discount or fee, rounded, or exchanged."""
    count = len(payments)
    rates = {country.currency: country.rate for country in COUNTRIES.values()}
    home_currency = pl.col("home").replace_strict({code: country.currency for code, country in COUNTRIES.items()})
    exact = pl.col("settled")
    fee = pl.lit(rng.choice(FEES, count))
    how = weighted(rng, count, {"exact": 0.965, "fee": 0.02, "rounded": 0.012, "over": 0.003})
    exchanged = (pl.col("purse") == "home") & (pl.col("currency") != home_currency) & ~pl.col("by_card")
    abroad = pl.col("country") != pl.col("home")
    worth, home_worth = (
        currency.replace_strict(rates, return_dtype=pl.Float64) for currency in (pl.col("currency"), home_currency)
    )
    rate = worth / home_worth * pl.lit(rng.normal(1, 0.006, count))
    amount = (
        pl.when("by_card")
        .then(exact * (1 - COMMISSION))
        .when(exchanged)
        .then(exact * rate)
        .when(pl.col("terms") != "gross")
        .then(exact * pl.col("terms").replace("gross", "1").cast(pl.Float64))
        .when((pl.lit(how) == "fee") & abroad & (exact >= FEE_BEARING * fee))
        .then(exact - fee)
        .when((pl.lit(how) == "rounded") & (exact >= 10_00))
        .then((exact / 100).round() * 100)
        .when(pl.lit(how) == "over")
        .then(exact * pl.lit(rng.uniform(1.01, 1.06, count)))
        .otherwise(exact)
    )
    return payments.with_columns(
        amount=amount.round().cast(pl.Int64),
        currency=pl.when(exchanged).then(home_currency).otherwise("currency"),
    )


def _run_date() -> pl.Expr:
    """The next payment run of the payer on or after `wished`: once a week, or once a month."""
    wished, day = pl.col("wished"), pl.col("run_day").cast(pl.Int64)
    weekly = wished + pl.duration(days=(day - wished.dt.weekday()) % 7)
    this_month = wished.dt.truncate("1mo") + pl.duration(days=5 * day - 1)
    next_month = wished.dt.truncate("1mo").dt.offset_by("1mo") + pl.duration(days=5 * day - 1)
    monthly = _working_day(pl.when(this_month >= wished).then(this_month).otherwise(next_month))
    return (
        pl.when(pl.col("run") == "monthly").then(monthly).when(pl.col("run") == "weekly").then(weekly).otherwise(wished)
    )


def _working_day(day: pl.Expr) -> pl.Expr:
    """`day`, or the Monday after where it falls on a weekend."""
    return day + pl.duration(days=pl.when(day.dt.weekday() > 5).then(8 - day.dt.weekday()).otherwise(0))
