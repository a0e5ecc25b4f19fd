"""Customers, suppliers, and their habits as payers."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from matching_platform.sample.draws import digits, logs, weighted, words, words_for
from matching_platform.sample.words import COUNTRIES, FACTORS, FAMILY, FIRMS, GIVEN, SUPPLIER_FORMS, TRADES

# A partner per so many transfers a month: most pay once or twice a month, a few very often.
TRANSFERS_PER_PARTNER: Final = 3.5
HOME_SHARE: Final = 0.65

# What a payer does by habit, and how common each habit is.
HABITS: Final[Mapping[str, Mapping[str, float]]] = {
    "run": {"each": 0.60, "weekly": 0.22, "monthly": 0.18},
    "writing": {
        "printed": 0.50,
        "squeezed": 0.14,
        "dashed": 0.08,
        "dotted": 0.05,
        "short": 0.08,
        "bare": 0.10,
        "stripped": 0.05,
    },
    "separator": {", ": 0.3, "; ": 0.12, ";": 0.1, " ": 0.15, "+": 0.05, "joiner": 0.13, "span": 0.15},
    "style": {"plain": 0.72, "sepa": 0.13, "split": 0.15},
    "case": {"upper": 0.4, "as is": 0.5, "lower": 0.1},
    "cut": {"35": 0.14, "70": 0.22, "140": 0.64},
    "naming": {"named": 0.92, "seldom": 0.08},
    "payer": {"self": 0.86, "owner": 0.05, "parent": 0.05, "factor": 0.04},
    "parts": {"whole": 0.88, "halves": 0.04, "thirds": 0.02, "30/70": 0.04, "half only": 0.02},
    "terms": {"gross": 0.95, "0.98": 0.03, "0.97": 0.02},
    "purse": {"invoiced": 0.75, "home": 0.25},
}
# Habits that change in the shift month change towards these.
SHIFTED: Final[Mapping[str, Mapping[str, float]]] = {
    **HABITS,
    "run": {"each": 0.35, "weekly": 0.35, "monthly": 0.30},
    "writing": {
        "printed": 0.25,
        "squeezed": 0.20,
        "dashed": 0.10,
        "dotted": 0.10,
        "short": 0.10,
        "bare": 0.15,
        "stripped": 0.10,
    },
    "cut": {"35": 0.35, "70": 0.25, "140": 0.40},
    "naming": {"named": 0.75, "seldom": 0.25},
    "payer": {"self": 0.70, "owner": 0.10, "parent": 0.10, "factor": 0.10},
}


def make_partners(rng: np.random.Generator, transfers_per_month: int, countries: tuple[str, ...]) -> pl.DataFrame:
    """A row a customer or supplier: who it is, how often and how much, and when it first appears.

    `joins` is the part of the simulated time that has passed before its first invoice; `typical` is its median invoice
    in minor units of its own currency, and the amount of all of them where `flat`.
    """
    count = max(12, round(transfers_per_month / TRANSFERS_PER_PARTNER))
    abroad = (1 - HOME_SHARE) / max(1, len(countries) - 1)
    country = weighted(rng, count, {name: HOME_SHARE if name == countries[0] else abroad for name in countries})
    legal_form = weighted(rng, count, {"company": 0.78, "sole trader": 0.12, "person": 0.10})
    firm, trade = words(rng, count, FIRMS), words(rng, count, TRADES)
    owner = words(rng, count, GIVEN) + " " + words(rng, count, FAMILY)
    rate = country.replace_strict({name: COUNTRIES[name].rate for name in countries}, return_dtype=pl.Float64)
    return pl.DataFrame(
        {
            "partner": np.arange(count),
            "counterparty_id": pl.Series(np.arange(1, count + 1)).cast(pl.String).str.zfill(5),
            "country": country,
            "home": countries[0],
            "legal_form": legal_form,
            "owner": owner,
            "parent": words(rng, count, FIRMS) + " Holding",
            "factor": words(rng, count, FACTORS),
            "company": firm + " " + trade + " " + words_for(rng, country, {c: COUNTRIES[c].legal for c in countries}),
            "trader": trade + " " + owner,
            "tax_id": digits(rng, count, 10),
            "taxed": rng.random(count) > 0.05,
            "sale": rng.random(count) < 0.62,
            "weight": logs(rng, count, 1.0),
            "flat": rng.random(count) < 0.2,
            "typical": (150_000 * logs(rng, count, 0.9) / rate.to_numpy()).round().astype(np.int64),
            "days": weighted(rng, count, {"7": 0.12, "14": 0.4, "21": 0.18, "30": 0.22, "45": 0.05, "60": 0.03}),
            "joins": np.where(rng.random(count) < 0.15, rng.random(count), 0.0),
            "supplier_form": words(rng, count, SUPPLIER_FORMS),
            "gives_reference": rng.random(count) < 0.15,
            "by_card": rng.random(count) < 0.6,
        }
    ).select(
        pl.col("partner", "country", "home", "owner", "parent", "factor", "flat", "typical", "joins"),
        # Who joins late has fewer invoices, not more a month.
        weight=pl.col("weight") * (1 - pl.col("joins")),
        counterparty_id="P" + pl.col("counterparty_id"),
        currency=pl.col("country").replace_strict({c: COUNTRIES[c].currency for c in countries}),
        counterparty_name=pl.when(legal_form == "company")
        .then("company")
        .otherwise(pl.when(legal_form == "person").then("owner").otherwise("trader")),
        counterparty_tax_id=pl.when("taxed").then("tax_id"),
        direction=pl.when("sale").then(pl.lit("sale")).otherwise(pl.lit("purchase")),
        days=pl.col("days").cast(pl.Int64),
        form=pl.when("sale").then(pl.lit(COUNTRIES[countries[0]].sale)).otherwise("supplier_form"),
        gives_reference=pl.col("sale") & pl.col("gives_reference"),
        by_card=pl.col("sale") & pl.col("by_card") & (pl.col("legal_form") == "person"),
    )


def make_habits(rng: np.random.Generator, partners: pl.DataFrame, shifted_share: float) -> pl.DataFrame:
    """A row a partner and era (before and after the shift): every column of `HABITS`, the accounts, and punctuality.

    Partners that keep their habits, all but `shifted_share` of them, have the same row in both eras.
    """
    count = len(partners)
    before, after = (_era(rng, partners, table) for table in (HABITS, SHIFTED))
    moved = pl.Series(rng.random(count) < shifted_share)
    after = pl.concat([after.filter(moved), before.filter(~moved)]).sort("partner")
    return pl.concat(
        [before.with_columns(shifted=pl.lit(False)), after.with_columns(shifted=pl.lit(True))], how="vertical"
    )


def make_accounts(rng: np.random.Generator, countries: pl.Series) -> pl.Series:
    """An IBAN of each country named, with valid check digits (ISO 13616), of an account that nobody has."""
    accounts = pl.repeat("", len(countries), eager=True)
    for code, country in COUNTRIES.items():
        here = countries == code
        accounts = accounts.zip_with(~here, _ibans(rng, len(countries), code, country.bank, country.digits))
    return accounts


def _era(rng: np.random.Generator, partners: pl.DataFrame, table: Mapping[str, Mapping[str, float]]) -> pl.DataFrame:
    count = len(partners)
    # One account serves every payment of a factor, whoever sold to him: an account alone does not tell the payee.
    factors = dict(zip(FACTORS, make_accounts(rng, pl.Series(["PL"] * len(FACTORS))), strict=True))
    return pl.DataFrame(
        {
            "partner": partners["partner"],
            **{habit: weighted(rng, count, shares) for habit, shares in table.items()},
            "account": make_accounts(rng, partners["country"]),
            "second_account": make_accounts(rng, partners["country"]),
            "other_account": make_accounts(rng, partners["country"]),
            "lateness": rng.normal(1.0, 5.0, count),
            "run_day": rng.integers(1, 6, count),
            "display": weighted(rng, count, {"upper": 0.55, "as is": 0.45}),
        }
    ).with_columns(
        factor_account=partners["factor"].replace_strict(factors),
        payer=pl.when((pl.col("payer") == "factor") & (partners["direction"] == "sale"))
        .then(pl.lit("owner"))
        .otherwise("payer"),
    )


def _ibans(rng: np.random.Generator, count: int, country: str, bank: str, length: int) -> pl.Series:
    numbers = rng.integers(10, size=(count, length))
    powers = np.array([pow(10, length - 1 - place, 97) for place in range(length)])
    bank_value = int("0" + "".join(str(int(letter, 36)) for letter in bank))
    country_value = int("".join(str(int(letter, 36)) for letter in country) + "00")
    rest = (bank_value * pow(10, length + 6, 97) + (numbers @ powers) * pow(10, 6, 97) + country_value) % 97
    body = (numbers + ord("0")).astype("uint32").view(f"<U{length}").ravel()
    check = pl.Series(98 - rest).cast(pl.String).str.zfill(2)
    return country + check + bank + pl.Series(body.tolist(), dtype=pl.String)
