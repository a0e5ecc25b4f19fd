"""How soon the review desk answers, asked by HTTP as a person's browser asks.

    python -m benchmarks.desk [--waiting 10000] [--invoices 100000] [--times 200]

A company is drawn whose last month leaves so many transfers waiting, beside about as many that are booked unattended, and a
model that has learned from a smaller company proposes for them. The desk is a process of its own with that model as its
champion, so that it proposes anew, while it answers, for whom each decision concerns. One person asks, one page after the
other, and looks for a second at what he decides on; an answer is over with its last byte.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import httpx
import numpy as np
import polars as pl
import typer
from lxml import html
from rich.console import Console
from rich.table import Table

from benchmarks import scale
from matching_platform.access import Access, Role
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.months import month_of, next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.ledger.validation import validate
from matching_platform.matching.history import History, settled
from matching_platform.matching.matcher import Matcher
from matching_platform.matching.memory import Memory
from matching_platform.review.proposed import ASSET, MODEL, OTHERS, OWN_THRESHOLD, RUNNERS_UP_KIND, TRAINED_UNTIL
from matching_platform.sample import company

FIRST: Final = "2024-01"
READY_SECONDS: Final = 600.0
PERSON: Final = "anna"
THINKS: Final = 1.0  # seconds

_POLL_SECONDS: Final = 0.2
_READY: Final = {"desk_champion_ready 1.0", "desk_proposing_transfers 0.0", 'desk_outbox_entries{table="bookings"} 0.0'}


@dataclass(frozen=True)
class Made:
    """A company in a platform: the last `month` is proposed for and not tagged."""

    platform: Platform
    month: str


@dataclass
class Person:
    """Somebody who is logged in at the desk, and how many seconds each of his questions took, by what they are."""

    client: httpx.Client
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def ask(self, what: str, path: str, form: dict[str, Any] | None = None, *, boosted: bool = True) -> httpx.Response:
        """The answer, also where it refuses a decision; with a `form` it is sent, and where it leads is not followed.

        `boosted`: as a browser asks that follows a link of the desk's.
        """
        headers = {"HX-Request": "true"} | ({"HX-Boosted": "true"} if boosted else {})
        began = time.perf_counter()
        answer = self.client.request("GET" if form is None else "POST", path, data=form, headers=headers)
        taken = time.perf_counter() - began
        refused = answer.status_code == httpx.codes.CONFLICT
        if answer.is_error and not refused:
            answer.raise_for_status()
        self.seconds["refused decision" if refused else what].append(taken)
        return answer


def make(folder: Path, model: Path, waiting: int, invoices: int) -> Made:
    """A company in `folder` with about so many transfers that wait, and invoices in all, that `model` proposes for."""
    folder.mkdir()
    transfers = 2 * waiting
    months = max(2, round(invoices / transfers / company.INVOICES_PER_TRANSFER))
    drawn = company.generate(company.Settings(start=FIRST, months=months, transfers_per_month=transfers))
    tables = {name: validate(name, drawn[name]) for name in RAW_TABLES}
    booked = tables["transfers"].select("transfer_id", "booked_on")
    month, before = next_month(FIRST, months - 1), next_month(FIRST, months - 2)
    dated = (
        tables["matches"].join(booked, on="transfer_id", maintain_order="left").filter(month_of("booked_on") < month)
    )
    tables["matches"] = dated.drop("booked_on")
    local = {"warehouse": folder / "warehouse.duckdb", "store": str(folder / "store")}
    platform = Platform(Settings(**{**DEFAULTS["local"], **local, "first_month": FIRST, "last_month": month}))
    for name, rows in (tables | {"matches": dated}).items():
        for (of,), part in rows.group_by(month_of(TABLES[name].partitioned_by), maintain_order=True):
            version = platform.store.put_frame(name, part.select(list(TABLES[name].schema)))
            platform.catalog.set(name, str(of), version, {})
    _propose(platform, _remembering(Matcher.load(model), tables, before, folder / "model"), tables, month, waiting)
    return Made(platform, month)


def _remembering(trained: Matcher, tables: dict[str, pl.DataFrame], until: str, folder: Path) -> Path:
    """The model as if it had learned from all that is tagged up to a month."""
    ledger = Ledger(*(tables[name] for name in ("invoices", "transfers", "matches")))
    memory = Memory.of(settled(ledger, History.of(ledger).between(None, next_month(until))))
    card = {**trained.card, "trained_until": until}
    Matcher(trained.pairs, trained.sets, memory, trained.calibration, trained.auto_from, card).save(folder)
    return folder


def _propose(platform: Platform, model: Path, tables: dict[str, pl.DataFrame], month: str, waiting: int) -> None:
    """Makes `model` champion, and its proposals those of the month; what it is surest of is booked unattended."""
    version = platform.store.put("models", model)
    platform.registry.promote(version, platform.store.put_bytes("evaluations", "e.json", b"{}"), PERSON, "measured")
    matcher = Matcher.load(model)
    ledger = Ledger(*(tables[name] for name in ("invoices", "transfers", "matches")))
    matched = matcher.match_in_full(ledger, [month])
    rows, pays = matched.proposals, pl.col("invoice_id").is_not_null()
    paying = rows.filter(pays).unique("transfer_id")["confidence"].sort(descending=True)
    most = max(0, rows["transfer_id"].n_unique() - waiting)
    own = float(paying[:most].min() or 1.0)  # type: ignore[arg-type]
    sure = pl.when(pl.col("confidence") >= own).then(pl.lit("auto")).otherwise(pl.lit("review"))
    rows = rows.with_columns(to_decimal("amount"), decision=pl.when(pays).then(sure).otherwise(pl.lit("none")))
    others = platform.store.put_frame(RUNNERS_UP_KIND, matched.runners_up)
    told = {
        MODEL: version.name,
        TRAINED_UNTIL: matcher.card["trained_until"],
        OWN_THRESHOLD: own,
        OTHERS: others.digest,
    }
    platform.catalog.set(ASSET, month, platform.store.put_frame(ASSET, rows), told)


@contextmanager
def served(made: Made) -> Iterator[Person]:
    """The desk as a process of its own, with a person who is logged in, once it has nothing else to do."""
    given, folder = made.platform.settings, Path(str(made.platform.settings.warehouse)).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "WAREHOUSE": given.warehouse,
        "STORE": given.store,
        "FIRST_MONTH": given.first_month,
        "LAST_MONTH": given.last_month,
        "DESK__PORT": port,
    }
    environment = os.environ | {f"MATCHING_PLATFORM_{name}": str(value) for name, value in variables.items()}
    password = secrets.token_urlsafe()
    access = Access(made.platform.database, given.desk)
    access.welcome(access.invite(PERSON, Role.BOOKER, "benchmark"), password)
    with (folder / "desk.log").open("wb") as log:
        command = [sys.executable, "-m", "matching_platform.desk.server"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            _wait(client, process, folder / "desk.log")
            client.post("/login", data={"name": PERSON, "password": password})
            yield Person(client)
    finally:
        process.terminate()
        process.wait()
        made.platform.database.dispose()


def _wait(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Returns once the desk answers, its champion is ready and the warehouse has what was booked."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            if set(client.get("/metrics").text.splitlines()) >= _READY:
                return
        except httpx.TransportError:
            pass  # It has only just been started.
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the desk was not ready after {READY_SECONDS:.0f} s; its log:\n{log.read_text()}")
        time.sleep(_POLL_SECONDS)


def review(person: Person, month: str, times: int, thinks: float) -> None:
    """Asks for each page so many times, of other transfers each time, and decides on as many, after so many seconds each."""
    listed = list(islice(_listed(person, month), times))
    for turn, (path, payer) in enumerate(listed):
        person.ask("filtered queue", str(httpx.URL(f"/months/{month}", params={"text": payer})))
        page = person.ask("case", path)
        person.ask("change, this payer's invoices", f"{path}/change")
        token = _hidden(html.fromstring(page.text), "csrf_token")
        sought = {"csrf_token": token, "expected": "0", "search": payer if turn % 2 else f"{turn + 1:02d}"}
        person.ask("search of open invoices", f"{path}/change", sought)
        person.ask("booked page", str(httpx.URL("/booked", params={"month": month, "page": turn + 1})))
    path = listed[0][0]
    while len(person.seconds["accepting"]) < times:
        page = html.fromstring(person.ask("case after a decision", path).text)
        for address in page.xpath("//*[@data-awaits]/@hx-get"):
            page = html.fromstring(person.ask("what is proposed anew there", address, boosted=False).text)
        time.sleep(thinks)
        answer = person.ask("accepting", f"{path}/decision", _accepting(page))
        # What cannot be accepted is left for later.
        onward = answer.headers["location"] if answer.is_redirect else page.xpath("//a[@rel='next']/@href")[0]
        path = str(httpx.URL(onward).copy_with(query=None))


def _listed(person: Person, month: str) -> Iterator[tuple[str, str]]:
    """The addresses and payers of a month's transfers, from pages here and there in its list."""
    turn = 0
    while True:
        turn += 1
        tree = html.fromstring(person.ask("queue page", f"/months/{month}?page={turn}").text)
        links = tree.xpath("//a[@data-row]")
        chosen = links[turn % len(links)]
        yield chosen.get("href"), (chosen.text or "").split(" ")[0]


def _accepting(page: Any) -> dict[str, Any]:
    """What a case's page sends to accept what is proposed."""
    fields: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in page.xpath("//form[.//button[@data-key='a']]")[0].form_values():
        fields[name].append(value)
    return dict(fields)


def _hidden(tree: Any, name: str) -> str:
    return str(tree.xpath(f".//input[@name='{name}']/@value")[0])


def table(seconds: dict[str, list[float]], title: str) -> Table:
    shares = (50, 95, 99)
    made = Table("answer", *(f"p{share}, ms" for share in shares), "times", title=title)
    for what, taken in seconds.items():
        answered = np.percentile(taken, shares) * 1000
        made.add_row(what, *(f"{one:.1f}" for one in answered), str(len(taken)))
    return made


def main(
    waiting: Annotated[int, typer.Option(help="Transfers that wait for a person")] = 10_000,
    invoices: Annotated[int, typer.Option(help="Invoices of all months")] = 100_000,
    times: Annotated[int, typer.Option(help="How often each is asked")] = 200,
    model: Annotated[
        Path | None, typer.Option(help="As `matching-platform train` writes it; else one is trained")
    ] = None,
) -> None:
    """Draws the company, asks the desk and prints how long it took."""
    with TemporaryDirectory() as work:
        if model is None:
            scale.learned(Path(work))
        made = make(Path(work, "desk"), model or Path(work, "model"), waiting, invoices)
        with served(made) as person:
            review(person, made.month, times, THINKS)
    Console().print(table(person.seconds, f"{waiting:,} transfers waiting, {invoices:,} invoices"))


if __name__ == "__main__":
    typer.run(main)
