"""The command line: train, tune, match, backtest, evaluate and explain on a folder of tables; models; the demo."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import polars as pl
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from matching_platform.ledger.money import MINOR_UNITS
from matching_platform.ledger.months import month_of, parse_month
from matching_platform.ledger.proposals import read_costs, read_proposals, write_proposals
from matching_platform.ledger.reading import Ledger, read_file, read_ledger, table_path
from matching_platform.ledger.schema import RAW_TABLES
from matching_platform.ledger.validation import LedgerError

app = typer.Typer(
    help="Says which invoices each bank transfer pays, at a promised precision.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models = typer.Typer(
    help="The models of the store: which there are, which is champion, promote and roll back.", no_args_is_help=True
)
app.add_typer(models, name="models")
# Ids, numbers and titles may hold anything: no text is read as markup here, and styles are given by `Text`.
out = Console(markup=False, emoji=False, highlight=False)
err = Console(markup=False, emoji=False, highlight=False, stderr=True)

Data = Annotated[
    Path, typer.Argument(help="Folder with invoices, transfers and matches, as .parquet or .csv", show_default=False)
]
From = Annotated[str | None, typer.Option("--from", metavar="YYYY-MM", help="First month, by booking date")]
To = Annotated[str | None, typer.Option("--to", metavar="YYYY-MM", help="Last month, included")]


class UsageError(ValueError):
    """A request that cannot be carried out as it stands."""


def main() -> None:
    """Runs the command line; errors of input end with one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(1)
    except typer.TyperException as error:
        # Without a command, help was shown, and there is nothing more to say.
        _fail(error.format_message())
    except _expected() as error:
        _fail(str(error))
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(told: str) -> NoReturn:
    if told:
        err.print(f"error: {' '.join(told.split())}", soft_wrap=True, style="red")
    sys.exit(2)


def _expected() -> tuple[type[Exception], ...]:
    """Errors that are the user's to mend; looked up only when one is raised."""
    from pydantic_settings import SettingsError

    from matching_platform.delivery.images.image import ImageError
    from matching_platform.delivery.serving.place import RolloutError
    from matching_platform.environment import NotConfiguredError
    from matching_platform.learning.settings import TrainingSettingsError
    from matching_platform.learning.split import SplitError
    from matching_platform.learning.tuning import StudyError
    from matching_platform.matching.matcher import ModelError
    from matching_platform.store.files import StoreError
    from matching_platform.warehouse.warehouse import WarehouseError

    ours = (
        ImageError,
        LedgerError,
        ModelError,
        NotConfiguredError,
        RolloutError,
        SplitError,
        StoreError,
        StudyError,
        TrainingSettingsError,
        UsageError,
        WarehouseError,
    )
    return (*ours, OSError, SettingsError)


@app.command()
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

    _month(until)
    chosen = read_settings(settings) if settings else TrainingSettings()
    if model.exists():
        raise UsageError(f"{model} exists already; name a new folder, or remove it first")
    _check_can_hold(model)
    ledger, started = read_ledger(data), time.perf_counter()
    with _progress() as tell:
        try:
            matcher = Learner(ledger, chosen).train(until, tell, model.with_name(f".{model.name}.checkpoint"))
        except TooLittleError as error:
            raise UsageError(f"{data}: {error}") from error
    seconds = time.perf_counter() - started
    matcher.save(model, {"training_seconds": round(seconds, 1)})
    _remove(model.with_name(f".{model.name}.checkpoint"))
    _say(f"Model written to {model}, trained until {until} in {seconds:.0f} s.")
    out.print(_figures("Judged by itself, each transfer by a scorer that had not seen it", matcher.card["figures"]))
    _say(f"Next: matching-platform match {data} --model {model} --output proposals.parquet")


@app.command()
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

    _month(until)
    if output and output.is_dir():
        raise UsageError(f"{output} is a folder; name a file in it, for instance {output / 'settings.json'}")
    for path in (study / "study.db", *([output] if output else [])):
        _check_can_hold(path)
    ledger, given = read_ledger(data), TrainingSettings()
    with _progress() as tell:
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
        best.add_row(name, *(_cell(getattr(one, name)) for one in (given, found.best)))
    out.print(best)
    if output:
        write_settings(found.best, output)
        _say(f"Next: matching-platform train {data} --until {until} --model model --settings {output}")


@app.command()
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
    _check_can_hold(output)
    matcher, ledger = Matcher.load(model), read_ledger(data)
    months = _months(ledger, first, last)
    started = time.perf_counter()
    with _progress() as tell:
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


@app.command()
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

    _check_can_hold(output / "proposals.parquet")
    ledger = read_ledger(data)
    months = _months(ledger, first, last)
    truth, transfers = _truth_of(data, ledger), ledger.transfers
    parts: list[pl.DataFrame] = []
    rows: list[dict[str, Any]] = []
    with _progress() as tell:
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
    _say(f"Proposals, monthly figures and all figures lie in {output}.")


@app.command()
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
    out.print(_figures(f"{evaluation.figures['transfers']:,.0f} transfers judged", evaluation.figures))
    kinds = Table(
        *(name.replace("_", " ") for name in evaluation.by_kind.columns), title="By kind (a transfer may be of several)"
    )
    for row in evaluation.by_kind.iter_rows():
        kinds.add_row(*(_cell(value) for value in row))
    out.print(kinds)
    if costs:
        out.print(_figures("What it cost", costs))


@app.command()
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
            _say(
                f"{transfer['booked_on']}  {_money(transfer['amount'])} {transfer['currency']} {transfer['direction']}"
                f"  {transfer['counterparty_name']}\n“{transfer['title']}”\n"
            )
        rows = rows.join(tables.invoices.drop("amount"), on="invoice_id", how="left")
    first = rows.row(0, named=True)
    meaning = {"auto": "may be booked unattended", "review": "proposed, a person decides", "none": "settles nothing"}
    _say((transfer_id, "bold"), f": {meaning[first['decision']]}, confidence {first['confidence']:.4f}")
    if first["decision"] != "none":
        shown = ("invoice_id", "amount", *(("number", "counterparty_name", "issued_on") if tables else ()))
        table = Table(*(name.replace("_", " ") for name in shown))
        for row in rows.iter_rows(named=True):
            table.add_row(*(_money(row[name]) if name == "amount" else _cell(row[name]) for name in shown))
        out.print(table)
    for statement in first["evidence"]:
        sign = "−" if statement.startswith("against: ") else "·" if statement.startswith("runner-up") else "+"
        out.print(f"  {sign} {statement.removeprefix('against: ')}")


@models.command("list")
def list_models() -> None:
    """All models of the store, the champion marked."""
    table = Table("model", "status", "trained until", "promotions")
    for model in _registry().models():
        table.add_row(
            model.manifest.version.name,
            Text(model.status, "green" if model.status == "champion" else ""),
            str(_card(model.manifest.version)["trained_until"]),
            str(len(model.promotions)),
        )
    out.print(table)


@models.command("show")
def show_model(
    version: Annotated[str, typer.Argument(help="Version, or the beginning of its name", show_default=False)],
) -> None:
    """A model's card and what became of it."""
    model = _registry().show(version)
    _say((model.manifest.version.name, "bold"), f", {model.status}")
    out.print_json(data=_card(model.manifest.version))
    for promotion in model.promotions:
        out.print(f"{promotion.time:%Y-%m-%d %H:%M} {promotion.action} by {promotion.actor}: {promotion.reason}")


@models.command("history")
def history() -> None:
    """Every promotion and rollback, the first one first; the last one is in force."""
    for entry in _registry().history():
        when = f"  {entry.time:%Y-%m-%d %H:%M} UTC  {entry.action}  "
        _say((str(entry.number), "bold"), when, (entry.model.name, "bold"), f"  by {entry.actor}")
        for reason in entry.reason.split("; "):
            out.print(f"     {reason}")


Reason = Annotated[str, typer.Option(help="Why; it stays in the record")]
Actor = Annotated[str | None, typer.Option(help="Who; the user logged in by default")]


@models.command("rollback")
def rollback(
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="The model to go back to; the last good one by default")] = None,
    actor: Actor = None,
) -> None:
    """Make an earlier champion champion again, after it has loaded and answered, and serve it; nothing is built."""
    from matching_platform.defs.releasing import roll_back
    from matching_platform.environment import Platform, load
    from matching_platform.store.record import whoami

    rolled = roll_back(Platform(load()), actor=actor or whoami(), reason=reason, to=to)
    assert rolled is not None
    _say(f"{rolled.champion.model.name} is champion again (promotion {rolled.champion.number}).")
    if rolled.deployment:
        _say(f"Model {rolled.deployment.model} answers at {rolled.deployment.url}.")
    else:
        _say("Nothing answers requests: no model was ever rolled out.")


@models.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="Version, or the beginning of its name", show_default=False)],
    reason: Reason,
    actor: Actor = None,
) -> None:
    """Make the newest evaluated model champion, if every blocking check of its own evaluation passed."""
    from matching_platform.defs import gate, local
    from matching_platform.environment import Platform, load
    from matching_platform.store.record import whoami

    platform = Platform(load())
    model = platform.registry.show(version).manifest.version
    asked = gate.newest(platform)
    with local.instance(local.home()) as instance:
        found = gate.hurdles(platform, instance, asked.candidate if asked else None, by_hand=True)
    if asked and asked.examined.model != model:
        found.insert(0, f"the newest evaluation is of model {asked.examined.model.name}, not of {model.name}")
    if found or asked is None:
        raise UsageError(f"the gate is closed for {model.name}: {'; '.join(found)}")
    promotion = platform.registry.promote(
        model, asked.version, actor or whoami(), reason, expected_last=asked.examined.promotion
    )
    _say(f"{promotion.model.name} is champion (promotion {promotion.number}).")


@app.command()
def demo() -> None:
    """Run the whole platform on a sample company, and say what came of it; a second run does only what is left."""
    from matching_platform import demo as sample

    if not sample.run(Console()):
        raise typer.Exit(1)


@app.command()
def load(data: Data) -> None:
    """Check a folder of tables and load it into the warehouse; months that are there already are replaced."""
    from matching_platform.environment import Platform
    from matching_platform.environment import load as settings

    chosen = settings()
    ledger, platform = read_ledger(data), Platform(chosen)
    platform.warehouse.load_folder(data)
    booked = ledger.matches.join(ledger.transfers.select("transfer_id", "booked_on"), on="transfer_id")
    dates = (ledger.invoices["issued_on"], ledger.transfers["booked_on"], booked["booked_on"])
    table = Table("table", "rows", "months", "first", "last", title=f"loaded into {platform.raw_tables}")
    for name, days in zip(RAW_TABLES, dates, strict=True):
        months = days.dt.strftime("%Y-%m").unique().sort().to_list()
        table.add_row(name, f"{len(days):,}", str(len(months)), *(months[:1] or "–"), *(months[-1:] or "–"))
    out.print(table)
    first, last = chosen.first_month or "", chosen.last_month or "9999-12"
    beyond = [month for month in ledger.months() if not first <= month <= last]
    if beyond:
        _say(
            f"{len(beyond)} months ({beyond[0]} to {beyond[-1]}) lie outside {first} to {last} and will not be seen: "
            "set MATCHING_PLATFORM_FIRST_MONTH and MATCHING_PLATFORM_LAST_MONTH."
        )
    _say("Next: `make dev` starts Dagster; where it runs, its sensor finds the new months by itself.")


@app.command()
def doctor() -> None:
    """Look whether everything that the platform needs is there, and say what to do where it is not."""
    import dagster as dg

    from matching_platform.doctor import Finding, examine, sensors
    from matching_platform.environment import Platform
    from matching_platform.environment import load as settings

    def tell(finding: Finding) -> bool:
        mark, style = ("ok", "green") if finding.fine else ("no", "bold red")
        _say((f"{mark}  ", style), f"{finding.subject}: {finding.seen}")
        if finding.advice:
            _say(("    → ", "dim"), finding.advice)
        return finding.fine

    platform = Platform(settings())
    _say(f"The environment '{platform.settings.environment}':")
    well = [tell(finding) for finding in examine(platform)]
    if os.environ.get("DAGSTER_HOME"):
        from matching_platform.definitions import defs

        with dg.DagsterInstance.get() as instance:
            well += [tell(finding) for finding in sensors(instance, defs.get_repository_def())]
    problems = well.count(False)
    _say("Everything is there." if not problems else f"{problems} of {len(well)} need something done.")
    if problems:
        raise typer.Exit(1)


@app.command()
def serve() -> None:
    """Start the service that was rolled out last, where it does not run, and say where it answers."""
    from matching_platform.environment import Platform, load

    deployed = Platform(load()).here().resume()
    _say(f"Model {deployed.model} answers at {deployed.url}; `matching-platform stop` ends it.")


@app.command()
def stop() -> None:
    """Stop the service, after the requests in flight."""
    from matching_platform.environment import PRODUCTION, STAGING, Platform, load

    platform = Platform(load())
    for place in (PRODUCTION, STAGING):
        platform.here(place).stop()
    _say("The service is stopped; `matching-platform serve` starts it again.")


def _registry() -> Any:
    from matching_platform.environment import Platform, load

    return Platform(load()).registry


def _card(version: Any) -> dict[str, Any]:
    from matching_platform.environment import Platform, load

    card: dict[str, Any] = json.loads((Platform(load()).store.fetch(version) / "card.json").read_text())
    return card


def _month(text: str) -> str:
    try:
        return parse_month(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _months(ledger: Ledger, first: str | None, last: str | None) -> list[str]:
    known = ledger.months()
    if not known:
        raise UsageError("there are no transfers to match")
    begin, end = _month(first or known[0]), _month(last or known[-1])
    if first and last and begin > end:
        raise UsageError(f"--from {first} is later than --to {last}")
    found = [month for month in known if begin <= month <= end]
    if not found:
        span = f"{f' from {first}' if first else ''}{f' to {last}' if last else ''}"
        raise UsageError(f"no transfer was booked{span}; there are {known[0]} to {known[-1]}")
    return found


def _check_can_hold(path: Path) -> None:
    """UsageError where `path` cannot be made, because what should be a folder above it is a file."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{path} cannot be written: {above} is a file, not a folder")


def _say(*parts: str | tuple[str, str]) -> None:
    """Prints text, styled where a part is (text, style), in lines as long as they are."""
    out.print(Text.assemble(*parts), soft_wrap=True)


def _truth_of(data: Path, ledger: Ledger) -> pl.DataFrame:
    """The audit where the folder has one, filled up with the tags of months that it does not judge."""
    path = table_path(data, "audit")
    tags = ledger.matches.drop("tagged_on")
    if path is None:
        return tags
    audit = read_file(path, "audit")
    return pl.concat([audit, tags.join(audit, on="transfer_id", how="anti")])


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(step: str, share: float) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=1.0)
            progress.update(tasks[step], completed=share)

        yield tell


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
        table.add_row(*(_cell(value) for value in row))
    return table


def _figures(title: str, figures: dict[str, float]) -> Table:
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, _cell(value))
    return table


def _costs(card: dict[str, Any], transfers_per_second: float) -> dict[str, float]:
    """What a model's card tells about its costs, and how fast it matched."""
    told = card["figures"] | card
    costs = {name: told[name] for name in ("training_seconds", "candidates_per_transfer") if name in told}
    return costs | {"transfers_per_second": float(round(transfers_per_second))}


def _money(minor: int | None) -> str:
    return "–" if minor is None else f"{minor / MINOR_UNITS:,.2f}"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value > 1 and value == int(value) else f"{value:,.4f}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _remove(folder: Path) -> None:
    import shutil

    if folder.exists():
        shutil.rmtree(folder)
