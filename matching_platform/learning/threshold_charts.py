"""What other thresholds would have booked, drawn: precision with its interval, share, and money booked wrongly."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import floor, log10
from typing import Any, Final

import numpy as np
import polars as pl

from matching_platform.learning import charts
from matching_platform.learning import threshold_text as text
from matching_platform.learning.charts import Axis, Chart, Line, percents
from matching_platform.learning.thresholds import Past
from matching_platform.ledger.money import MINOR_UNITS

POINTS: Final = 80

# The axis counts nines, 0.9 is one and 0.99 two, and ends where hardly anything is as sure.
_FEWEST_NINES, _MOST_NINES = 2, 6
_SUREST: Final = 0.98
# Where the axes of precision and money end: by thresholds that somebody could choose.
_LEAST: Final = 0.8
_LEAST_PRECISIONS: Final = (0.98, 0.96, 0.92, 0.8, 0.6, 0.0)
_STEPS: Final = (1, 2, 4, 8, 10)
_WIDTH, _HEIGHT, _MARGIN, _TOP = 380, 290, 20, 70


def threshold_charts(
    pasts: Mapping[str, Past], promised: float, marked: Sequence[tuple[float, str]] = ()
) -> list[Chart]:
    """Three charts over the threshold: precision, share booked, and money booked wrongly beside what confidence foretold.

    `pasts` by side, a name for which the style sheet has a colour; `marked` are thresholds and what is said of them.
    Money is drawn in the currency of most invoices; pointing at a threshold tells all of them.
    """
    x = _axis(pasts.values())
    drawn = [(threshold, label) for threshold, label in marked if _nines(threshold) <= x.high]
    levels = np.unique([*(1 - 10 ** -np.linspace(x.low, x.high, POINTS)), *(threshold for threshold, _ in drawn)])
    rated = {side: past.at(levels.tolist()) for side, past in pasts.items()}
    risked = {side: past.at_risk(levels.tolist()) for side, past in pasts.items()}
    strips = tuple(_strips(levels.tolist(), x, rated, risked))
    down = tuple((_nines(threshold), label) for threshold, label in drawn)
    unnamed = tuple((place, "") for place, _ in down)
    found = [(_precision(x, rated, promised), down), (_share(x, rated), unnamed), (_wrong(x, pasts, risked), unnamed)]
    return [replace(chart, down=at, strips=strips, width=_WIDTH, height=_HEIGHT) for chart, at in found]


def page(title: str, told: Sequence[str], drawn: Sequence[Chart]) -> str:
    """One self-contained HTML file: the sentences told, and the charts."""
    return charts.render("thresholds.html", title=title, told=told, charts=drawn)


def drawing(title: str, drawn: Sequence[Chart]) -> str:
    """One self-contained SVG file, the charts side by side."""
    places = [(_MARGIN // 2 + at * (_WIDTH + _MARGIN), chart) for at, chart in enumerate(drawn)]
    size = {"width": len(drawn) * (_WIDTH + _MARGIN), "height": _TOP + _HEIGHT + 2 * _MARGIN}
    return charts.render("drawing.html", title=title, places=places, top=_TOP, **size)


def _nines(threshold: float) -> float:
    return -log10(1 - threshold) if threshold < 1 else float("inf")


def _axis(pasts: Iterable[Past]) -> Axis:
    booked = pl.concat(past.transfers.filter("booked")["confidence"] for past in pasts)
    surest = float(booked.quantile(_SUREST) or 0.0)
    high = round(min(max(_nines(surest), _FEWEST_NINES), _MOST_NINES))
    ticks = [0.0, 0.5, *(1 - 10.0**-nines for nines in range(1, high + 1))]
    return Axis("booked from this confidence on", 0.0, float(high), [(_nines(tick), f"{tick:.9g}") for tick in ticks])


def _precision(x: Axis, rated: Mapping[str, pl.DataFrame], promised: float) -> Chart:
    chosen = pl.concat(rated.values()).filter(pl.col("threshold") >= _LEAST)["precision"].drop_nulls()
    least = min([*chosen, promised])
    low = next(bound for bound in _LEAST_PRECISIONS if bound <= least)
    lines: list[Line] = []
    for side, frame in rated.items():
        rows = frame.drop_nulls("precision").select("threshold", "precision", "low", "high").rows()
        points = [(_nines(threshold), precision, "") for threshold, precision, *_ in rows]
        # Two bands would hide each other.
        band = None if lines else [(_nines(threshold), bottom, top) for threshold, _, bottom, top in rows]
        lines.append(Line(side, points, band=band))
    y = percents("exactly right, of what is booked", low, 1, 4, 1 if low == _LEAST_PRECISIONS[0] else 0)
    return Chart(x, y, lines, across=((promised, f"promised {text.promise(promised)}"),), falls=False)


def _share(x: Axis, rated: Mapping[str, pl.DataFrame]) -> Chart:
    lines = [
        Line(
            side, [(_nines(t), share, "") for t, share in frame.drop_nulls("share").select("threshold", "share").rows()]
        )
        for side, frame in rated.items()
    ]
    return Chart(x, percents("booked, of the paying transfers", 0, 1, 5), lines)


def _wrong(x: Axis, pasts: Mapping[str, Past], risked: Mapping[str, pl.DataFrame]) -> Chart:
    currency = next((past.currencies[0] for past in pasts.values() if past.currencies), None)
    amounts = {side: frame.filter(pl.col("currency").eq_missing(currency)) for side, frame in risked.items()}
    lines = [_amounts(side, frame, "wrong") for side, frame in amounts.items()]
    # What one side's confidence foretold is enough to compare with.
    lines += [_amounts("expected", frame, "expected") for frame in list(amounts.values())[:1]]
    chosen = pl.concat(amounts.values()).filter(pl.col("threshold") >= _LEAST)
    most = max([*chosen["wrong"], *chosen["expected"]], default=0) / MINOR_UNITS
    return Chart(x, _rounded(f"{currency or 'money'} booked wrongly", most), lines)


def _amounts(side: str, frame: pl.DataFrame, name: str) -> Line:
    return Line(side, [(_nines(t), minor / MINOR_UNITS, "") for t, minor in frame.select("threshold", name).rows()])


def _rounded(label: str, most: float) -> Axis:
    """From 0 to a round number of at least `most`, in four steps."""
    power = 10 ** floor(log10(max(most, 1)))
    high = next(float(step * power) for step in _STEPS if step * power >= most)
    return Axis(label, 0.0, high, [(high * step / 4, _short(high * step / 4)) for step in range(5)])


def _short(amount: float) -> str:
    for unit, name in ((10**9, "bn"), (10**6, "m"), (10**3, "k")):
        if amount >= unit:
            return f"{amount / unit:.3g}{name}"
    return f"{amount:.3g}"


def _strips(
    levels: list[float], x: Axis, rated: Mapping[str, pl.DataFrame], risked: Mapping[str, pl.DataFrame]
) -> Iterator[tuple[float, float, str]]:
    """A strip around each threshold, with what it would have booked."""
    told = [f"from {text.confidence(threshold)} on" for threshold in levels]
    for side, frame in rated.items():
        money = {threshold: rows for (threshold,), rows in risked[side].group_by("threshold")}
        for at, row in enumerate(frame.iter_rows(named=True)):
            told[at] += f"\n{side}: {_told(row, money.get(row['threshold']))}"
    places = [_nines(threshold) for threshold in levels]
    borders = [x.low, *((left + right) / 2 for left, right in pairwise(places)), x.high]
    return ((left, right, words) for (left, right), words in zip(pairwise(borders), told, strict=True))


def _told(row: dict[str, Any], risked: pl.DataFrame | None) -> str:
    if not row["booked"]:
        return "nothing booked"
    wrongly = text.amounts(risked, "wrong") if risked is not None else ""
    right = f"{text.share(row['precision'])} right ({text.interval(row)})"
    return f"{text.share(row['share'])} booked, {right}, {wrongly or 'no money'} wrongly"
