"""Writes the companies and tells of what kinds their transfers are.

    python -m benchmarks.companies OUT [NAME…] [--scale 1.0] [--seed 1]

Each becomes a folder OUT/NAME of invoices, transfers, matches, audit and truth, as Parquet.
"""

import argparse
import sys
import time
from pathlib import Path

import polars as pl

from benchmarks.companies import COMPANIES, generate, write
from matching_platform.learning.yardstick import KINDS, kinds_of
from matching_platform.ledger.reading import read_file, read_ledger


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.companies", description="Writes companies to be judged on."
    )
    parser.add_argument("out", type=Path, help="where a folder is made for each company")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(COMPANIES)}; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="1 makes some 7,500 transfers")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(COMPANIES))
    if unknown or given.scale <= 0:
        parser.error(f"there is no company {', '.join(unknown)}" if unknown else "--scale must be above zero")
    for name in given.names or COMPANIES:
        started = time.perf_counter()
        write(given.out / name, generate(COMPANIES[name], given.scale, given.seed))
        report(given.out / name, time.perf_counter() - started)


def report(folder: Path, seconds: float) -> None:
    """Prints how large the company in `folder` is, and the share of each kind among its transfers."""
    ledger, truth = read_ledger(folder), read_file(folder / "truth.parquet", "audit")
    kinds = kinds_of(truth, ledger.transfers, ledger.invoices).select(pl.col(KINDS).mean()).row(0, named=True)
    size = f"{ledger.invoices.height:,} invoices, {ledger.transfers.height:,} transfers, {truth.height:,} lines"
    sys.stdout.write(f"{folder.name}: {size}, {seconds:.0f} s\n")
    sys.stdout.writelines(f"  {kind:<28}{share:6.3f}\n" for kind, share in kinds.items())
    sys.stdout.flush()


if __name__ == "__main__":
    main()
