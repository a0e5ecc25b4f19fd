"""Did the world move, and what then?"""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import dagster as dg
import polars as pl

# What the end of a backfill is known by has no public name.
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from matching_platform.defs.automation import EVERY_MONTH, learn_job
from matching_platform.defs.common import MANY_MONTHS, MONTHS, SOURCE, Made, PlatformParam, keep, link, materialized
from matching_platform.defs.pods import op_tags
from matching_platform.defs.searching import outcome
from matching_platform.environment import Platform
from matching_platform.learning import examination, train_set
from matching_platform.learning.train_set import LABELLED_PAIRS
from matching_platform.matching.decisions import decided
from matching_platform.monitoring.drift.description import CONFIDENCES, Describer, described_confidences
from matching_platform.monitoring.drift.description import COUNTS as COUNTED
from matching_platform.monitoring.drift.judgement import REFERENCE_MONTHS
from matching_platform.monitoring.drift.report import DriftReport, drift, read
from matching_platform.monitoring.notify import Message
from matching_platform.review.proposed import OWN_THRESHOLD, made_in_advance
from matching_platform.store.versions import Version

KIND: Final = "drift_reports"
PAGE: Final = "report.html"
DATA: Final = "report.json"
COUNTS: Final = "counts.parquet"

# Metadata: what moved, in words and by name.
TOLD: Final = "what moved"
MOVED: Final = "moved"
# The tags of a retraining: the month whose drift asks for it, and why.
DRIFT: Final = "matching_platform/drift"
REASON: Final = "matching_platform/reason"

CHECKS: Final = {
    "invoices_as_before": "invoices",
    "transfers_as_before": "transfers",
    "candidates_as_before": "candidates",
    "confidence_as_before": "confidences",
}

_PARTITION: Final = "dagster/partition"
_TAG: Final = 250  # characters of a reason in a tag
_BACKFILLS: Final = 20  # the newest ones


Condition = dg.AutomationCondition


@dg.asset(
    description="A row is how often a property of the month's rows has a value. The report says how far they lie from "
    "those of the train set's months, and whether chance, or how months differ, explains it.",
    deps=["invoices", "transfers", "proposals"],
    check_specs=[
        dg.AssetCheckSpec(
            name,
            asset="drift_report",
            blocking=False,
            description=f"The {table} of the newest month are like those of the months that were learned from.",
        )
        for name, table in CHECKS.items()
    ],
    partitions_def=MONTHS,
    backfill_policy=MANY_MONTHS,
    # Before there is a champion nothing is proposed, and the world may move all the same.
    automation_condition=EVERY_MONTH.replace(
        Condition.any_deps_missing(), Condition.any_deps_missing().ignore(dg.AssetSelection.assets("proposals"))
    ),
    group_name="monitoring",
    kinds={"evidently"},
    op_tags=op_tags("drift_report"),
    code_version="2",
)
def drift_report(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    months = sorted(context.partition_keys)
    described = Descriptions(platform, months[-1])
    made = {}
    for month in months:
        current = described.now(month)
        reference = {earlier: described.then(earlier) for earlier in _reference(platform, month)}
        report = drift(month, current, reference, platform.settings.drift)
        context.log.info(report.sentence)
        version = _stored(platform, report, current)
        made[month] = keep(platform, "drift_report", month, Made(version, _shown(platform, report, version)))
    return materialized(context, platform, made, _results(_newest(platform)))


@dataclass
class Descriptions:
    """The counts of months up to `until`; a month is described once, as it was when it was new."""

    platform: Platform
    until: str
    _made: dict[str, pl.DataFrame] = field(default_factory=dict)

    def now(self, month: str) -> pl.DataFrame:
        """The counts of a month as its rows are now, and of what was proposed for it in advance."""
        self._made[month] = self._describer.describe(month)
        return self.then(month)

    def then(self, month: str) -> pl.DataFrame:
        """The same of an earlier month, from its report where that is about the same rows."""
        if month not in self._made:
            self._made[month] = self._kept(month)
        return pl.concat([self._made[month], self._confidences(month)])

    @cached_property
    def _describer(self) -> Describer:
        return Describer.of(self.platform.ledger(self.until))

    def _kept(self, month: str) -> pl.DataFrame:
        report = self.platform.catalog.get("drift_report", month)
        if report is None or report.metadata.get(SOURCE) != _source(self.platform, month):
            return self._describer.describe(month)
        return pl.read_parquet(self.platform.store.fetch(report.version) / COUNTS).filter(
            pl.col("table") != CONFIDENCES
        )

    def _confidences(self, month: str) -> pl.DataFrame:
        """A freeze is no drift: decisions count as the model made them, where that is known."""
        proposed = made_in_advance(self.platform.catalog, month)
        if proposed is None:
            return pl.DataFrame(schema=COUNTED)
        rows, own = self.platform.store.read_frame(proposed.version), proposed.metadata.get(OWN_THRESHOLD)
        return described_confidences(rows if own is None else decided(rows, own, own, ""))


@dg.sensor(
    job=learn_job,
    description="The newest month moved past its limits: once enough of it is tagged, settings are searched for all that "
    "is tagged by now, and a model learns with them. The gate decides about it as about any other.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
)
def drifted(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.RunRequest | dg.SkipReason:
    months = platform.catalog.months("transfers")
    report = platform.catalog.get("drift_report", months[-1]) if months else None
    if report is None or not report.metadata.get(MOVED):
        return dg.SkipReason("the newest month has no report yet, or is as before")
    month = months[-1]
    key = f"drift/{month}/{sha256(str(report.metadata[SOURCE]).encode()).hexdigest()[:16]}"
    if context.cursor == key:
        return dg.SkipReason(f"a retraining for the drift of {month} was asked for")
    if waits := _waits_for(context.instance, platform, month):
        return dg.SkipReason(waits)
    told = str(report.metadata[TOLD])
    text = f"{told} The tags up to {month} are learned anew, with a search of settings; the gate decides as always."
    # Where it could not be told it is told at the next tick; of one key, Dagster makes one run.
    if platform.notifier.notify(Message(key, text, title=f"Retraining: {month} is not like the months before")):
        context.update_cursor(key)
    search = {"ops": {"model": {"config": {"search": True}}}}
    tags = {DRIFT: month, REASON: told[:_TAG]}
    return dg.RunRequest(run_key=key, partition_key=month, run_config=search, tags=tags)


def _waits_for(instance: dg.DagsterInstance, platform: Platform, month: str) -> str:
    """Why nothing is to be learned now; '' where something is."""
    if any(
        backfill.status not in BULK_ACTION_TERMINAL_STATUSES for backfill in instance.get_backfills(limit=_BACKFILLS)
    ):
        return "a backfill is under way: when it has ended, only the newest month counts"
    share = _share_tagged(platform, month)
    if share < (least := platform.settings.thresholds.tagged_share):
        return f"{month} moved, and waits for its tags: {share:.0%} are there, {least:.0%} are enough"
    if instance.get_runs(dg.RunsFilter(tags={_PARTITION: month}, statuses=NOT_FINISHED_STATUSES), limit=1):
        return f"{month} is being worked on"
    made = platform.catalog.get("train_set", month)
    if made and outcome(platform, made.version) and _is_all(platform, made.version, month):
        return f"settings were searched for all that is tagged up to {month}: there is nothing new to learn"
    return ""


def _share_tagged(platform: Platform, month: str) -> float:
    """Of the month's transfers; 0 before its pairs are labelled."""
    if month not in platform.catalog.months(LABELLED_PAIRS):
        return 0.0
    transfers, matches = platform.read("transfers", month), platform.read("matches", month)
    return matches["transfer_id"].n_unique() / max(transfers.height, 1)


def _is_all(platform: Platform, learned: Version, month: str) -> bool:
    """Whether a train set holds what is in force now."""
    return train_set.read(platform.store, learned).months == platform.in_force(month)


def _reference(platform: Platform, month: str) -> list[str]:
    """The newest months that the champion has learned from, where `month` came after them; else those labelled before."""
    promotion = platform.registry.champion()
    if promotion:
        examined = examination.read(platform.store, promotion.evaluation)
        learned = train_set.read(platform.store, examined.train_set)
        if learned.until < month:
            return learned.labelled[-REFERENCE_MONTHS:]
    return [earlier for earlier in platform.catalog.months(LABELLED_PAIRS) if earlier < month][-REFERENCE_MONTHS:]


def _source(platform: Platform, month: str) -> str:
    found = (platform.catalog.get(table, month) for table in ("invoices", "transfers"))
    return " ".join(current.version.name if current else "none" for current in found)


def _stored(platform: Platform, report: DriftReport, current: pl.DataFrame) -> Version:
    page, data = report.files()
    with TemporaryDirectory() as folder:
        Path(folder, PAGE).write_text(page, encoding="utf-8")
        Path(folder, DATA).write_text(data, encoding="utf-8")
        current.write_parquet(Path(folder, COUNTS))
        return platform.store.put(KIND, Path(folder))


def _shown(platform: Platform, report: DriftReport, version: Version) -> dict[str, Any]:
    """What the UI plots over months, and what moved."""
    compared = [one for one in report.findings if report.reference or one.is_share]
    return {
        TOLD: report.sentence,
        MOVED: ", ".join(finding.name for finding in report.moved),
        "months compared with": len(report.reference),
        "properties that moved": len(report.moved),
        SOURCE: _source(platform, report.month),
        "report": link(platform, version, PAGE),
        "data": link(platform, version, DATA),
        **{("share of " if one.is_share else "distance of ") + one.name: one.measure for one in compared},
    }


def _newest(platform: Platform) -> DriftReport:
    """The report of the newest month, about which alone the checks speak: an older one was judged when it was new."""
    month = platform.catalog.months("drift_report")[-1]
    return read((platform.store.fetch(platform.current("drift_report", month)) / DATA).read_bytes())


def _results(report: DriftReport) -> list[dg.AssetCheckResult]:
    results = []
    for name, table in CHECKS.items():
        part = report.of(table)
        figures = {finding.what: finding.measure for finding in part.findings}
        limits = {f"limit of {one.what}": one.limit for one in part.findings if one.limit is not None}
        results.append(
            dg.AssetCheckResult(
                check_name=name,
                asset_key="drift_report",
                passed=not part.moved,
                severity=dg.AssetCheckSeverity.WARN,
                description=part.sentence,
                metadata={"month": report.month, **figures, **limits},
            )
        )
    return results


defs = dg.Definitions(assets=[drift_report], sensors=[drifted])
