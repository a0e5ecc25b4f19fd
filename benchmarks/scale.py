"""How the work of a month grows with its transfers: seconds, memory, pairs and bytes, step by step.

    python -m benchmarks.scale

For each size a company is drawn whose last month brings so many transfers, with as many more invoices, counterparties and
settled months behind it. Each step of that month runs in a process of its own, which tells the CPU seconds and the most
memory that it took. The last columns tell the growth from each size to the next as an exponent: 1 is in proportion, 2 is
with the square. A step that outgrows the memory limit is ended, and the larger sizes go without it.
"""

import json
import math
import os
import pickle
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import typer

from matching_platform.defs.tables import accepted
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.learning.examples import label_month, shown_pairs
from matching_platform.learning.train_set import LABELLED_PAIRS
from matching_platform.learning.training import TrainingSettings, train
from matching_platform.learning.walk import up_to
from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.matching import candidates as arrays
from matching_platform.matching.candidates import Finder, Keys, Pairs, Question
from matching_platform.matching.features import Reader, World
from matching_platform.matching.history import TRANSFERS_AT_ONCE, History, Month, settled
from matching_platform.matching.matcher import Matcher
from matching_platform.matching.memory import Memory
from matching_platform.matching.rules import RULES
from matching_platform.sample import company
from matching_platform.warehouse import candidates, duck
from matching_platform.warehouse.bigquery import SMALL_QUESTION
from matching_platform.warehouse.queries import LEAST_BILLED, USD_PER_TIB
from matching_platform.warehouse.tables import publishable

SIZES: Final = (3_000, 10_000, 30_000, 88_000)  # the last one fills a portion
MONTHS: Final = (
    "2024-01",
    "2024-02",
    "2024-03",
    "2024-04",
    "2024-05",
    "2024-06",
    "2024-07",
)  # all are in mind: 200 days
MONTH: Final = MONTHS[-1]
TARGET: Final = 10_000_000
BEHIND: Final = 18  # months
GIB: Final = 2**30
_FIRST: Final = 1_000  # transfers a month of the company that the model learns from
_DATE: Final = 8  # bytes
TICKS: Final = 30 * 24 * 60  # of a sensor that looks every minute

Facts = dict[str, float]
Tell = Callable[[str], None]


class ScaleError(RuntimeError):
    """The sizes cannot be measured; the message says why."""


@dataclass
class Clock:
    """Seconds, CPU seconds and bytes at the most, by what was done."""

    taken: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.taken[what] = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak}


@dataclass(frozen=True)
class Place:
    """Where the company of one size lies between the steps, and the model that all sizes share."""

    folder: Path
    model: Path

    @property
    def platform(self) -> Platform:
        own = {"warehouse": self.folder / "warehouse.duckdb", "store": str(self.folder / "store")}
        return Platform(Settings(**{**DEFAULTS["local"], **own}))

    @property
    def questions(self) -> Path:
        return self.folder / "questions.pickle"


Step = Callable[[Place, Clock], Facts]


def draw(place: Place, transfers: int) -> Facts:
    """The company in the warehouse, with all but its last month accepted."""
    place.folder.mkdir()
    company.write(place.folder, company.Settings(start=MONTHS[0], months=len(MONTHS), transfers_per_month=transfers))
    platform = place.platform
    platform.warehouse.load_folder(place.folder)
    for month in MONTHS[:-1]:
        accept(platform, month)
    raw = {name: platform.warehouse.read_month(name, MONTH) for name in RAW_TABLES}
    widths = {f"bytes of {name}.{column}": wide for name in RAW_TABLES for column, wide in billed(raw[name]).items()}
    return {name: frame.height for name, frame in raw.items()} | widths


def accept(platform: Platform, month: str) -> Facts:
    """Reads, checks and stores the three tables of a month, as their assets do."""
    facts = {}
    for name in RAW_TABLES:
        raw = platform.warehouse.read_month(name, month)
        version = platform.store.put_frame(name, accepted(platform, platform.warehouse, name, month, raw))
        platform.catalog.set(name, month, version, {})
        facts[f"stored bytes of {name}"] = platform.store.manifest(version).size / raw.height
    return facts


def tables(place: Place, clock: Clock) -> Facts:
    with clock("validate and store"):
        return accept(place.platform, MONTH)


def ledger(place: Place, clock: Clock) -> Facts:
    with clock("open the ledger"):
        whole = place.platform.ledger(MONTH)
    frames = [getattr(whole, name) for name in RAW_TABLES]
    return {"ledger bytes": sum(frame.estimated_size() for frame in frames) / sum(frame.height for frame in frames)}


def keys(place: Place, clock: Clock) -> Facts:
    whole = place.platform.ledger(MONTH)
    with clock("keys and time"):
        known = History.of(whole).month(MONTH)
    with clock("memory"):
        memory = Memory.of(settled(whole, known.earlier))
    before = known.settlements(known.earlier)

    def read(portions: Iterable[Month]) -> list[Question]:
        """What each portion asks first; it is not answered."""
        asked: list[Question] = []

        def note(question: Question) -> Pairs:
            asked.append(question)
            nothing = np.zeros(0, np.int64)
            return Pairs.of(nothing, nothing, nothing.astype(np.float32), question.size)

        for portion in portions:
            every = np.arange(len(portion.transfers))
            world = World(portion.transfers, portion.lately, portion.invoices, memory, before, note)
            Reader(world).read(every, every, before)
        return asked

    with clock("read a hundredth"):
        read([next(known.portions(len(known.transfers) // 100 + 1))])
    with clock("read"):
        asked = read(known.portions(TRANSFERS_AT_ONCE))
    with place.questions.open("wb") as file:
        pickle.dump(asked, file)
    count = len(known.transfers)
    return {
        "transfers": count,
        "invoices in mind": len(known.invoices) / count,
        "counterparties": known.invoices["counterparty_id"].n_unique() / count,
        "keys of a transfer": sum(_used(question.transfers.keys) for question in asked) / count,
        "keys of an invoice": sum(_used(question.invoices.keys) for question in asked)
        / len(asked)
        / len(known.invoices),
        **{f"met by {rule.name}": sum(_met(question, rule) for question in asked) / count for rule in RULES},
    }


def pairs_by_arrays(place: Place, clock: Clock) -> Facts:
    return _pairs(place, clock, "pairs, arrays", arrays.find)


def pairs_by_duckdb(place: Place, clock: Clock) -> Facts:
    return _pairs(place, clock, "pairs, DuckDB", duck.find)


def scratch(place: Place, clock: Clock) -> Facts:
    """What travels to a warehouse for one question, the last one."""
    question = _asked(place)[-1]
    with clock("scratch tables"):
        made = candidates.tables(question)
    facts: Facts = {}
    for name, table in made.items():
        file = BytesIO()
        pq.write_table(table, file, compression="zstd")
        facts[f"scratch rows of {name}"] = table.num_rows
        facts[f"scratch bytes of {name}"] = size(pl.DataFrame(table))
        facts[f"scratch Parquet of {name}"] = file.tell()
    return facts


def labels(place: Place, clock: Clock) -> Facts:
    platform = place.platform
    whole, asked = platform.ledger(MONTH), Asked()
    with clock("label"):
        made = label_month(whole, MONTH, asked)
    version = platform.store.put_frame(LABELLED_PAIRS, made)
    shown = publishable(LABELLED_PAIRS, shown_pairs(made, whole))
    own = made.filter(~pl.col("elsewhere"))
    tagged = own["transfer_id"].n_unique()
    right = own.filter(pl.col("invoice_id").is_not_null())["label"].sum()
    return {
        "share of tagged pairs found": right / (right + own["missed"].sum()),
        "labelled rows": made.height / tagged,
        "memory of a labelled row": made.estimated_size() / made.height,
        "stored bytes of a labelled row": platform.store.manifest(version).size / made.height,
        "shown bytes of labelled_pairs": sum(billed(shown).values()),
        "shown rows of labelled_pairs": shown.height / tagged,
        **asked.facts("labelling"),
    }


def proposals(place: Place, clock: Clock) -> Facts:
    platform = place.platform
    whole, asked = platform.ledger(MONTH), Asked()
    trained = Matcher.load(place.model)
    memory = Memory.of(settled(whole, History.of(whole).between(None, MONTH)))
    matcher = Matcher(
        trained.pairs, trained.sets, memory, trained.calibration, trained.auto_from,
        {**trained.card, "trained_until": MONTHS[-2]},
    )  # fmt: skip
    with clock("propose"):
        rows = matcher.match(whole, [MONTH], candidates=asked)
    version = platform.store.put_frame("proposals", rows.with_columns(to_decimal("amount")))
    return {
        "proposals": rows.height / rows["transfer_id"].n_unique(),
        "stored bytes of a proposal": platform.store.manifest(version).size / rows.height,
        "memory rows": memory.counts.height,
        "bytes of a memory row": memory.counts.estimated_size() / memory.counts.height,
        **asked.facts("matching"),
    }


STEPS: Final[tuple[Step, ...]] = (tables, ledger, keys, pairs_by_arrays, pairs_by_duckdb, scratch, labels, proposals)


@dataclass
class Asked:
    """Joins arrays, and counts what it is asked: transfers, their keys, keys of invoices, pairs."""

    questions: list[tuple[int, int, int, int]] = field(default_factory=list)

    def __call__(self, question: Question) -> Pairs:
        found, keys = arrays.find(question), question.transfers.keys
        transfers = len(question.transfers.asked)
        self.questions.append((transfers, _used(keys), _used(question.invoices.keys), len(found)))
        return found

    def facts(self, during: str) -> Facts:
        sums = [sum(part) for part in zip(*self.questions, strict=True)]
        names = ("transfers", "transfer keys", "invoice keys", "pairs")
        return {
            f"questions, {during}": len(self.questions),
            f"questions for a warehouse, {during}": sum(asked[0] >= SMALL_QUESTION for asked in self.questions),
            **{f"{name} asked for, {during}": total for name, total in zip(names, sums, strict=True)},
        }


def _asked(place: Place) -> list[Question]:
    with place.questions.open("rb") as file:
        asked: list[Question] = pickle.load(file)
    return asked


def _pairs(place: Place, clock: Clock, what: str, finder: Finder) -> Facts:
    asked = _asked(place)
    with clock(what):
        found = [finder(question) for question in asked]
    transfers = sum(len(question.transfers.amount) for question in asked)
    answers = sum(int(np.count_nonzero(pairs.found)) for pairs in found)
    return {"pairs of a transfer": sum(map(len, found)) / transfers, "answers of a transfer": answers / transfers}


def _used(spaces: Mapping[str, Keys]) -> int:
    """Keys that some rule asks for, each as often as a warehouse is given it."""
    names = {name for rule in RULES for name in (rule.transfer_key, rule.invoice_key)}
    return sum(len(spaces[name].row) for name in names & spaces.keys())


def _met(question: Question, rule: arrays.Rule) -> int:
    """Equal keys, before anything else is looked at."""
    left, right = question.transfers.keys[rule.transfer_key].key, question.invoices.keys[rule.invoice_key].key
    return int((np.searchsorted(right, left, "right") - np.searchsorted(right, left, "left")).sum())


def billed(frame: pl.DataFrame) -> Facts:
    """Bytes of a row of each column, on average, as BigQuery counts them; nulls cost nothing."""
    return {name: _billed(frame[name]) / max(1, frame.height) for name in frame.columns}


def size(frame: pl.DataFrame) -> float:
    """Bytes of all rows, as BigQuery counts them."""
    return sum(_billed(frame[name]) for name in frame.columns)


def _billed(values: pl.Series) -> float:
    if isinstance(values.dtype, pl.List):
        return _billed(values.explode(empty_as_null=False))
    if values.dtype == pl.String:
        return values.str.len_bytes().sum() + 2 * (values.len() - values.null_count())
    width = {pl.Boolean: 1, pl.Decimal: 16}.get(values.dtype.base_type(), 8)
    return width * (values.len() - values.null_count())


@dataclass(frozen=True)
class Scan:
    """A query that some asset sends for a month, and the bytes that it reads."""

    asset: str
    query: str
    bytes: float

    @property
    def usd(self) -> float:
        return self.bytes / 2**40 * USD_PER_TIB


def scans(
    rows: Mapping[str, float], held: Mapping[str, float], widths: Mapping[str, Mapping[str, float]]
) -> list[Scan]:
    """What reading a month scans: `rows` in it and `held` up to it, by table; `widths` are bytes by table and column.

    Raw tables have a partition column of their own. That BigQuery bills 10 MiB for a table, at least, is not in it.
    """
    found = []
    for name in RAW_TABLES:
        of_row = sum(widths[name][column.name] for column in TABLES[name].columns)
        found.append(Scan(name, "reading the month", rows[name] * (of_row + _DATE)))
        if key := TABLES[name].key:
            found.append(Scan(name, "comparing keys with earlier ones", held[name] * (widths[name][key] + _DATE)))
    named = rows["matches"] * (widths["matches"]["invoice_id"] + _DATE)
    known = held["invoices"] * (widths["invoices"]["invoice_id"] + _DATE)
    return [*found, Scan("matches", "looking for unknown invoices", named + known)]


def joins(facts: Facts, transfers: int) -> list[Scan]:
    """What joining candidates in the warehouse scans in a month of `transfers`, by the facts of a smaller one.

    Each question brings all keys of all invoices in mind: what is open of them is among the keys, and has changed.
    """
    more, portions = transfers / facts["transfers"], math.ceil(transfers / TRANSFERS_AT_ONCE)
    invoices = (facts["scratch bytes of invoice_keys"] + facts["scratch bytes of invoices"]) * more
    of_key = facts["scratch bytes of transfer_keys"] / facts["scratch rows of transfer_keys"]
    found = []
    for asset, during in (("labelled_pairs", "labelling"), ("proposals", "matching")):
        questions = portions * facts[f"questions for a warehouse, {during}"]
        keys_asked = facts[f"transfer keys asked for, {during}"] * of_key * more
        found.append(Scan(asset, f"joining candidates, {questions:,.0f} times", questions * invoices + keys_asked))
    return found


def looking(ticks: int = TICKS) -> Scan:
    """The sensor's query of partition metadata, at the least that BigQuery bills."""
    return Scan("raw_months", "looking for new months", ticks * LEAST_BILLED)


def measured(step: Step, place: Place, limit: int) -> tuple[dict[str, dict[str, float]], Facts]:
    """Runs a step in this process, which ends as soon as it holds more than `limit` bytes."""
    threading.Thread(target=watch, args=(limit,), daemon=True).start()
    clock = Clock()
    facts = step(place, clock)
    return clock.taken, facts


def watch(limit: int) -> None:
    """Ends this process as soon as it holds more than `limit` bytes."""
    page = resource.getpagesize()
    while True:
        if int(Path("/proc/self/statm").read_text().split()[1]) * page > limit:
            os._exit(1)
        time.sleep(0.05)


def learned(folder: Path) -> None:
    """A model of a small company, for all sizes: its answers are worse than its haste is typical."""
    place = Place(folder / "first", folder / "model")
    draw(place, _FIRST)
    whole = up_to(place.platform.ledger(MONTHS[-2]), MONTHS[-2])
    examples = [label_month(whole, month) for month in MONTHS[-3:-1]]
    train(examples, whole, MONTHS[-2], TrainingSettings(pair_epochs=4, set_epochs=4)).save(place.model)


def measure(sizes: Iterable[int], limit: int, tell: Tell) -> list[dict[str, Any]]:
    """For each size its facts, and the steps with their seconds, CPU seconds and peak of memory in bytes."""
    found, grown = [], set()
    with TemporaryDirectory() as name:
        folder = Path(name)
        _alone(learned, folder)
        tell("a model is trained")
        for transfers in sizes:
            place = Place(folder / str(transfers), folder / "model")
            facts = _alone(draw, place, transfers)
            taken: dict[str, dict[str, float]] = {}
            for step in STEPS:
                if step in grown:
                    continue
                try:
                    times, more = _alone(measured, step, place, limit)
                except BrokenProcessPool:
                    grown.add(step)
                    tell(
                        f"{transfers:,} transfers: {step.__name__} took more than {limit / GIB:.0f} GiB, and was ended"
                    )
                    continue
                facts, taken = {**facts, **more}, {**taken, **times}
                tell(
                    f"{transfers:,} transfers: "
                    + ", ".join(f"{what} {t['seconds']:.1f} s" for what, t in times.items())
                )
            found.append({"size": transfers, "steps": taken, "facts": facts})
    return found


def _alone(work: Callable[..., Any], *args: Any) -> Any:
    """What `work` returns in a fresh process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def report(found: list[dict[str, Any]]) -> list[str]:
    """Tables of what was measured, one row a step or fact, one column a size, and growth."""
    sizes = [one["facts"]["transfers"] for one in found]
    lines = []
    for title, unit, figure in (("CPU seconds", 1, "cpu"), ("seconds", 1, "seconds"), ("peak, GiB", GIB, "peak")):
        rows = {what: [one["steps"].get(what, {}).get(figure) for one in found] for what in found[0]["steps"]}
        lines += ["", _line(title, [f"{size:,}" for size in sizes], "growth")]
        lines += [
            _line(what, [_number(v, unit) for v in values], _growth(sizes, values)) for what, values in rows.items()
        ]
    lines += ["", _line("facts", [f"{size:,}" for size in sizes], "growth")]
    for name in found[0]["facts"]:
        values = [one["facts"].get(name) for one in found]
        lines.append(_line(name, [_number(value, 1) for value in values], _growth(sizes, values)))
    whole = next(one["facts"] for one in reversed(found) if one["facts"].keys() >= found[0]["facts"].keys())
    return [*lines, *bill(whole, TARGET, BEHIND)]


def bill(facts: Facts, transfers: int, months: int) -> list[str]:
    """What BigQuery scans for a month of so many transfers, the last of `months`, and the list price of that."""
    rows = {name: facts[name] / facts["transfers"] * transfers for name in RAW_TABLES}
    widths = {
        name: {column.name: facts[f"bytes of {name}.{column.name}"] for column in TABLES[name].columns}
        for name in RAW_TABLES
    }
    lines = ["", _line(f"{transfers:,} transfers, month {months}", ["GiB", "USD"], "")]
    held = {name: months * count for name, count in rows.items()}
    for scan in (*scans(rows, held, widths), *joins(facts, transfers), looking()):
        cells = [_number(scan.bytes, GIB), _number(scan.usd, 1)]
        lines.append(_line(f"{scan.asset}: {scan.query}", cells, ""))
    return lines


def _line(name: str, cells: list[str], last: str) -> str:
    return f"{name:<58}" + "".join(f"{cell:>15}" for cell in cells) + f"{last:>24}"


def _number(value: float | None, unit: int) -> str:
    return "-" if value is None else f"{value / unit:,.0f}" if value / unit >= 10_000 else f"{value / unit:,.2f}"


def _growth(sizes: list[float], values: list[float | None]) -> str:
    """The exponent from each size to the next."""
    known = [(size, value) for size, value in zip(sizes, values, strict=True) if value]
    return " ".join(f"{math.log(b / a) / math.log(n / m):.2f}" for (m, a), (n, b) in pairwise(known))


def main(
    sizes: Annotated[list[int], typer.Option(help="Transfers of the measured month; once for each size")] = list(SIZES),  # noqa: B006
    limit: Annotated[float, typer.Option(help="GiB that a step may take")] = 10.0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Where the figures go, too")] = None,
) -> None:
    """Measures all sizes, telling on standard error how far it is."""
    started = time.perf_counter()

    def tell(what: str) -> None:
        typer.echo(f"{time.perf_counter() - started:6.0f} s  {what}", err=True)

    found = measure(sorted(sizes), int(limit * GIB), tell)
    for line in report(found):
        typer.echo(line)
    if json_path:
        json_path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
