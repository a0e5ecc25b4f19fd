"""Did a month move: its counts against those of the months before, beyond a limit and beyond what months do by chance.

Two months never agree. How far they lie apart by chance alone follows from how many rows they have; how much farther the
months of the reference lie apart, from season to season and payer to payer, is seen in them: their dispersion. A property
moved where it passes its limit and what chance and that dispersion explain together. It is the first-order correction of a
chi-square test for counts that come in clusters: Rao and Scott, JASA 76 (1981); McCullagh and Nelder, Generalized Linear
Models (1989), 4.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from scipy import stats
from scipy.spatial.distance import jensenshannon

from matching_platform.matching.arrays import Doubles, Ints
from matching_platform.monitoring.drift.description import FIGURES
from matching_platform.monitoring.drift.limits import FARTHEST, Limits

# A year of the train set, and half a year for what fades as a company becomes known.
REFERENCE_MONTHS: Final = 12
NEWEST_MONTHS: Final = 6
# Fewer months do not tell how much months differ.
FEWEST_MONTHS: Final = 3

# Months of mere chance that are added to the few there are, so that two odd ones do not excuse everything; as Smyth,
# Stat. Appl. Genet. Mol. Biol. 3 (2004), moderates variances.
_MONTHS_OF_CHANCE: Final = 5
_ENDLESS: Final = 1e9  # degrees of freedom of what is known

_NOW: Final = ""  # the month that is judged, before all others


@dataclass(frozen=True)
class Finding:
    """A property of a month beside those of the reference.

    `counts` has value, before and now: rows of the reference and of the month. `measure` is a distance, or the share of
    the month's rows where FIGURES names what it is; `limit` is what it must stay below, None where it cannot be judged
    yet: there are too few months, or too few rows for any measure to reach the limit.
    """

    table: str
    what: str
    counts: pl.DataFrame
    measure: float
    limit: float | None

    @property
    def name(self) -> str:
        return f"{self.table}: {self.what}"

    @property
    def moved(self) -> bool:
        return self.limit is not None and self.measure >= self.limit

    @property
    def is_share(self) -> bool:
        return self.what in FIGURES

    def share(self, side: str, value: str = "true") -> float:
        """The share of a value `before` or `now`; 0 where there are no rows."""
        rows = self.rows(side)
        return int(self.counts.filter(value=value)[side].sum()) / rows if rows else 0.0

    def rows(self, side: str) -> int:
        """How many rows there are `before` or `now`."""
        return int(self.counts[side].sum())


def judge(reference: Mapping[str, pl.DataFrame], current: pl.DataFrame, limits: Limits) -> list[Finding]:
    """A finding for each property of `current`; `reference` are the counts (schema COUNTS) of earlier months."""
    months = [counts.with_columns(month=pl.lit(month)) for month, counts in reference.items()]
    rows = pl.concat([current.with_columns(month=pl.lit(_NOW)), *months])
    keys = current.select("table", "property").unique(maintain_order=True).rows()
    by_property = rows.partition_by("table", "property", as_dict=True)
    shares = sum(name in FIGURES for _, name in keys)
    return [
        _judged(table, name, by_property[table, name], limits, shares if name in FIGURES else len(keys) - shares)
        for table, name in keys
    ]


def distance(before: Ints, now: Ints) -> float:
    """Jensen-Shannon distance, natural logarithms, of two rows of counts, int64[V] each; 0 where one has no rows."""
    return float(jensenshannon(before, now)) if before.sum() and now.sum() and (before != now).any() else 0.0


def _judged(table: str, name: str, rows: pl.DataFrame, limits: Limits, others: int) -> Finding:
    """The finding about one of `others` properties of its kind (Bonferroni)."""
    chance = limits.chance / 2 / others
    kept = NEWEST_MONTHS if name in FIGURES else REFERENCE_MONTHS
    months = sorted(rows["month"].unique())[1:][-kept:]
    rows = rows.filter(pl.col("month").is_in([_NOW, *months]))
    wide = rows.pivot("month", index="value", values="count").sort("value").fill_null(0)
    now = wide[_NOW].to_numpy()
    before = np.stack([wide[month].to_numpy() for month in months]) if months else np.zeros((0, len(now)), np.int64)
    counts = pl.DataFrame({"value": wide["value"], "before": before.sum(axis=0), "now": now})
    if name not in FIGURES:
        measure = distance(before.sum(axis=0), now)
        limit = _within(FARTHEST, _farthest(before, now, limits.distance, chance))
        return Finding(table, name, counts, measure, limit)
    yes = (wide["value"] == "true").to_numpy()
    measure = float(now[yes].sum() / now.sum())
    limit = _within(1.0, _highest(before[:, yes].sum(axis=1), before.sum(axis=1), now, limits.rise, chance))
    return Finding(table, name, counts, measure, limit)


def _within(reach: float, limit: float | None) -> float | None:
    """The limit, unless it is beyond what a measure can reach."""
    return limit if limit is not None and limit <= reach else None


def _farthest(before: Ints, now: Ints, least: float, chance: float) -> float | None:
    """The distance from `before` int64[M, V] that a month like `now` int64[V] must stay below."""
    before = before[:, (before.sum(axis=0) + now) > 0]
    months, free = len(before), before.shape[1] - 1
    if months < FEWEST_MONTHS:
        return None
    if not free:
        return least
    expected = np.outer(before.sum(axis=1), before.sum(axis=0) / before.sum())
    squares = np.divide((before - expected) ** 2, expected, out=np.zeros_like(expected), where=expected > 0)
    dispersion, degrees = _dispersion(float(squares.sum()) / free, months - 1)
    rows = 1 / (1 / before.sum() + 1 / now.sum())
    # Near zero, eight times the squared distance and the number of rows is chi-square.
    explained = dispersion * free * stats.f.isf(chance, free, degrees) / (8 * rows)
    return max(least, float(np.sqrt(explained)))


def _highest(hits: Ints, rows: Ints, now: Ints, least: float, chance: float) -> float | None:
    """The share that a month like `now` must stay below, after months with `hits` int64[M] among `rows` int64[M].

    Shares are compared as angles, of which the variance is known whatever the share (Freeman and Tukey 1950).
    """
    hits, rows = hits[rows > 0], rows[rows > 0]
    if len(rows) < FEWEST_MONTHS:
        return None
    # From one month to the next: a share that fades is no dispersion (von Neumann 1941).
    steps = np.diff(_angles(hits, rows)) ** 2 / (1 / rows[1:] + 1 / rows[:-1])
    months = len(steps) + _MONTHS_OF_CHANCE
    dispersion, degrees = _dispersion(float(steps.sum()) + _MONTHS_OF_CHANCE, months)
    spread = np.sqrt(dispersion * (1 / rows.sum() + 1 / now.sum()))
    angle = float(_angles(hits.sum(), rows.sum())) + float(stats.t.isf(chance, degrees)) * float(spread)
    count = int(now.sum())
    explained = ((count + 0.75) * np.sin(min(angle, np.pi) / 2) ** 2 - 0.375) / count
    return max(float(hits.sum() / rows.sum()) + least, float(explained))


def _dispersion(squares: float, degrees: int) -> tuple[float, float]:
    """How many times more than by chance months differ, and the degrees of freedom to which that is known.

    Chance itself is known; only what goes beyond it is estimated (Satterthwaite 1946).
    """
    dispersion = max(1.0, squares / degrees)
    beyond = 1 - 1 / dispersion
    return dispersion, min(_ENDLESS, degrees / beyond**2) if beyond else _ENDLESS


def _angles(hits: Ints | np.int64, rows: Ints | np.int64) -> Doubles:
    return 2 * np.arcsin(np.sqrt((hits + 0.375) / (rows + 0.75)))
