"""What a person's correction should count in training, beside any other tag.

    python -m benchmarks.corrections [COMPANY] [--seeds 6] [--transfers 400]

A desk is simulated on COMPANY, a folder of tables with an audit of its last six months, or on simulated companies, of
which every other one's payers change their habits when the desk opens: a model proposes the months of the desk, and of a
share of their transfers a person sets right what was proposed wrongly and confirms the rest; the others get their usual
tags, or none. Then models that give corrections other weights learn from all of it, and are judged on the months after.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import polars as pl
import typer

from matching_platform.learning.examples import label_month, weighted
from matching_platform.learning.training import TrainingSettings, train
from matching_platform.learning.walk import up_to
from matching_platform.learning.yardstick import evaluate, paired_bootstrap, straight_through
from matching_platform.ledger.months import first_day, month_of
from matching_platform.ledger.reading import Ledger, read_file, read_ledger
from matching_platform.ledger.validation import validate
from matching_platform.sample.company import Settings, generate

WEIGHTS: Final = (1.0, 2.0, 4.0, 8.0)
REVIEWED: Final = 0.5  # of the transfers of the desk's months
DESK: Final = 3  # months at the desk, and as many to judge by
LEARNED: Final = 9  # months before the desk of a simulated company

_SHARE_STEPS: Final = 1000


@dataclass(frozen=True)
class Company:
    """A ledger and the truth about its last months, columns of `audit`."""

    name: str
    ledger: Ledger
    audit: pl.DataFrame

    @property
    def desk(self) -> list[str]:
        return self.ledger.months()[-2 * DESK : -DESK]

    @property
    def judged(self) -> list[str]:
        return self.ledger.months()[-DESK:]


def companies(company: Path | None, seeds: int, transfers: int) -> Iterator[Company]:
    if company:
        yield Company(company.name, read_ledger(company), read_file(company / "audit.parquet", "audit"))
        return
    for seed in range(seeds):
        start, shift = "2023-01", "2023-10" if seed % 2 else None
        settings = Settings(
            seed=seed, start=start, months=LEARNED + 2 * DESK, transfers_per_month=transfers, shift_month=shift
        )
        made = generate(settings)
        ledger = Ledger(*(validate(name, made[name]) for name in ("invoices", "transfers", "matches")))
        yield Company(f"seed {seed}{', shifted' if shift else ''}", ledger, validate("audit", made["audit"]))


def reviewed(company: Company, settings: TrainingSettings) -> tuple[Ledger, pl.Series]:
    """The ledger with what the desk decided in place of the tags, and the transfers that were corrected."""
    ledger, months = company.ledger, company.desk
    before = ledger.months()[: -2 * DESK]
    matcher = train([label_month(ledger, month) for month in before], up_to(ledger, before[-1]), before[-1], settings)
    booked = ledger.transfers.filter(month_of("booked_on").is_in(months))
    seen = booked.filter(pl.col("transfer_id").hash(seed=5) % _SHARE_STEPS < REVIEWED * _SHARE_STEPS)
    truth = company.audit.join(seen, on="transfer_id", how="semi", maintain_order="left")
    outcomes = evaluate(matcher.match(ledger, months), truth).outcomes
    decided = truth.with_columns(tagged_on=pl.lit(first_day(company.judged[0])))
    others = ledger.matches.join(truth, on="transfer_id", how="anti", maintain_order="left")
    tags = pl.concat([others, decided.select(ledger.matches.columns)])
    return Ledger(ledger.invoices, ledger.transfers, tags), outcomes.filter(~pl.col("exact"))["transfer_id"]


def judged(company: Company, settings: TrainingSettings) -> tuple[dict[float, pl.DataFrame], int]:
    """The outcomes of the months after the desk by weight, and how many corrections there were."""
    ledger, corrected = reviewed(company, settings)
    until = company.desk[-1]
    examples = [label_month(ledger, month) for month in ledger.months()[:-DESK]]
    booked = ledger.transfers.filter(month_of("booked_on").is_in(company.judged))
    truth = company.audit.join(booked, on="transfer_id", how="semi", maintain_order="left")
    found = {}
    for weight in WEIGHTS:
        lessons = [weighted(pairs, corrected, weight) for pairs in examples]
        matcher = train(lessons, up_to(ledger, until), until, settings)
        outcomes = evaluate(matcher.match(ledger, company.judged), truth).outcomes
        found[weight] = outcomes.with_columns(
            pl.format("{}/{}", pl.lit(company.name), "transfer_id").alias("transfer_id")
        )
    return found, len(corrected)


def told(name: str, found: dict[float, pl.DataFrame], corrections: int) -> pl.DataFrame:
    """A row a weight: what was exactly right, could be booked and was, and the gain over weight 1 with its interval."""
    rows = []
    for weight, outcomes in found.items():
        gain = paired_bootstrap(outcomes, found[WEIGHTS[0]], "exact_paying")
        auto = outcomes.filter("auto")
        row = {
            "company": name,
            "corrections": corrections,
            "weight": weight,
            "exact_paying": outcomes.filter("paying")["exact"].mean(),
            "stp_995": straight_through(outcomes, 0.995),
            "auto": auto["paying"].sum() / outcomes["paying"].sum(),
            "auto_precision": auto["exact"].mean(),
            "gain": gain.mean,
            "low": gain.low,
            "high": gain.high,
        }
        rows.append(row)
    return pl.DataFrame(rows)


def main(
    company: Annotated[
        Path | None, typer.Argument(help="A folder of tables; without it companies are simulated")
    ] = None,
    seeds: int = 6,
    transfers: int = 400,
    seed: Annotated[int, typer.Option(help="Of the trainings")] = TrainingSettings.seed,
) -> None:
    """Prints a table for each company, and one over all of them."""
    settings = TrainingSettings(seed=seed)
    everything: list[tuple[dict[float, pl.DataFrame], int]] = []
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        for each in companies(company, seeds, transfers):
            everything.append(judged(each, settings))
            typer.echo(told(each.name, *everything[-1]))
        together = {weight: pl.concat(found[weight] for found, _ in everything) for weight in WEIGHTS}
        typer.echo(told("all", together, sum(count for _, count in everything)))


if __name__ == "__main__":
    typer.run(main)
