"""Whose transfer is it: each payer, as the bank names him, against the counterparties that have invoices."""

import numpy as np
import polars as pl
from rapidfuzz import fuzz, process

from matching_platform.matching.memory import NOTHING, Memory
from matching_platform.matching.text import words

# A payer is compared with so many counterparties; who is none of them is found by number or amount, not by name.
COUNTERPARTIES_PER_PAYER = 6
# A word shared by more of the counterparties than this says nothing of who it is.
_COMMON_WORD = 0.05
# A payer is compared with so many that share a word of his, however common the word is among many counterparties.
_SHARING_A_WORD = 200
_CUT_NAME = 10  # letters at which a cut or extended name still begins alike

SIGNS = ("account", "account_seen", "account_share", "name", "name_seen", "name_share", "tax_id", "similarity")

_KNOWN = ("account", "account_seen", "name", "name_seen", "tax_id")
_OF_A_PARTY = (
    "counterparty_id",
    "counterparty_folded",
    "counterparty_name_key",
    "counterparty_account_key",
    "counterparty_tax_id",
)


def parties(invoices: pl.DataFrame) -> pl.DataFrame:
    """The distinct counterparties of keyed invoices, as `resolve` reads them; of two spellings the later one comes later."""
    return invoices.select(_OF_A_PARTY).unique(keep="last", maintain_order=True)


def resolve(transfers: pl.DataFrame, invoices: pl.DataFrame, memory: Memory) -> pl.DataFrame:
    """A row per distinct payer and counterparty that he may be, at most six, with what speaks for it.

    `transfers` has keyed columns `account`, `name`, `payer` (folded) and `tax_id`; `invoices` has `counterparty_id`,
    `counterparty_name_key`, `counterparty_folded`, `counterparty_account_key`, `counterparty_tax_id`.
    Returns payer_account, payer_name, payer_tax_id, counterparty_id and one float column for each of SIGNS:
    `…_seen` log1p of how often memory saw this payer pay that counterparty's invoices, `…_share` the share of those
    among all it saw of him, `similarity` of names 0 to 1.
    """
    payers = transfers.select("account", "name", "payer", "tax_id").unique(
        ["account", "name", "tax_id"], maintain_order=True
    )
    payers = payers.with_row_index("payer_row")
    known = invoices.select(
        "counterparty_id",
        pl.col("counterparty_account_key").alias("account"),
        pl.col("counterparty_name_key").alias("name"),
        pl.col("counterparty_tax_id").alias("tax_id"),
    )
    found = [
        payers.join(known.drop_nulls(column).unique(["counterparty_id", column]), on=column).select(
            "payer_row", "counterparty_id", sign=pl.lit(column), weight=pl.lit(1.0)
        )
        for column in ("account", "name", "tax_id")
    ]
    found += [sign for column in ("account", "name") for sign in _remembered(payers, memory, column)]
    found.append(_alike(payers, invoices))
    signs = (
        pl.concat(found)
        .group_by("payer_row", "counterparty_id")
        .agg(pl.col("weight").filter(pl.col("sign") == sign).max().fill_null(0.0).alias(sign) for sign in SIGNS)
        .filter(pl.col("counterparty_id").is_in(invoices["counterparty_id"].unique().implode()))
    )
    # Sorted, so that it is always the same ones that stay where several are equally likely.
    signs = _with_similarity(signs, payers, invoices).sort("payer_row", "counterparty_id")
    strength = (
        pl.col("account") * 2
        + pl.col("account_share") * 2
        + pl.col("name") * 2
        + pl.col("name_share")
        + pl.col("tax_id") * 2
    ) + pl.col("similarity")
    is_known = pl.any_horizontal(pl.col(sign) > 0 for sign in _KNOWN)
    # Who is known by account or name is nobody else whose name is merely alike.
    signs = signs.filter(is_known | ~is_known.any().over("payer_row"))
    best = signs.filter(strength.rank("ordinal", descending=True).over("payer_row") <= COUNTERPARTIES_PER_PAYER)
    who = payers.select("payer_row", payer_account="account", payer_name="name", payer_tax_id="tax_id")
    return best.join(who, on="payer_row").drop("payer_row")


def _remembered(payers: pl.DataFrame, memory: Memory, column: str) -> list[pl.DataFrame]:
    seen = memory.space(column).with_columns(share=pl.col("count") / pl.col("count").sum().over("key"))
    joined = payers.join(seen.filter(pl.col("value") != NOTHING), left_on=column, right_on="key")
    weights = {f"{column}_seen": pl.col("count").log1p(), f"{column}_share": pl.col("share")}
    return [
        joined.select("payer_row", counterparty_id="value", sign=pl.lit(sign), weight=weight)
        for sign, weight in weights.items()
    ]


def _alike(payers: pl.DataFrame, invoices: pl.DataFrame) -> pl.DataFrame:
    """Counterparties that share a telling word with the payer, or whose names begin alike."""
    names = invoices.select("counterparty_id", "counterparty_folded", "counterparty_name_key").unique(
        maintain_order=True
    )
    theirs = _telling_words(names).filter(pl.len().over("word") <= _SHARING_A_WORD)
    ours = payers.select("payer_row", word=words(pl.col("payer"))).explode("word", empty_as_null=True, keep_nulls=True)
    shared = ours.join(theirs, on="word").select("payer_row", "counterparty_id")
    cut = names.select("counterparty_id", start=pl.col("counterparty_name_key").str.slice(0, _CUT_NAME))
    begins = payers.select("payer_row", start=pl.col("name").str.slice(0, _CUT_NAME)).join(
        cut.unique().filter(pl.col("start").str.len_chars() == _CUT_NAME), on="start"
    )
    return (
        pl.concat([shared, begins.select("payer_row", "counterparty_id")])
        .unique()
        .select("payer_row", "counterparty_id", sign=pl.lit("alike"), weight=pl.lit(1.0))
    )


def named_in_title(transfers: pl.DataFrame, invoices: pl.DataFrame) -> pl.DataFrame:
    """row, counterparty_id: the counterparties all of whose telling words stand in a transfer's remittance text, which has
    the column `written`; who pays for somebody else often says for whom."""
    theirs = _telling_words(invoices.select("counterparty_id", "counterparty_folded").unique(maintain_order=True))
    theirs = theirs.with_columns(of=pl.len().over("counterparty_id"))
    spoken = (
        transfers.select(word=words(pl.col("written")))
        .with_row_index("row")
        .explode("word", empty_as_null=True, keep_nulls=True)
    )
    found = spoken.join(theirs, on="word").group_by("row", "counterparty_id").agg(pl.len(), pl.col("of").first())
    return (
        found.filter(pl.col("len") == pl.col("of")).select(pl.col("row").cast(pl.Int64), "counterparty_id").sort("row")
    )


def _telling_words(names: pl.DataFrame) -> pl.DataFrame:
    """counterparty_id, word: of names `counterparty_folded`, the words that few others share."""
    limit = max(3.0, _COMMON_WORD * names["counterparty_id"].n_unique())
    theirs = (
        names.select("counterparty_id", word=words(pl.col("counterparty_folded")))
        .explode("word", empty_as_null=True, keep_nulls=True)
        .unique()
    )
    return theirs.filter((pl.len().over("word") <= limit) & (pl.col("word").str.len_chars() >= 3))


def _with_similarity(signs: pl.DataFrame, payers: pl.DataFrame, invoices: pl.DataFrame) -> pl.DataFrame:
    names = invoices.select("counterparty_id", "counterparty_folded").unique("counterparty_id", keep="last")
    named = signs.join(payers.select("payer_row", "payer"), on="payer_row").join(names, on="counterparty_id")
    ratio = process.cpdist(
        named["payer"].to_list(), named["counterparty_folded"].to_list(), scorer=fuzz.token_set_ratio, dtype=np.float32
    )
    return named.with_columns(similarity=pl.Series(ratio, dtype=pl.Float64) / 100).drop("payer", "counterparty_folded")
