"""Rates between currencies, from what transfers brought for invoices of another one; nobody else is asked."""

from typing import Final

import polars as pl

from matching_platform.review.parts import Parts

_KEPT: Final = 40  # of a pair of currencies; enough for a median that follows the market


def main_currency(transfers: pl.DataFrame) -> str:
    """That of most transfers."""
    counted = transfers.group_by("currency").len().sort("len", "currency", descending=[True, False])
    return str(counted["currency"][0]) if len(counted) else "EUR"


def rates(main: str, transfers: pl.DataFrame, invoices: pl.DataFrame, tags: Parts) -> dict[str, float]:
    """By currency, units of the main one for one of it, from what transfers brought for lone invoices of another currency:
    the median of the last ones, through a third currency where there is no other way."""
    alone = tags.size[tags.transfer] == 1
    paid = pl.DataFrame(
        {
            "booked_on": transfers["booked_on"].gather(tags.transfer),
            "from": invoices["currency"].gather(tags.invoice),
            "to": transfers["currency"].gather(tags.transfer),
            "rate": transfers["amount"].gather(tags.transfer) / tags.amount,
        }
    ).filter(pl.Series(alone) & (pl.col("from") != pl.col("to")) & (pl.col("rate") > 0) & pl.col("rate").is_finite())
    pairs = (
        paid.sort("from", "to", "booked_on")
        .group_by("from", "to", maintain_order=True)
        .agg(pl.col("rate").tail(_KEPT).median())
    )
    ways: dict[str, dict[str, float]] = {}
    for source, target, rate in pairs.iter_rows():
        ways.setdefault(source, {})[target] = rate
        ways.setdefault(target, {}).setdefault(source, 1 / rate)
    known, found = {main: 1.0}, [main]
    while found:
        target = found.pop(0)
        # In order, as what a third currency comes to depends on the way.
        for source in sorted(ways.get(target, {}).keys() - known.keys()):
            known[source] = known[target] / ways[target][source]
            found.append(source)
    return known
