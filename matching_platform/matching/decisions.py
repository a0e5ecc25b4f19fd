"""Decisions made anew from confidences, where more than a model's own threshold is asked for unattended bookings."""

from math import ceil, log10
from typing import Final

import polars as pl

# What all evidence begins with that speaks of the record of freezes and thresholds, and not of the settlement.
BY_RECORD: Final = "against: bookings are "

_FROZEN: Final = BY_RECORD + "frozen since {}"
_FROM: Final = BY_RECORD + "made from a confidence of {} on only"
_NEVER: Final = BY_RECORD + "made from no confidence on"
TEMPLATES: Final = (_FROZEN, _FROM, _NEVER)
# Of these, the places that any text may fill: since when, by whom and why.
WORDED: Final = (_FROZEN,)


def confidence(threshold: float) -> str:
    """As many places as tell it from its neighbours, rounded up: whoever types it in books no more than was said."""
    places = max(4, ceil(-log10(max(1 - threshold, 1e-12))) + 2)
    return f"{ceil(round(threshold * 10**places, 6)) / 10**places:.{places}f}".rstrip("0").rstrip(".")


def why(auto_from: float, frozen: str) -> str:
    """What the evidence says where `auto_from` is in force: `frozen` since when, by whom and why, or empty."""
    if frozen:
        return _FROZEN.replace("{}", frozen)
    return _NEVER if auto_from > 1 else _FROM.replace("{}", confidence(auto_from))


def decided(proposals: pl.DataFrame, own: float | None, auto_from: float, why: str) -> pl.DataFrame:
    """`proposals` (schema PROPOSALS) with decisions and evidence as they are when `auto_from` is in force.

    Of what a model whose own threshold is `own` would book, `auto` is what reaches `auto_from`; the rest is `review`, for
    which the evidence says `why`, BY_RECORD and more. Where `own` is not known, nothing becomes `auto` that is not.
    """
    settles, sure = pl.col("invoice_id").is_not_null(), pl.col("confidence") >= auto_from
    books = settles & (pl.col("decision") == "auto" if own is None else pl.col("confidence") >= own)
    evidence = pl.col("evidence").list.eval(pl.element().filter(~pl.element().str.starts_with(BY_RECORD)))
    said = pl.when(books & ~sure).then(pl.concat_list(evidence, pl.lit(why))).otherwise(evidence)
    decision = pl.when(books & sure).then(pl.lit("auto")).when(settles).then(pl.lit("review")).otherwise("decision")
    return proposals.with_columns(decision=decision, evidence=said)
