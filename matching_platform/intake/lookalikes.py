"""Transfers that look as if another file had brought them before: the same money of the same payer, under another id.

What identifies an entry differs between formats and exports. This compares what does not: day, amount and payer.
"""

from collections.abc import Sequence
from typing import Final

import polars as pl

from matching_platform.matching.text import account_key, folded, name_key

_MONEY: Final = ("amount", "currency", "direction")
_DAY: Final = ("booked_on", *_MONEY)
_LETTERS: Final = 12  # of a name, which banks cut, or lengthen by an address
_TITLE: Final = 20  # of a title likewise
# The id of a batch's transaction, which the batch's id begins.
_PART: Final = r"^([0-9a-f]{24}(?:-[0-9]+)?)\.[0-9]+$"
_BATCH: Final = "a batch"


def lookalikes(new: pl.DataFrame, there: pl.DataFrame) -> pl.DataFrame:
    """The rows of `new` that look like one of `there`, each like another one; both have the schema of transfers.

    Alike are equal money on one day with the same payer, by name or account, or with no payer on one side, and on
    neighbouring days the same payer with the same title. A batch is compared as a whole, too.
    """
    here, held = _told(new), _told(there)
    found = [
        _paired(here, held, (*_DAY, "payer")),
        _paired(here.filter(pl.col("payer").is_null()), _once(held), _DAY),
        _paired(_once(here), held.filter(pl.col("payer").is_null()), _DAY),
        *(
            _paired(here.with_columns(pl.col("booked_on").dt.offset_by(by)), held, (*_DAY, "payer", "title"))
            for by in ("-1d", "1d")
        ),
    ]
    ids = pl.concat(found).implode()
    return new.filter(pl.col("transfer_id").is_in(ids) | pl.col("transfer_id").str.extract(_PART, 1).is_in(ids))


def _told(transfers: pl.DataFrame) -> pl.DataFrame:
    """What is compared: a row for each way of telling who paid, or one without, and one for each batch."""
    name = name_key(folded(pl.col("counterparty_name"))).str.head(_LETTERS)
    title = folded(pl.col("title")).str.replace_all(r"[^\p{L}\p{N}]+", "").str.head(_TITLE)
    rows = transfers.select(
        "transfer_id",
        *_DAY,
        payer=pl.concat_list(
            pl.when(name != "").then(name), account_key(pl.col("counterparty_account"))
        ).list.drop_nulls(),
        title=pl.when(title != "").then(title),
    )
    batches = transfers.with_columns(pl.col("transfer_id").str.extract(_PART, 1)).drop_nulls("transfer_id")
    whole = batches.group_by("transfer_id", "booked_on", "currency", "direction", maintain_order=True).agg(
        pl.col("amount").sum()
    )
    named = whole.select("transfer_id", *_DAY, payer=pl.lit(_BATCH), title=pl.lit(None, pl.String))
    return pl.concat([rows.explode("payer", empty_as_null=True), named])


def _once(told: pl.DataFrame) -> pl.DataFrame:
    """Those with a payer, whichever."""
    return told.drop_nulls("payer").unique("transfer_id", maintain_order=True)


def _paired(here: pl.DataFrame, held: pl.DataFrame, on: Sequence[str]) -> pl.Series:
    """The ids of `here` that find an equal one: of several the first meets the first, and so on."""
    nth = pl.int_range(pl.len()).over(on).alias("nth")
    pairs = here.with_columns(nth).join(held.with_columns(nth), on=[*on, "nth"])
    return pairs["transfer_id"]
