"""On a folder of tables: train, tune, match, backtest, evaluate and explain."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.table import Table

from matching_platform.cli.shared import (
    Data,
    From,
    To,
    UsageError,
    cell,
    check_can_hold,
    err,
    figures,
    money,
    month_given,
    months_between,
    out,
    progress,
    say,
)
from matching_platform.ledger.months import month_of
from matching_platform.ledger.proposals import read_costs, read_proposals, write_proposals
from matching_platform.ledger.reading import Ledger, read_file, read_ledger, table_path

commands = typer.Typer()


@commands.command()
def train(
    data: Data,
    until: Annotated[str, typer.Option(metavar="YYYY-MM", help="Learn from transfers booked up to this month")],
    model: Annotated[Path, typer.Option(help="Folder of the new model; must not exist yet")],
    settings: Annotated[Path | None, typer.Option(help="Training settings, .json, as tune writes them")] = None,
) -> None:
    """Learn from a company's tags and write one model folder."""
    from matching_platform.learning.settings import read_settings
    from matching_platform.learning.training import TooLittleError, TrainingSettings
    from matching_platform.learning.walk import Learner

    month_given(until)
    chosen = read_settings(settings) if settings else TrainingSettings()
    if model.exists():
        raise UsageError(f"{model} exists already; name a new folder, or remove it first")
    check_can_hold(model)
    ledger, started = read_ledger(data), time.perf_counter()
    with progress() as tell:
        try:
            matcher = Learner(ledger, chosen).train(until, tell, model.with_name(f".{model.name}.checkpoint"))
        except TooLittleError as error:
            raise UsageError(f"{data}: {error}") from error
    seconds = time.perf_counter() - started
    matcher.save(model, {"training_seconds": round(seconds, 1)})
    _remove(model.with_name(f".{model.name}.checkpoint"))
    say(f"Model written to {model}, trained until {until} in {seconds:.0f} s.")
    out.print(figures("Judged by itself, each transfer by a scorer that had not seen it", matcher.card["figures"]))
    say(f"Next: matching-platform match {data} --model {model} --output proposals.parquet")


@commands.command()
def tune(
    data: Data,
    until: Annotated[str, typer.Option(metavar="YYYY-MM", help="Search with transfers booked up to this month")],
    study: Annotated[Path, typer.Option(help="Folder of the study; a search that was interrupted goes on from there")],
    trials: Annotated[
        int, typer.Option(min=1, help="Trials of the study, those of interrupted searches included")
    ] = 20,
    minutes: Annotated[
        float, typer.Option(min=0, help="Minutes of the study; the first trial is always finished")
    ] = 30,
    output: Annotated[Path | None, typer.Option(help="Where the best settings go, .json, for train --settings")] = None,
) -> None:
    """Search for better training settings: learn from all but the newest months, and judge by these."""
    from matching_platform.learning.settings import write_settings
    from matching_platform.learning.training import TooLittleError, TrainingSettings
    from matching_platform.learning.tuning import SPACE, Budget, search
    from matching_platform.learning.walk import Learner, up_to

    month_given(until)
    if output and output.is_dir():
        raise UsageError(f"{output} is a folder; name a file in it, for instance {output / 'settings.json'}")
    for path in (study / "study.db", *([output] if output else [])):
        check_can_hold(path)
    ledger, given = read_ledger(data), TrainingSettings()
    with progress() as tell:
        try:
            known = up_to(ledger, until)
            examples = dict(zip(known.months(), Learner(ledger).examples(until, tell), strict=True))
            found = search(examples, known, given, Budget(trials, minutes), study, tell)
        except TooLittleError as error:
            raise UsageError(f"{data}: {error}") from error
    out.print(_trials(found.trials))
    low, high = (100 * bound for bound in found.gain)
    score = f"Score {found.given_score:.4f} → {found.score:.4f}, 95 % interval {low:+.1f} to {high:+.1f} points"
    best = Table("setting", "default", "best", title=score)
    for name in SPACE:
        best.add_row(name, *(cell(getattr(one, name)) for one in (given, found.best)))
    out.print(best)
    if output:
        write_settings(found.best, output)
        say(f"Next: matching-platform train {data} --until {until} --model model --settings {output}")


@commands.command()
def match(
    data: Data,
    model: Annotated[Path, typer.Option(help="Folder of a trained model")],
    output: Annotated[Path, typer.Option(help="Where the proposals go, .parquet")],
    first: From = None,
    last: To = None,
) -> None:
    """Propose, for each transfer, the invoices it settles."""
    from matching_platform.matching.matcher import Matcher

    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file in it, for instance {output / 'proposals.parquet'}")
    if output.suffix == ".csv":
        raise UsageError(f"{output}: proposals are written as Parquet; name {output.with_suffix('.parquet')}")
    check_can_hold(output)
    matcher, ledger = Matcher.load(model), read_ledger(data)
    months = months_between(ledger, first, last)
    started = time.perf_counter()
    with progress() as tell:
        proposals = matcher.match(ledger, months, tell)
    seconds = time.perf_counter() - started
    write_proposals(proposals, output, _costs(matcher.card, proposals["transfer_id"].n_unique() / seconds))
    by_decision = proposals.unique("transfer_id")["decision"].value_counts(sort=True)
    table = Table(
        "decision", "transfers", title=f"{output}: {proposals['transfer_id'].n_unique():,} transfers, {seconds:.1f} s"
    )
    for decision, count in by_decision.iter_rows():
        table.add_row(decision, f"{count:,}")
    out.print(table)


@commands.command()
def backtest(
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder for proposals.parquet, months.csv and figures.json")],
    first: Annotated[str, typer.Option("--from", metavar="YYYY-MM", help="First month to match")],
    last: Annotated[str, typer.Option("--to", metavar="YYYY-MM", help="Last month, included")],
) -> None:
    """Walk forward: before each month learn from all before it, match it, and judge by what people tagged."""
    from matching_platform.learning import walk
    from matching_platform.learning.training import TooLittleError
    from matching_platform.learning.yardstick import evaluate as judge

    check_can_hold(output / "proposals.parquet")
    ledger = read_ledger(data)
    months = months_between(ledger, first, last)
    truth, transfers = _truth_of(data, ledger), ledger.transfers
    parts: list[pl.DataFrame] = []
    rows: list[dict[str, Any]] = []
    with progress() as tell:
        try:
            for month, _, proposals in walk.backtest(ledger, months, tell):
                parts.append(proposals)
                wanted = truth.join(transfers.filter(month_of("booked_on") == month), on="transfer_id", how="semi")
                if len(wanted):
                    rows.append({"month": month, **judge(proposals, wanted, transfers, ledger.invoices).figures})
                write_proposals(pl.concat(parts), output / "proposals.parquet")
                pl.DataFrame(rows).write_csv(output / "months.csv")
        except TooLittleError as error:
            raise UsageError(f"{data}: {error}") from error
    if not rows:
        raise UsageError(
            f"{data}: no transfer of {months[0]} to {months[-1]} is tagged, so there is nothing to judge by"
        )
    wanted = truth.join(transfers.filter(month_of("booked_on").is_in(months)), on="transfer_id", how="semi")
    evaluation = judge(pl.concat(parts), wanted, transfers, ledger.invoices)
    (output / "figures.json").write_text(json.dumps(evaluation.to_dict(), indent=2) + "\n")
    table = Table(
        "month", "transfers", "exact_paying", "f1", "stp_995", "auto precision", "auto share", title="Walk forward"
    )
    for row in [*rows, {"month": "all", **evaluation.figures}]:
        names = ("exact_paying", "f1", "stp_995", "auto_precision", "auto_share")
        table.add_row(row["month"], f"{row['transfers']:,.0f}", *(f"{row[name]:.3f}" for name in names))
    out.print(table)
    say(f"Proposals, monthly figures and all figures lie in {output}.")


@commands.command()
def evaluate(
    proposals: Annotated[Path, typer.Argument(help="proposals.parquet", show_default=False)],
    truth: Annotated[
        Path, typer.Option(help="audit or matches, .parquet or .csv; invoices and transfers beside it tell the kinds")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables")] = False,
) -> None:
    """Judge proposals by the truth."""
    from matching_platform.learning.yardstick import evaluate as judge

    beside = {name: table_path(truth.parent, name) for name in ("transfers", "invoices")}
    transfers, invoices = (read_file(path, name) if path else None for name, path in beside.items())
    proposed, wanted = read_proposals(proposals), read_file(truth, "audit")
    if wanted.is_empty():
        raise UsageError(f"{truth} holds no transfer; give the audit, or matches of the months that were matched")
    evaluation = judge(proposed, wanted, transfers, invoices)
    unanswered = evaluation.outcomes["decision"].null_count()
    if unanswered:
        err.print(f"{unanswered:,} transfers of {truth} have no proposal and count as wrong.", soft_wrap=True)
    costs = read_costs(proposals)
    if as_json:
        sys.stdout.write(json.dumps(evaluation.to_dict() | {"costs": costs}, indent=2) + "\n")
        return
    out.print(figures(f"{evaluation.figures['transfers']:,.0f} transfers judged", evaluation.figures))
    kinds = Table(
        *(name.replace("_", " ") for name in evaluation.by_kind.columns), title="By kind (a transfer may be of several)"
    )
    for row in evaluation.by_kind.iter_rows():
        kinds.add_row(*(cell(value) for value in row))
    out.print(kinds)
    if costs:
        out.print(figures("What it cost", costs))


@commands.command()
def explain(
    proposals: Annotated[Path, typer.Argument(help="proposals.parquet", show_default=False)],
    transfer_id: Annotated[str, typer.Argument(help="The transfer to explain", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the tables, to show the transfer and the invoices themselves")
    ] = None,
) -> None:
    """Say, for a person, what speaks for and against one proposal."""
    rows = read_proposals(proposals).filter(pl.col("transfer_id") == transfer_id)
    if rows.is_empty():
        raise UsageError(f"{proposals} holds no transfer '{transfer_id}'")
    tables = read_ledger(data) if data else None
    if tables:
        for transfer in tables.transfers.filter(pl.col("transfer_id") == transfer_id).iter_rows(named=True):
            say(
                f"{transfer['booked_on']}  {money(transfer['amount'])} {transfer['currency']} {transfer['direction']}"
                f"  {transfer['counterparty_name']}\n“{transfer['title']}”\n"
            )
        rows = rows.join(tables.invoices.drop("amount"), on="invoice_id", how="left")
    first = rows.row(0, named=True)
    meaning = {"auto": "may be booked unattended", "review": "proposed, a person decides", "none": "settles nothing"}
    say((transfer_id, "bold"), f": {meaning[first['decision']]}, confidence {first['confidence']:.4f}")
    if first["decision"] != "none":
        shown = ("invoice_id", "amount", *(("number", "counterparty_name", "issued_on") if tables else ()))
        table = Table(*(name.replace("_", " ") for name in shown))
        for row in rows.iter_rows(named=True):
            table.add_row(*(money(row[name]) if name == "amount" else cell(row[name]) for name in shown))
        out.print(table)
    for statement in first["evidence"]:
        sign = "−" if statement.startswith("against: ") else "·" if statement.startswith("runner-up") else "+"
        out.print(f"  {sign} {statement.removeprefix('against: ')}")


def _truth_of(data: Path, ledger: Ledger) -> pl.DataFrame:
    """The audit where the folder has one, filled up with the tags of months that it does not judge."""
    path = table_path(data, "audit")
    tags = ledger.matches.drop("tagged_on")
    if path is None:
        return tags
    audit = read_file(path, "audit")
    return pl.concat([audit, tags.join(audit, on="transfer_id", how="anti")])


def _trials(trials: pl.DataFrame) -> Table:
    """A row per trial, narrow enough for a terminal."""
    shown = trials.select(pl.exclude("state", "seconds"), s=pl.col("seconds").round().cast(pl.Int64))
    table = Table(
        *(name.replace("_", "\n") for name in shown.columns),
        title="Trials: 0 has the defaults; without figures, it fell behind early",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for row in shown.iter_rows():
        table.add_row(*(cell(value) for value in row))
    return table


def _costs(card: dict[str, Any], transfers_per_second: float) -> dict[str, float]:
    """What a model's card tells about its costs, and how fast it matched."""
    told = card["figures"] | card
    costs = {name: told[name] for name in ("training_seconds", "candidates_per_transfer") if name in told}
    return costs | {"transfers_per_second": float(round(transfers_per_second))}


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
