"""A simulated company: its invoices, the bank's transfers, what finance tagged, and the whole truth.

No person, firm or account in it exists. Amounts are minor units until the frames leave `generate`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import polars as pl

from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.months import first_day, next_month, parse_month
from matching_platform.ledger.schema import TABLES, TRANSFERS
from matching_platform.sample import payments as pay
from matching_platform.sample.draws import chance, choose, digits, logs, weighted, words_for
from matching_platform.sample.others import pay_nothing
from matching_platform.sample.partners import make_accounts, make_habits, make_partners
from matching_platform.sample.titles import fold, number_invoices, rf_reference, write_titles
from matching_platform.sample.words import ACQUIRER, COUNTRIES

INVOICES_PER_TRANSFER: Final = 0.97
UNTAGGED_SHARE: Final = 0.03
WRONGLY_TAGGED_SHARE: Final = 0.005
PAID_TWICE_SHARE: Final = 0.01

# What a transfer brings may fall short of what it settles by a discount or commission, a fee, and rounding.
MAX_DISCOUNT: Final = 0.03
MAX_FEE: Final = max(pay.FEES) + 50


@dataclass(frozen=True)
class Settings:
    """What company to simulate; equal settings give equal companies, to the last character."""

    seed: int = 0
    start: str = "2023-01"
    months: int = 12
    # In a steady month. The first months have fewer, as nothing is due yet.
    transfers_per_month: int = 400
    # From this month on (YYYY-MM) such a share of the payers has other habits and accounts: a world that drifts.
    shift_month: str | None = None
    shifted_share: float = 0.4
    # Of customers and suppliers. The company itself lives in the first.
    countries: tuple[str, ...] = tuple(COUNTRIES)

    def __post_init__(self) -> None:
        parse_month(self.start)
        if self.shift_month is not None:
            parse_month(self.shift_month)
        if self.months < 1 or self.transfers_per_month < 1:
            raise ValueError("a company has at least one month and one transfer a month")
        unknown = sorted(set(self.countries) - set(COUNTRIES))
        if unknown or not self.countries:
            raise ValueError(
                f"countries must be some of {', '.join(COUNTRIES)}; unknown: {', '.join(unknown) or 'none'}"
            )


def generate(settings: Settings) -> dict[str, pl.DataFrame]:
    """The frames `invoices`, `transfers`, `matches` and `audit` of the contract, in its external types.

    `audit` is the complete truth about every transfer. `matches` lacks the tags of some transfers and is wrong about a
    few. Settlements never exceed an invoice; nor, in one currency, what a transfer brought, by more than the larger of
    `MAX_DISCOUNT` and `MAX_FEE`.
    """
    rng = np.random.default_rng(settings.seed)
    partners = make_partners(rng, settings.transfers_per_month, settings.countries)
    habits = make_habits(rng, partners, settings.shifted_share)
    issued = _issue(rng, settings, partners, habits)
    planned = pay.plan(rng, issued)
    invoices = _number(rng, issued, planned, pay.credit_notes(rng, planned))
    paid, lines = pay.settle(rng, invoices.filter(pl.col("pool").is_not_null()))
    paid = _addressed(rng, paid, lines)
    others = pay_nothing(rng, settings.start, settings.months, settings.transfers_per_month, partners, habits)
    transfers, audit = _book(settings, pl.concat([paid, _paid_twice(rng, paid), others], how="diagonal"), lines)
    frames = {
        "invoices": invoices.filter(pl.col("issued_on") <= _last_day(settings)),
        "transfers": transfers,
        "audit": audit,
        "matches": _tag(rng, audit, transfers, invoices),
    }
    return {name: _external(name, frame) for name, frame in frames.items()}


def write(folder: Path, settings: Settings, format: Literal["parquet", "csv"] = "parquet") -> None:  # noqa: A002
    """The company's four tables as files in `folder`, which is made where it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in generate(settings).items():
        path = folder / f"{name}.{format}"
        unfinished = path.with_name(path.name + ".tmp")
        with unfinished.open("wb") as file:
            frame.write_parquet(file) if format == "parquet" else frame.write_csv(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def _last_day(settings: Settings) -> pl.Expr:
    return pl.lit(first_day(next_month(settings.start, settings.months))) - pl.duration(days=1)


def _issue(rng: np.random.Generator, settings: Settings, partners: pl.DataFrame, habits: pl.DataFrame) -> pl.DataFrame:
    """A row an invoice with its partner and the partner's habits at the time, by day; credit notes come later."""
    count = max(1, round(settings.months * settings.transfers_per_month * INVOICES_PER_TRANSFER))
    first, end = first_day(settings.start), first_day(next_month(settings.start, settings.months))
    weights = partners["weight"].to_numpy()
    chosen = rng.choice(len(partners), count, p=weights / weights.sum())
    joins = partners["joins"].to_numpy()[chosen]
    day = ((joins + (1 - joins) * rng.random(count)) * (end - first).days).astype(np.int64)
    frame = pl.DataFrame({"partner": chosen, "issued_on": day}).join(partners, on="partner", maintain_order="left")
    shift = pl.lit(first_day(settings.shift_month) if settings.shift_month else end)
    amount = pl.when("flat").then("typical").otherwise(pl.col("typical") * pl.lit(logs(rng, count, 0.7)))
    whole = chance(rng, count, 0.25)
    return (
        frame.with_columns(issued_on=pl.lit(first) + pl.duration(days="issued_on"))
        .with_columns(
            amount=pl.when(whole)
            .then((amount / 100).round() * 100)
            .otherwise(amount)
            .clip(10_00)
            .round()
            .cast(pl.Int64),
            shifted=pl.col("issued_on") >= shift,
        )
        .join(habits, on=["partner", "shifted"], maintain_order="left")
        .sort("issued_on", "partner", "amount")
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.Int64))
    )


def _number(
    rng: np.random.Generator, issued: pl.DataFrame, planned: pl.DataFrame, credited: pl.DataFrame
) -> pl.DataFrame:
    """All invoices and credit notes in order of issue, with ids, numbers and references as in the contract's table."""
    planned = issued.join(planned.select("row", "pool", "paid_on"), on="row", how="left", maintain_order="left")
    everything = pl.concat([planned, credited.select(planned.columns)]).sort("issued_on", "partner", "row", "amount")
    count = len(everything)
    sale, is_credit = pl.col("direction") == "sale", pl.col("amount") < 0
    prefixes = {code: country.credit for code, country in COUNTRIES.items()}
    shown = pl.lit(weighted(rng, count, {"main": 0.5, "second": 0.1, "none": 0.4}))
    return (
        number_invoices(
            everything.with_columns(
                issuer=pl.when(sale).then(-1).otherwise("partner"),
                jump=pl.when(sale).then(1).otherwise(pl.lit(rng.integers(1, 25, count))),
                prefix=pl.when(is_credit)
                .then(pl.when(sale).then("home").otherwise("country").replace_strict(prefixes))
                .otherwise(pl.lit("")),
            )
        )
        .with_row_index("serial", offset=1)
        .with_columns(
            invoice_id="I" + pl.col("serial").cast(pl.String).str.zfill(7),
            nth=pl.int_range(pl.len()).over("partner"),
            due_on=pl.col("issued_on") + pl.duration(days="days"),
            counterparty_account=pl.when(shown == "main")
            .then("account")
            .when(shown == "second")
            .then("second_account"),
            reference=pl.when(pl.col("gives_reference") & ~is_credit).then(
                rf_reference(pl.col("serial").cast(pl.Int64) + 1_000_000_000)
            ),
        )
    )


def _addressed(rng: np.random.Generator, paid: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """`paid` with direction, name, account and title as the bank reports them."""
    count = len(paid)
    machine = (pl.col("invoices") == 1) & chance(rng, count, 0.7)
    named = paid.with_columns(
        language=pl.when(pl.col("direction") == "sale").then("country").otherwise("home"),
        machine_reference=pl.when(machine).then("reference"),
        payer=pl.when("by_card")
        .then(pl.lit("acquirer"))
        .when(chance(rng, count, 0.75))
        .then("payer")
        .otherwise(pl.lit("self")),
    )
    payout = "PAYOUT " + pl.col("booked_on").dt.strftime("%Y%m%d") + " BATCH " + pl.lit(digits(rng, count, 8))
    (acquirer,) = make_accounts(rng, pl.Series(["GB"]))
    account = {
        "acquirer": pl.lit(acquirer),
        "factor": pl.col("factor_account"),
        "owner": pl.col("other_account"),
        "parent": pl.col("other_account"),
        "self": pl.when(chance(rng, count, 0.9)).then("account").otherwise("second_account"),
    }
    name = {
        "acquirer": pl.lit(ACQUIRER),
        "factor": pl.col("factor"),
        "owner": pl.col("owner"),
        "parent": pl.col("parent"),
        "self": pl.col("counterparty_name"),
    }
    reported = choose("payer", name)
    return named.with_columns(
        title=pl.when("by_card").then(payout).otherwise(write_titles(rng, named, lines)),
        direction=pl.when(pl.col("direction") == "sale").then(pl.lit("in")).otherwise(pl.lit("out")),
        counterparty_name=pl.when(pl.col("display") == "upper")
        .then(fold(reported).str.to_uppercase().str.slice(0, 35))
        .otherwise(reported),
        counterparty_account=pl.when(chance(rng, count, 0.94)).then(choose("payer", account)),
    )


def _paid_twice(rng: np.random.Generator, paid: pl.DataFrame) -> pl.DataFrame:
    """Second payments of what was paid already, and the refunds of most of them: transfers that settle nothing."""
    # Half an invoice paid again would be its other half; nobody could tell.
    whole = (pl.col("invoices") == 1) & (pl.col("part") == 0) & ~pl.col("by_card")
    again = paid.filter(whole & chance(rng, len(paid), PAID_TWICE_SHARE))
    count = len(again)
    again = again.with_columns(
        booked_on=pl.col("booked_on") + pl.duration(days=pl.lit(rng.integers(1, 13, count))),
        key=pl.lit(None, pl.Int64),
        invoices=pl.lit(None, pl.UInt32),
    )
    words_back = words_for(rng, again["language"], {code: country.refund for code, country in COUNTRIES.items()})
    number = pl.when(chance(rng, count, 0.4)).then(" " + pl.col("number")).otherwise(pl.lit(""))
    refunds = again.with_columns(
        pl.col("booked_on") + pl.duration(days=pl.lit(rng.integers(5, 30, count))),
        title=pl.lit(words_back) + number,
        direction=pl.when(pl.col("direction") == "in").then(pl.lit("out")).otherwise(pl.lit("in")),
    ).filter(chance(rng, count, 0.8))
    return pl.concat([again, refunds])


def _book(settings: Settings, paid: pl.DataFrame, lines: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The transfers booked while the simulation lasts, with ids by day, and what each of them settles."""
    transfers = (
        paid.select("key", "invoices", *(column.name for column in TRANSFERS.columns if column.name != "transfer_id"))
        .filter(pl.col("booked_on") <= _last_day(settings))
        .sort("booked_on", "direction", "counterparty_name", "title", "amount", "key")
        .with_row_index("serial", offset=1)
        .with_columns(transfer_id="T" + pl.col("serial").cast(pl.String).str.zfill(7))
    )
    settled = lines.select("key", "invoice_id", amount="settled")
    audit = transfers.select("transfer_id", "key").join(settled, on="key", how="left", maintain_order="left_right")
    return transfers, audit


def _tag(
    rng: np.random.Generator, audit: pl.DataFrame, transfers: pl.DataFrame, invoices: pl.DataFrame
) -> pl.DataFrame:
    """What finance tagged over the following weeks: not all transfers, and a few with the invoice before the right."""
    count = len(transfers)
    neighbours = invoices.filter(pl.col("amount") > 0).select(
        "invoice_id", neighbour=pl.col("invoice_id").shift(1).over("partner")
    )
    late = pl.when(chance(rng, count, 0.05)).then(pl.lit(rng.integers(20, 61, count))).otherwise(0)
    tags = transfers.select(
        "transfer_id",
        tagged_on=pl.col("booked_on") + pl.duration(days=pl.lit(rng.integers(1, 13, count)) + late),
        wrong=chance(rng, count, WRONGLY_TAGGED_SHARE) & (pl.col("invoices") == 1),
        tagged=chance(rng, count, 1 - UNTAGGED_SHARE),
    ).filter("tagged")
    return (
        audit.join(tags, on="transfer_id", maintain_order="left")
        .join(neighbours, on="invoice_id", how="left", maintain_order="left")
        .with_columns(invoice_id=pl.when("wrong").then(pl.coalesce("neighbour", "invoice_id")).otherwise("invoice_id"))
        .sort("tagged_on", "transfer_id", "invoice_id")
    )


def _external(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Columns and types of the contract's table, with decimal amounts."""
    return frame.select(column.name for column in TABLES[name].columns).with_columns(to_decimal("amount"))
