"""How long it takes to hand a million rows from step to step: here, and in ZenML with its default materializer.

    python -m benchmarks.handover

Both sides do the same work in turns, each in its own idiom, and must come to the same result: the first step reads a
table of transfers, the second and the third each add a column, the fourth sums. So three times a table of a million rows
is changed, kept and taken up again; no side gets away with a mere reference to what is kept already. Here, Dagster's
assets hand on versions of the store, as the platform's own do; there, ZenML's steps hand on data frames. ZenML gets a
Python environment of its own in `.benchmark/zenml`. Time is that of a whole run with its orchestrator, the best of three
after a warm-up with few rows; processes, imports and databases are there before. The ratio of times is the last line.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import dagster as dg
import numpy as np
import polars as pl
import typer

from matching_platform.defs.common import Made, keep, materialized
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.ledger.money import to_decimal
from matching_platform.sample.draws import chance, digits, words

ROOT: Final = Path(__file__).parents[1]
HOME: Final = ROOT / ".benchmark"
REQUIREMENTS: Final = ("zenml[local]", "pandas", "pyarrow")

ROWS: Final = 1_000_000
ROUNDS: Final = 3
MONTH: Final = "2024-03"

Tell = Callable[[str], None]


class HandoverError(RuntimeError):
    """The comparison cannot be made; the message says why."""


@dataclass(frozen=True)
class Run:
    """Seconds of one run, those spent on keeping tables and taking them up again, and the sums it came to, as text."""

    seconds: float
    handing_over: float
    summary: list[list[str]]
    versions: str


Side = Callable[[Path], Run]


@dataclass
class Hands:
    """Hands tables from asset to asset as the platform's assets do; `seconds` tells how long that took so far."""

    platform: Platform
    seconds: float = 0.0

    def take(self, asset: str, *columns: str) -> pl.DataFrame:
        """The table that `asset` handed on, all of it where no columns are named."""
        with self._timed():
            frame = self.platform.store.open_frame(self.platform.current(asset, MONTH))
            return (frame.select(columns) if columns else frame).collect()

    def give(self, context: dg.AssetExecutionContext, frame: pl.DataFrame) -> dg.MaterializeResult:
        """Keeps what an asset made, as the version in force."""
        with self._timed():
            name = context.asset_key.to_user_string()
            made = Made(self.platform.store.put_frame(name, frame), {"rows": frame.height})
            return materialized(context, self.platform, keep(self.platform, name, MONTH, made))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


HandsParam = dg.ResourceParam[Hands]


@dg.asset(description="A row is a transfer as it came.")
def received(
    context: dg.AssetExecutionContext, hands: HandsParam, source: dg.ResourceParam[Path]
) -> dg.MaterializeResult:
    return hands.give(context, pl.read_parquet(source))


@dg.asset(description="A row is a transfer with the country of the counterparty's account.", deps=[received])
def located(context: dg.AssetExecutionContext, hands: HandsParam) -> dg.MaterializeResult:
    transfers = hands.take("received")
    return hands.give(context, transfers.with_columns(country=pl.col("counterparty_account").str.head(2)))


@dg.asset(description="A row is a transfer with how many there are of its counterparty.", deps=[located])
def counted(context: dg.AssetExecutionContext, hands: HandsParam) -> dg.MaterializeResult:
    transfers = hands.take("located")
    return hands.give(context, transfers.with_columns(payments=pl.len().over("counterparty_name")))


@dg.asset(description="A row is a currency and direction with the sums of its transfers.", deps=[counted])
def summed(context: dg.AssetExecutionContext, hands: HandsParam) -> dg.MaterializeResult:
    transfers = hands.take("counted", "currency", "direction", "amount", "country", "payments")
    by_kind = transfers.group_by("currency", "direction", maintain_order=True)
    return hands.give(
        context,
        by_kind.agg(
            transfers=pl.len(),
            amount=pl.col("amount").sum(),
            countries=pl.col("country").drop_nulls().n_unique(),
            repeated=(pl.col("payments") > 1).sum(),
        ),
    )


def transfers(rows: int, seed: int = 0) -> pl.DataFrame:
    """A table of the contract's transfers, in its external types: each as long as a real one, and as hard to pack."""
    rng = np.random.default_rng(seed)
    parties = rows // 25 + 1
    stems = words(rng, parties, ("Avon ", "Becker ", "Duna ", "Granite ", "Hansa ", "Omega ", "Otter ", "Pixel "))
    trades = words(rng, parties, ("Build ", "Energia ", "Handel ", "Med ", "Optik ", "Solutions ", "Textil "))
    names = stems + trades + digits(rng, parties, 4) + words(rng, parties, (" S.A.", " GmbH", " Ltd", " s.r.o."))
    accounts = words(rng, parties, ("CZ", "DE", "GB", "PL", "SE")) + digits(rng, parties, 18)
    party = rng.integers(parties, size=rows)
    openings = ("faktura FV/", "RECHNUNG ", "INV. ", "zapłata za FV ", "SVWZ+RE ", "/INV/")
    ends = (" ", "/2024 ")
    return pl.DataFrame(
        {
            "transfer_id": "T" + pl.int_range(rows, eager=True).cast(pl.String).str.zfill(8),
            "booked_on": pl.select(pl.date(2024, 3, pl.lit(np.sort(rng.integers(1, 32, size=rows))))).to_series(),
            "amount": (rng.lognormal(11, 1.5, rows) + 1).astype(np.int64),
            "currency": words(rng, rows, ("PLN", "PLN", "PLN", "EUR", "CZK", "GBP")),
            "direction": words(rng, rows, ("in", "out")),
            "counterparty_name": names.gather(party),
            "counterparty_account": accounts.gather(party),
            "title": words(rng, rows, openings) + digits(rng, rows, 6) + words(rng, rows, ends) + digits(rng, rows, 5),
        }
    ).with_columns(
        to_decimal("amount"),
        counterparty_account=pl.when(chance(rng, rows, 0.93)).then("counterparty_account"),
    )


def here(source: Path, instance: dg.DagsterInstance) -> Run:
    """One run of the assets, into a store of its own: what a store holds already is not written to it again."""
    with TemporaryDirectory(dir=source.parent) as folder:
        hands = Hands(Platform(Settings(**{**DEFAULTS["local"], "store": f"{folder}/store"})))
        started = time.perf_counter()
        dg.materialize(
            [received, located, counted, summed],
            instance=instance,
            resources={"hands": hands, "source": source},
            run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
        )
        seconds, handing_over = time.perf_counter() - started, hands.seconds
        summary = hands.take("summed").cast(pl.String)
    versions = f"Dagster {dg.__version__}, Polars {pl.__version__}"
    return Run(seconds, handing_over, sorted(map(list, summary.iter_rows())), versions)


def environment(folder: Path, tell: Tell) -> Path:
    """The Python of an environment with ZenML, which is made where there is none; HandoverError where it cannot be."""
    python, finished = folder / "bin" / "python", folder / ".installed"
    if python.exists() and finished.is_file() and finished.read_text() == repr(REQUIREMENTS):
        return python
    tell(f"installing ZenML into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS],
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            said = (done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise HandoverError(f"there is no environment for ZenML, as {' '.join(command[1:4])} failed: {said}")
    finished.write_text(repr(REQUIREMENTS))
    return python


@contextmanager
def worker(command: list[str], folder: Path) -> Iterator[Callable[..., Run]]:
    """Starts what answers lines of JSON, see `benchmarks.handover_zenml`; ZenML keeps all it has in `folder`."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("ZENML_")}
    own = {"ZENML_CONFIG_PATH": str(folder), "ZENML_ANALYTICS_OPT_IN": "false", "ZENML_LOGGING_VERBOSITY": "WARN"}
    pipe, log = subprocess.PIPE, folder.with_suffix(".log")
    with (
        log.open("w") as errors,
        subprocess.Popen(command, env=given | own, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        assert process.stdin and process.stdout
        requests, answers = process.stdin, process.stdout

        def ask(**request: Any) -> Run:
            with suppress(BrokenPipeError):  # What has ended says why in its log.
                requests.write(json.dumps(request) + "\n")
                requests.flush()
            answer = answers.readline()
            if not answer:
                raise HandoverError(f"ZenML's side has ended: {(log.read_text().splitlines() or ['no word'])[-1]}")
            return Run(**json.loads(answer))

        yield ask


def compare(sides: dict[str, Side], source: Path, warm_up: Path, tell: Tell) -> dict[str, Run]:
    """The best run of each side, in turns; HandoverError where two come to different sums."""
    take_turns(sides, warm_up, tell, "warm-up")
    rounds = [take_turns(sides, source, tell, f"round {count} of {ROUNDS}") for count in range(1, ROUNDS + 1)]
    return {name: min((runs[name] for runs in rounds), key=lambda run: run.seconds) for name in sides}


def take_turns(sides: dict[str, Side], source: Path, tell: Tell, title: str) -> dict[str, Run]:
    """A run of each side; HandoverError where two come to different sums."""
    runs = {}
    for name, side in sides.items():
        runs[name] = side(source)
        tell(f"{title}: {name}, {runs[name].seconds:.2f} s")
    if any(run.summary != runs[name].summary for run in runs.values()):
        raise HandoverError(f"the sides come to different sums, so they did not do the same work: {runs}")
    return runs


def report(best: dict[str, Run], ours: str, theirs: str) -> list[str]:
    """A line a side, and last how many times as fast as `theirs` we are."""
    lines = [f"{'':<28}{'whole run':>10}{'handing over':>14}"]
    for name, run in best.items():
        lines.append(f"{name:<28}{run.seconds:>8.2f} s{run.handing_over:>12.2f} s   {run.versions}")
    return [*lines, f"{best[theirs].seconds / best[ours].seconds:.1f} x"]


def measure(python: Path, tell: Tell) -> list[str]:
    with TemporaryDirectory(dir=HOME) as name, ExitStack() as stack:
        folder = Path(name)
        tell(f"drawing {ROWS:,} transfers")
        table = transfers(ROWS)
        source, warm_up = folder / "transfers.parquet", folder / "few.parquet"
        table.write_parquet(source)
        table.head(1000).write_parquet(warm_up)
        (folder / "dagster").mkdir()
        instance = stack.enter_context(dg.DagsterInstance.local_temp(str(folder / "dagster")))
        ask = stack.enter_context(
            worker([str(python), str(ROOT / "benchmarks" / "handover_zenml.py")], folder / "zenml")
        )
        sides = {
            "here": lambda path: here(path, instance),
            "ZenML": lambda path: ask(source=str(path), visualize=True),
            "ZenML without its previews": lambda path: ask(source=str(path), visualize=False),
        }
        return report(compare(sides, source, warm_up, tell), "here", "ZenML")


def main() -> None:
    """Compares both sides, telling on standard error how far it is."""
    started = time.perf_counter()

    def tell(what: str) -> None:
        typer.echo(f"{time.perf_counter() - started:6.0f} s  {what}", err=True)

    HOME.mkdir(exist_ok=True)
    try:
        lines = measure(environment(HOME / "zenml", tell), tell)
    except HandoverError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error
    for line in lines:
        typer.echo(line)


if __name__ == "__main__":
    main()
