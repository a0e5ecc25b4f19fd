"""How often a healthy model is accused of breaking its promise, and how soon a bad one is found.

    python -m benchmarks.promise [COMPANY] [--seeds 4] [--transfers 1000]

First by simulation: models of a known precision, looked at after every single booking. Then with real models: a walk
forward over COMPANY, a folder of tables, or over simulated companies, each month's bookings judged as their tags come, wrong
tags included, day by day.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import polars as pl
import typer

from matching_platform.learning.walk import backtest
from matching_platform.learning.yardstick import evaluate
from matching_platform.ledger.reading import Ledger, read_ledger
from matching_platform.ledger.validation import validate
from matching_platform.monitoring.promise import FALSE_ALARMS, evidence
from matching_platform.monitoring.realised import realised_quality
from matching_platform.sample.company import Settings, generate

PROMISED: Final = 0.995
PRECISIONS: Final = (0.997, 0.996, 0.995, 0.99, 0.985, 0.98, 0.97)
BOOKINGS: Final = (350, 700, 1500, 3000, 8400)
MODELS: Final = 4000
LEARNED: Final = 6  # months before the first one walked

_ACCUSED: Final = -np.log(FALSE_ALARMS)


def simulated() -> pl.DataFrame:
    """precision, and for each number of bookings the share of models accused by then at any look."""
    random = np.random.default_rng(0)
    rows = []
    for precision in PRECISIONS:
        wrong = random.random((MODELS, max(BOOKINGS))) < 1 - precision
        model, last = np.nonzero(wrong)  # What is right accuses nobody.
        accused = evidence(np.cumsum(wrong, axis=1)[model, last], last + 1, PROMISED) >= _ACCUSED
        found = {str(count): len(set(model[accused & (last < count)])) / MODELS for count in BOOKINGS}
        rows.append({"precision": precision, **found})
    return pl.DataFrame(rows)


def watched(
    ledger: Ledger, proposals: pl.DataFrame, audit: pl.DataFrame | None = None
) -> dict[str, float | int | bool]:
    """How a month's bookings look by their tags, by those that are believed, and in truth; and whether at the end of any
    day their model was accused, by either."""
    told = realised_quality(proposals.with_columns(model=pl.lit("")), ledger).bookings
    tagged = ledger.matches.join(told, on="transfer_id", how="semi")
    by_tags = evaluate(proposals, tagged).outcomes.filter("auto").select("transfer_id", naively="exact")
    days = ledger.matches.group_by("transfer_id").agg(pl.col("tagged_on").max())
    each = told.join(by_tags, on="transfer_id").join(days, on="transfer_id").sort("tagged_on")
    result: dict[str, float | int | bool] = {"bookings": told.height}
    for name, judged in (("by tags", each["naively"]), ("believed", each["exact"])):
        seen = each.select("tagged_on", wrong=~judged).drop_nulls()
        daily = (
            seen.group_by("tagged_on", maintain_order=True)
            .agg(pl.len(), pl.col("wrong").sum())
            .select(pl.col("len", "wrong").cum_sum())
        )
        against = evidence(
            daily["wrong"].to_numpy().astype(np.int64), daily["len"].to_numpy().astype(np.int64), PROMISED
        )
        result |= {f"wrong {name}": int(seen["wrong"].sum()), f"of {name}": seen.height}
        result |= {f"accused {name}": bool((against >= _ACCUSED).any())}
    if audit is not None:
        truth = audit.join(told, on="transfer_id", how="semi")
        result["wrong in truth"] = evaluate(proposals, truth).outcomes.filter("auto", ~pl.col("exact")).height
    return result


def companies(company: Path | None, seeds: int, transfers: int) -> Iterator[tuple[str, Ledger, pl.DataFrame | None]]:
    if company:
        yield company.name, read_ledger(company), None
        return
    for seed in range(seeds):
        made = generate(Settings(seed=seed, months=LEARNED + 12, transfers_per_month=transfers))
        ledger = Ledger(*(validate(name, made[name]) for name in ("invoices", "transfers", "matches")))
        yield f"seed {seed}", ledger, validate("audit", made["audit"])


def main(
    company: Annotated[
        Path | None, typer.Argument(help="A folder of tables; without it companies are simulated")
    ] = None,
    seeds: int = 4,
    transfers: int = 1000,
) -> None:
    """Prints both tables."""
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        typer.echo(simulated())
        for name, ledger, audit in companies(company, seeds, transfers):
            months = ledger.months()[LEARNED:]
            walked = backtest(ledger, months, lambda *_: None)
            rows = [{"month": month, **watched(ledger, proposals, audit)} for month, _, proposals in walked]
            typer.echo(f"{name}\n{pl.DataFrame(rows)}")


if __name__ == "__main__":
    typer.run(main)
