"""The comparison in the README: rules, boosted trees and the model over the same transfers, measured in one run.

    python -m benchmarks.figures COMPANY PAY_TO_INV

COMPANY is a folder of tables whose last months have an audit; PAY_TO_INV is one that goes back beyond 2014, such as the
public payment-to-invoice benchmark. Writes the figures (benchmarks/figures.json), the README's table and its picture.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import polars as pl
import torch
import typer

from benchmarks.picture import draw
from benchmarks.readme import insert
from matching_platform.learning.baselines import rules
from matching_platform.learning.baselines.trees import Trees
from matching_platform.learning.examples import credible_tags
from matching_platform.learning.training import TrainingSettings
from matching_platform.learning.walk import Learner, up_to
from matching_platform.learning.yardstick import Evaluation, evaluate
from matching_platform.ledger.months import month_of, next_month
from matching_platform.ledger.reading import Ledger, read_file, read_ledger, table_path
from matching_platform.ledger.validation import LedgerError
from matching_platform.matching.features import Reader
from matching_platform.matching.history import History
from matching_platform.matching.matcher import Matcher
from matching_platform.matching.scorer import score
from matching_platform.matching.settlement import propose

ROOT: Final = Path(__file__).parents[1]
WALKED_FROM: Final = 2  # months to learn from before the first one is walked
CURVE_POINTS: Final = 100

Match = Callable[[Ledger, list[str] | None], pl.DataFrame]
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Exam:
    """The transfers of `months` in `ledger` (all where None), and the truth about those that are judged."""

    name: str
    title: str
    ledger: Ledger
    months: list[str] | None
    truth: pl.DataFrame


@dataclass(frozen=True)
class Learned:
    """What learned from a ledger, and how long that took, labelling included, in seconds."""

    model: Matcher
    trees: Trees
    seconds: dict[str, float]


def measure(
    company: Path,
    pay_to_inv: Path,
    tell: Tell,
    learned_until: str = "2014-12",
    settings: TrainingSettings | None = None,
) -> dict[str, Any]:
    """All figures, as JSON has them; on `pay_to_inv` the months after `learned_until` are judged.

    LedgerError where a folder cannot be read or lacks what is judged by.
    """
    ledger, other, audit = read_ledger(company), read_ledger(pay_to_inv), _audit(company)
    audited = _months(ledger, audit)
    later = [month for month in other.months() if month > learned_until]
    tags = other.matches.drop("tagged_on")
    later_tags = _of_months(other, tags, later)
    if later_tags.is_empty():
        raise LedgerError(str(pay_to_inv), f"has no match of a transfer booked after {learned_until}", rows=tags)
    untold = Ledger(other.invoices, other.transfers, other.matches.clear())
    home = Learner(ledger, settings or TrainingSettings())
    abroad = Learner(other, home.settings)
    at_home = learn(home, next_month(audited[0], -1), _titled(tell, "company, learning"))
    own = learn(abroad, learned_until, _titled(tell, "pay_to_inv, learning"))
    exams = [
        (Exam("company", f"company, {audited[0]} to {audited[-1]}", ledger, audited, audit), at_home),
        (Exam("pay_to_inv", f"pay_to_inv, {later[0]} to {later[-1]}", other, later, later_tags), own),
        (Exam("cold start", "pay_to_inv, cold start", untold, None, tags), at_home),
    ]
    return {
        "cores": os.cpu_count(),
        "exams": [sit(exam, learned, _titled(tell, exam.name)) for exam, learned in exams],
        "walk": walk(home, audit, _titled(tell, "walk forward")),
    }


def learn(learner: Learner, until: str, tell: Tell) -> Learned:
    """The model and the trees that learned from transfers booked up to `until`."""
    times = [time.perf_counter()]
    examples = learner.examples(until, tell)
    times.append(time.perf_counter())
    model = learner.train(until, tell)
    times.append(time.perf_counter())
    trees = Trees.learn(examples, up_to(learner.ledger, until), until)
    times.append(time.perf_counter())
    labelling, training, growing = (after - before for before, after in pairwise(times))
    return Learned(model, trees, {"trees": labelling + growing, "model": labelling + training})


def sit(exam: Exam, learned: Learned, tell: Tell) -> dict[str, Any]:
    """The figures of each side on `exam`, its curve (share booked, precision), and what the model's candidates hold."""
    sides: dict[str, Match] = {"rules": rules.match, "trees": learned.trees.match, "model": learned.model.match}
    proposals: dict[str, pl.DataFrame] = {}
    judged: dict[str, Evaluation] = {}
    for done, (side, match) in enumerate(sides.items()):
        tell(side, done / len(sides))
        started = time.perf_counter()
        proposals[side] = match(exam.ledger, exam.months)
        seconds = time.perf_counter() - started
        judged[side] = evaluate(proposals[side], exam.truth, exam.ledger.transfers, exam.ledger.invoices, seconds)
    tell("candidates", 1.0)
    figures = {side: evaluation.figures for side, evaluation in judged.items()}
    for side, seconds in learned.seconds.items():
        figures[side] |= {"training_seconds": seconds}
    figures["model"] |= _shares(exam, learned, proposals["model"])
    return {
        "exam": exam.name,
        "title": exam.title,
        "sides": {side: _rounded(told) for side, told in figures.items()},
        "curves": {side: _thinned(evaluation.curve) for side, evaluation in judged.items()},
    }


def walk(learner: Learner, audit: pl.DataFrame, tell: Tell) -> list[dict[str, Any]]:
    """month, whether it is in the ledger's first year, judged_by and the figures of each side, which learned from all
    months before it: judged by the audit where the month is audited, else by its credible tags.
    """
    ledger, months = learner.ledger, learner.ledger.months()[WALKED_FROM:]
    second_year = next_month(ledger.months()[0], 12)
    tags = credible_tags(ledger).select(audit.columns)
    audited = _months(ledger, audit)
    by_rules = rules.match(ledger, months)
    rows: list[dict[str, Any]] = []
    for month in months:
        learned = learn(learner, next_month(month, -1), _titled(tell, month))
        proposals = {
            "rules": by_rules,
            "trees": learned.trees.match(ledger, [month]),
            "model": learned.model.match(ledger, [month]),
        }
        truth = _of_months(ledger, audit if month in audited else tags, [month])
        judged = {side: _rounded(evaluate(found, truth).figures) for side, found in proposals.items()}
        judged_by = "audit" if month in audited else "tags"
        rows.append({"month": month, "first_year": month < second_year, "judged_by": judged_by, "sides": judged})
    return rows


def _shares(exam: Exam, learned: Learned, proposals: pl.DataFrame) -> dict[str, float]:
    """What of the truth the model gets to see, with what is known when a month begins: matches and its own bookings.

    true_pairs_found: share of true pairs among the candidates; candidates_per_transfer; right_set_considered: share of
    transfers whose right set, or "nothing", is among those that are compared.
    """
    history = History.of(exam.ledger)
    untagged = [month for month in exam.ledger.months() if not history.is_tagged(month)]
    booked = _of_months(exam.ledger, proposals.filter(decision="auto"), untagged)
    history = history.and_also(booked.select("transfer_id", "invoice_id", "amount"))
    seen = pl.concat(_seen(exam, history, month, learned) for month in _months(exam.ledger, exam.truth))
    return seen.select(
        true_pairs_found=pl.col("found").sum() / pl.col("true").sum(),
        candidates_per_transfer=pl.col("candidates").mean(),
        right_set_considered=pl.col("considered").mean(),
    ).row(0, named=True)


def _seen(exam: Exam, history: History, month: str, learned: Learned) -> pl.DataFrame:
    """A row per judged transfer of `month`: how many candidates, true pairs among them, true pairs, right set considered."""
    world = learned.trees.world(exam.ledger, history, month)
    rows = np.flatnonzero(world.transfers["transfer_id"].is_in(exam.truth["transfer_id"].unique().implode()))
    lists = Reader(world).read(rows, rows, world.settlements)
    at = lists.pairs.transfer
    logit, _ = score(learned.model.pairs, torch.from_numpy(lists.pair), torch.from_numpy(lists.context), at)
    sets = propose(lists, logit)
    true = exam.truth.drop_nulls("invoice_id").select("transfer_id", "invoice_id").unique()
    pairs = pl.DataFrame({"row": at, "invoice_id": world.invoices["invoice_id"].gather(lists.pairs.invoice)})
    transfers = pl.DataFrame({"row": np.arange(len(rows)), "transfer_id": world.transfers["transfer_id"].gather(rows)})
    hits = (
        pairs.with_columns(bit=pl.lit(2, pl.Int64).pow(pl.int_range(pl.len()).over("row")))
        .join(transfers, on="row", maintain_order="left")
        .join(true.with_columns(hit=1), on=true.columns, how="left", maintain_order="left")
        .group_by("row")
        .agg(candidates=pl.len(), found=pl.col("hit").count(), mask=(pl.col("bit") * pl.col("hit")).sum())
    )
    compared = pl.DataFrame({"row": sets.transfer, "mask": sets.mask}).unique().with_columns(compared=True)
    return (
        transfers.join(true.group_by("transfer_id").len("true"), on="transfer_id", how="left")
        .join(hits, on="row", how="left")
        .with_columns(pl.col("true", "candidates", "found", "mask").fill_null(0).cast(pl.Int64))
        .join(compared, on=["row", "mask"], how="left")
        .select(
            "candidates",
            "found",
            "true",
            considered=pl.col("compared").eq_missing(True) & pl.col("found").eq(pl.col("true")),
        )
    )


def _audit(folder: Path) -> pl.DataFrame:
    path = table_path(folder, "audit")
    if path is None:
        raise LedgerError(str(folder), "has no audit.parquet or audit.csv to judge by", rows=pl.DataFrame())
    return read_file(path, "audit")


def _months(ledger: Ledger, truth: pl.DataFrame) -> list[str]:
    """The months in which the transfers of `truth` were booked."""
    return sorted(
        ledger.transfers.join(truth, on="transfer_id", how="semi").select(month_of("booked_on").unique()).to_series()
    )


def _of_months(ledger: Ledger, truth: pl.DataFrame, months: list[str]) -> pl.DataFrame:
    booked = ledger.transfers.filter(month_of("booked_on").is_in(months))
    return truth.join(booked, on="transfer_id", how="semi")


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in figures.items()}


def _thinned(curve: pl.DataFrame) -> list[tuple[float, float]]:
    few = curve.gather_every(max(1, curve.height // CURVE_POINTS)).select("share", "precision")
    return [(round(share, 5), round(precision, 5)) for share, precision in few.iter_rows()]


def _titled(tell: Tell, title: str) -> Tell:
    return lambda step, share: tell(f"{title}: {step}", share)


def _printed() -> Tell:
    """Prints each step when it begins, and when that was."""
    started, begun = time.perf_counter(), set[str]()

    def tell(step: str, _share: float) -> None:
        if step not in begun:
            begun.add(step)
            typer.echo(f"{time.perf_counter() - started:6.0f} s  {step}", err=True)

    return tell


def main(
    company: Annotated[Path, typer.Argument(help="Folder of tables with an audit", show_default=False)],
    pay_to_inv: Annotated[Path, typer.Argument(help="Folder of tables that begin before 2015", show_default=False)],
) -> None:
    """Measures all figures in one run; writes benchmarks/figures.json, the README's table and docs/benchmark.svg."""
    try:
        figures = measure(company, pay_to_inv, _printed())
    except LedgerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    write(figures, ROOT)


def write(figures: dict[str, Any], root: Path) -> None:
    """The figures, and the table and picture made of them, into the checkout at `root`."""
    (root / "benchmarks" / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    readme = root / "README.md"
    readme.write_text(insert(readme.read_text(encoding="utf-8"), figures), encoding="utf-8")
    draw(figures, root / "docs" / "benchmark.svg")


if __name__ == "__main__":
    typer.run(main)
