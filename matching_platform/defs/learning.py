"""From tagged months to an evaluated model."""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import dagster as dg
import polars as pl
from pydantic import Field

from matching_platform.defs import gate
from matching_platform.defs.automation import NEWEST_MODEL, NEWEST_MONTH, every_month_without
from matching_platform.defs.common import (
    MANY_MONTHS,
    MONTH_BY_MONTH,
    MONTHS,
    SETTINGS,
    SOURCE,
    Made,
    PlatformParam,
    actor,
    charged,
    keep,
    link,
    materialized,
    table,
)
from matching_platform.defs.decisions import DECISIONS, decided_on, versions_of
from matching_platform.defs.pods import GPU_POOL, goes_on_elsewhere, op_tags, preempted
from matching_platform.defs.searching import ASKED_FOR, TRAINING, outcome, search_once, settings_for
from matching_platform.environment import Platform
from matching_platform.learning import examination, split
from matching_platform.learning.baselines import rules
from matching_platform.learning.baselines.trees import Trees
from matching_platform.learning.examination import Exam, Examined, Match, Sitting, frozen_exam, newest_exam, sit, tried
from matching_platform.learning.examples import label_month, shown_pairs
from matching_platform.learning.gate import Sides, examine, examine_data, examine_split
from matching_platform.learning.report import ReportData, render, worst_mistakes
from matching_platform.learning.settings import TrainingSettingsError, settings_of
from matching_platform.learning.split import FrozenTest
from matching_platform.learning.train_set import (
    LABELLED_PAIRS,
    WITHHELD_KIND,
    TrainSet,
    from_the_future,
    gaps,
    leaks,
    ledger_of,
    lessons,
    read,
    withhold,
    without,
    write,
)
from matching_platform.learning.training import TrainingSettings, train
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import RAW_TABLES
from matching_platform.matching.decisions import decided, why
from matching_platform.matching.matcher import Matcher
from matching_platform.review.tags import against_proposals
from matching_platform.store import checkpoints
from matching_platform.store.record import Record
from matching_platform.store.registry import MODELS
from matching_platform.store.versions import Version

_FIGURES: Final = ("exact", "exact_paying", "f1", "stp_995", "auto_precision", "auto_share", "ece", "transfers")

_FIRST_MONTHS: Final = MONTHS.get_partition_keys()[: SETTINGS.split_months]


@dg.asset(
    description="A row is a pair of a tagged transfer and a candidate invoice, with what was known then and the label.",
    # What people decided is in the matches; whether that was a correction is not.
    deps=["invoices", "transfers", "matches", DECISIONS],
    partitions_def=MONTHS,
    backfill_policy=MANY_MONTHS,
    automation_condition=every_month_without(DECISIONS),
    group_name="learning",
    kinds={"polars", "parquet"},
    op_tags=op_tags("labelled_pairs"),
    code_version="3",
)
def labelled_pairs(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    months = sorted(context.partition_keys)
    ledger = platform.ledger(months[-1])
    made = {}
    for month in months:
        warehouse = charged(context, platform)
        decisions = decided_on(platform, month)
        judged = against_proposals(decisions, ledger.matches)
        corrected = judged.filter("corrected")["transfer_id"]
        pairs = label_month(ledger, month, platform.candidates(warehouse), corrected)
        metadata = {
            "dagster/partition_row_count": pairs.height,
            "rows": pairs.height,
            "transfers": pairs["transfer_id"].n_unique(),
            SOURCE: sources(platform, month, decisions),
            "corrections": len(corrected),
            "confirmations": judged.height - len(corrected),
            "right pairs": int(pairs.filter(pl.col("invoice_id").is_not_null())["label"].sum()),
        }
        version = platform.store.put_frame(LABELLED_PAIRS, pairs)
        warehouse.publish(LABELLED_PAIRS, month, shown_pairs(pairs, ledger))
        kept = keep(platform, "labelled_pairs", month, Made(version, metadata))
        made[month] = kept.costing(warehouse.costs())
        context.log.info("%s: %d pairs of %d transfers", month, metadata["rows"], metadata["transfers"])
    return materialized(context, platform, made)


class TestSplitConfig(dg.Config):
    """How the frozen test may be made anew."""

    remake_because: str | None = Field(
        default=None,
        description="Draws another frozen test and records this reason. All evaluations so far become stale.",
    )


@dg.asset(
    description="A row is a transfer that no model ever learns from, with its component. Made once, then frozen.",
    # Of any month it could be, but it waits only for the first ones.
    deps=[
        dg.AssetDep("labelled_pairs", partition_mapping=dg.SpecificPartitionsPartitionMapping(list(_FIRST_MONTHS))),
    ],
    automation_condition=dg.AutomationCondition.on_missing(),
    group_name="learning",
    kinds={"scipy", "parquet"},
    op_tags=op_tags("test_split"),
    code_version="1",
)
def test_split(
    context: dg.AssetExecutionContext, config: TestSplitConfig, platform: PlatformParam
) -> dg.MaterializeResult:
    frozen = split.current(platform.store)
    if frozen is None or config.remake_because:
        frozen = _freeze(platform, actor(context), config.remake_because)
    parts = frozen.transfers["component"].n_unique()
    whole = split.components(frozen.ledger.matches)["component"].n_unique()
    metadata = {
        "transfers": frozen.transfers.height,
        "invoices": frozen.invoices.height,
        "components": parts,
        "share of components": parts / whole,
        "months": ", ".join(frozen.ledger.months()),
        "sha256": frozen.version.digest,
        "times made": Record(platform.store, split.RECORD).count(),
    }
    return materialized(context, platform, Made(frozen.version, metadata))


@dg.asset(
    description="A row is a month with the hashes of its tables and labelled pairs: what a model may learn from.",
    deps=["labelled_pairs", "test_split"],
    check_specs=gate.specs("train_set"),
    partitions_def=MONTHS,
    backfill_policy=MONTH_BY_MONTH,
    automation_condition=NEWEST_MONTH,
    group_name="learning",
    kinds={"json"},
    op_tags=op_tags("train_set"),
    code_version="1",
)
def train_set(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    month, store = context.partition_key, platform.store
    frozen = _frozen(platform)
    in_force, labelled = platform.in_force(month), platform.catalog.get(LABELLED_PAIRS, month)
    if labelled is None:
        raise dg.Failure(f"{month} has no labelled pairs: materialize labelled_pairs for it first")
    if not labelled.metadata["rows"]:
        raise dg.Failure(f"nobody has tagged a transfer of {month}: there is nothing to learn from it yet")
    whole = ledger_of(store, in_force)
    withheld = withhold(whole, frozen, month)
    made = TrainSet(month, in_force, frozen.version, store.put_frame(WITHHELD_KIND, withheld))
    version = write(store, made)
    pairs, seen = pl.concat(_lessons(platform, made, "transfer_id", "invoice_id")), without(whole, withheld)
    sizes = _sizes(platform, made)
    verdicts = [
        examine_data(sizes, platform.settings.thresholds),
        examine_split(
            [
                *leaks(pairs, seen, whole, frozen),
                *from_the_future(pairs, seen, month),
                *gaps(made, platform.in_force(month), store),
            ]
        ),
    ]
    metadata = {
        "months": len(made.labelled),
        "rows": pairs.height,
        "transfers": pairs["transfer_id"].n_unique(),
        "withheld for the test": withheld.filter(table="transfers", why="test").height,
        "withheld as newest": withheld.filter(table="transfers", why="newest").height,
        "by month": table(sizes, 24),
    }
    result = keep(platform, "train_set", month, Made(version, metadata))
    return materialized(context, platform, result, gate.results("train_set", verdicts, version.digest))


class SettingsConfig(dg.Config):
    """Training settings for one training; what is left empty comes from a search, where one was, or is the default.

    The promised precision is no setting of a training: it belongs to the environment.
    """

    folds: int | None = Field(
        default=None, description="Cross-fitting: each transfer is judged by a scorer that has not learned from it."
    )
    hidden: int | None = Field(default=None, description="Width of the networks; wider ones learn tags by heart.")
    pair_epochs: int | None = Field(default=None, description="Passes over the pairs.")
    set_epochs: int | None = Field(default=None, description="Passes over the sets of invoices.")
    learning_rate: float | None = Field(default=None, description="Step size of the optimizer.")
    weight_decay: float | None = Field(default=None, description="How strongly weights are drawn to zero.")
    batch_transfers: int | None = Field(default=None, description="Transfers in a batch, at most.")
    seed: int | None = Field(default=None, description="Another seed gives another model of the same data.")


class ModelConfig(dg.Config):
    """What a training may do first, and the settings it is asked to learn with."""

    settings: SettingsConfig = Field(
        default=SettingsConfig(), description="Settings for this training alone; later ones do without them."
    )
    search: bool = Field(
        default=False,
        description="Searches better settings, within the environment's budget, where none were for this train set.",
    )


@dg.asset(
    description="A model: weights, memory, calibration and card, trained on the month's train set.",
    deps=["train_set"],
    partitions_def=MONTHS,
    backfill_policy=MONTH_BY_MONTH,
    automation_condition=NEWEST_MODEL,
    group_name="learning",
    kinds={"pytorch"},
    op_tags=op_tags("model"),
    pool=GPU_POOL,
    retry_policy=preempted(),
    code_version=TRAINING,
)
def model(context: dg.AssetExecutionContext, config: ModelConfig, platform: PlatformParam) -> dg.MaterializeResult:
    month, asked = context.partition_key, _asked(config)
    learned = platform.current("train_set", month)
    with goes_on_elsewhere():
        if config.search:
            made = read(platform.store, learned)
            examples = dict(zip(made.labelled, _lessons(platform, made), strict=True))
            search_once(context, platform, learned, examples, _seen(platform, made))
        settings, found = settings_for(platform, learned, asked), outcome(platform, learned)
        version, now = _model_of(platform, learned, settings)
    card = Matcher.load(platform.store.fetch(version)).card
    metadata = {
        "trained": "now" if now else "before, from the same rows",
        "train set": learned.name,
        "settings": found.told if found else "the defaults",
        **({ASKED_FOR: ", ".join(f"{name} {value}" for name, value in asked.items())} if asked else {}),
        **({"trials": table(platform.store.read_frame(found.trials), 50)} if found and found.trials else {}),
        **{name: value for name, value in (card | card["figures"]).items() if isinstance(value, str | int | float)},
    }
    return materialized(context, platform, keep(platform, "model", month, Made(version, metadata)))


@dg.asset(
    description="A row is a figure of the month's model beside the champion's, the rules' and boosted trees', on the "
    "frozen test and on the newest month.",
    deps=["model", "test_split"],
    check_specs=gate.specs("evaluation_report"),
    partitions_def=MONTHS,
    backfill_policy=MONTH_BY_MONTH,
    automation_condition=NEWEST_MONTH,
    group_name="learning",
    kinds={"html"},
    op_tags=op_tags("evaluation_report"),
    code_version="1",
)
def evaluation_report(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    month = context.partition_key
    challenger = platform.current("model", month)
    learned = platform.current("train_set", month)
    champion = platform.registry.champion()
    made = read(platform.store, learned)
    test, newest = _exams(platform, made)
    sides: dict[str, Match] = {
        "model": Matcher.load(platform.store.fetch(challenger)).match,
        "rules": rules.match,
        "trees": Trees.learn(_lessons(platform, made), _seen(platform, made), made.until).match,
    }
    if champion:
        sides["champion"] = _as_permitted(platform, champion.model)
    sittings = {
        name: {side: sit(exam, match) for side, match in sides.items()}
        for name, exam in (("test", test), ("newest", newest))
        if exam
    }
    # The first matching of a process also pays for warming up.
    speed = max(sat["model"].evaluation.figures["transfers_per_second"] for sat in sittings.values())
    sides_of = {name: _sides(sat) for name, sat in sittings.items()}
    verdicts = examine(sides_of["test"], sides_of.get("newest"), speed, platform.settings.thresholds)
    examined = Examined(
        month=month,
        model=challenger,
        train_set=learned,
        test_split=_frozen(platform).version,
        champion=champion.model if champion else None,
        promotion=champion.number if champion else 0,
        figures={
            name: {side: sitting.evaluation.figures for side, sitting in sat.items()} for name, sat in sittings.items()
        },
        verdicts=verdicts,
    )
    version = examination.write(platform.store, examined, _report(platform, examined, test, newest, sittings))
    metadata = _shown(platform, examined, version)
    result = keep(platform, "evaluation_report", month, Made(version, metadata))
    return materialized(context, platform, result, gate.results("evaluation_report", verdicts, version.digest))


def _as_permitted(platform: Platform, model: Version) -> Match:
    """What a model proposes, booked unattended from where it may: one that broke its promise sets no bar for the next."""
    matcher = Matcher.load(platform.store.fetch(model))
    own = matcher.auto_from
    booked_from = max(own, platform.unattended.permission().thresholds.get(model.name, own))
    return lambda ledger, months: decided(matcher.match(ledger, months), own, booked_from, why(booked_from, ""))


def sources(platform: Platform, month: str, decisions: pl.DataFrame) -> str:
    """What the labelled pairs of a month are made of: the names of the month's tables, and of what people decided."""
    return " ".join([*(platform.current(name, month).name for name in RAW_TABLES), *versions_of(decisions)])


def _freeze(platform: Platform, who: str, because: str | None) -> FrozenTest:
    labelled = platform.catalog.latest(LABELLED_PAIRS)
    months = [month for month, one in labelled.items() if one.metadata["rows"]][: platform.settings.split_months]
    if not months:
        raise dg.Failure("no month is labelled yet: tag some transfers, and materialize labelled_pairs")
    ledger = platform.ledger(months[-1])
    return split.freeze(platform.store, ledger, months, actor=who, remake_because=because)


def _frozen(platform: Platform) -> FrozenTest:
    frozen = split.current(platform.store)
    if frozen is None:
        raise dg.Failure("there is no frozen test yet: materialize test_split first")
    return frozen


def _lessons(platform: Platform, made: TrainSet, *columns: str) -> list[pl.DataFrame]:
    """The labelled pairs of each month that are not withheld; of all their columns, where none is named."""
    withheld = platform.store.read_frame(made.withheld)
    opened = (platform.store.open_frame(made.months[month][LABELLED_PAIRS]) for month in made.labelled)
    return [lessons(frame.select(columns or pl.all()).collect(), withheld) for frame in opened]


def _sizes(platform: Platform, made: TrainSet) -> pl.DataFrame:
    """month, rows of each table, and `tagged`, the transfers with a tag, of the months in which something is tagged."""
    rows = []
    for month in made.labelled:
        tables = {name: platform.store.open_frame(made.months[month][name]) for name in RAW_TABLES}
        tagged = tables["matches"].select(pl.col("transfer_id").n_unique())
        counts = pl.collect_all([*(table.select(pl.len()) for table in tables.values()), tagged])
        rows.append([month, *(count.item() for count in counts)])
    sizes = pl.DataFrame(rows, schema=["month", *RAW_TABLES, "tagged"], orient="row")
    return sizes.filter(pl.col("tagged") > 0)


def _asked(config: ModelConfig) -> dict[str, Any]:
    """The settings that are asked for; dg.Failure where they are none."""
    asked = config.settings.model_dump(exclude_none=True)
    try:
        settings_of(asked)
    except TrainingSettingsError as error:
        raise dg.Failure(f"nothing can be trained with these settings: {error}", allow_retries=False) from error
    return asked


def _training_key(learned: Version, settings: TrainingSettings) -> str:
    told = {"train_set": learned.digest, "settings": asdict(settings), "code": TRAINING}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _model_of(platform: Platform, learned: Version, settings: TrainingSettings) -> tuple[Version, bool]:
    """The model of a train set with these settings, and whether it had to be trained; from where a training was cut off."""
    key = _training_key(learned, settings)
    record, checkpoint = Record(platform.store, f"trainings/{key}"), platform.home / "checkpoints" / key
    last = record.last()
    if last is None:
        started = time.perf_counter()
        with checkpoints.kept(platform.store.files, key, checkpoint):
            version = _train(platform, read(platform.store, learned), settings, checkpoint)
        seconds = round(time.perf_counter() - started, 1)
        told = {"model": asdict(version), "train_set": asdict(learned), "settings": asdict(settings)}
        record.append({**told, "training_seconds": seconds})
    else:
        version = Version(**last.payload["model"])
    checkpoints.forget(platform.store.files, key, checkpoint)
    return version, last is None


def _train(platform: Platform, learned: TrainSet, settings: TrainingSettings, checkpoint: Path) -> Version:
    ledger = _seen(platform, learned)
    try:
        matcher = train(_lessons(platform, learned), ledger, learned.until, settings, checkpoint=checkpoint)
    except ValueError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    with TemporaryDirectory() as folder:
        matcher.save(Path(folder, "model"))
        return platform.store.put(MODELS, Path(folder, "model"))


def _seen(platform: Platform, learned: TrainSet) -> Ledger:
    """The ledger that a model may know: without what is withheld."""
    return without(ledger_of(platform.store, learned.months), platform.store.read_frame(learned.withheld))


def _exams(platform: Platform, learned: TrainSet) -> tuple[Exam, Exam | None]:
    withheld = platform.store.read_frame(learned.withheld)
    ledger = ledger_of(platform.store, learned.months)
    return frozen_exam(_frozen(platform)), newest_exam(ledger, withheld, learned.until)


def _sides(sittings: dict[str, Sitting]) -> Sides:
    judged = {side: sitting.evaluation for side, sitting in sittings.items()}
    return Sides(judged["model"], judged["rules"], judged.get("champion"), judged["trees"])


def _report(
    platform: Platform, examined: Examined, test: Exam, newest: Exam | None, sittings: dict[str, dict[str, Sitting]]
) -> str:
    matcher = Matcher.load(platform.store.fetch(examined.model))
    side = sittings["test"]["model"]
    exams = {"test": test, **({"newest": newest} if newest else {})}
    return render(
        ReportData(
            model=examined.model.name,
            trained_until=str(matcher.card["trained_until"]),
            promised_precision=float(matcher.card["promised_precision"]),
            threshold=matcher.auto_from,
            test=_sides(sittings["test"]),
            newest=_sides(sittings["newest"]) if newest else None,
            champion=examined.champion.name if examined.champion else None,
            verdicts=examined.verdicts,
            sentences=gate.SENTENCES,
            costs=matcher.card | _trained_in(platform, examined),
            walk=_walk(platform, examined),
            mistakes=worst_mistakes(side.evaluation, side.proposals, test.truth, test.ledger),
            past={name: tried(exam, sittings[name]["model"]) for name, exam in exams.items()},
        )
    )


def _trained_in(platform: Platform, examined: Examined) -> dict[str, float]:
    """The training_seconds of the model that was examined."""
    settings = Matcher.load(platform.store.fetch(examined.model)).card["settings"]
    last = Record(platform.store, f"trainings/{_training_key(examined.train_set, TrainingSettings(**settings))}").last()
    seconds = last.payload.get("training_seconds") if last else None
    return {} if seconds is None else {"training_seconds": seconds}


def _walk(platform: Platform, examined: Examined) -> pl.DataFrame:
    """month, side and figures of every newest month that was ever judged, up to this one."""
    months = [month for month in platform.catalog.months("evaluation_report") if month < examined.month]
    earlier = [examination.read(platform.store, platform.current("evaluation_report", month)) for month in months]
    rows = [
        {"month": one.month, "side": side} | {name: figures[name] for name in ("exact_paying", "stp_995")}
        for one in [*earlier, examined]
        for side, figures in one.figures.get("newest", {}).items()
    ]
    return pl.DataFrame(rows)


def _shown(platform: Platform, examined: Examined, version: Version) -> dict[str, Any]:
    """What the UI shows: the figures that it plots over months, and all of them side by side."""
    rows = [
        {"exam": exam, "side": side} | {name: figures.get(name) for name in _FIGURES}
        for exam, sides in examined.figures.items()
        for side, figures in sides.items()
    ]
    plotted = {f"{exam} {name}": sides["model"][name] for exam, sides in examined.figures.items() for name in _FIGURES}
    return {
        **plotted,
        "figures": table(pl.DataFrame(rows)),
        "verdicts": table(pl.DataFrame([asdict(verdict) for verdict in examined.verdicts]).drop("figures")),
        "report": link(platform, version, examination.REPORT),
        "model": examined.model.name,
        "champion": examined.champion.name if examined.champion else "none",
    }


defs = dg.Definitions(assets=[labelled_pairs, test_split, train_set, model, evaluation_report])
