"""Transfers that pay no invoice and never did: salaries, taxes, rent, cards, fees, deposits and the like."""

from typing import Final

import numpy as np
import polars as pl

from matching_platform.ledger.months import first_day
from matching_platform.sample.draws import digits, logs, weighted, words, words_for
from matching_platform.sample.partners import make_accounts
from matching_platform.sample.words import COUNTRIES, FAMILY, GIVEN, OTHER

OTHER_SHARE: Final = 0.20
TRANSFERS_PER_EMPLOYEE: Final = 16

_FACTS: Final = {"kind": pl.String, "typical": pl.Int64, "spread": pl.Float64, "day": pl.Int64}


def pay_nothing(
    rng: np.random.Generator,
    start: str,
    months: int,
    transfers_per_month: int,
    partners: pl.DataFrame,
    habits: pl.DataFrame,
) -> pl.DataFrame:
    """The columns of a transfer but its id. A payee keeps his account, and his amount as far as the kind is regular."""
    count = round(months * transfers_per_month * OTHER_SHARE)
    home = COUNTRIES[partners["home"][0]]
    payees = _payees(rng, transfers_per_month, partners, habits)
    kinds = weighted(rng, count, {other.kind: other.share for other in OTHER})
    sizes = payees.with_row_index("first").group_by("kind").agg(pl.col("first").min(), pl.len().alias("size"))
    drawn = kinds.to_frame("kind").join(sizes, on="kind", maintain_order="left")
    chosen = drawn.select(pl.col("first") + (pl.lit(rng.random(count)) * pl.col("size")).cast(pl.Int64)).to_series()
    month = pl.lit(rng.integers(months, size=count)).cast(pl.String) + "mo"
    factor = (pl.col("spread") * pl.lit(rng.normal(size=count))).exp()
    return (
        payees[chosen]
        .with_columns(
            booked_on=pl.lit(first_day(start)).dt.offset_by(month)
            + pl.duration(days=pl.coalesce("day", pl.lit(rng.integers(1, 29, count))) - 1),
            amount=(pl.col("typical") * factor * 100 / home.rate).round().cast(pl.Int64).clip(1),
            currency=pl.lit(home.currency),
            direction=words_for(rng, kinds, {other.kind: other.directions.split() for other in OTHER}),
            title=words_for(rng, kinds, home.other),
            digits=digits(rng, count, 8),
        )
        .with_columns(
            title=pl.col("title")
            .str.replace("{digits}", pl.col("digits"), literal=True)
            .str.replace("{month}", pl.col("booked_on").dt.strftime("%m"), literal=True)
            .str.replace("{year}", pl.col("booked_on").dt.strftime("%Y"), literal=True)
        )
        .select("booked_on", "amount", "currency", "direction", "counterparty_name", "counterparty_account", "title")
    )


def _payees(
    rng: np.random.Generator, transfers_per_month: int, partners: pl.DataFrame, habits: pl.DataFrame
) -> pl.DataFrame:
    """A row a kind and payee: name, account and usual amount, sorted by kind."""
    employees = max(3, transfers_per_month // TRANSFERS_PER_EMPLOYEE)
    staff = words(rng, employees, GIVEN) + " " + words(rng, employees, FAMILY)
    strangers = pl.concat(
        pl.DataFrame({"kind": other.kind, "counterparty_name": list(other.payees or staff)})
        for other in OTHER
        if not other.of_partner
    )
    known = partners.join(habits.filter(~pl.col("shifted")), on="partner", maintain_order="left").select(
        "counterparty_name", counterparty_account="account"
    )
    payees = pl.concat(
        [
            strangers.with_columns(
                counterparty_account=make_accounts(rng, pl.repeat(partners["home"][0], len(strangers), eager=True))
            ),
            *(known.select(pl.lit(other.kind).alias("kind"), pl.all()) for other in OTHER if other.of_partner),
        ]
    )
    facts = pl.DataFrame([(o.kind, o.typical, o.spread, o.day) for o in OTHER], schema=_FACTS, orient="row")
    return (
        payees.join(facts, on="kind", maintain_order="left")
        .with_columns(typical=pl.col("typical") * pl.lit(logs(rng, len(payees), 0.3)))
        .sort("kind", maintain_order=True)
    )
