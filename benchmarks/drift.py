"""How often drift is told where the world stands still, and where it moves: over sample companies, and on a folder.

    python -m benchmarks.drift --seeds 40 --first 1000 [--data ../shared/data/company]

A month is judged beside those before it, as the asset judges it before there is a champion; nothing is trained. The sample's
habits shift in month 11; an alarm in months 4 to 10 is false, and so is one in any month of a company that never shifts.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import polars as pl
from scipy.stats import binomtest

from matching_platform.ledger.months import next_month
from matching_platform.ledger.reading import Ledger, read_ledger
from matching_platform.ledger.schema import RAW_TABLES
from matching_platform.ledger.validation import validate
from matching_platform.monitoring.drift.description import Describer
from matching_platform.monitoring.drift.judgement import REFERENCE_MONTHS
from matching_platform.monitoring.drift.limits import Limits
from matching_platform.monitoring.drift.report import DriftReport, drift
from matching_platform.sample import company

START: Final = "2023-01"
MONTHS: Final = 14
QUIET: Final = range(4, 11)
SHIFT: Final = 11
SIZES: Final = (300, 400, 600)


@dataclass(frozen=True)
class Told:
    """What was told of a month, counted from 1, of a company: the names of the properties that moved."""

    seed: int
    size: int
    shifts: bool
    month: int
    moved: list[str]


def reports(ledger: Ledger, limits: Limits) -> Iterator[DriftReport]:
    """The report of each month of a ledger, in order."""
    describer, described = Describer.of(ledger), dict[str, pl.DataFrame]()
    for month in ledger.months():
        counts = describer.describe(month)
        before = dict(list(described.items())[-REFERENCE_MONTHS:])
        yield drift(month, counts, before, limits)
        described[month] = counts


def simulated(asked: tuple[int, bool]) -> list[Told]:
    """What was told of each month of the company with a seed, which shifts or not."""
    seed, shifts = asked
    size = SIZES[seed % len(SIZES)]
    shift = next_month(START, SHIFT - 1) if shifts else None
    made = company.generate(
        company.Settings(seed=seed, start=START, months=MONTHS, transfers_per_month=size, shift_month=shift)
    )
    ledger = Ledger(*(validate(name, made[name]) for name in RAW_TABLES))
    return [
        Told(seed, size, shifts, number, [finding.name for finding in report.moved])
        for number, report in enumerate(reports(ledger, Limits()), 1)
    ]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _share(name: str, hits: int, of: int) -> str:
    interval = binomtest(hits, of).proportion_ci(method="exact")
    return f"{name}: {hits} of {of}, {hits / of:.1%} (95 % interval {interval.low:.1%} to {interval.high:.1%})"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    seeds = range(given.first, given.first + given.seeds)
    with ProcessPoolExecutor(given.processes) as pool:
        found = [
            told
            for each in pool.map(simulated, [(s, shifts) for shifts in (True, False) for s in seeds])
            for told in each
        ]
    quiet = [one for one in found if one.shifts and one.month in QUIET]
    still = [one for one in found if not one.shifts and one.month >= QUIET.start]
    _say(_share("told before the shift, months 4 to 10", sum(bool(one.moved) for one in quiet), len(quiet)))
    _say(_share("told where nothing shifts, months 4 to 14", sum(bool(one.moved) for one in still), len(still)))
    for month in (SHIFT, SHIFT + 1):
        there = [one for one in found if one.shifts and one.month == month]
        _say(_share(f"told in month {month}", sum(bool(one.moved) for one in there), len(there)))
    for one in (*quiet, *still):
        if one.moved:
            _say(f"  false: seed {one.seed}, {one.size} a month, month {one.month}: {', '.join(one.moved)}")
    if given.data:
        for report in reports(read_ledger(given.data), Limits()):
            _say(report.sentence)
    if given.output:
        given.output.write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
