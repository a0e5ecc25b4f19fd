"""The README's figures: the rules and the model side by side, in one run, on folders of real tables.

    python benchmarks/figures.py COMPANY PAY_TO_INV

COMPANY has an audit of its last six months; PAY_TO_INV is the public payment-to-invoice benchmark. Prints a Markdown table.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from matching_platform.learning import rules
from matching_platform.learning.walk import Learner
from matching_platform.learning.yardstick import evaluate
from matching_platform.ledger.months import month_of, months_between
from matching_platform.ledger.reading import Ledger, read_file, read_ledger

FIGURES = ("exact", "exact_paying", "f1", "stp_995", "auto_precision", "auto_share", "ece", "amount_exact")
Match = Callable[[Ledger, list[str] | None], pl.DataFrame]


def measure(title: str, match: Match, ledger: Ledger, months: list[str] | None, truth: pl.DataFrame) -> None:
    """Prints a row of the table: the figures of `match` on `months`, and its transfers a second."""
    started = time.perf_counter()
    proposals = match(ledger, months)
    seconds = time.perf_counter() - started
    figures = evaluate(proposals, truth, ledger.transfers, ledger.invoices, seconds).figures
    cells = [f"{figures[name]:.3f}" for name in FIGURES] + [f"{figures['transfers_per_second']:,.0f}"]
    sys.stdout.write(f"| {title} | {' | '.join(cells)} |\n")
    sys.stdout.flush()


def main(company_folder: Path, benchmark_folder: Path) -> None:
    def silent(_step: str, _share: float) -> None:
        """Nobody watches."""

    sys.stdout.write(f"| | {' | '.join(FIGURES)} | transfers/s |\n|---|{'---|' * (len(FIGURES) + 1)}\n")
    company = read_ledger(company_folder)
    months, audit = months_between("2024-07", "2024-12"), read_file(company_folder / "audit.parquet", "audit")
    started = time.perf_counter()
    model = Learner(company).train("2024-06", silent)
    trained = {"company": time.perf_counter() - started}
    measure("company: rules", rules.match, company, months, audit)
    measure("company: model", model.match, company, months, audit)

    benchmark = read_ledger(benchmark_folder)
    later = [month for month in benchmark.months() if month > "2014-12"]
    chosen = benchmark.transfers.filter(month_of("booked_on").is_in(later))
    truth = benchmark.matches.drop("tagged_on").join(chosen, on="transfer_id", how="semi")
    started = time.perf_counter()
    own = Learner(benchmark).train("2014-12", silent)
    trained["pay_to_inv"] = time.perf_counter() - started
    measure("pay_to_inv 2015–2024: rules", rules.match, benchmark, later, truth)
    measure("pay_to_inv 2015–2024: model", own.match, benchmark, later, truth)

    cold = Ledger(benchmark.invoices, benchmark.transfers, benchmark.matches.clear())
    truth = benchmark.matches.drop("tagged_on")
    measure("pay_to_inv, cold start: rules", rules.match, cold, None, truth)
    measure("pay_to_inv, cold start: the company's model", model.match, cold, None, truth)
    for name, seconds in trained.items():
        sys.stdout.write(f"\n{name}: trained in {seconds:.0f} s, labelling included.\n")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:3]))
