"""What other thresholds would have booked, in sentences."""

from collections.abc import Mapping
from math import floor
from typing import Any

import polars as pl

from matching_platform.learning.thresholds import CERTAINTY, Kept, Past, least_bookings, one_more_nine
from matching_platform.ledger.money import MINOR_UNITS
from matching_platform.matching.decisions import confidence as confidence

_MILLION = 1_000_000


def share(value: float | None) -> str:
    """A percentage; only what is whole is told as 100 %."""
    if value is None:
        return "–"
    if round(value * 100, 1) < 100 or value >= 1:
        return f"{value * 100:.1f} %"
    return f"{floor(value * 10_000) / 100:.2f} %"


def promise(value: float) -> str:
    """A promised precision, with all its nines: 99.5 %."""
    return f"{value * 100:.12g} %"


def interval(row: Mapping[str, Any]) -> str:
    """The interval of a row of `Past.at`: 99.4–99.9."""
    return f"{share(row['low'])}–{share(row['high'])}".replace(" %", "")


def amounts(risked: pl.DataFrame, name: str, of: str | None = None) -> str:
    """Amounts above zero by currency, from rows of `Past.at_risk`: EUR 12,300 of 4.1 million and PLN 20."""
    rows = risked.filter(pl.col(name) >= MINOR_UNITS / 2).sort(name, descending=True).iter_rows(named=True)
    told = [f"{amount(row[name], row['currency'])}{f' of {amount(row[of])}' if of else ''}" for row in rows]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def amount(minor: int, currency: str | None = None) -> str:
    """Whole units: EUR 12,300, or 4.1 million."""
    units = minor / MINOR_UNITS
    told = f"{units / _MILLION:,.1f} million" if units >= _MILLION else f"{units:,.0f}"
    return f"{currency} {told}" if currency else told


def would_have(past: Past, threshold: float) -> str:
    """What booking from `threshold` on would have meant."""
    row, risked = past.at([threshold]).row(0, named=True), past.at_risk([threshold])
    if not row["booked"]:
        return f"From {confidence(threshold)} on, nothing would have been booked: no confidence is that high."
    wrongly, foretold = amounts(risked, "wrong", "booked") or "no money", amounts(risked, "expected")
    expected = f" By the confidences themselves, {foretold} were to be expected." if foretold else ""
    return (
        f"From {confidence(threshold)} on, {share(row['share'])} of the paying transfers would have been booked, "
        f"{share(row['precision'])} of the bookings right ({interval(row)}); {wrongly} would have been booked wrongly."
        f"{expected}"
    )


def keeps(past: Past, promised: float) -> str:
    """From where on the promise holds, and what one more nine would cost."""
    kept, finer = past.keeps(promised), past.keeps(one_more_nine(promised))
    return f"{_held(kept)} One more nine, {promise(finer.promised)}, {_cost(past, kept, finer)}."


def _held(kept: Kept) -> str:
    promised, certain = f"You promise {promise(kept.promised)}:", f"with {promise(CERTAINTY)} certainty"
    alone = f" (by the figures alone, {confidence(kept.seen)})" if kept.seen is not None else ""
    if kept.threshold is None:
        return f"{promised} no threshold holds it {certain}{alone}."
    return f"{promised} the lowest threshold that holds it {certain} is {confidence(kept.threshold)}{alone}."


def _cost(past: Past, kept: Kept, finer: Kept) -> str:
    if kept.threshold is not None and finer.threshold is not None:
        return f"would hold {_lost(past, kept.threshold, finer.threshold)}"
    count, least = int(past.transfers["booked"].sum()), least_bookings(finer.promised)
    few = f"cannot be shown by {count:,} bookings, it takes {least:,} without an error"
    why = few if count < least else "is held by no threshold"
    if kept.seen is None or finer.seen is None:
        return why
    return f"{why}; by the figures alone, it would hold {_lost(past, kept.seen, finer.seen)}"


def _lost(past: Past, threshold: float, finer: float) -> str:
    before, after = (past.at([one])["share"].item() or 0.0 for one in (threshold, finer))
    points = 100 * (before - after)
    return f"from {confidence(finer)} on and cost {points:.1f} points of share ({share(before)} → {share(after)})"
