"""The platform at work on a sample company: from raw tables to a service that answers, through Dagster itself.

What is up to date is left alone, so a second run has little to do, and one that was killed goes on where it was.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg
import httpx
import polars as pl
from filelock import FileLock
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from matching_platform.access import Access, Role
from matching_platform.access.listening import base_url, link_of
from matching_platform.defs import gate, local
from matching_platform.defs.common import MONTHS, NONE, PLATFORM, SOURCE
from matching_platform.defs.decisions import DECISIONS, decided, decided_on
from matching_platform.defs.learning import sources
from matching_platform.defs.raw import arrival, arrivals, recorded, watched
from matching_platform.defs.tables import source_of_matches
from matching_platform.desk import server
from matching_platform.environment import NotConfiguredError, Platform
from matching_platform.learning import examination, split, train_set
from matching_platform.ledger.months import first_day, month_of, next_month
from matching_platform.ledger.schema import RAW_TABLES
from matching_platform.ledger.wire import to_rows
from matching_platform.sample import company
from matching_platform.store.record import whoami
from matching_platform.store.registry import Promotion
from matching_platform.warehouse.duck import DuckWarehouse

TRANSFERS_A_MONTH: Final = 400
# Who may do everything at the demo's desk; the password is chosen by whoever opens the link.
DEMO_USER: Final = "admin"
# One model in three months shows how they replace each other, without training all day.
EVERY: Final = 3
FIGURES: Final = {
    "exact_paying": "paying transfers exactly right",
    "f1": "F1 over pairs",
    "auto_share": "booked unattended",
    "auto_precision": "of these right",
    "amount_exact": "money placed right",
}

SIDES: Final = {"model": "the model", "champion": "the one before", "rules": "the rules"}

# Where these fail, the gate refused a model: the platform at work, told at the end.
_GATE: Final = ("evaluation_report", "champion")
_LEARNED: Final = ("train_set", "model", "evaluation_report")
_SERVED: Final = ("proposals", "drift_report", "realised_quality")
_POLL: Final = 0.3  # seconds
_RECENT: Final = 100
_TOLD: Final = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.STEP_START}

Plan = dict[str, list[str]]  # months by asset; an asset without months takes none


@dataclass(frozen=True)
class Stage:
    """A backfill of the demo."""

    title: str
    plan: Plan

    @property
    def size(self) -> int:
        return sum(max(1, len(months)) for months in self.plan.values())


def run(console: Console | None = None) -> bool:
    """Makes the sample company where there is none, brings everything up to date, and shows what came of it.

    Whether no stage failed, but for models that the gate refused, and the champion serves.
    """
    console, started = console or Console(), time.monotonic()
    platform = PLATFORM
    platform.home.mkdir(parents=True, exist_ok=True)
    with FileLock(platform.home / "demo.lock"), local.instance(local.home()) as instance:
        if killed := local.clear(instance):
            console.print(
                f"An earlier demo was killed: {killed} unfinished runs are closed, and it goes on from there."
            )
        _make_company(platform, console)
        _report_arrivals(platform, instance)
        done = [_run(stage, platform, instance, console) for stage in _stages(platform, instance)]
        _summary(platform, instance, console, bool(done), time.monotonic() - started)
        failed = any(not _refused(platform, *where) for finished in done for where in finished.failures)
        return _serves(platform) and not failed


def _make_company(platform: Platform, console: Console) -> None:
    months = MONTHS.get_partition_keys()
    warehouse = platform.settings.warehouse
    if warehouse is None:
        raise NotConfiguredError("the demo fills a DuckDB file; unset MATCHING_PLATFORM_ENVIRONMENT")
    if warehouse.exists():
        return
    settings = company.Settings(start=months[0], months=len(months), transfers_per_month=TRANSFERS_A_MONTH)
    with console.status("making a sample company"):
        company.write(platform.home / "sample", settings)
        _leave_to_people(platform.home / "sample" / "matches.parquet", months[-1])
        unfinished = platform.home / "unfinished.duckdb"
        unfinished.unlink(missing_ok=True)
        DuckWarehouse(unfinished).load_folder(platform.home / "sample")
        unfinished.rename(warehouse)
    console.print(f"A sample company, {months[0]} to {months[-1]}, is in {warehouse}.")


def _leave_to_people(matches: Path, newest: str) -> None:
    """Tags that come after the newest month are not known yet: the desk has something to decide."""
    known = pl.read_parquet(matches).filter(pl.col("tagged_on") < first_day(next_month(newest)))
    unfinished = matches.with_suffix(".unfinished")
    known.write_parquet(unfinished)
    unfinished.replace(matches)


def _report_arrivals(platform: Platform, instance: dg.DagsterInstance) -> None:
    """What the sensors `raw_months` and `new_decisions` do when a daemon runs."""
    for event in arrivals(recorded(instance), watched(platform)[0]):
        instance.report_runless_asset_event(event)
    known = recorded(instance, [DECISIONS])[DECISIONS]
    for month, mark in decided(platform).items():
        if known.get(month) != mark:
            instance.report_runless_asset_event(arrival(DECISIONS, month, mark))


def _stages(platform: Platform, instance: dg.DagsterInstance) -> Iterator[Stage]:
    """What is not up to date, stage by stage: each is planned on what the one before has made."""
    if months := _stale_months(platform):
        plan = dict.fromkeys((*RAW_TABLES, "labelled_pairs"), months)
        changed = [month for month in decided(platform) if month in months]
        yield Stage("reading and labelling months", {**plan, **({DECISIONS: changed} if changed else {})})
    if split.current(platform.store) is None:
        yield Stage("freezing the test", {"test_split": []})
    months = platform.catalog.months("labelled_pairs")
    for month in months[EVERY - 1 :: EVERY]:
        if not _is_learned(platform, month):
            if month == months[-1]:  # Before any model knows its tags: what is proposed then can be judged by them.
                yield from _proposing(platform, month)
            yield Stage(f"learning up to {month}", {**{name: [month] for name in _LEARNED}, "champion": []})
    if _waits(platform, instance):  # Killed between an evaluation and its promotion.
        yield Stage("promoting", {"champion": []})
    if platform.registry.champion() and not _serves(platform):
        yield Stage("rolling out", {"bento": [], "image": [], "staging": [], "deployment": []})
    if months:
        yield from _proposing(platform, months[-1])


def _proposing(platform: Platform, month: str) -> Iterator[Stage]:
    missing = [name for name in _SERVED if platform.catalog.get(name, month) is None]
    if missing and platform.registry.champion():
        yield Stage(f"proposing for {month}", {name: [month] for name in missing})


def _serves(platform: Platform) -> bool:
    """Whether there is a champion and the service runs with it."""
    champion, served = platform.registry.champion(), platform.here().status()
    return bool(champion and served.model == champion.model.name and served.server and served.front)


def _waits(platform: Platform, instance: dg.DagsterInstance) -> bool:
    """Whether the newest evaluation may be promoted and is not yet."""
    asked, champion = gate.newest(platform), platform.registry.champion()
    if asked is None or (champion and champion.model == asked.examined.model):
        return False
    return not gate.hurdles(platform, instance, asked.candidate)


def _stale_months(platform: Platform) -> list[str]:
    """The months whose raw rows, or whose tables, are not those that were read and labelled last."""
    found, _ = watched(platform)
    found = {**found, DECISIONS: decided(platform)}
    return [month for month in found["transfers"] if not _is_labelled(platform, month, found)]


def _is_labelled(platform: Platform, month: str, found: Mapping[str, Mapping[str, str]]) -> bool:
    current = {name: platform.catalog.get(name, month) for name in (*RAW_TABLES, DECISIONS, "labelled_pairs")}
    made_of = {name: one.metadata.get(SOURCE) if one else NONE for name, one in current.items()}
    expected = {name: found[name].get(month, NONE) for name in (*RAW_TABLES, DECISIONS)}
    if current["transfers"] is None or current["matches"] is None:
        return False
    decisions = decided_on(platform, month)
    expected["matches"] = source_of_matches(expected["matches"], decisions)
    if any(made_of[name] != mark for name, mark in expected.items()):
        return False
    return made_of["labelled_pairs"] == sources(platform, month, decisions)


def _is_learned(platform: Platform, month: str) -> bool:
    current = {name: platform.catalog.get(name, month) for name in _LEARNED}
    learned, evaluated, frozen = current["train_set"], current["evaluation_report"], split.current(platform.store)
    if not (learned and evaluated and frozen and current["model"]):
        return False
    made = train_set.read(platform.store, learned.version)
    examined = examination.read(platform.store, evaluated.version)
    return (
        (made.months, made.test_split) == (platform.in_force(month), frozen.version)
        and examined.train_set == learned.version
        and examined.model == current["model"].version
    )


def _run(stage: Stage, platform: Platform, instance: dg.DagsterInstance, console: Console) -> local.Finished:
    with _progress(stage, instance, console):
        finished = local.backfill(instance, stage.plan, stage.title)
    for (asset, month), reason in finished.failures.items():
        if not _refused(platform, asset, month):
            console.print(f"  [yellow]{asset} {month}[/]: {reason}", highlight=False)
    return finished


def _refused(platform: Platform, asset: str, month: str | None) -> bool:
    """Whether a failure is the gate's refusal; without a report of the month there was nothing to refuse."""
    return asset in _GATE and (asset == "champion" or month in platform.catalog.months("evaluation_report"))


@contextmanager
def _progress(stage: Stage, instance: dg.DagsterInstance, console: Console) -> Iterator[None]:
    """A bar that follows the runs of the backfill while it lasts, from another thread."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<30}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}"),
    )
    over = threading.Event()
    ended = {run.run_id: 0 for run in instance.get_runs(limit=_RECENT)}
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(stage.title, total=stage.size, step="")

        def follow() -> None:
            while True:
                last = over.is_set()
                made, step = _made(instance, ended)
                progress.update(task, completed=made, step=step)
                if last:
                    return
                over.wait(_POLL)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()
            progress.update(task, step="")


def _made(instance: dg.DagsterInstance, ended: dict[str, int]) -> tuple[int, str]:
    """How many materializations there are, and what is being made; `ended` keeps the count of runs that ended."""
    step = ""
    running = 0
    for run in instance.get_runs(limit=_RECENT):
        if run.run_id not in ended:
            events = [entry.get_dagster_event() for entry in instance.all_logs(run.run_id, of_type=_TOLD)]
            count = sum(event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION for event in events)
            if run.is_finished:
                ended[run.run_id] = count
            else:
                running += count
                step = f"{events[-1].step_key} {local.month_of_run(run)}" if events else ""
    return sum(ended.values()) + running, step


def _summary(platform: Platform, instance: dg.DagsterInstance, console: Console, changed: bool, seconds: float) -> None:
    console.print()
    if not changed:
        console.print("[green]Everything is up to date: nothing was read, trained or deployed again.[/]")
    champion = platform.registry.champion()
    if champion is None:
        asked = gate.newest(platform)
        reasons = gate.hurdles(platform, instance, asked.candidate if asked else None)
        console.print(Panel("\n".join(f"- {reason}" for reason in reasons), title="no model passed the gate"))
        return
    examined = examination.read(platform.store, champion.evaluation)
    console.print(_figures(examined))
    told = "\n".join(f"- {verdict.check}: {verdict.reason}" for verdict in examined.verdicts)
    console.print(
        Panel(
            f"model [bold]{champion.model.name}[/], learned up to {examined.month}, promoted by {champion.actor}\n{told}",
            title=f"champion no. {champion.number}",
        )
    )
    _tell_refused(platform, console, champion)
    _ask(platform, console)
    report = platform.store.fetch(champion.evaluation) / examination.REPORT
    console.print(f"\nThe report: [link={report.resolve().as_uri()}]{report}[/link]", soft_wrap=True)
    _open_desk(platform, console)
    console.print("Next: [bold]make dev[/] shows every run and asset in the Dagster UI;", highlight=False)
    console.print("      [bold]matching-platform models history[/] tells who became champion and why;")
    console.print(f"      [bold]make demo[/] again finds everything up to date. This took {seconds:.0f} s.")


def _open_desk(platform: Platform, console: Console) -> None:
    """Starts the desk, and says where it is; whoever comes first gets a link to choose a password by."""
    try:
        server.start(platform)
    except server.DeskError as error:
        console.print(f"[yellow]The desk is not open[/]: {error}", highlight=False)
        return
    console.print(f"The review desk: [bold]{base_url(platform.settings.desk)}[/]", highlight=False)
    access = Access(platform.database, platform.settings.desk)
    if any(user.has_password for user in access.users()):
        return
    known = {user.name for user in access.users()}
    key = access.renew(DEMO_USER, whoami()) if DEMO_USER in known else access.invite(DEMO_USER, Role.ADMIN, whoami())
    console.print(
        f"  as [bold]{DEMO_USER}[/], once you have chosen a password (the link is good once, for a day):\n"
        f"  {link_of(platform.settings.desk, key)}",
        highlight=False,
        soft_wrap=True,
    )


def _tell_refused(platform: Platform, console: Console, champion: Promotion) -> None:
    """Why the newest model, where it is not champion, did not become it."""
    asked = gate.newest(platform)
    if asked is None or asked.examined.model == champion.model:
        return
    refused = [f"- {one.check}: {one.reason}" for one in asked.examined.verdicts if not one.passed]
    title = f"the model of {asked.examined.month} did not pass the gate, and the champion stays"
    console.print(Panel("\n".join(refused) or "- its train set did not pass its checks", title=title))


def _figures(examined: examination.Examined) -> Table:
    figures = examined.figures["test"]
    table = Table(title=f"on the frozen test, {figures['model']['transfers']:.0f} transfers no model has learned from")
    table.add_column("")
    sides = {side: title for side, title in SIDES.items() if side in figures}
    for title in sides.values():
        table.add_column(title, justify="right")
    for name, title in FIGURES.items():
        table.add_row(title, *(f"{figures[side][name]:.1%}" for side in sides))
    return table


def _ask(platform: Platform, console: Console) -> None:
    """One real request to the service: a transfer of the newest month, and the invoices that were open then."""
    url = platform.here().url
    newest = platform.catalog.months("labelled_pairs")[-1]
    if platform.catalog.get("proposals", newest) is None:
        console.print(f"Nothing is proposed for {newest}, so the service is not asked.", highlight=False)
        return
    ledger = platform.ledger(newest)
    paying = platform.read("proposals", newest).filter(pl.col("invoice_id").is_not_null())
    transfer = ledger.transfers.join(paying, on="transfer_id", how="semi").head(1)
    if transfer.is_empty():
        console.print(f"No transfer of {newest} is proposed to pay an invoice, so the service is not asked.")
        return
    settled = ledger.matches.join(
        ledger.transfers.filter(month_of("booked_on") < newest), on="transfer_id", how="semi"
    )["invoice_id"]
    invoices = ledger.invoices.filter(
        ~pl.col("invoice_id").is_in(settled.drop_nulls().unique().implode()),
        pl.col("issued_on") <= transfer["booked_on"][0],
    )
    body = {"transfers": to_rows(transfer), "invoices": to_rows(invoices)}
    try:
        answer = httpx.post(f"{url}/match", json=body, timeout=60, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        console.print(f"The service does not answer ({error}); [bold]make serve[/] starts it.", highlight=False)
        return
    lines = [
        f"POST {url}/match  '{transfer['title'][0]}', {transfer['amount'][0] / 100:,.2f} {transfer['currency'][0]}, "
        f"against {invoices.height} open invoices"
    ]
    lines += [_told(proposal) for proposal in answer.json()["proposals"]]
    console.print(Panel("\n".join(lines), title="the service answers"), highlight=False)


def _told(proposal: Mapping[str, Any]) -> str:
    evidence = "; ".join(proposal["evidence"])
    return (
        f"→ {proposal['invoice_id'] or 'nothing'} {proposal['amount'] or ''}  {proposal['decision']}, confidence "
        f"{proposal['confidence']:.3f}\n  {evidence}"
    )
